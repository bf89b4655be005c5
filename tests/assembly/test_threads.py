"""Several threads prepare, stage and assemble with one assembler; rows large enough are copied without the GIL."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from batchcore.assembly import Assembler

LARGE = 1 << 18  # float64: 2 MiB, more than what the GIL is kept for


@pytest.fixture(autouse=True)
def eager_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(count: int, work: Callable[[int], None]) -> None:
    errors: list[BaseException] = []
    start = threading.Barrier(count)

    def run(number: int) -> None:
        start.wait()
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize(("size", "rounds"), [(5, 300), (LARGE, 5)])
def test_batches_of_many_threads_do_not_mix(size: int, rounds: int) -> None:
    assembler = Assembler(axis=0, give="lengths", max_concurrent_batches=4)

    def work(number: int) -> None:
        for i in range(rounds):
            value = number * rounds + i
            items = [np.full(size, value), np.full(size - 1, value + 0.5), [value] * 3, {"a": [value], "b": value}]
            pieces = [assembler.prepare_item(item) for item in items]
            batch, lengths = assembler.assemble_pieces(pieces[:1], 2)
            other, _ = assembler.assemble_pieces(pieces[1:2])
            assert (batch == value).all()
            assert (other == value + 0.5).all()
            assert lengths.tolist() == [size, size]
            assert assembler.assemble_pieces(pieces[2:3])[0].tolist() == [[value] * 3]

    in_threads(4, work)


@pytest.mark.parametrize(("size", "rounds"), [(5, 300), (LARGE, 4)])
def test_threads_that_stage_at_once_get_places_of_their_own(size: int, rounds: int) -> None:
    assembler = Assembler(staged=True, max_batch_size=8)
    shared: list[Any] = [None]  # as a dispatcher keeps it: the last one wins
    pieces: list[tuple[float, Any]] = []

    def work(number: int) -> None:
        for i in range(rounds):
            value = float(number * rounds + i)
            piece = assembler.prepare_item(np.full(size, value))
            shared[0] = assembler.stage_piece(piece, shared[0])
            pieces.append((value, piece))

    in_threads(4, work)
    for k in range(0, len(pieces), 8):
        (batch,) = assembler.assemble_pieces([piece for _, piece in pieces[k : k + 8]])
        assert (batch == np.array([value for value, _ in pieces[k : k + 8]])[:, None]).all()


def test_a_list_of_pieces_that_changes_during_the_copy() -> None:
    assembler = Assembler()

    def new(value: int) -> list[Any]:
        return [assembler.prepare_item(np.full(LARGE, value)) for _ in range(8)]

    pieces = new(0)
    done = threading.Event()

    def exchange() -> None:
        value = 0
        while not done.is_set():
            value += 1
            pieces[:] = new(value)  # frees what is being copied, unless the batch holds it

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for _ in range(30):
            (batch,) = assembler.assemble_pieces(pieces)
            assert (batch == batch[0, 0]).all()
    finally:
        done.set()
        thread.join()

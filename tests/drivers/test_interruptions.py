"""A signal handler that raises at any moment: the request it interrupts, and those of bystanders, end all the same.

Handlers run between two instructions of Python code on the main thread: where a function begins, after a call, and
where a loop turns.  A tracer finds all these moments of an operation, and raises at each in turn.
"""

from __future__ import annotations

import concurrent.futures
import dis
import functools
import gc
import itertools
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

import numpy as np
import numpy.ma  # else it is imported when first used, and has thousands of moments
import pytest
from hypothesis import settings

from gates import LIMIT_S, doubled, doubled_async, in_thread, until
from pybatch import BatchAborted, Scheduler


@pytest.fixture(autouse=True)
def _finalisers_complain_to_nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A loop that was interrupted while it was made is not closed; nor can a finaliser pass an interruption on."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    yield
    gc.collect()


Operation = Callable[["Scheduler[int, int]"], object]

CHECKED = {"RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"}
"""After which instructions the interpreter looks for signals."""

NOT_OURS = {"Condition", "Event"}
"""The standard library's own: interrupted in the wrong place, they stay locked, and nobody can help it."""

NEVER = 1_000_000_000
"""A moment that no operation has."""

STRIDE = max(1, 100 // settings().max_examples)
"""Every so manieth moment is tried: each one, unless examples are few (`BATCHCORE_EXAMPLES`)."""


class Interruption(BaseException):
    """What the signal handler raises."""


@functools.cache
def checked(code: CodeType) -> frozenset[int]:
    """Return where in the code the interpreter looks for signals next."""
    return frozenset(each.offset for each in dis.get_instructions(code) if each.opname in CHECKED)


class Tracer:
    """Raises at one of the moments at which a signal handler may run, after `first` was called."""

    def __init__(self, moment: int, first: Callable[[], object]) -> None:
        self.left = moment
        self.first = first
        self.raised = False
        self._last: dict[FrameType, int] = {}

    def run(self, operation: Callable[[], object]) -> None:
        before = sys.gettrace()
        sys.settrace(self.trace)
        try:
            operation()
        except Interruption:
            pass
        except TypeError as error:
            # CPython 3.11 now and then makes this of an exception that a tracer raises where a function begins: it
            # calls whatever lies on its stack as an __exit__, with type, value and traceback.
            if not self.raised or not str(error).endswith(("object is not callable", "but 4 were given")):
                raise
        finally:
            sys.settrace(before)
            self._last.clear()

    def trace(self, frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if self.raised or frame.f_code.co_qualname.split(".")[0] in NOT_OURS:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            if self._last.get(frame) in checked(frame.f_code):
                self.come(frame)
            self._last[frame] = frame.f_lasti
        return self.trace

    def come(self, frame: FrameType) -> None:
        self.left -= 1
        if self.left < 0:
            self.raised = True
            sys.settrace(None)
            self.first()
            raise Interruption


OPERATIONS: dict[str, Operation] = {
    "submit": lambda scheduler: scheduler.submit(1),
    "submit_many": lambda scheduler: scheduler.submit_many([1, 2, 3]),
    "call": lambda scheduler: scheduler(1),
    "cancel": lambda scheduler: scheduler.submit(1).cancel(),
    "map": lambda scheduler: list(scheduler.map(range(3))),
    "wait": lambda scheduler: concurrent.futures.wait([scheduler.submit(item) for item in range(3)]),
    "drain": lambda scheduler: (scheduler.submit(1), scheduler.drain()),
    "reconfigure": lambda scheduler: (scheduler.submit(1), scheduler.reconfigure(max_concurrent_batches=2)),
    "shutdown": lambda scheduler: (scheduler.submit(1), scheduler.shutdown()),
    "submit_batch": lambda scheduler: scheduler.submit_batch([1, 2, 3]),
    "result of a batch": lambda scheduler: scheduler.submit_batch(np.arange(3)).result(),
    "cancel a batch": lambda scheduler: scheduler.submit_batch([1, 2, 3]).cancel(),
    "share": lambda scheduler: [scheduler.submit(21).result() for _ in range(2)],
    "cancel what is shared": lambda scheduler: [
        future.cancel() for future in [scheduler.submit(1), scheduler.submit(1)]
    ],
}

RUNS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "on a worker": (doubled, {}),
    "on the caller": (doubled, {"run_in": "caller"}),
    "on a loop": (doubled_async, {}),
}

OPTIONS: dict[str, dict[str, Any]] = {
    "lists": {},
    "arrays": {"batch_as": "stack", "allowed_batch_sizes": [2, 4]},
    "staged": {"batch_as": "stack", "assemble": "submit", "max_batch_size": 2, "copy_results": True},
    "keys": {"key_fn": lambda item: item % 2, "weight_fn": lambda item: 1, "max_batch_weight": 2},
    "dedupe": {"dedupe": True},
}


def interrupt(scheduler: Scheduler[int, int], operation: Operation, moment: int, shares: bool) -> bool:
    """Interrupt an operation at a moment and see that nothing is lost; False if it has no such moment.

    Who `shares` what is computed on the thread that is interrupted may be told so.
    """
    bystanders: list[Any] = []

    def submit_beside() -> None:
        if not scheduler.closed:
            bystanders.append(in_thread(scheduler.submit, 21).result(LIMIT_S))

    tracer = Tracer(moment, submit_beside)
    tracer.run(lambda: operation(scheduler))
    for bystander in bystanders:
        try:
            assert bystander.result(LIMIT_S) == 42, moment
        except BatchAborted:
            assert shares, moment
    until(lambda: (scheduler.stats().queued, scheduler.stats().running) == (0, 0))
    if not scheduler.closed:
        assert in_thread(lambda: scheduler.submit(4).result(LIMIT_S)).result(LIMIT_S) == 8, moment
    in_thread(scheduler.shutdown).result(LIMIT_S)
    return tracer.raised


@pytest.mark.parametrize("where", RUNS)
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(("kind", "warm"), [("lists", False), *((kind, True) for kind in OPTIONS)])
def test_a_signal_that_interrupts_at_any_moment_leaves_nobody_waiting(
    name: str, where: str, kind: str, warm: bool
) -> None:
    # Rehearsed first: CPython from 3.12 on tells opcodes only of code that was traced before.
    for moment in itertools.chain([NEVER], itertools.count(0, STRIDE)):
        fn, options = RUNS[where]
        scheduler: Scheduler[int, int] = Scheduler(fn, metrics=False, **options, **OPTIONS[kind])
        if warm:
            assert scheduler(1) == 2
        shares = (name, where, kind) == ("share", "on the caller", "dedupe")
        if not interrupt(scheduler, OPERATIONS[name], moment, shares) and moment != NEVER:
            break
    assert moment > 0

"""Daemon threads wait for what will never be answered; other threads get their answer before the interpreter ends."""

import atexit
import contextlib
import threading
import time

answers = []


def report() -> None:
    assert sorted(answers) == [0, 1, 2, 3], answers
    print("done")


atexit.register(report)

from pybatch import Scheduler, SchedulerClosed  # noqa: E402


def slow(items: list[int]) -> list[int]:
    time.sleep(0.1)
    return items


def stuck(items: list[int]) -> list[int]:
    threading.Event().wait()
    return items


def wait(item: int) -> None:
    answers.append(answering.submit(item).result(20))


def wait_for_ever(item: int) -> None:
    with contextlib.suppress(SchedulerClosed):
        silent.submit(item).result()


answering = Scheduler(slow, max_batch_size=1)
silent = Scheduler(stuck, max_batch_size=1)
for item in range(4):
    threading.Thread(target=wait, args=(item,)).start()
    threading.Thread(target=wait_for_ever, args=(item,), daemon=True).start()

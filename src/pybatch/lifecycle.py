"""What outlives a scheduler: the interpreter's exit and forked children.

At exit every thread that is not a daemon has ended, so nobody can wait for what is still queued: it is told that the
interpreter is exiting.  A batch that runs is given a moment to finish.
"""

from __future__ import annotations

import atexit
import os
import time
from weakref import WeakSet

from batchcore.dispatcher import Dispatcher

__all__ = ["EXIT_GRACE_S", "watch"]

EXIT_GRACE_S = 1.0
"""Longest that the interpreter's exit waits for batches that are running, seconds, for all schedulers together."""

_live: WeakSet[Dispatcher] = WeakSet()


def watch(dispatcher: Dispatcher) -> None:
    """End this dispatcher's requests at exit and in forked children, for as long as it lives."""
    _live.add(dispatcher)


def _at_exit() -> None:
    until = time.monotonic() + EXIT_GRACE_S
    dispatchers = list(_live)
    for dispatcher in dispatchers:
        dispatcher.clear("the interpreter is exiting")
        dispatcher.close()
    for dispatcher in dispatchers:
        dispatcher.join(max(0.0, until - time.monotonic()))


def _after_fork() -> None:
    for dispatcher in list(_live):
        dispatcher.after_fork()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

"""Policies of your own: decide, in Python, when a batch leaves and how large it is.

A policy is a function of a view, or an object with a method ``decide(view)``; it works in `pybatch.Scheduler` and in
`pybatch.simulation.simulate` alike.  Try it there first: `pybatch simulate --policy module:name`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from batchcore.custom import View
from batchcore.records import Drop, Wait

__all__ = ["Drop", "Policy", "PolicyLike", "View", "Wait"]


class Policy:
    """A base for policies of your own, for its documentation and its type; a plain function of a view does as well.

    A scheduler asks `decide` whenever something is queued and a worker is free: after an arrival, a completion, a
    cancellation, and when its own `Wait` is over.  It is asked by one thread at a
    time, by whichever needs to know, and must not block: what is queued waits for it, and so do deadlines.

    Deadlines stand in front of it, as in front of every policy: who is certain to be late is failed, and a batch is
    cut so that the others make it. If it raises, the error is reported (`sys.unraisablehook`) and what is queued
    leaves: no request pays for a mistake in a policy.

    Examples
    --------
    Batches of even size, or whatever there is after 5 ms:

    >>> from pybatch import Scheduler
    >>> from pybatch.policies import Policy, View, Wait
    >>> class Even(Policy):
    ...     def decide(self, view: View) -> int | Wait:
    ...         if view.queued >= 2:
    ...             return view.queued - view.queued % 2
    ...         until_ns = view.oldest_arrival_ns + 5_000_000
    ...         return 1 if view.now_ns >= until_ns else Wait(until_ns)
    >>> with Scheduler(lambda xs: [len(xs)] * len(xs), policy=Even(), metrics=False) as scheduler:
    ...     list(scheduler.map("abcd"))[-1] in (1, 2, 4)
    True
    """

    def decide(self, view: View) -> int | Wait | Drop:
        """Say what to do now.

        Parameters
        ----------
        view : View
            What is known; valid only inside this call.

        Returns
        -------
        int
            Dispatch so many of the soonest requests, at least 1; cut to what is queued and to ``max_batch_size``.
        Wait
            Ask again at the next event, or at an instant if none comes before.
        Drop
            Fail so many of the soonest requests as too late (`DeadlineExceeded`), then ask again.
        """
        raise NotImplementedError(f"{type(self).__name__} must define decide(view)")

    def completed(self, now_ns: int, batch_size: int, service_ns: int) -> None:
        """Hear that a batch has ended; nothing by default.

        Parameters
        ----------
        now_ns : int
            The time.
        batch_size : int
            Requests that were in it.
        service_ns : int
            What it took from dispatch to completion.
        """


PolicyLike = Literal["adaptive", "immediate", "fixed"] | Policy | Callable[[View], int | Wait | Drop]
"""What the option ``policy`` takes."""

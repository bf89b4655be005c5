"""A scheduler without threads, loops and waiting, and the clock that moves it.

The clock goes from one instant at which something is due to the next, and has whoever is due there do it: ends of
batches first, then decisions until there is none left to make, as in the simulator.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Generic, Literal, TypeVar, Unpack, overload
from weakref import WeakKeyDictionary

from batchcore import dispatcher as _core
from batchcore.current import serving
from batchcore.engine import Engine
from batchcore.errors import WouldDeadlock
from batchcore.future import BaseFuture
from batchcore.records import Reason
from pybatch.batching import BatchAs
from pybatch.options import Options, nanoseconds
from pybatch.scheduler import BatchFunction, Scheduler

__all__ = ["Batch", "ManualClock", "SteppingScheduler"]

X = TypeVar("X")
Y = TypeVar("Y")

NEVER_NS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Batch(Generic[X]):
    """A batch that a `SteppingScheduler` has dispatched.

    Attributes
    ----------
    id : int
        1 for the first.
    at_ms : float
        When it left, milliseconds on the clock.
    items : tuple
        What ``fn`` was given, in that order, filler left out.
    reason : str
        Why it left: one of `batchcore.records.Reason`.
    key : hashable or None
        What they were submitted with.
    """

    id: int
    at_ms: float
    items: tuple[X, ...]
    reason: Reason
    key: Hashable = None


class ManualClock:
    """A time that stands still until it is told to go on; 0 at first.

    Share one between several schedulers, and what they do happens in the order of time; at the same instant, in the
    order in which they were made.

    Notes
    -----
    `advance` it from one thread.

    Examples
    --------
    >>> clock = ManualClock()
    >>> slow = SteppingScheduler(lambda xs: xs, clock=clock, service_ms=7)
    >>> quick = SteppingScheduler(lambda xs: xs, clock=clock, service_ms=2)
    >>> answers = [slow.submit("slow"), quick.submit("quick")]
    >>> clock.advance(5)
    >>> [answer.done() for answer in answers], clock.now_ms
    ([False, True], 5.0)
    """

    def __init__(self) -> None:
        self._now_ns = 0
        self._moving = False
        self._moved: WeakKeyDictionary[_SteppingDispatcher, None] = WeakKeyDictionary()

    @property
    def now_ns(self) -> int:
        """The time, nanoseconds."""
        return self._now_ns

    @property
    def now_ms(self) -> float:
        """The time, milliseconds."""
        return self._now_ns / 1e6

    def advance(self, ms: float) -> None:
        """Let time pass, and everything happen that falls due now or on the way.

        Parameters
        ----------
        ms : float
            0 to 1e10 milliseconds; 0 does what is due now.

        Raises
        ------
        TypeError, ValueError
            If it is something else; no time has passed.
        RuntimeError
            If it is called by what it runs: a ``fn``, or a callback of a future.
        BaseException
            What is no `Exception` of a ``fn``, a Ctrl-C or ``pytest.fail``; its callers have it as well.  Time stands
            at that instant, and the next `advance` goes on from there.
        """
        self._go_on(self._now_ns + _given("ms", ms))

    def _go_on(self, until_ns: int, enough: Callable[[], bool] = lambda: False) -> None:
        """Advance until it is `enough` or to an instant; if that is NEVER_NS, until there is nothing more to do."""
        if self._moving:
            raise RuntimeError(
                "time passes already: what runs at an instant, fn or a callback, must not advance the clock"
            )
        self._moving = True
        try:
            while not enough():
                first = min(self._moved, key=_SteppingDispatcher.due_ns, default=None)
                due_ns = NEVER_NS if first is None else first.due_ns()
                if first is None or due_ns == NEVER_NS or due_ns > until_ns:
                    if until_ns != NEVER_NS:
                        self._set(until_ns)
                    break
                self._set(due_ns)
                first.step()
        finally:
            self._moving = False

    def _set(self, now_ns: int) -> None:
        self._now_ns = now_ns
        for dispatcher in self._moved:
            dispatcher.virtual_ns = now_ns

    def _move(self, dispatcher: _SteppingDispatcher) -> None:
        """Keep the time of a dispatcher from here on."""
        self._moved[dispatcher] = None
        dispatcher.virtual_ns = self._now_ns


class SteppingScheduler(Scheduler[X, Y]):
    """A `pybatch.Scheduler` in virtual time: nothing happens but in `advance`.

    Parameters
    ----------
    fn : callable
        As in `pybatch.Scheduler`; it runs within `advance`.
    clock : ManualClock, optional
        Default: one of its own.
    service_ms : float or callable, default 0
        How long a batch takes, 0 to 1e10 milliseconds; or a function that is given the batch size.
        `pybatch.simulation.Service.ms` is one.
    metrics : bool, default False
        As in `pybatch.Scheduler`.
    **options
        Those of `pybatch.Scheduler`.

    Raises
    ------
    TypeError, ValueError
        If an option is of the wrong type or out of range, or two contradict each other.

    Notes
    -----
    The methods are those of `pybatch.Scheduler`.  `drain`, `shutdown` and the end of a ``with`` let as much time pass
    as is needed.  To forget one is no fault: what it has accepted fails with `SchedulerClosed`.

    Submitting, cancelling and looking are thread-safe; advance from one thread.

    Examples
    --------
    >>> scheduler = SteppingScheduler(lambda xs: [len(x) for x in xs], max_batch_size=2, service_ms=10)
    >>> futures = scheduler.submit_many(["a", "bc", "def"])
    >>> scheduler.advance(10)
    >>> [future.done() for future in futures]
    [True, True, False]
    >>> [(batch.at_ms, batch.items, batch.reason) for batch in scheduler.batches]
    [(0.0, ('a', 'bc'), 'full'), (10.0, ('def',), 'idle_worker')]
    """

    @overload
    def __init__(
        self,
        fn: BatchFunction[X, Y],
        *,
        clock: ManualClock | None = None,
        service_ms: float | Callable[[int], float] = 0.0,
        batch_as: Literal["list"] = "list",
        **options: Unpack[Options],
    ) -> None: ...
    @overload
    def __init__(
        self: SteppingScheduler[Any, Any],
        fn: Callable[..., Any],
        *,
        clock: ManualClock | None = None,
        service_ms: float | Callable[[int], float] = 0.0,
        batch_as: BatchAs = "list",
        **options: Unpack[Options],
    ) -> None: ...
    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        clock: ManualClock | None = None,
        service_ms: float | Callable[[int], float] = 0.0,
        metrics: bool = False,
        **options: Any,
    ) -> None:
        if clock is not None and not isinstance(clock, ManualClock):
            raise TypeError(f"clock must be a pybatch.testing.ManualClock, not {clock!r}")
        if not callable(service_ms):
            _given("service_ms", service_ms)
        self._clock = ManualClock() if clock is None else clock
        self._service_ms = service_ms
        super().__init__(fn, metrics=metrics, **options)

    def _driver(self, engine: Engine, name: str, is_async: bool, lent: bool) -> _core.Dispatcher:
        self._stepping = _SteppingDispatcher(engine, name, self._service_ms, is_async)
        self._clock._move(self._stepping)
        return self._stepping

    @property
    def clock(self) -> ManualClock:
        """The time."""
        return self._clock

    @property
    def batches(self) -> Sequence[Batch[X]]:
        """What has been dispatched, in that order."""
        return self._stepping.batches

    def advance(self, ms: float) -> None:
        """Let time pass on the clock: see `ManualClock.advance`."""
        self._clock.advance(ms)

    def drain(self, timeout: float | None = None) -> bool:
        """Let time pass until everything accepted so far has ended; `timeout` in seconds of the clock."""
        until_ns = NEVER_NS if timeout is None else self._clock.now_ns + _given("timeout", 1e3 * timeout)
        self.dispatcher.flush(drain=True)
        futures = self.dispatcher.pending()
        self._clock._go_on(until_ns, lambda: all(future.done() for future in futures))
        return all(future.done() for future in futures)

    async def __aexit__(self, *exc: object) -> None:
        self.shutdown()

    def __del__(self) -> None:
        if self.dispatcher is not None:
            self.dispatcher.abandon("its stepping scheduler is gone")


class _SteppingDispatcher(_core.Dispatcher):
    """Runs batches on the thread that advances the clock, when it gets to them."""

    def __init__(self, engine: Engine, name: str, service_ms: float | Callable[[int], float], is_async: bool) -> None:
        super().__init__(engine, name)
        self.batches: list[Batch[Any]] = []
        self._service_ms = service_ms
        self._is_async = is_async
        self._thread = threading.get_ident()
        self.batch: _core.Batch | None = None  # that fn is given now
        self._asked = False  # somebody has to decide, now
        self._ends: list[tuple[int, int, Any]] = []  # heap of batches that run: when they end, id, what to call then

    def signal(self) -> int:
        """Note that there is something to decide."""
        self._asked = True
        return 0

    def due_ns(self) -> int:
        """When `step` has something to do; NEVER_NS: not before somebody asks."""
        if self._asked:
            return self.virtual_ns
        return min(self.wake_at_ns, self._ends[0][0] if self._ends else NEVER_NS)

    def step(self) -> None:
        """Do what is due at this instant: end batches, then decide, until there is neither left."""
        try:
            while True:
                while self._ends and self._ends[0][0] <= self.virtual_ns:
                    heappop(self._ends)[2]()
                self._asked = False
                batch = self.take()
                if batch is None:
                    break
                self._run(batch)
        except BaseException:
            self._asked = True  # the next step goes on from here
            raise
        self.let_go()

    def _run(self, batch: _core.Batch) -> None:
        self.batches.append(Batch(batch.id, self.virtual_ns / 1e6, tuple(batch.shown_items()), batch.reason, batch.key))
        service_ms = self._service_ms
        end_ns = self.virtual_ns
        end: Callable[[], object]
        try:
            end_ns += _given("service_ms", service_ms(batch.model_size) if callable(service_ms) else service_ms)
            self.batch = batch
            context = contextvars.copy_context()
            context.run(serving.set, self)
            results = context.run(batch.run)
            if self._is_async:
                results = context.run(_without_waiting, results)
            end = functools.partial(self.finish, batch, results)
        except BaseException as error:
            end = functools.partial(self.fail, batch, error)
            if not isinstance(error, Exception):
                end()
                raise
        finally:
            self.batch = None
        heappush(self._ends, (end_ns, batch.id, end))

    def before_blocking(self, future: BaseFuture | None) -> int:
        """Refuse to block the thread that has to let time pass."""
        if threading.get_ident() == self._thread:
            raise WouldDeadlock(
                f"nothing happens in scheduler {self.name!r} while this thread waits: call advance() until it is done"
            )
        return NEVER_NS

    def join(self, timeout: float | None = None) -> None:
        """Return: there are no threads."""


def _given(name: str, ms: float) -> int:
    """Return milliseconds, which must be given, as the nearest nanosecond: ten times 0.1 make 1."""
    if nanoseconds(name, ms) is None:
        raise TypeError(f"{name} must be a number of milliseconds, not None")
    return round(1e6 * float(ms))


def _without_waiting(awaitable: Any) -> Any:
    """Return what a coroutine returns that never waits."""
    if not inspect.iscoroutine(awaitable):
        return awaitable
    try:
        awaitable.send(None)
    except StopIteration as stop:
        return stop.value
    awaitable.close()
    raise RuntimeError(
        "fn waits for something, which takes real time; test with one that answers at once, and say how long it takes "
        "by service_ms"
    )

"""The scheduler that people use: options and life cycle.  What happens once a request is in `batchcore.dispatcher`."""

from __future__ import annotations

import concurrent.futures
import functools
import inspect
import time
import warnings
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

from batchcore.callers import CallerDispatcher
from batchcore.dispatcher import Dispatcher
from batchcore.engine import Engine, integer
from batchcore.future import Future
from batchcore.records import Stats
from batchcore.submitter import Submitter
from batchcore.workers import ThreadDispatcher
from pybatch import metrics as _metrics
from pybatch.batching import BatchAs, form_of, pads
from pybatch.fingerprints import fingerprint
from pybatch.lifecycle import watch
from pybatch.options import (
    MAX_CONCURRENT_BATCHES,
    UNCHANGED,
    Options,
    Unchanged,
    choice,
    default_batch_size,
    engine_options,
    nanoseconds,
    spin_nanoseconds,
)

if TYPE_CHECKING:
    import asyncio
    import os

    from prometheus_client import CollectorRegistry

    from pybatch.explanation import Estimate, Explanation
    from pybatch.policies import PolicyLike
    from pybatch.recording import Recording

__all__ = ["Scheduler"]

MAP_AHEAD = 4096
"""Most requests that `map` keeps outstanding for the sake of speed alone."""

X = TypeVar("X")
Y = TypeVar("Y")

BatchFunction = (
    Callable[[list[X]], Sequence[Y | BaseException]] | Callable[[list[X]], Awaitable[Sequence[Y | BaseException]]]
)


class Scheduler(Submitter[X, Y]):
    """Group single items into batches, compute them together, and give each caller its own result.

    Parameters
    ----------
    fn : callable
        Takes a list of items, or what `batch_as` makes of it, and returns a sequence of as many results, or a dict of
        those.  With arrays a tuple, too, is parts of each result, as of a dict; return rows as a list or an array.  An
        exception object in the place of one is raised to that caller alone.  `current_batch` tells it more
        about its batch.  A plain function runs on worker threads of the scheduler, started when needed.  An
        ``async def`` runs on the event loop of its callers, or on a loop thread of the scheduler where only threads
        call.
    batch_as : {"list", "stack", "pad"} or Stack or Pad or callable, default "list"
        What `fn` takes.  ``stack``: items of equal shape and dtype as one array of shape ``(n, *shape)``.  ``pad``:
        items of different length as one array of shape ``(n, longest, ...)``, and their lengths; see `Pad`.  Items that
        are dicts, tuples or dataclasses of arrays become the same of batches.  Items that do not fit together never
        share a batch.  A callable: what it makes of the list of items.
    array_module : {"numpy", "torch"}, default "numpy"
        What those arrays are.
    assemble : {"dispatch", "submit"}, default "dispatch"
        When an item is copied into its batch: when that leaves, and until then its caller must not change it; or
        within `submit`, while the batch before it runs (``stack`` only).
    copy_results : bool, default False
        Whether each caller gets a copy of its row where `fn` returns arrays; else it is a view, which keeps the whole
        array alive and changes if `fn` writes into that array later.
    max_batch_size : int, optional
        Most items in a batch, 1 to 1,048,576; default 32, or the largest of `allowed_batch_sizes`.  1 is legal and
        means no batching.
    allowed_batch_sizes : sequence of int, optional
        The only sizes that `fn` is given, ascending.  Filler makes up the rest, and its results are dropped.
    batch_padding_policy : {"min_cost", "pad_up", "batch_down"}, default "min_cost"
        What to do with a batch of another size: add filler, leave some requests queued, or what costs less a request by
        what was learned.
    filler : {"repeat", "zeros"}, default "repeat"
        What filler is: the last item again, or zeros (not for lists).
    key_fn : callable, optional
        Item -> key; only items of equal keys share a batch.  `submit` may name a key instead.
    share_by_key : mapping or callable, optional
        Key -> how much of the workers' time it gets, in relation to others, by weight: 1e-6 to 1e6, 1 where a mapping
        does not say and for requests without a key.  Default: the most urgent request goes first, whatever its key.
    weight_fn : callable, optional
        Item -> its weight (tokens, pixels), a whole number of at least 1.  `submit` may name it instead.  Default: 1,
        or the length with ``pad``.
    max_batch_weight : int, optional
        Most that a batch may weigh; with ``pad`` that is the number of items times the heaviest.  What batches take is
        then learned by weight.
    on_overweight : {"raise", "alone"}, default "raise"
        What happens to an item that is heavier on its own: a ValueError, or a batch of its own.
    dedupe : bool or callable, default False
        Whether identical items that wait or run at the same time are computed once: those whose types and contents are
        equal, or for which a function returns the same.  Not those of `submit_many` and `submit_batch`.  When a shared
        request expires, a caller who has more time is queued anew, and fails with `QueueFull` or `SchedulerClosed` if
        that cannot be.
    max_latency_ms : float, optional
        Target from submit to result that waiting for company must not break, 0 to 1e10 milliseconds.  It does not fail
        a request that is late; `timeout_ms` does.
    max_wait_ms : float, optional
        Longest that the oldest request waits for company while a worker is free, 0 to 1e10 milliseconds, measured from
        its submit.  Default: as long as the policy finds it worth.
    timeout_ms : float, optional
        Default of `submit`'s: fail a request that would be answered after so long, as early as that is clear, 0 to
        1e10 milliseconds.  Under overload this keeps the others in time.
    policy : {"adaptive", "immediate", "fixed"} or callable or Policy, default "adaptive"
        ``adaptive`` learns how long batches take and how requests come, and waits, or splits, where that pays: at most
        one batch's overhead, `max_wait_ms` and `max_latency_ms`.  ``immediate`` never waits while a worker is free:
        batches grow while all are busy.  ``fixed`` waits for a full batch, at most `max_wait_ms`.  Or one of your own:
        see `pybatch.policies`.
    cost_model : sequence of (int, float), optional
        Batch sizes and the milliseconds they take, as `explain` shows them or ``pybatch tune`` measures them, to start
        with; it goes on learning.
    max_queue_size : int, default 65536
        Most requests that may be queued, 1 to 2,147,483,647.
    on_full : {"raise", "block"}, default "raise"
        What a submit does then: raise `QueueFull`, or wait for room.  A thread that runs an event loop never waits;
        there, use `submit_wait`.
    max_concurrent_batches : int, default 1
        Batches that may run at once, 1 to 1,024: worker threads, or tasks of an ``async def``.
    run_in : {"worker", "caller"}, default "worker"
        Where a plain `fn` runs: on worker threads of the scheduler; or on the threads that wait for it.  With
        ``caller``, who blocks in `Future.result` or ``scheduler(item)`` runs the batch, with others' items, unless
        `max_concurrent_batches` others do already; who awaits has it run on the event loop, which stands still
        meanwhile.  An idle call then costs no change of thread.  What nobody waits for in these ways is run by a
        worker thread, up to 5 ms later.  Not for an `fn` that is bound to a thread, for callers that hold a lock which
        `fn` takes, or where an answer may not wait for the end of a batch: a timeout does not interrupt `fn`.  A loop
        that is blocked, or stopped and not closed, holds up what it was to run.  What interrupts the thread that
        computes, a Ctrl-C or a `SystemExit` of `fn`, comes out there; the others of its batch get `BatchAborted`.
    spin_us : float, default 0
        How long a thread looks out, awake, before it sleeps, 0 to 1e4 microseconds: a worker for requests, a caller for
        its answer.  Where it takes a sleeping thread long to wake, 50 to 200 shorten the way there and back; the price
        is as much CPU time after each batch and each call.
    name : str, optional
        For metrics, messages and threads.  Default: the name of `fn`.  Made unique among the live schedulers of a
        registry as ``name-2``, ``name-3``, ...
    metrics : bool, default True
        Whether to show this scheduler to Prometheus; counting costs the same either way.
    registry : prometheus_client.CollectorRegistry, optional
        Where; default: prometheus-client's own.

    Raises
    ------
    TypeError, ValueError
        If an option is of the wrong type or out of range, or two contradict each other.

    Notes
    -----
    Thread-safe; one queue serves any number of threads and event loops.  Use it in ``with`` or ``async with``, or call
    `shutdown`.  One that is forgotten instead answers what it has accepted, ends, and warns (`ResourceWarning`).  At
    the interpreter's exit what is still queued fails with `SchedulerClosed`.  In a forked child it starts afresh.

    A result may be `BatchSizeMismatch` or `InvalidBatchResult` if `fn` returns something else than a sequence of as
    many results, `DeadlineExceeded`, `SchedulerClosed`, or whatever `fn` raised: the same object for every caller of
    the batch.  An ``async def`` runs in the context (`contextvars`) of whoever happened to start it, and a batch ends
    with its loop: with callers on several loops, those of another loop get `BatchAborted` then, and a loop that is
    stopped in the middle of a batch, but not closed, keeps it.

    Examples
    --------
    >>> def predict(xs: list[int]) -> list[int]:
    ...     return [x * x for x in xs]
    >>> with Scheduler(predict, max_batch_size=8, metrics=False) as scheduler:
    ...     list(scheduler.map(range(5)))
    [0, 1, 4, 9, 16]
    """

    @overload
    def __init__(
        self, fn: BatchFunction[X, Y], *, batch_as: Literal["list"] = "list", **options: Unpack[Options]
    ) -> None: ...
    @overload
    def __init__(
        self: Scheduler[Any, Any], fn: Callable[..., Any], *, batch_as: BatchAs = "list", **options: Unpack[Options]
    ) -> None: ...
    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        batch_as: BatchAs = "list",
        array_module: Literal["numpy", "torch"] = "numpy",
        assemble: Literal["dispatch", "submit"] = "dispatch",
        copy_results: bool = False,
        max_batch_size: int | None = None,
        allowed_batch_sizes: Sequence[int] | None = None,
        batch_padding_policy: Literal["min_cost", "pad_up", "batch_down"] = "min_cost",
        filler: Literal["repeat", "zeros"] = "repeat",
        key_fn: Callable[[X], Hashable] | None = None,
        share_by_key: Mapping[Any, float] | Callable[[Any], float] | None = None,
        weight_fn: Callable[[X], int] | None = None,
        max_batch_weight: int | None = None,
        on_overweight: Literal["raise", "alone"] = "raise",
        dedupe: bool | Callable[[X], Hashable] = False,
        max_latency_ms: float | None = None,
        max_wait_ms: float | None = None,
        timeout_ms: float | None = None,
        policy: PolicyLike = "adaptive",
        cost_model: Sequence[tuple[int, float]] | None = None,
        max_queue_size: int = 65536,
        on_full: Literal["raise", "block"] = "raise",
        max_concurrent_batches: int = 1,
        run_in: Literal["worker", "caller"] = "worker",
        spin_us: float = 0,
        name: str | None = None,
        metrics: bool = True,
        registry: CollectorRegistry | None = None,
    ) -> None:
        if not callable(fn):
            raise TypeError(f"fn must be callable, not {fn!r}")
        name = _name_of(fn) if name is None else _label(name)
        if registry is not None:
            from prometheus_client import CollectorRegistry

            if not isinstance(registry, CollectorRegistry):
                raise TypeError(f"registry must be a prometheus_client.CollectorRegistry, not {registry!r}")
        options = engine_options(
            max_batch_size=default_batch_size(max_batch_size, allowed_batch_sizes),
            max_wait_ms=max_wait_ms,
            max_latency_ms=max_latency_ms,
            max_queue_size=max_queue_size,
            policy=policy,
            cost_model=cost_model,
        )
        for option, function in ("key_fn", key_fn), ("weight_fn", weight_fn):
            if function is not None and not callable(function):
                raise TypeError(f"{option} must be a function of an item, not {function!r}")
        if share_by_key is not None and not callable(share_by_key) and not isinstance(share_by_key, Mapping):
            raise TypeError(
                f"share_by_key must be a mapping from key to share, or a function of a key, not {share_by_key!r}"
            )
        if not isinstance(copy_results, bool):
            raise TypeError(f"copy_results must be True or False, not {copy_results!r}")
        if not callable(dedupe) and not isinstance(dedupe, bool):
            raise TypeError(f"dedupe must be True, False or a function of an item, not {dedupe!r}")
        timeout_ns = nanoseconds("timeout_ms", timeout_ms)
        block = choice("on_full", on_full, ("raise", "block")) == "block"
        capacity = integer("max_concurrent_batches", max_concurrent_batches, 1, MAX_CONCURRENT_BATCHES)
        is_async = _is_async(fn)
        lent = _lends(run_in, is_async)
        spin_ns = spin_nanoseconds(spin_us)
        form, collate = form_of(
            batch_as,
            array_module=choice("array_module", array_module, ("numpy", "torch")),
            staged=choice("assemble", assemble, ("dispatch", "submit")) == "submit",
            filler=choice("filler", filler, ("repeat", "zeros")),
            max_batch_size=options["max_batch_size"],
            capacity=capacity,
        )
        engine = Engine(
            capacity=capacity,
            max_batch_weight=max_batch_weight,
            overweight=choice("on_overweight", on_overweight, ("raise", "alone")) == "alone",
            padded=pads(batch_as),
            allowed_batch_sizes=allowed_batch_sizes,
            batch_padding_policy=choice(
                "batch_padding_policy", batch_padding_policy, ("min_cost", "pad_up", "batch_down")
            ),
            shares=share_by_key,
            batch_size_bounds=_metrics.batch_size_bounds(options["max_batch_size"]),
            delay_bounds_ns=_metrics.DELAY_BOUNDS_NS,
            **options,
        )
        dispatcher = self._driver(engine, name, is_async, lent)
        dispatcher.block = block
        dispatcher.spin_ns = spin_ns
        dispatcher.set_timeout_ns(timeout_ns)
        dispatcher.sort_by(key_fn=key_fn, weight_fn=weight_fn, form=form, collate=collate, copies=copy_results)
        self._serve_with(dispatcher, fn)
        if dedupe:
            self._share(fingerprint if dedupe is True else dedupe)
        self._registry = registry
        self._shown = bool(metrics)
        if self._shown:
            dispatcher.name = _metrics.register(registry, self, name)
        watch(dispatcher)

    def _driver(self, engine: Engine, name: str, is_async: bool, lent: bool) -> Dispatcher:
        """Return what runs the batches."""
        if is_async:
            from batchcore.loops import LoopDispatcher  # imports asyncio

            return LoopDispatcher(engine, name)
        return CallerDispatcher(engine, name) if lent else ThreadDispatcher(engine, name)

    @property
    def name(self) -> str:
        """What metrics, messages and threads call this scheduler."""
        return self.dispatcher.name

    @property
    def closed(self) -> bool:
        """Whether `shutdown` was called."""
        return self.dispatcher.closed

    def map(
        self,
        items: Iterable[X],
        *,
        timeout_ms: float | None = None,
        priority: int = 0,
        key: Hashable = None,
        weight: int | None = None,
    ) -> Iterator[Y]:
        """Yield the results of `items` in their order, submitting ahead but never more than the queue holds.

        Parameters
        ----------
        items : iterable
            Read lazily, as results are taken; may be endless.
        timeout_ms, priority, key, weight
            As in `submit`, for each item.

        Yields
        ------
        object
            The result of the next item; its error is raised.  Closing the iterator cancels what is outstanding.

        Raises
        ------
        SchedulerClosed
            If the scheduler is shut down meanwhile.

        Notes
        -----
        Keeps enough batches outstanding to fill all workers twice; where a batch takes less than a millisecond, up to
        4,096 requests, since sleeping and waking costs more then.  Waits for room instead of raising `QueueFull`.
        """
        stats = self.stats()
        ahead = min(stats.max_queue_size, 2 * stats.max_batch_size * (stats.capacity + 1))
        most = min(stats.max_queue_size, max(ahead, MAP_AHEAD))
        return self._map(items, ahead, most, timeout_ms, priority, key, weight)

    async def submit_wait(
        self,
        item: X,
        *,
        timeout_ms: float | None = None,
        priority: int = 0,
        key: Hashable = None,
        weight: int | None = None,
    ) -> Future[Y]:
        """Queue one item and return its future, waiting for room without blocking the event loop.

        Parameters
        ----------
        item, timeout_ms, priority, key, weight
            As in `submit`.

        Returns
        -------
        Future
            Where `timeout_ms` passes before there is room, it tells so.

        Raises
        ------
        SchedulerClosed, TypeError, ValueError
            As in `submit`.

        Examples
        --------
        >>> import asyncio
        >>> async def main(scheduler):
        ...     future = await scheduler.submit_wait(20)
        ...     return await future
        >>> with Scheduler(lambda xs: [x + 1 for x in xs], max_queue_size=1, metrics=False) as scheduler:
        ...     asyncio.run(main(scheduler))
        21
        """
        import asyncio

        dispatcher = self.dispatcher
        loop = asyncio.get_running_loop()
        attempt, deadline_ns = self._attempt(item, timeout_ms=timeout_ms, priority=priority, key=key, weight=weight)
        future = attempt()
        while future is None:
            turn: asyncio.Future[None] = loop.create_future()
            waiter = functools.partial(_give_turn, loop, turn)
            dispatcher.enter_room(waiter)
            try:
                # Having queued for room first, no room that comes from here on can be missed.
                future = attempt()
                if future is None:
                    await asyncio.wait([turn], timeout=dispatcher.seconds_until(deadline_ns))
            finally:
                dispatcher.leave_room(waiter)
        return future

    def flush(self) -> None:
        """Let everything that is queued now leave without waiting for company, as workers become free.

        Notes
        -----
        Thread-safe; returns at once.
        """
        self.dispatcher.flush()

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until everything accepted so far has ended; nothing of it waits for company any more.

        The scheduler stays open, and what is submitted meanwhile is not waited for.

        Parameters
        ----------
        timeout : float, optional
            Longest wait, seconds; None waits without end.

        Returns
        -------
        bool
            Whether it all ended in time.

        Raises
        ------
        WouldDeadlock
            If this thread is one that has to compute some of it.
        """
        until = None if timeout is None else time.monotonic() + timeout
        self.dispatcher.flush(drain=True)
        pending = self.dispatcher.pending()
        while pending:  # with no name for the future: fn may run in here, and its error keeps this frame
            try:
                pending.pop().exception(None if until is None else until - time.monotonic())
            except TimeoutError:
                return False
            except concurrent.futures.CancelledError:
                pass
        return True

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more requests, and answer those accepted; again does no harm.

        Parameters
        ----------
        wait : bool, default True
            Whether to wait until all are answered and the threads have ended.
        cancel_futures : bool, default False
            Cancel what is still queued instead of computing it.

        Raises
        ------
        WouldDeadlock
            With `wait`, if this thread is one that has to compute an answer; the scheduler is shut down all the same.
        """
        self._close(cancel_futures)
        if wait:
            self.drain()
            self.dispatcher.join()

    def _close(self, cancel_futures: bool) -> None:
        self.dispatcher.close()
        if cancel_futures:
            self.dispatcher.clear()
        if self._shown:
            self._shown = False
            _metrics.unregister(self._registry, self)

    def reconfigure(
        self,
        *,
        max_batch_size: int | Unchanged = UNCHANGED,
        max_latency_ms: float | Unchanged | None = UNCHANGED,
        max_wait_ms: float | Unchanged | None = UNCHANGED,
        timeout_ms: float | Unchanged | None = UNCHANGED,
        policy: PolicyLike | Unchanged = UNCHANGED,
        max_queue_size: int | Unchanged = UNCHANGED,
        max_concurrent_batches: int | Unchanged = UNCHANGED,
    ) -> None:
        """Change what is given, all at once or, on a bad value, nothing; from the next decision on.

        Parameters and errors as at construction.  What is queued stays, also above a smaller `max_queue_size`; what
        runs is not disturbed; a new `timeout_ms` holds for new requests.

        Examples
        --------
        >>> with Scheduler(lambda xs: xs, metrics=False) as scheduler:
        ...     scheduler.reconfigure(policy="fixed", max_batch_size=64, max_wait_ms=5)
        ...     scheduler.stats().policy
        'fixed'
        """
        now = self.stats()
        options = engine_options(
            max_batch_size=max_batch_size,
            max_wait_ms=max_wait_ms,
            max_latency_ms=max_latency_ms,
            max_queue_size=max_queue_size,
            policy=policy,
            policy_now=now.policy if self.dispatcher.engine.decider is None else "",
            max_wait_now_ns=now.max_wait_ns,
        )
        capacity = None
        if not isinstance(max_concurrent_batches, Unchanged):
            capacity = integer("max_concurrent_batches", max_concurrent_batches, 1, MAX_CONCURRENT_BATCHES)
        timeout_ns = None if isinstance(timeout_ms, Unchanged) else nanoseconds("timeout_ms", timeout_ms)
        self.dispatcher.reconfigure(options, capacity)
        if not isinstance(timeout_ms, Unchanged):
            self.dispatcher.set_timeout_ns(timeout_ns)

    def stats(self) -> Stats:
        """Return a snapshot of everything counted; its parts agree with each other."""
        return self.dispatcher.engine.stats(*self.dispatcher.padding())

    def estimate(self) -> Estimate | None:
        """Predict what a request submitted now would get: how long it would wait, and when it would be answered.

        Returns
        -------
        Estimate or None
            None before the first batch has completed, unless a `cost_model` was given.

        Notes
        -----
        Thread-safe.  For a request of usual priority, if nothing better comes after it; as good as what was learned so
        far.  Use it to turn work away before it costs anything.

        Examples
        --------
        >>> with Scheduler(lambda xs: xs, cost_model=[(1, 4.0), (32, 8.0)], metrics=False) as scheduler:
        ...     scheduler.estimate()
        Estimate(queue_delay_ms=0.0, service_ms=4.0, finish_ms=4.0)
        """
        found = self.dispatcher.estimate_ns()
        if found is None:
            return None
        queue_delay_ns, service_ns = found
        from pybatch.explanation import Estimate

        return Estimate(queue_delay_ns / 1e6, service_ns / 1e6, (queue_delay_ns + service_ns) / 1e6)

    def cost_model(self) -> list[tuple[int, float]]:
        """Return what was learned of the cost of a batch: sizes seen, and the milliseconds expected of each.

        What ``cost_model=`` takes, for the next start.  Thread-safe.

        Examples
        --------
        >>> with Scheduler(lambda xs: xs, cost_model=[(1, 4.0), (32, 8.0)], metrics=False) as scheduler:
        ...     scheduler.cost_model()
        [(1, 4.0), (32, 8.0)]
        """
        dispatcher = self.dispatcher
        return [(size, ns / 1e6) for size, ns in dispatcher.engine.learned(dispatcher.now_ns()).sizes]

    def explain(self) -> Explanation:
        """Say why the latest batches left when they did, what was learned, and what would happen now.

        Print it to read it; its attributes are the same as data.  Thread-safe.

        Examples
        --------
        >>> with Scheduler(lambda xs: xs, name="echo", metrics=False) as scheduler:
        ...     _ = scheduler(1)
        ...     scheduler.explain().past[0].reason
        'idle_worker'
        """
        from pybatch.explanation import explain

        return explain(self.dispatcher)

    def record(self, path: str | os.PathLike[str], *, limit: int = 10_000_000) -> Recording:
        """Record when requests come, with their timeouts and priorities, for ``pybatch tune`` and simulations.

        Parameters
        ----------
        path : path
            Where to; its name ends in ``.csv`` or ``.npz``.  Written by `Recording.stop`.
        limit : int, default 10,000,000
            Most requests to record, 24 bytes of memory each.

        Returns
        -------
        Recording
            Stop it with `Recording.stop`, or use it in ``with``.

        Raises
        ------
        TypeError, ValueError
            If `limit` or the name is not as above, or a recording is going on.

        Notes
        -----
        Thread-safe.  Costs a few nanoseconds a request.  Items and results are not recorded.

        Examples
        --------
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/traffic.csv"
        >>> with Scheduler(lambda xs: xs, metrics=False) as scheduler, scheduler.record(path) as recording:
        ...     _ = list(scheduler.map(range(100)))
        >>> recording.count
        100
        """
        from pybatch.recording import Recording

        return Recording(self.dispatcher, path, integer("limit", limit, 1, 2**40))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        import asyncio

        self._close(False)
        loop = asyncio.get_running_loop()
        for future in self.dispatcher.pending():
            ended: asyncio.Future[None] = loop.create_future()
            future.add_done_callback(functools.partial(_give_turn, loop, ended))
            await ended
        await asyncio.to_thread(self.dispatcher.join)

    def __del__(self) -> None:
        if self.dispatcher is not None and not self.dispatcher.closed:
            self.dispatcher.close()  # first: the warning may be an error
            warnings.warn(
                f"scheduler {self.name!r} was not shut down; use it in `with` or call shutdown()",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )

    def __repr__(self) -> str:
        stats = self.stats()
        state = "shut down" if self.closed else f"{stats.queued} queued, {stats.running} running"
        return f"<Scheduler {self.name!r}: {state}>"


def _give_turn(loop: asyncio.AbstractEventLoop, turn: asyncio.Future[None], _: object = None) -> bool:
    """Wake a coroutine, from any thread; False if its loop is closed and nobody can be woken."""
    try:
        loop.call_soon_threadsafe(_set_turn, turn)
    except RuntimeError:
        return False
    return True


def _set_turn(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


def _lends(run_in: Any, is_async: bool) -> bool:
    """Return whether callers are to run the batches."""
    lent = choice("run_in", run_in, ("worker", "caller")) == "caller"
    if lent and is_async:
        raise ValueError("run_in is 'caller' but fn is an async def, which runs on its callers' event loop anyway")
    return lent


def _is_async(fn: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


def _label(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {name!r}")
    if not name or name.encode(errors="replace").decode() != name:
        raise ValueError(f"name is {name!r}; it must be text and not empty, since it is a label in metrics")
    return name


def _name_of(fn: Callable[..., Any]) -> str:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return str(getattr(fn, "__name__", type(fn).__name__)).strip("<>")

"""``run_in="caller"``: the threads and event loops that wait for an answer compute it, and nobody waits in vain."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gates import (
    HOUR_MS,
    LIMIT_S,
    Gate,
    LoopThread,
    SchedulerOf,
    doubled_async,
    in_thread,
    one_turn,
    run_loop,
    same,
    stays_pending,
    until,
)
from pybatch import BatchAborted, DeadlineExceeded, Future, Scheduler, WouldDeadlock, current_batch
from pybatch.policies import Policy, View

BRIEF_S = 0.02
"""What passes while a test waits for it."""


@pytest.fixture
def lent(scheduler_of: SchedulerOf) -> SchedulerOf:
    """Make schedulers that run on the threads of their callers."""

    def lent(fn: Callable[..., Any], **options: Any) -> Scheduler[Any, Any]:
        return scheduler_of(fn, run_in="caller", **options)

    return lent


def here(items: list[Any]) -> list[int]:
    """Return, for each item, the thread that computes it."""
    return [threading.get_ident()] * len(items)


def workers(scheduler: Scheduler[Any, Any]) -> set[int | None]:
    """Return the worker threads of a scheduler."""
    return {thread.ident for thread in threading.enumerate() if thread.name.startswith(f"pybatch-{scheduler.name}-")}


def queued(scheduler: Scheduler[Any, Any], count: int) -> None:
    """Wait until so many requests are queued."""
    until(lambda: scheduler.stats().queued == count)


def ended(future: Future[Any]) -> Any:
    """Return the outcome of a request that nobody lends a thread to."""
    assert concurrent.futures.wait([future], LIMIT_S).done, future
    return future.result(0)


class Led(Gate):
    """A gate that notes which thread computes each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[int] = []

    def hold(self, items: list[Any]) -> list[Any]:
        self.threads.append(threading.get_ident())
        return super().hold(items)


# --- threads


def test_an_idle_call_runs_on_its_own_thread(lent: SchedulerOf) -> None:
    scheduler = lent(here)
    assert [scheduler(item) for item in range(3)] == [threading.get_ident()] * 3
    assert in_thread(lambda: scheduler(4) == threading.get_ident()).result(LIMIT_S)
    assert workers(scheduler) == set()


def test_a_submit_may_be_followed_by_result_and_a_map_computes_on_its_own_thread(lent: SchedulerOf) -> None:
    scheduler = lent(here)
    ended(scheduler.submit(0))  # now it has a worker, which waits a moment for those who may block
    assert scheduler.submit(1).result() in {threading.get_ident()} | workers(scheduler)
    assert set(scheduler.map(range(100))) <= {threading.get_ident()} | workers(scheduler)


def test_who_waits_for_room_makes_some(lent: SchedulerOf) -> None:
    scheduler = lent(here, max_queue_size=2, on_full="block")
    futures = [scheduler.submit(item) for item in range(100)]
    answers = [future.result(LIMIT_S) for future in futures]
    assert answers.count(threading.get_ident()) > 50, "now and then a worker was quicker"
    assert set(answers) <= {threading.get_ident()} | workers(scheduler)


def test_who_waits_for_room_while_a_batch_waits_for_company_is_served(lent: SchedulerOf) -> None:
    scheduler = lent(same, max_queue_size=2, on_full="block", policy="fixed", max_wait_ms=1)
    futures = [scheduler.submit(item) for item in range(5)]
    assert [future.result(LIMIT_S) for future in futures] == list(range(5))


def test_those_who_come_while_one_leads_follow_and_the_first_of_them_leads_all_together(lent: SchedulerOf) -> None:
    led = Led()
    scheduler = lent(led.hold)
    callers = []
    for number, item in enumerate("abcd"):
        callers.append(in_thread(lambda item=item: (scheduler(item), threading.get_ident())))
        if number == 0:
            led.wait_entered()
        else:
            queued(scheduler, number)
    led.open()
    answers = [caller.result(LIMIT_S) for caller in callers]
    assert [answer for answer, _ in answers] == list("abcd")
    assert led.batches == [["a"], ["b", "c", "d"]]
    first, *others = (thread for _, thread in answers)
    assert led.threads[0] == first
    assert led.threads[1] in others, "the leader left when it had its own answer"


def test_a_leader_goes_on_until_its_own_answer_is_there(lent: SchedulerOf) -> None:
    led = Led()
    scheduler = lent(led.hold, max_batch_size=1)
    first = in_thread(scheduler, "first")
    led.wait_entered()
    futures = [scheduler.submit(item) for item in range(4)]
    last = in_thread(lambda: (futures[-1].result(LIMIT_S), threading.get_ident()))
    until(lambda: len(led.batches) == 1 and not last.done())
    led.open()
    assert first.result(LIMIT_S) == "first"
    answer, thread = last.result(LIMIT_S)
    assert answer == 3
    assert led.batches == [["first"], [0], [1], [2], [3]]
    assert set(led.threads[1:]) <= {thread} | workers(scheduler)


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_never_more_batches_at_once_than_allowed(lent: SchedulerOf, limit: int) -> None:
    gate = Gate()
    scheduler = lent(gate.hold, max_batch_size=1, max_concurrent_batches=limit)
    callers = [in_thread(scheduler, item) for item in range(2 * limit + 2)]
    for _ in range(limit):
        gate.wait_entered()
    queued(scheduler, limit + 2)
    assert len(gate.batches) == scheduler.stats().in_flight_batches == limit
    assert stays_pending(callers[0])
    assert len(gate.batches) == limit
    gate.open()
    assert [caller.result(LIMIT_S) for caller in callers] == list(range(2 * limit + 2))


def test_the_batch_is_known_to_fn_and_to_nobody_afterwards(lent: SchedulerOf) -> None:
    scheduler = lent(lambda items: [current_batch().key for _ in items])
    with Scheduler(lambda items: [scheduler.submit(item, key="in").result() for item in items], metrics=False) as outer:
        assert outer(1) == "in"
    assert scheduler.submit(1, key="k").result() == "k"
    with pytest.raises(LookupError):
        current_batch()


def test_nothing_of_a_request_stays_with_the_scheduler(lent: SchedulerOf) -> None:
    class Thing:
        pass

    scheduler = lent(lambda items: [Thing() for _ in items])
    item, result = (thing := Thing()), scheduler(thing)
    gone = [weakref.ref(each) for each in (item, result)]
    del item, thing, result
    assert [each() for each in gone] == [None, None]


# --- what nobody waits for


@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize("how", ["done", "callback", "wait", "as_completed"])
def test_what_nobody_lends_a_thread_to_is_computed_by_a_worker(lent: SchedulerOf, how: str, count: int) -> None:
    scheduler = lent(here, max_batch_size=4)
    for _ in range(2):  # with a worker that has yet to be started, and with one that sleeps
        called: list[Future[int]] = []
        futures = scheduler.submit_many(range(count))
        for future in futures:
            future.add_done_callback(called.append)
        if how == "done":
            until(lambda futures=futures: all(future.done() for future in futures))
        elif how == "callback":
            until(lambda called=called: len(called) == count)
        elif how == "wait":
            assert not concurrent.futures.wait(futures, LIMIT_S).not_done
        else:
            assert set(concurrent.futures.as_completed(futures, LIMIT_S)) == set(futures)
        assert {future.result(0) for future in futures} <= workers(scheduler)


def test_a_worker_lets_those_who_wait_compute_what_is_left(lent: SchedulerOf) -> None:
    led = Led()
    scheduler = lent(led.hold)
    forgotten = scheduler.submit("forgotten")
    led.wait_entered()
    assert set(led.threads) == workers(scheduler)
    caller = in_thread(lambda: (scheduler("called"), threading.get_ident()))
    queued(scheduler, 1)
    led.open()
    assert caller.result(LIMIT_S) == ("called", led.threads[1])
    assert forgotten.result(0) == "forgotten"


def test_an_interrupted_submit_leaves_nobody_waiting(lent: SchedulerOf) -> None:
    """The item's own comparison fails once it is queued, when its caller is about to come and compute it."""

    class Item:
        compared = 0

        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            Item.compared += 1
            if Item.compared == 2:
                raise ValueError("no comparison today")
            return self is other

    scheduler = lent(here, dedupe=lambda item: item, policy="fixed", max_wait_ms=HOUR_MS, max_batch_size=2)
    forgotten = scheduler.submit(Item())
    with pytest.raises(ValueError, match="no comparison today"):
        scheduler(Item())
    assert ended(forgotten) in workers(scheduler)


# --- timers, timeouts and deadlines


def test_a_caller_waits_no_longer_than_it_said_though_others_lead(lent: SchedulerOf) -> None:
    gate = Gate()
    scheduler = lent(gate.hold)
    leader = in_thread(scheduler, "slow")
    gate.wait_entered()
    future = scheduler.submit("late")
    with pytest.raises(TimeoutError):
        future.result(BRIEF_S)
    gate.open()
    assert leader.result(LIMIT_S) == "slow"
    assert ended(future) == "late"


def test_a_caller_whose_time_is_over_leads_no_further_batch(lent: SchedulerOf) -> None:
    gate, over = Gate(), threading.Event()
    led: list[tuple[Any, int]] = []

    def fn(items: list[Any]) -> list[Any]:
        led.append((items[0], threading.get_ident()))
        if items[0] == "first":
            gate.hold(items)
        elif len(led) == 2:
            assert over.wait(LIMIT_S)
        return items

    scheduler = lent(fn, max_batch_size=1)
    first = in_thread(scheduler, "first")
    gate.wait_entered()
    futures = [scheduler.submit(item) for item in range(3)]

    def ask() -> int:
        with pytest.raises(TimeoutError):
            futures[-1].result(BRIEF_S)
        return threading.get_ident()

    asked_at = time.monotonic()
    caller = in_thread(ask)
    assert not caller.done()
    gate.open()
    until(lambda: time.monotonic() > asked_at + 5 * BRIEF_S)
    over.set()
    thread = caller.result(LIMIT_S)
    assert [ended(future) for future in futures] == [0, 1, 2]
    assert [item for item, leader in led if leader == thread] in ([], [0])
    assert first.result(LIMIT_S) == "first"


def test_deadlines_are_kept_while_the_only_leader_is_busy(lent: SchedulerOf) -> None:
    gate = Gate()
    scheduler = lent(gate.hold)
    leader = in_thread(scheduler, "slow")
    gate.wait_entered()
    forgotten = scheduler.submit("forgotten", timeout_ms=1e3 * BRIEF_S)
    with pytest.raises(DeadlineExceeded):
        ended(forgotten)
    with pytest.raises(DeadlineExceeded):
        in_thread(scheduler, "follower", timeout_ms=1e3 * BRIEF_S).result(LIMIT_S)
    gate.open()
    assert leader.result(LIMIT_S) == "slow"
    assert gate.seen == ["slow"]


@pytest.mark.parametrize("how", ["leaves", "is cancelled"])
def test_the_timer_passes_on_when_the_caller_that_keeps_it_goes(lent: SchedulerOf, how: str) -> None:
    scheduler = lent(same, policy="fixed", max_wait_ms=1e3 * 5 * BRIEF_S, max_batch_size=8)
    keeper = scheduler.submit("keeper")
    waiting = in_thread(keeper.exception, BRIEF_S if how == "leaves" else None)
    other = in_thread(scheduler, "other")
    queued(scheduler, 2)
    if how == "leaves":
        with pytest.raises(TimeoutError):
            waiting.result(LIMIT_S)
    else:
        assert keeper.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            waiting.result(LIMIT_S)
    assert other.result(LIMIT_S) == "other"


def test_who_leaves_in_the_middle_of_being_told_may_wait_for_another_at_once(lent: SchedulerOf) -> None:
    gate, telling, told = Gate(), threading.Event(), threading.Event()
    scheduler = lent(gate.hold)
    other_gate = Gate()
    other = lent(other_gate.hold)
    leader, other_leader = in_thread(scheduler, "leader"), in_thread(other, "leader")
    gate.wait_entered()
    other_gate.wait_entered()
    first, second = scheduler.submit("first"), other.submit("second")
    ends = [threading.Event(), threading.Event()]
    first.add_done_callback(lambda _: telling.set() or told.wait(LIMIT_S))
    second.add_done_callback(lambda _: ends[1].set())
    left = threading.Event()

    def ask() -> Any:
        with pytest.raises(concurrent.futures.CancelledError):
            first.result(5 * BRIEF_S)
        left.set()
        return second.result(LIMIT_S)

    asking = in_thread(ask)
    until(lambda: scheduler.stats().queued == 1 and not asking.done())
    assert stays_pending(asking)
    first.add_done_callback(lambda _: ends[0].set())
    cancelling = in_thread(first.cancel)
    assert telling.wait(LIMIT_S)
    assert left.wait(LIMIT_S), "its time is over"
    assert stays_pending(asking), "it waits for the second"
    told.set()
    assert cancelling.result(LIMIT_S)
    assert ends[0].wait(LIMIT_S)
    for each in gate, other_gate:
        each.open()
    assert asking.result(LIMIT_S) == "second"
    assert ends[1].wait(LIMIT_S)
    assert [leader.result(LIMIT_S), other_leader.result(LIMIT_S)] == ["leader", "leader"]


# --- interruptions


class Interruption(BaseException):
    """Raised by nobody else."""


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def exit_() -> None:
    raise SystemExit(3)


def interrupt() -> None:
    raise Interruption


@pytest.mark.parametrize(
    ("action", "error"), [(ctrl_c, KeyboardInterrupt), (exit_, SystemExit), (interrupt, Interruption)]
)
def test_what_interrupts_the_leader_is_its_own_and_its_neighbours_are_told(
    lent: SchedulerOf, action: Callable[[], None], error: type[BaseException]
) -> None:
    def fn(items: list[Any]) -> list[Any]:
        if "bad" in items:
            action()
        return items

    told: list[Any] = []
    scheduler = lent(fn, policy="fixed", max_wait_ms=HOUR_MS, max_batch_size=2)
    neighbour = scheduler.submit("neighbour")
    neighbour.add_done_callback(told.append)
    with pytest.raises(error) as caught:
        scheduler("bad")
    aborted = neighbour.exception(0)
    assert isinstance(aborted, BatchAborted)
    assert aborted.__cause__ is caught.value
    assert told == [neighbour]
    assert [future.result(LIMIT_S) for future in scheduler.submit_many([1, 2])] == [1, 2]


def test_what_fn_raises_on_a_worker_goes_to_the_callers_and_the_worker_lives_on(lent: SchedulerOf) -> None:
    def fn(items: list[Any]) -> list[Any]:
        if items == ["bad"]:
            raise SystemExit(3)
        return here(items)

    scheduler = lent(fn)
    with pytest.raises(SystemExit):
        ended(scheduler.submit("bad"))
    (worker,) = workers(scheduler)
    assert ended(scheduler.submit("good")) == worker


def test_a_policy_is_told_once_of_a_batch_that_was_interrupted(lent: SchedulerOf) -> None:
    class Counting(Policy):
        batches = 0

        def decide(self, view: View) -> int:
            return view.queued

        def completed(self, *_: object) -> None:
            self.batches += 1

    def fn(items: list[Any]) -> list[Any]:
        raise Interruption

    counting = Counting()
    scheduler = lent(fn, policy=counting)
    with pytest.raises(Interruption):
        scheduler(1)
    assert counting.batches == 1


@pytest.mark.parametrize("leads", [False, True])
def test_a_cancellation_that_fn_raises_is_an_aborted_batch(lent: SchedulerOf, leads: bool) -> None:
    def fn(items: list[Any]) -> list[Any]:
        raise asyncio.CancelledError

    future = lent(fn).submit(1)
    with pytest.raises(BatchAborted):
        future.result(LIMIT_S) if leads else ended(future)


def test_ctrl_c_wakes_a_follower_whose_request_is_given_up(lent: SchedulerOf) -> None:
    gate = Gate()
    scheduler = lent(gate.hold)
    leader = in_thread(scheduler, "leader")
    gate.wait_entered()
    main = threading.get_ident()

    def press() -> None:
        queued(scheduler, 1)
        signal.pthread_kill(main, signal.SIGINT)

    pressing = in_thread(press)
    with pytest.raises(KeyboardInterrupt):
        scheduler("follower")
    pressing.result(LIMIT_S)
    gate.open()
    assert leader.result(LIMIT_S) == "leader"
    assert gate.seen == ["leader"]
    assert scheduler.stats().cancelled == 1


def test_a_signal_handler_may_call_the_scheduler_that_its_thread_waits_for(lent: SchedulerOf) -> None:
    gate = Gate()
    scheduler = lent(gate.hold, max_batch_size=1)
    leader = in_thread(scheduler, "leader")
    gate.wait_entered()
    main, answers = threading.get_ident(), []

    def handle(*_: object) -> None:
        opening = in_thread(lambda: queued(scheduler, 2) or gate.open())
        answers.append(scheduler.submit("in the handler").result(LIMIT_S))
        opening.result(LIMIT_S)

    def press() -> None:
        queued(scheduler, 1)
        signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        pressing = in_thread(press)
        assert scheduler("outside") == "outside"
    finally:
        signal.signal(signal.SIGUSR1, before)
    pressing.result(LIMIT_S)
    assert answers == ["in the handler"]
    assert leader.result(LIMIT_S) == "leader"


# --- fn and callbacks that come back


def test_fn_that_waits_for_itself_is_refused(lent: SchedulerOf) -> None:
    def fn(items: list[int]) -> list[int]:
        return [scheduler(item - 1) if item else 0 for item in items]

    scheduler = lent(fn)
    assert scheduler(0) == 0
    with pytest.raises(WouldDeadlock):
        scheduler(1)
    with pytest.raises(WouldDeadlock):
        run_loop(_awaited(scheduler, 1))
    assert scheduler(0) == 0


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("how", ["call", "wait"])
def test_fn_may_wait_for_another_batch_where_one_more_may_run(lent: SchedulerOf, loop: bool, how: str) -> None:
    def fn(items: list[int]) -> list[int]:
        if not items[0]:
            return [0] * len(items)
        return [scheduler(0) if how == "call" else ended(scheduler.submit(0))]

    scheduler = lent(fn, max_concurrent_batches=2, max_batch_size=1)
    answer = in_thread(run_loop, _awaited(scheduler, 1)) if loop else in_thread(scheduler, 1)
    assert answer.result(LIMIT_S) == 0


def test_fn_may_call_another_scheduler_and_all_is_computed_on_one_thread(lent: SchedulerOf) -> None:
    inner = lent(here)
    outer = lent(lambda items: [(inner(item), threading.get_ident()) for item in items])
    assert outer(1) == (threading.get_ident(), threading.get_ident())


def test_a_callback_may_submit_and_a_callback_of_an_expired_request_may_block(lent: SchedulerOf) -> None:
    scheduler = lent(same)
    more: list[Future[int]] = []
    future = scheduler.submit(1)
    future.add_done_callback(lambda _: more.append(scheduler.submit(2)))
    assert future.result(LIMIT_S) == 1
    until(lambda: len(more) == 1)
    assert ended(more[0]) == 2

    gate, answers = Gate(), []
    gated = lent(gate.hold)
    leader = in_thread(gated, "leader")
    gate.wait_entered()
    late = gated.submit("late", timeout_ms=1e3 * BRIEF_S)
    late.add_done_callback(lambda _: gate.open())
    late.add_done_callback(lambda _: answers.append(gated("blocked")))
    with pytest.raises(DeadlineExceeded):
        late.result(LIMIT_S)
    until(lambda: answers == ["blocked"])
    assert leader.result(LIMIT_S) == "leader"


# --- event loops


async def _awaited(scheduler: Scheduler[Any, Any], item: Any) -> Any:
    return await scheduler.submit(item)


def test_on_an_event_loop_fn_runs_on_its_thread_for_all_tasks_together(lent: SchedulerOf) -> None:
    batches: list[int] = []

    def fn(items: list[int]) -> list[int]:
        batches.append(len(items))
        return here(items)

    scheduler = lent(fn)

    async def main() -> list[int]:
        return list(await asyncio.gather(*(_awaited(scheduler, item) for item in range(10))))

    for _ in range(2):
        assert run_loop(main()) == [threading.get_ident()] * 10
    assert batches == [10, 10]
    assert workers(scheduler) == set()


def test_a_loop_keeps_windows_and_deadlines(lent: SchedulerOf) -> None:
    assert run_loop(_awaited(lent(here, policy="fixed", max_wait_ms=1e3 * BRIEF_S), 1)) == threading.get_ident()

    gate = Gate()
    scheduler = lent(gate.hold)
    leader = in_thread(scheduler, "leader")
    gate.wait_entered()

    async def late() -> None:
        with pytest.raises(DeadlineExceeded):
            await scheduler.submit("late", timeout_ms=1e3 * BRIEF_S)

    run_loop(late())
    gate.open()
    assert leader.result(LIMIT_S) == "leader"


def test_wrap_future_works_on_another_loop(lent: SchedulerOf) -> None:
    scheduler = lent(same)

    async def main() -> int:
        return await asyncio.wrap_future(scheduler.submit(1))

    assert run_loop(main()) == 1


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("where", ["same thread", "another thread"])
def test_a_loop_that_stops_before_its_turn_keeps_nobody_waiting(lent: SchedulerOf, where: str, closed: bool) -> None:
    scheduler = lent(same)
    left: list[Future[int]] = []
    loop = asyncio.new_event_loop()
    loop.call_soon(loop.stop)
    loop.call_soon(lambda: left.append(scheduler.submit(1)))
    loop.run_forever()
    if closed:
        loop.close()
        assert ended(left[0]) == 1
    else:
        assert not left[0].done()
        other = scheduler.submit(2) if where == "same thread" else in_thread(scheduler.submit, 2).result(LIMIT_S)
        assert ended(other) == 2
        assert ended(left[0]) == 1
        loop.close()
    assert scheduler(3) == 3


@pytest.mark.parametrize("blocks", [False, True])
def test_no_thread_relies_on_the_timer_of_a_loop_that_stands_still(lent: SchedulerOf, blocks: bool) -> None:
    window_ms = 1e3 * 5 * BRIEF_S
    scheduler = lent(same, policy="fixed", max_wait_ms=window_ms)

    async def set_timer() -> None:
        future = scheduler.submit(1)
        await one_turn()
        await one_turn()
        future.cancel()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(set_timer())
    assert (in_thread(scheduler, 2) if blocks else scheduler.submit(2)).result(LIMIT_S) == 2
    loop.close()


def test_a_thread_whose_loop_waits_for_it_is_served(lent: SchedulerOf) -> None:
    scheduler = lent(same)

    async def main() -> None:
        assert await scheduler.submit(0) == 0
        thread = in_thread(lambda: ended(scheduler.submit(1)))
        assert thread.result(LIMIT_S) == 1  # the loop stands still meanwhile

    run_loop(main())


def test_a_call_on_a_loop_is_computed_there_and_threads_and_loops_share_batches(lent: SchedulerOf) -> None:
    led = Led()
    scheduler = lent(led.hold)
    leader = in_thread(scheduler, "leader")
    led.wait_entered()
    with LoopThread() as first, LoopThread() as second:
        awaited = [loop.start(_awaited(scheduler, number)) for number, loop in enumerate([first, second])]
        caller = in_thread(scheduler, 2)
        queued(scheduler, 3)
        led.open()
        assert [each.result(LIMIT_S) for each in [*awaited, caller]] == [0, 1, 2]
        assert leader.result(LIMIT_S) == "leader"
        assert sorted(led.batches[1]) == [0, 1, 2]

        async def call() -> tuple[Any, int]:
            return scheduler("called"), threading.get_ident()

        assert first.run(call()) == ("called", led.threads[-1])


def test_a_loop_that_is_given_an_interruption_ends_and_leaves_nobody_waiting(lent: SchedulerOf) -> None:
    def fn(items: list[Any]) -> list[Any]:
        if "bad" in items:
            raise SystemExit(3)
        return items

    scheduler = lent(fn, max_batch_size=1)
    futures: list[Future[Any]] = []

    async def main() -> None:
        futures.extend(scheduler.submit_many(["bad", "good"]))
        await futures[1]

    with pytest.raises(SystemExit):
        run_loop(main())
    gc.collect()
    with pytest.raises(BatchAborted):
        ended(futures[0])
    assert futures[1].cancelled() or ended(futures[1]) == "good"


# --- the end


def test_shutdown_answers_those_who_wait(lent: SchedulerOf) -> None:
    gate = Gate()
    scheduler = lent(gate.hold, max_batch_size=1)
    callers = [in_thread(scheduler, 0)]
    gate.wait_entered()
    callers += [in_thread(scheduler, item) for item in range(1, 4)]
    queued(scheduler, 3)
    forgotten = scheduler.submit(4)
    closing = in_thread(scheduler.shutdown)
    until(lambda: scheduler.closed)
    gate.open()
    closing.result(LIMIT_S)
    assert [caller.result(LIMIT_S) for caller in callers] == [0, 1, 2, 3]
    assert forgotten.result(0) == 4


# --- options


def test_an_async_fn_has_its_own_place_to_run() -> None:
    with pytest.raises(ValueError, match="run_in"):
        Scheduler(doubled_async, run_in="caller", metrics=False)


@pytest.fixture(params=["worker", "caller"])
def spinning(scheduler_of: SchedulerOf, request: pytest.FixtureRequest) -> Iterator[Scheduler[Any, Any]]:
    """A scheduler whose threads look out for a while before they sleep."""
    return scheduler_of(same, spin_us=500, run_in=request.param)


def test_threads_that_look_out_give_the_same_answers_and_sleep_in_the_end(
    spinning: Scheduler[Any, Any],
) -> None:
    def ask(items: range) -> list[int]:
        return [spinning(item) for item in items]

    callers = [in_thread(ask, range(n, n + 50)) for n in range(4)]
    assert [caller.result(LIMIT_S) for caller in callers] == [list(range(n, n + 50)) for n in range(4)]
    assert ended(spinning.submit(1)) == 1
    clocks = [time.pthread_getcpuclockid(ident) for ident in workers(spinning) if ident is not None]
    assert clocks

    def used() -> float:
        return sum(map(time.clock_gettime, clocks))

    def rests() -> bool:
        before = used()
        threading.Event().wait(BRIEF_S)
        return used() == before

    until(rests)


def test_a_signal_that_comes_while_a_thread_looks_out_interrupts_it(scheduler_of: SchedulerOf) -> None:
    class Ring(Exception):
        pass

    def ring(*_: object) -> None:
        raise Ring

    gate = Gate()
    scheduler = scheduler_of(gate.hold, spin_us=10_000)
    future = scheduler.submit(1)
    gate.wait_entered()
    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.005)
    try:
        with pytest.raises(Ring):
            future.result(LIMIT_S)
    finally:
        signal.signal(signal.SIGALRM, previous)
        gate.open()
    assert future.result(LIMIT_S) == 1

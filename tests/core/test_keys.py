"""Only equal keys share a batch, and no key pays for another: stories in virtual time."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchcore.engine import Engine, Request
from batchcore.errors import QueueFull, SchedulerClosed
from batchcore.records import Wait

MS = 1_000_000
MakeEngine = Callable[..., Engine]


def serve(engine: Engine, now: int) -> tuple[Any, tuple[Request, ...]]:
    """Run the next batch, which must leave now, in no time; return its key and its requests."""
    decision = engine.decide(now)
    assert decision.kind == "dispatch"
    engine.complete(now, decision)
    return decision.key, decision.batch


def test_a_full_batch_leaves_while_another_key_waits(make_engine: MakeEngine) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=10, max_batch_size=2)
    early = engine.submit(0, key="a")
    pair = engine.submit(1, key="b"), engine.submit(2, key="b")
    assert serve(engine, 2) == ("b", pair)
    assert engine.decide(9).wake_at_ns == 10
    assert serve(engine, 10) == ("a", (early,))


def test_each_of_a_thousand_keys_has_a_window_of_its_own(make_engine: MakeEngine) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=10_000)
    keys = [7 * now % 1_000 for now in range(1_000)]
    requests = [engine.submit(now, key=key) for now, key in enumerate(keys)]
    for arrival, (key, request) in enumerate(zip(keys, requests, strict=True)):
        wake = arrival + 10_000
        assert engine.next_wakeup_ns() == engine.decide(wake - 1).wake_at_ns == wake
        assert serve(engine, wake) == (key, (request,))
    assert (engine.next_wakeup_ns(), len(engine.keys)) == (None, 0)


def test_the_soonest_request_is_served_first_whatever_its_key(make_engine: MakeEngine) -> None:
    engine = make_engine(aging_ns=100)
    engine.set_capacity(0, 0)
    for now, key, priority in [(0, "a", 0), (1, "b", 0), (2, None, -1), (3, "b", -2), (4, "c", 0)]:
        engine.submit(now, key=key, priority=priority)
    engine.set_capacity(4, 1)
    assert [serve(engine, 4)[0] for _ in range(4)] == ["b", None, "a", "c"]


def test_equal_keys_are_one_key(make_engine: MakeEngine) -> None:
    engine = make_engine()
    same = [engine.submit(0, key=key) for key in (1, 1.0, True, 1 + 0j)]
    engine.submit(0, key="1")
    assert len(engine.keys) == 2
    assert serve(engine, 0)[1] == tuple(same)


def test_none_is_no_key(make_engine: MakeEngine) -> None:
    engine = make_engine()
    both = engine.submit(0), engine.submit(0, key=None)
    assert len(engine.keys) == 0
    assert serve(engine, 0) == (None, both)


def test_a_key_must_be_hashable(make_engine: MakeEngine) -> None:
    engine = make_engine()
    with pytest.raises(TypeError, match="key must be hashable"):
        engine.submit(0, key=["a"])
    assert engine.stats().submitted == 0


def test_a_key_that_equals_nothing_is_served_alone(make_engine: MakeEngine) -> None:
    engine = make_engine()
    for _ in range(3):
        engine.submit(0, key=float("nan"))
    assert [len(serve(engine, 0)[1]) for _ in range(3)] == [1, 1, 1]
    assert len(engine.keys) == 0


def test_a_refused_request_leaves_no_key_behind(make_engine: MakeEngine) -> None:
    engine = make_engine(max_queue_size=1, max_batch_weight=5)
    engine.submit(0, key="a")
    with pytest.raises(QueueFull):
        engine.submit(0, key="b")
    with pytest.raises(ValueError, match="weight is 6, and max_batch_weight is 5"):
        engine.submit(0, key="c", weight=6)
    assert engine.submit(0, key="d", deadline_ns=0).status == "expired"
    engine.close(0)
    with pytest.raises(SchedulerClosed):
        engine.submit(0, key="e")
    assert len(engine.keys) == 1


def test_a_shorter_window_holds_at_once_for_keys_that_wait(make_engine: MakeEngine) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=100)
    for now in range(5):
        engine.submit(now, key=now)
    assert engine.decide(5).wake_at_ns == 100
    engine.reconfigure(6, max_wait_ns=10)
    assert engine.next_wakeup_ns() == 10
    assert [serve(engine, 12)[0] for _ in range(3)] == [0, 1, 2]
    engine.reconfigure(12, policy="immediate")
    assert [serve(engine, 12)[0] for _ in range(2)] == [3, 4]


def test_a_window_outlives_the_batches_of_others(make_engine: MakeEngine) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=100, max_batch_size=2)
    waiting = engine.submit(0, key="a")
    for now in range(0, 90, 10):
        engine.submit(now, key="b")
        engine.submit(now, key="b")
        assert serve(engine, now)[0] == "b"
        assert engine.decide(now).wake_at_ns == 100
    assert serve(engine, 100) == ("a", (waiting,))


def test_what_a_batch_teaches_moves_the_windows_of_others(make_engine: MakeEngine) -> None:
    """Where a latency target, or a deadline, has to be kept by what a batch takes."""
    for options, deadline in (({"max_latency_ns": 90 * MS}, None), ({}, 90 * MS)):
        engine = make_engine(policy="fixed", max_wait_ns=80 * MS, max_batch_size=2, cost_model=[(2, MS)], **options)
        waiting = engine.submit(0, key="a", deadline_ns=deadline)
        assert engine.decide(0).wake_at_ns == 80 * MS
        for i in range(3):
            engine.submit(20 * MS * i, key="b")
            engine.submit(20 * MS * i, key="b")
            engine.complete(20 * MS * (i + 1), engine.decide(20 * MS * i))
        wake = engine.decide(60 * MS).wake_at_ns
        assert wake is not None
        assert wake < 80 * MS
        assert serve(engine, wake) == ("a", (waiting,))


def test_a_flush_lets_all_keys_go_and_none_that_comes_later(make_engine: MakeEngine) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=100)
    for key in "abc":
        engine.submit(0, key=key)
    engine.decide(0)
    engine.flush(1)
    engine.submit(2, key="d")
    reasons = []
    while (decision := engine.decide(2)).kind == "dispatch":
        engine.complete(2, decision)
        reasons.append((decision.key, decision.reason))
    assert reasons == [("a", "flush"), ("b", "flush"), ("c", "flush")]
    assert decision.wake_at_ns == 102


def test_deadlines_are_kept_by_key(make_engine: MakeEngine) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=100, cost_model=[(1, 10)], capacity=0)
    late = [engine.submit(0, key=key, deadline_ns=20 + key) for key in range(5)]
    patient = engine.submit(0, key=1)
    assert engine.decide(22).expired == tuple(late[:3])
    assert engine.decide(30).expired == tuple(late[3:])
    assert (patient.status, len(engine.keys)) == ("queued", 1)


def test_nobody_is_announced_to_be_tried_while_another_key_runs(make_engine: MakeEngine) -> None:
    """One that nobody believes can make it is tried now and then, while nothing else runs."""
    engine = make_engine(cost_model=[(1, 10 * MS)], capacity=2)
    engine.submit(0, key="a", deadline_ns=5 * MS)
    tried = engine.decide(0)
    assert tried.reason == "probe"
    engine.complete(10 * MS, tried)
    for key in "bcd":
        engine.submit(12 * MS, key=key, deadline_ns=21 * MS)
    assert engine.decide(12 * MS).wake_at_ns == 20 * MS
    engine.submit(13 * MS, key="e")
    assert engine.decide(13 * MS).key == "e"
    assert engine.decide(13 * MS).wake_at_ns == 21 * MS


def test_cancelling_the_last_of_a_key_forgets_it(make_engine: MakeEngine) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=10)
    kept, other = engine.submit(0, key="a"), engine.submit(0, key="b")
    assert engine.decide(0).wake_at_ns == 10
    assert engine.cancel(1, other)
    assert len(engine.keys) == 1
    assert serve(engine, 10) == ("a", (kept,))


def test_a_policy_of_ones_own_is_asked_of_each_key(make_engine: MakeEngine) -> None:
    seen = []

    def policy(view: Any) -> int | Wait:
        seen.append((view.key, view.queued))
        return view.queued if view.key == "b" else Wait(view.now_ns + 5)

    engine = make_engine(policy=policy)
    for key in "aab":
        engine.submit(0, key=key)
    assert serve(engine, 0)[0] == "b"
    assert engine.decide(0).wake_at_ns == 5
    assert seen[:2] == [("a", 2), ("b", 1)]


def test_an_answer_to_dispatch_counts_though_another_one_said_to_wait(make_engine: MakeEngine) -> None:
    """As when two workers ask at once: here the policy itself asks in the middle of its answer."""
    answers: deque[int | Wait] = deque([2, Wait(None)])

    def policy(_: Any) -> int | Wait:
        answer = answers.popleft()
        if answers:
            assert engine.decide(0).kind == "idle"
        return answer

    engine = make_engine(policy=policy)
    pair = engine.submit(0, key="a"), engine.submit(0, key="a")
    assert engine.decide(0).batch == pair


def blocks_after(keys: range, **options: Any) -> int:
    engine = Engine(max_batch_size=4, **options)
    before = sys.getallocatedblocks()
    for key in keys:
        engine.submit(key, key=f"key {key}")
        engine.submit(key, key=f"key {key}")
        serve(engine, key)
    engine.check()
    assert len(engine.keys) == 0
    return sys.getallocatedblocks() - before


@pytest.mark.parametrize("shares", [None, {}, lambda key: 2.0 if str(key).endswith("7") else 0.01])
def test_short_lived_keys_leave_nothing_behind(shares: Any) -> None:
    assert blocks_after(range(100_000), shares=shares) < 500


# Fair shares


def work_of(engine: Engine, rounds: int, comes: Callable[[int], list[Any]]) -> Counter[Any]:
    """Serve so many batches of 10 ns; before each, requests of the keys that `comes` names come."""
    served: Counter[Any] = Counter()
    for i in range(rounds):
        for key in comes(i):
            engine.submit(10 * i, key=key)
        decision = engine.decide(10 * i)
        if decision.kind == "dispatch":
            served[decision.key] += len(decision.batch)
            engine.complete(10 * i + 10, decision)
    return served


@pytest.mark.parametrize("shares", [{}, {"a": 4}, {"a": 10, "b": 3, "c": 0.5}, {"a": 1e3, "b": 1e-2}], ids=str)
@pytest.mark.parametrize("size", [1, 8])
def test_busy_keys_get_their_shares(make_engine: MakeEngine, shares: dict[str, float], size: int) -> None:
    engine = make_engine(shares=shares, max_batch_size=size, max_queue_size=10**6)
    served = work_of(engine, 3_000, lambda i: list("abc" * 3_000 * size) if i == 0 else [])
    whole = sum(shares.get(key, 1.0) for key in "abc")
    for key in "abc":
        due = 3_000 * size * shares.get(key, 1.0) / whole
        assert abs(served[key] - due) <= 0.02 * due + size


def test_a_key_that_each_batch_empties_pays_as_others_do(make_engine: MakeEngine) -> None:
    """Callers who ask again the moment they are answered, beside a backlog: neither waits for the other for ever."""
    engine = make_engine(shares={"backlog": 3}, max_batch_size=8, max_queue_size=10**6)
    engine.set_capacity(0, 0)
    for _ in range(8 * 400):
        engine.submit(0, key="backlog")
    engine.set_capacity(0, 1)
    back = ["callers"] * 8
    served: Counter[str] = Counter()
    for now in range(400):
        for key in back:
            engine.submit(now, key=key)
        key, batch = serve(engine, now)
        back = [key] * len(batch) if key == "callers" else []
        served[key] += len(batch)
    assert abs(served["backlog"] - 3 * served["callers"]) <= 0.03 * served["backlog"]


def test_a_key_that_was_idle_gets_its_share_and_nothing_for_the_past(make_engine: MakeEngine) -> None:
    engine = make_engine(shares={}, max_batch_size=4, max_queue_size=10**6)
    work_of(engine, 500, lambda i: ["a"] * 4_000 if i == 0 else [])
    served = work_of(engine, 200, lambda i: ["b"] * 1_000 if i == 0 else [])
    assert abs(served["a"] - served["b"]) <= 4


def test_new_keys_without_end_do_not_starve_an_old_one(make_engine: MakeEngine) -> None:
    engine = make_engine(shares={}, max_batch_size=8, max_queue_size=10**6)
    served = work_of(engine, 500, lambda i: ["old"] * 1_000 if i == 0 else [i])
    assert served["old"] >= 5 * 8
    assert sum(served.values()) - served["old"] >= 400


def test_a_key_with_little_to_do_is_served_soon_beside_a_backlog(make_engine: MakeEngine) -> None:
    engine = make_engine(shares={}, max_batch_size=4, max_queue_size=10**6)
    engine.set_capacity(0, 0)
    for _ in range(4_000):
        engine.submit(0, key="backlog")
    engine.set_capacity(0, 1)
    for now in range(0, 900, 10):
        rare = engine.submit(now, key="rare")
        keys = [serve(engine, now)[0] for _ in range(2)]
        assert "rare" in keys
        assert rare.status == "completed"


@given(
    shares=st.dictionaries(st.sampled_from("abcd"), st.sampled_from([1e-6, 0.1, 1.0, 3.0, 1e6])),
    weights=st.lists(st.sampled_from([1, 5, 2**31 - 1]), min_size=4, max_size=4),
)
def test_shares_of_any_size_serve_all_in_the_end(shares: dict[str, float], weights: list[int]) -> None:
    engine = Engine(shares=shares, max_batch_weight=2**31 - 1, max_queue_size=10**6)
    for _ in range(50):
        for key, weight in zip("abcd", weights, strict=True):
            engine.submit(0, key=key, weight=weight)
    served = 0
    while engine.stats().queued:
        served += len(serve(engine, 0)[1])
        engine.check()
    assert served == 200


@pytest.mark.parametrize("share", [0, -1.0, float("nan"), float("inf"), 1e-7, 1e7])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="the share of key 'a' is"):
        Engine(shares={"a": share})
    engine = Engine(shares=lambda key: share if key else 1.0)
    with pytest.raises(ValueError, match="the share of key 'a' is"):
        engine.submit(0, key="a")
    assert (len(engine.keys), engine.stats().submitted) == (0, 0)


@pytest.mark.parametrize("shares", ["ab", 3, {"a": "1"}, {"a": True}])
def test_what_is_no_share_is_refused(shares: Any) -> None:
    with pytest.raises(TypeError, match="share"):
        Engine(shares=shares)

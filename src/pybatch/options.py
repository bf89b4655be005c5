"""Options as people write them, checked, in the units of the engine.

Everything here raises before anything has changed, and says the value, the limit and the remedy.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, TypeVar

from batchcore.engine import MAX_BATCH_SIZE, MAX_QUEUE_SIZE, integer

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from pybatch.policies import PolicyLike

__all__ = [
    "MAX_CONCURRENT_BATCHES",
    "MAX_MS",
    "MAX_SPIN_US",
    "UNCHANGED",
    "Options",
    "Terms",
    "Unchanged",
    "choice",
    "default_batch_size",
    "engine_options",
    "nanoseconds",
    "spin_nanoseconds",
]

MAX_MS: Final = 1e10
"""Longest duration an option may name, milliseconds: 115 days."""

MAX_SPIN_US: Final = 1e4
"""Longest that a thread may look out awake, microseconds."""

MAX_CONCURRENT_BATCHES: Final = 1024
"""Most batches, and so most worker threads, of one scheduler."""

POLICIES: Final = ("adaptive", "immediate", "fixed")

_T = TypeVar("_T")


class Terms(TypedDict, total=False):
    """How a request wants to be served: what `pybatch.Scheduler.submit` takes beside the item."""

    timeout_ms: float | None
    priority: int
    key: Hashable
    weight: int | None


class Options(TypedDict, total=False):
    """What `pybatch.Scheduler` takes beside ``fn`` and ``batch_as``."""

    array_module: Literal["numpy", "torch"]
    assemble: Literal["dispatch", "submit"]
    copy_results: bool
    max_batch_size: int | None
    allowed_batch_sizes: Sequence[int] | None
    batch_padding_policy: Literal["min_cost", "pad_up", "batch_down"]
    filler: Literal["repeat", "zeros"]
    key_fn: Callable[[Any], Hashable] | None
    share_by_key: Mapping[Any, float] | Callable[[Any], float] | None
    weight_fn: Callable[[Any], int] | None
    max_batch_weight: int | None
    on_overweight: Literal["raise", "alone"]
    dedupe: bool | Callable[[Any], Hashable]
    max_latency_ms: float | None
    max_wait_ms: float | None
    timeout_ms: float | None
    policy: PolicyLike
    cost_model: Sequence[tuple[int, float]] | None
    max_queue_size: int
    on_full: Literal["raise", "block"]
    max_concurrent_batches: int
    run_in: Literal["worker", "caller"]
    spin_us: float
    name: str | None
    metrics: bool
    registry: CollectorRegistry | None


class Unchanged:
    """The type of `UNCHANGED`, which stands for an option that was not given."""

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unchanged()


def nanoseconds(name: str, value: Any) -> int | None:
    """Return a duration in milliseconds as nanoseconds; None stays None.

    Raises
    ------
    TypeError
        If it is not a real number; a bool is not.
    ValueError
        If it is negative, above `MAX_MS`, infinite or not a number.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number of milliseconds or None, not {value!r}")
    number: Any = value  # compared before it is converted: an int may be too large for a float
    if not 0 <= number <= MAX_MS:
        raise ValueError(f"{name} is {value!r}; it must be from 0 to {MAX_MS:g} milliseconds, or None for no limit")
    return int(float(number) * 1e6)


def spin_nanoseconds(spin_us: Any) -> int:
    """Return `spin_us` as nanoseconds.

    Raises
    ------
    TypeError
        If it is not a real number; a bool is not.
    ValueError
        If it is negative, above `MAX_SPIN_US` or not a number.
    """
    if isinstance(spin_us, bool) or not isinstance(spin_us, numbers.Real):
        raise TypeError(f"spin_us must be a number of microseconds, not {spin_us!r}; 0 means to sleep at once")
    number: Any = spin_us
    if not 0 <= number <= MAX_SPIN_US:
        raise ValueError(f"spin_us is {spin_us!r}; it must be from 0 to {MAX_SPIN_US:g} microseconds")
    return int(float(number) * 1e3)


def choice(name: str, value: Any, choices: tuple[_T, ...]) -> _T:
    """Return `value` if it is one of `choices`.

    Raises
    ------
    ValueError
        If it is not.
    """
    for candidate in choices:
        if isinstance(value, type(candidate)) and value == candidate:
            return candidate
    raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, choices))}")


def default_batch_size(max_batch_size: Any, allowed_batch_sizes: Any) -> Any:
    """Return `max_batch_size`, or what it is where it is not given: the largest size allowed, or 32.

    Raises
    ------
    TypeError
        If `allowed_batch_sizes` is no sequence of integers.
    """
    if allowed_batch_sizes is not None:
        try:
            sizes = list(allowed_batch_sizes)
        except TypeError:
            raise TypeError(f"allowed_batch_sizes must be a list of sizes, not {allowed_batch_sizes!r}") from None
        for i, size in enumerate(sizes):
            integer(f"allowed_batch_sizes[{i}]", size, 1, MAX_BATCH_SIZE)
        if max_batch_size is None and sizes:
            return max(sizes)
    return 32 if max_batch_size is None else max_batch_size


def engine_options(
    *,
    max_batch_size: Any = UNCHANGED,
    max_wait_ms: Any = UNCHANGED,
    max_latency_ms: Any = UNCHANGED,
    max_queue_size: Any = UNCHANGED,
    policy: Any = UNCHANGED,
    cost_model: Any = UNCHANGED,
    policy_now: str = "",
    max_wait_now_ns: int | None = None,
) -> dict[str, Any]:
    """Check the options that are the engine's and return those given under its names.

    Parameters
    ----------
    max_batch_size, max_wait_ms, max_latency_ms, max_queue_size, policy, cost_model
        As in `pybatch.Scheduler`; UNCHANGED where not given.
    policy_now, max_wait_now_ns : optional
        What is in force, for a change of some of them.

    Raises
    ------
    TypeError, ValueError
        If one is of the wrong type or out of range, or they contradict each other.
    """
    options: dict[str, Any] = {}
    if max_batch_size is not UNCHANGED:
        options["max_batch_size"] = integer("max_batch_size", max_batch_size, 1, MAX_BATCH_SIZE)
    if max_queue_size is not UNCHANGED:
        options["max_queue_size"] = integer("max_queue_size", max_queue_size, 1, MAX_QUEUE_SIZE)
    if max_latency_ms is not UNCHANGED:
        options["max_latency_ns"] = nanoseconds("max_latency_ms", max_latency_ms)
    if max_wait_ms is not UNCHANGED:
        options["max_wait_ns"] = nanoseconds("max_wait_ms", max_wait_ms)
    if cost_model is not UNCHANGED and cost_model is not None:
        options["cost_model"] = _cost_model_ns(cost_model)
    if policy is not UNCHANGED:
        if isinstance(policy, str):
            choice("policy", policy, POLICIES)
        options["policy"] = policy  # one of the user's own is checked by the engine
    name = options.get("policy", policy_now)
    wait_ns = options.get("max_wait_ns", max_wait_now_ns)
    if name == "immediate" and wait_ns is not None:
        if max_wait_ms is not UNCHANGED:
            raise ValueError(
                f"max_wait_ms is {max_wait_ms} but policy 'immediate' never waits; use policy='adaptive' or 'fixed', "
                "or max_wait_ms=None"
            )
        options["max_wait_ns"] = None
    if name == "fixed" and wait_ns is None:
        raise ValueError("policy 'fixed' waits for a full batch and needs max_wait_ms, the longest it may wait")
    return options


def _cost_model_ns(cost_model: Any) -> list[tuple[int, int]]:
    """Return pairs of batch size and milliseconds as pairs of batch size and ns."""
    pairs = []
    try:
        given = list(cost_model)
    except TypeError:
        raise TypeError(f"cost_model must be a list of pairs (batch size, ms), not {cost_model!r}") from None
    for i, pair in enumerate(given):
        try:
            size, ms = pair
        except (TypeError, ValueError):
            raise TypeError(f"cost_model[{i}] must be a pair (batch size, ms), not {pair!r}") from None
        service_ns = nanoseconds(f"the time in cost_model[{i}]", ms)
        if not service_ns:
            raise ValueError(f"the time in cost_model[{i}] is {ms!r}; it must be above 0 milliseconds")
        pairs.append((integer(f"the size in cost_model[{i}]", size, 1, MAX_BATCH_SIZE), service_ns))
    return pairs

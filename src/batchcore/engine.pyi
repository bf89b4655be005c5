from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from batchcore.records import Decision, Learned, Past, Stats

MAX_BATCH_SIZE: Final[int]
MAX_QUEUE_SIZE: Final[int]
MAX_CAPACITY: Final[int]
MAX_DURATION_NS: Final[int]
MAX_PRIORITY: Final[int]
MAX_WEIGHT: Final[int]
AGING_NS: Final[int]

def integer(name: str, value: object, low: int, high: int) -> int: ...

class Request:
    @property
    def status(
        self,
    ) -> Literal["new", "queued", "running", "completed", "failed", "expired", "cancelled", "shut_down"]: ...
    @property
    def arrival_ns(self) -> int: ...
    @property
    def deadline_ns(self) -> int | None: ...
    @property
    def priority(self) -> int: ...
    @property
    def weight(self) -> int: ...

class Engine:
    def __init__(
        self,
        *,
        policy: Any = "immediate",
        max_batch_size: int = 32,
        max_wait_ns: int | None = None,
        max_latency_ns: int | None = None,
        max_queue_size: int = 65536,
        capacity: int = 1,
        aging_ns: int = ...,
        cost_model: Sequence[tuple[int, int]] | None = None,
        batch_size_bounds: tuple[int, ...] | None = None,
        delay_bounds_ns: tuple[int, ...] | None = None,
        max_batch_weight: int | None = None,
        overweight: bool = False,
        padded: bool = False,
        allowed_batch_sizes: Sequence[int] | None = None,
        batch_padding_policy: str = "min_cost",
        shares: Mapping[Any, float] | Callable[[Any], float] | None = None,
    ) -> None: ...
    def submit(self, now_ns: int, *, priority: int = 0, deadline_ns: int | None = None) -> Request: ...
    def cancel(self, now_ns: int, request: Request) -> bool: ...
    def decide(self, now_ns: int) -> Decision: ...
    def complete(self, now_ns: int, decision: Decision, *, failed: int = 0) -> None: ...
    def set_capacity(self, now_ns: int, capacity: int) -> None: ...
    def reconfigure(
        self,
        now_ns: int,
        *,
        policy: Any = ...,
        max_batch_size: int = ...,
        max_wait_ns: int | None = ...,
        max_latency_ns: int | None = ...,
        max_queue_size: int = ...,
    ) -> None: ...
    def flush(self, now_ns: int) -> None: ...
    def close(self, now_ns: int) -> None: ...
    def next_wakeup_ns(self) -> int | None: ...
    def predict_ns(self, batch_size: int) -> int | None: ...
    def past(self) -> tuple[Past, ...]: ...
    def learned(self, now_ns: int) -> Learned: ...
    @property
    def decider(self) -> Any: ...
    @property
    def policy(self) -> str: ...
    def stats(self, item_elements: int = 0, batch_elements: int = 0) -> Stats: ...
    def check(self) -> None: ...

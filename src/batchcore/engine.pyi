from typing import Final, Literal

from batchcore.records import Decision, Stats

MAX_BATCH_SIZE: Final[int]
MAX_QUEUE_SIZE: Final[int]
MAX_CAPACITY: Final[int]
MAX_DURATION_NS: Final[int]
MAX_PRIORITY: Final[int]
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

class Engine:
    def __init__(
        self,
        *,
        policy: str = "immediate",
        max_batch_size: int = 32,
        max_wait_ns: int | None = None,
        max_latency_ns: int | None = None,
        max_queue_size: int = 65536,
        capacity: int = 1,
        aging_ns: int = ...,
        batch_size_bounds: tuple[int, ...] | None = None,
        delay_bounds_ns: tuple[int, ...] | None = None,
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
        policy: str = ...,
        max_batch_size: int = ...,
        max_wait_ns: int | None = ...,
        max_latency_ns: int | None = ...,
        max_queue_size: int = ...,
    ) -> None: ...
    def flush(self, now_ns: int) -> None: ...
    def close(self, now_ns: int) -> None: ...
    def next_wakeup_ns(self) -> int | None: ...
    def predict_ns(self, batch_size: int) -> int | None: ...
    def stats(self) -> Stats: ...
    def check(self) -> None: ...

from array import array
from collections.abc import Callable, Sequence
from typing import Final

from batchcore.engine import Engine

REQUEST_FIELDS: Final[list[tuple[str, str]]]
BATCH_FIELDS: Final[list[tuple[str, str]]]

class Simulator:
    def __init__(self, engine: Engine, seed: int, requests: int, until_ns: int) -> None: ...
    @property
    def requests(self) -> bytearray: ...
    @property
    def batches(self) -> bytearray: ...
    def set_limits(
        self, timeouts: Sequence[tuple[int | None, float]], slos: Sequence[tuple[int | None, float]] | None
    ) -> None: ...
    def set_service(
        self,
        ns: array[float],
        *,
        noise: float,
        spike_probability: float,
        spike_ns: float,
        warm_up_batches: int,
        warm_up_factor: float,
        drift_at_ns: array[int],
        drift_factors: array[float],
    ) -> None: ...
    def add(self, process: str, *parameters: float) -> None: ...
    def add_trace(
        self,
        arrivals_ns: array[int],
        timeouts_ns: array[int] | None,
        slos_ns: array[int] | None,
        priorities: array[int] | None,
    ) -> None: ...
    def run(self, progress: Callable[[int, int], None] | None = None) -> None: ...

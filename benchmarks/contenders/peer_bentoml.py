"""BentoML's ``CorkDispatcher``, made as BentoML makes it for a batchable API: one batch at a time.

It has no window to set: it learns how long to wait. While a batch runs it looks again every millisecond, and it starts
no two batches in a row without such a pause, so small batches cost it wall time rather than CPU time. A service's
options refuse a ``max_batch_size`` of 1; the dispatcher itself does not.
"""

from bentoml._internal.marshal.dispatcher import CorkDispatcher  # pyright: ignore[reportMissingImports]

from contenders.interface import AsyncFn

MAX_LATENCY_MS = 60_000
"""BentoML's own default: long enough to shed nothing here."""


def shed() -> int:
    """Answer in place of a request that is shed: none may be, or it would count as served."""
    raise RuntimeError("the dispatcher shed a request")


class BentoML:
    def __init__(self, fn: AsyncFn, max_batch_size: int) -> None:
        # By default it would ask every item how many it is; here each is one.
        self._dispatcher = CorkDispatcher(MAX_LATENCY_MS, max_batch_size, fallback=shed, get_batch_size=lambda _: 1)
        self.submit = self._dispatcher(fn)

    async def close(self) -> None:
        self._dispatcher.shutdown()

"""The batcher one writes by hand for threads: ``queue.Queue``, a worker thread, a standard future for each request.

Work-conserving: the worker takes what is there, up to ``max_batch_size``, and never waits for company. Leaner than a
correct one, in its favour: a caller who cancels would break the batch, so nobody cancels here.
"""

import queue
import threading
from concurrent.futures import Future

from contenders.interface import Fn


class ThreadQueue:
    def __init__(self, fn: Fn, max_batch_size: int) -> None:
        self._fn = fn
        self._max_batch_size = max_batch_size
        self._queue: queue.Queue[tuple[int, Future[int]] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, item: int) -> Future[int]:
        future: Future[int] = Future()
        self._queue.put((item, future))
        return future

    def _work(self) -> None:
        while (request := self._queue.get()) is not None:
            batch = [request]
            try:
                while len(batch) < self._max_batch_size:
                    if (request := self._queue.get_nowait()) is None:
                        self._queue.put(None)
                        break
                    batch.append(request)
            except queue.Empty:
                pass
            self._run(batch)

    def _run(self, batch: list[tuple[int, Future[int]]]) -> None:
        try:
            for (_, future), result in zip(batch, self._fn([item for item, _ in batch]), strict=True):
                future.set_result(result)
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

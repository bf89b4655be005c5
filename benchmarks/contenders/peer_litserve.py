"""LitServe's inference loop on a thread; its callers are tasks of an event loop, as in its server.

The server runs the loop in another process and pickles what goes there and back. Here all stays in one process, and
the way back is ours and wakes the event loop once for whatever was answered in the meantime: both in its favour.
With a ``max_batch_size`` of 1 LitServe takes its loop for single requests, and so is measured here.
"""

import asyncio
import itertools
import queue
import threading
import time
from collections import deque
from typing import Any

from litserve import LitAPI  # pyright: ignore[reportMissingImports]
from litserve.callbacks import CallbackRunner  # pyright: ignore[reportMissingImports]
from litserve.loops import get_default_loop  # pyright: ignore[reportMissingImports]
from litserve.loops.base import _SENTINEL_VALUE  # pyright: ignore[reportMissingImports]
from litserve.transport.base import MessageTransport  # pyright: ignore[reportMissingImports]

from contenders.interface import Fn


class Api(LitAPI):  # type: ignore[misc]
    """A model that takes and gives items as they are."""

    request_timeout = 30.0

    def __init__(self, fn: Fn, max_batch_size: int, **settings: float) -> None:
        super().__init__(max_batch_size=max_batch_size, **settings)
        self._predict = fn if max_batch_size > 1 else lambda item: fn([item])[0]

    def setup(self, device: str) -> None:
        pass

    def decode_request(self, request: int) -> int:
        return request

    def batch(self, inputs: list[int]) -> list[int]:
        return inputs

    def predict(self, x: Any) -> Any:
        return self._predict(x)

    def unbatch(self, output: list[int]) -> list[int]:
        return output

    def encode_response(self, output: int) -> int:
        return output


class WayBack(MessageTransport):  # type: ignore[misc]
    """Takes the answers from LitServe's thread to the futures of the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._answers: deque[tuple[int, tuple[Any, ...]]] = deque()
        self._woken = False
        self.waiting: dict[int, asyncio.Future[int]] = {}

    def send(self, item: tuple[int, tuple[Any, ...]], consumer_id: int) -> None:
        self._answers.append(item)
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        self._woken = False
        while self._answers:
            request_id, (result, *_) = self._answers.popleft()
            self.waiting.pop(request_id).set_result(result)

    async def areceive(self, *_: object, **__: object) -> dict[str, Any]:
        raise NotImplementedError("answers come by `_hand_out`")


class LitServe:
    def __init__(self, fn: Fn, max_batch_size: int, **settings: float) -> None:
        api = Api(fn, max_batch_size, **settings)
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count()
        self._requests: queue.Queue[Any] = queue.Queue()
        self._way_back = WayBack()
        self._thread = threading.Thread(
            target=get_default_loop(stream=False, max_batch_size=max_batch_size),
            args=(api, "cpu", 0, self._requests, self._way_back, {}, CallbackRunner()),
            daemon=True,
        )
        self._thread.start()

    def submit(self, item: int) -> asyncio.Future[int]:
        request_id = next(self._ids)
        future = self._way_back.waiting[request_id] = self._loop.create_future()
        self._requests.put((0, request_id, time.monotonic(), item))
        return future

    async def close(self) -> None:
        self._requests.put(_SENTINEL_VALUE)
        await asyncio.to_thread(self._thread.join)

"""``service-streamer``'s ``ThreadedStreamer``: one thread runs batches, another hands their results out."""

from service_streamer import ThreadedStreamer  # pyright: ignore[reportMissingImports]

from contenders.interface import Fn


class First:
    """The answer to a list of one item: the first of its results."""

    __slots__ = ("_future",)

    def __init__(self, future: "ThreadedStreamer.Future") -> None:
        self._future = future

    def result(self) -> int:
        result: int = self._future.result()[0]
        return result


class ServiceStreamer:
    def __init__(self, fn: Fn, max_batch_size: int, **settings: float) -> None:
        self._streamer = ThreadedStreamer(fn, max_batch_size, **settings)

    def submit(self, item: int) -> First:
        return First(self._streamer.submit([item]))

    def close(self) -> None:
        self._streamer.destroy_workers()

"""Live traffic into a file: when requests came, with what timeout and priority."""

from __future__ import annotations

import csv
import os
import warnings
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from batchcore.recorder import Recorder

if TYPE_CHECKING:
    from batchcore.dispatcher import Dispatcher

__all__ = ["Recording"]


class Recording:
    """A recording that is going on; made by `pybatch.Scheduler.record`."""

    def __init__(self, dispatcher: Dispatcher, path: str | os.PathLike[str], limit: int) -> None:
        self._path = Path(path).absolute()
        self._dispatcher: Dispatcher | None = None
        if self._path.suffix not in (".csv", ".npz"):
            raise ValueError(f"{self._path} must end in .csv or .npz, which says how to write it")
        if not self._path.parent.is_dir():
            raise ValueError(f"{self._path.parent} is no directory; make it first")
        if self._path.is_dir():
            raise ValueError(f"{self._path} is a directory; name a file")
        self._pid = os.getpid()  # a forked child must not write over its parent's file
        self._recorder = Recorder(limit, dispatcher.now_ns())
        if not dispatcher.record(None, self._recorder):
            raise ValueError(f"scheduler {dispatcher.name!r} is being recorded already; stop that recording first")
        self._dispatcher = dispatcher

    @property
    def count(self) -> int:
        """Requests recorded so far."""
        return self._recorder.count

    @property
    def missed(self) -> int:
        """Requests that came after the limit."""
        return self._recorder.missed

    def stop(self) -> None:
        """End the recording and write the file; again does nothing.

        Raises
        ------
        OSError
            If the file cannot be written; what was recorded is kept, and `stop` may be called again.
        """
        if self._dispatcher is None or os.getpid() != self._pid:
            return
        self._dispatcher.record(self._recorder, None)
        arrivals, timeouts, priorities = self._recorder.columns()
        if self._path.suffix == ".csv":
            with self._path.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(("arrival_ms", "timeout_ms", "priority"))
                writer.writerows(zip(arrivals, timeouts, priorities, strict=True))
        else:
            from pybatch.simulation import Trace

            limits = [float("inf") if timeout is None else timeout for timeout in timeouts]
            Trace(arrivals, limits, priorities=priorities).save(self._path)
        self._dispatcher = None

    def __del__(self) -> None:
        dispatcher = getattr(self, "_dispatcher", None)  # none, too, where the constructor raised
        if dispatcher is not None and os.getpid() == self._pid:
            dispatcher.record(self._recorder, None)
            warnings.warn(
                f"recording {self._path} was never stopped and is lost", ResourceWarning, stacklevel=2, source=self
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

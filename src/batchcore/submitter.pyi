from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, Final, Generic, TypeVar

from batchcore.dispatcher import Dispatcher
from batchcore.future import Future

_X = TypeVar("_X")
_Y = TypeVar("_Y")

MAX_DURATION_MS: Final[float]

class Submitter(Generic[_X, _Y]):
    @property
    def dispatcher(self) -> Dispatcher: ...
    @property
    def fn(self) -> Callable[[list[_X]], Any]: ...
    def _serve_with(self, dispatcher: Dispatcher, fn: Callable[[list[Any]], Any]) -> None: ...
    def submit(
        self,
        item: _X,
        *,
        timeout_ms: float | None = None,
        priority: int = 0,
        key: Hashable = None,
        weight: int | None = None,
    ) -> Future[_Y]: ...
    def submit_many(
        self,
        items: Iterable[_X],
        *,
        timeout_ms: float | None = None,
        priority: int = 0,
        key: Hashable = None,
        weight: int | None = None,
    ) -> list[Future[_Y]]: ...
    def submit_batch(
        self,
        items: Sequence[_X] | Iterable[_X],
        *,
        timeout_ms: float | None = None,
        priority: int = 0,
        key: Hashable = None,
        weight: int | None = None,
    ) -> Future[Any]: ...
    def _share(self, fingerprint: Callable[[_X], Hashable]) -> None: ...
    def _map(
        self,
        items: Iterable[_X],
        ahead: int,
        most: int,
        timeout_ms: float | None,
        priority: int,
        key: Hashable,
        weight: int | None,
    ) -> Iterator[_Y]: ...
    def _attempt(
        self,
        item: _X,
        *,
        timeout_ms: float | None = None,
        priority: int = 0,
        key: Hashable = None,
        weight: int | None = None,
    ) -> tuple[Callable[[], Future[_Y] | None], int]: ...
    def __call__(
        self,
        item: _X,
        *,
        timeout_ms: float | None = None,
        priority: int = 0,
        key: Hashable = None,
        weight: int | None = None,
    ) -> _Y: ...

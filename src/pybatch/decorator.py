"""`batched`: write the function for a list, call it for one item."""

from __future__ import annotations

import functools
import inspect
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, Protocol, TypeVar, Unpack, cast, overload

from pybatch.options import Terms
from pybatch.scheduler import Scheduler

__all__ = ["Batched", "batched"]

X = TypeVar("X")
Y = TypeVar("Y")
R = TypeVar("R")


_making = threading.RLock()


def _after_fork() -> None:
    global _making  # noqa: PLW0603  # whoever held it is not in this process
    _making = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Batched(Generic[X, R]):
    """A batch function that is called for one item; made by `batched`.

    Of a method there is one scheduler an instance, from its first use until the instance is collected.
    """

    def __init__(self, fn: Callable[..., Any], options: dict[str, Any]) -> None:
        functools.update_wrapper(self, fn)
        self._fn = fn
        self._options = options
        self._async = inspect.iscoroutinefunction(fn)
        self._schedulers: dict[int | None, Scheduler[X, Any]] = {}  # by id of the instance; None: of the function

    @property
    def scheduler(self) -> Scheduler[X, Any]:
        """The scheduler behind it; made on first use."""
        return self._scheduler_of(None)

    def __call__(self, item: X, **terms: Unpack[Terms]) -> R:
        """Return the result for one item, or a coroutine of it if the function is ``async``.

        Parameters and errors as in `Scheduler.submit`.
        """
        return cast(R, _call(self.scheduler, self._async, item, terms))

    def __get__(self, instance: object, owner: type | None = None) -> Batched[X, R]:
        if instance is None:
            return self
        return cast(Batched[X, R], _BoundBatched(self, instance))

    def _scheduler_of(self, instance: object) -> Scheduler[X, Any]:
        key = None if instance is None else id(instance)
        scheduler = self._schedulers.get(key)
        if scheduler is not None:
            return scheduler
        with _making:
            scheduler = self._schedulers.get(key)
            if scheduler is None:
                options: dict[str, Any] = {"name": self._fn.__name__, **self._options}
                scheduler = Scheduler(self._function_of(instance), **options)
                self._schedulers[key] = scheduler
                if instance is not None:
                    weakref.finalize(instance, self._forget, key)
        return scheduler

    def _function_of(self, instance: object) -> Callable[[list[X]], Any]:
        if instance is None:
            return self._fn
        try:
            reference = weakref.ref(instance)
        except TypeError:
            raise TypeError(
                f"batched needs a weak reference to each {type(instance).__name__}: add '__weakref__' to its __slots__"
            ) from None
        fn = self._fn

        def method(*batch: Any) -> Any:
            instance = reference()
            if instance is None:
                raise ReferenceError(f"the object whose {fn.__qualname__} was called is gone")
            return fn(instance, *batch)

        if not self._async:
            return method

        async def coroutine_method(*batch: Any) -> Any:
            return await method(*batch)

        return coroutine_method

    def _forget(self, key: int | None) -> None:
        scheduler = self._schedulers.pop(key, None)
        if scheduler is not None:
            scheduler.shutdown(wait=False)


class _BoundBatched(Generic[X, R]):
    """A `Batched` method of one instance."""

    def __init__(self, batched: Batched[X, R], instance: object) -> None:
        self._batched = batched
        self._instance = instance

    @property
    def scheduler(self) -> Scheduler[X, Any]:
        return self._batched._scheduler_of(self._instance)

    def __call__(self, item: X, **terms: Unpack[Terms]) -> R:
        return cast(R, _call(self.scheduler, self._batched._async, item, terms, self._instance))


def _call(
    scheduler: Scheduler[X, Any],
    is_async: bool,
    item: X,
    terms: Terms,
    _alive: object = None,  # the instance, which must not be collected before its answer
) -> object:
    if not is_async:
        return scheduler(item, **terms)

    async def wait() -> object:
        nonlocal _alive
        try:
            return await scheduler.submit(item, **terms)
        finally:
            _alive = None

    return wait()


class _Decorator(Protocol):
    @overload
    def __call__(
        self, fn: Callable[[list[X]], Coroutine[Any, Any, Sequence[Y]]]
    ) -> Batched[X, Coroutine[Any, Any, Y]]: ...
    @overload
    def __call__(
        self, fn: Callable[[Any, list[X]], Coroutine[Any, Any, Sequence[Y]]]
    ) -> Batched[X, Coroutine[Any, Any, Y]]: ...
    @overload
    def __call__(self, fn: Callable[[list[X]], Sequence[Y]]) -> Batched[X, Y]: ...
    @overload
    def __call__(self, fn: Callable[[Any, list[X]], Sequence[Y]]) -> Batched[X, Y]: ...
    @overload
    def __call__(self, fn: Callable[..., Any]) -> Batched[Any, Any]: ...


@overload
def batched(fn: Callable[[list[X]], Coroutine[Any, Any, Sequence[Y]]]) -> Batched[X, Coroutine[Any, Any, Y]]: ...
@overload
def batched(fn: Callable[[Any, list[X]], Coroutine[Any, Any, Sequence[Y]]]) -> Batched[X, Coroutine[Any, Any, Y]]: ...
@overload
def batched(fn: Callable[[list[X]], Sequence[Y]]) -> Batched[X, Y]: ...
@overload
def batched(fn: Callable[[Any, list[X]], Sequence[Y]]) -> Batched[X, Y]: ...
@overload
def batched(**options: Any) -> _Decorator: ...
def batched(fn: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Turn a function of a list into a callable for one item, batched behind the scenes.

    Parameters
    ----------
    fn : callable
        ``def predict(xs: list[X]) -> list[Y]``, plain or ``async``, or such a method; with ``batch_as`` among the
        options, of arrays.
    **options
        Those of `Scheduler`.

    Returns
    -------
    Batched
        Call it with one item: a plain function's blocks and returns the result, an ``async`` one's is awaited.  Its
        ``scheduler`` is the `Scheduler` behind it, made on first use.

    Raises
    ------
    TypeError, ValueError
        On first use, if an option is bad; TypeError at once if `fn` is not callable.

    Examples
    --------
    >>> @batched(max_batch_size=16, metrics=False)
    ... def square(xs: list[int]) -> list[int]:
    ...     return [x * x for x in xs]
    >>> square(3)
    9
    >>> square.scheduler.shutdown()
    """

    def decorate(fn: Callable[..., Any]) -> Any:
        if not callable(fn):
            raise TypeError(f"batched takes a function, not {fn!r}; write options by name")
        return Batched(fn, options)

    return decorate if fn is None else decorate(fn)

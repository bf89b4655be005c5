"""Where the histograms draw their lines.

Bounds are part of a time series' identity: two machines that disagree in the last bit make two series.  So they come
from IEEE multiplication and comparison alone, which round alike everywhere; ``pow`` and ``log`` do not.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Final, SupportsFloat

__all__ = ["DELAY_BOUNDS_NS", "MAX_BUCKETS", "batch_size_bounds", "exponential_buckets"]

MAX_BUCKETS: Final = 160
"""Most buckets `exponential_buckets` makes, the infinite one included; each is a time series of its own."""

# A bound closer to `end` than this is `end`, blurred by rounding.  MAX_BUCKETS multiplications, with a factor that
# stands for a rounded decimal such as 1.1, are off by less than 2**-44; no bound that anybody means is this close.
# Held by test_a_bound_that_is_end_but_for_rounding_does_not_appear_beside_it.
_BELOW_END: Final = 1 - 2**-40

DELAY_BOUNDS_NS: Final = tuple(digit * 10**exponent for exponent in range(5, 11) for digit in (1, 2, 5))
"""Bounds of queue delay and service time in nanoseconds: 1, 2, 5, 10, ... from 100 us to 50 s.

Below 100 us a hand-over between threads (50 to 80 us) hides any difference; after 50 s the caller has gone.  Decimal
steps rather than powers of two, because that is where objectives lie: "95 % within 200 ms" must be a bound to be exact.
"""


def exponential_buckets(start: SupportsFloat, factor: SupportsFloat, end: SupportsFloat) -> tuple[float, ...]:
    """Return histogram bounds that grow by a factor, up to a given last one.

    Parameters
    ----------
    start : real number
        First bound, in (0, inf).
    factor : real number
        Each bound is the one before times this; in (1, inf).
    end : real number
        Last finite bound, in (0, inf), whether or not the steps hit it.  There may be nothing left to divide: with
        ``start >= end`` it is the only finite bound, as for the sizes of batches of at most one.

    Returns
    -------
    tuple of float
        Strictly increasing bounds, at most `MAX_BUCKETS`; the last two are `end` and infinity.  A step that misses
        `end` by less than one part in 2**40 (about 1e-12) is `end`: rounding makes no twins.  The same bits on every
        machine.

    Raises
    ------
    TypeError
        If an argument is no `numbers.Real`: a str, None or a complex; nor may it be a bool.
    ValueError
        If an argument as a float is out of its range or not finite, or if `factor` is so close to 1 that `end` is not
        reached within `MAX_BUCKETS`.

    Notes
    -----
    Takes at most `MAX_BUCKETS` multiplications, and is safe to call from any thread.

    Examples
    --------
    >>> exponential_buckets(1, 2, 20)
    (1.0, 2.0, 4.0, 8.0, 16.0, 20.0, inf)
    >>> exponential_buckets(1, 2, 1)
    (1.0, inf)

    Three times 0.1 is 0.30000000000000004, which is 0.3 all the same:

    >>> exponential_buckets(0.1, 3, 0.3)
    (0.1, 0.3, inf)
    >>> exponential_buckets(1, 1.01, 1000)
    Traceback (most recent call last):
        ...
    ValueError: factor must be large enough to get from 1.0 to 1000.0 within 160 buckets, got 1.01
    """
    start, factor, end = _positive("start", start), _positive("factor", factor), _positive("end", end)
    if factor <= 1:
        raise ValueError(f"factor must be above 1, got {factor!r}")
    bounds: list[float] = []
    bound = start
    while bound < end * _BELOW_END:
        # This also ends the loop where a step makes no progress, as 1.1 times the smallest float does not.
        if len(bounds) == MAX_BUCKETS - 2:
            reach = f"get from {start!r} to {end!r} within {MAX_BUCKETS} buckets"
            raise ValueError(f"factor must be large enough to {reach}, got {factor!r}")
        bounds.append(bound)
        bound *= factor  # infinite at worst, and then the loop is over
    return (*bounds, end, math.inf)


def batch_size_bounds(max_batch_size: int) -> tuple[int, ...]:
    """Return the engine's batch size bounds: powers of two, then `max_batch_size`.

    Parameters
    ----------
    max_batch_size : int
        Most requests in a batch, 1 to 2**30.

    Returns
    -------
    tuple of int
        At most 31 inclusive upper bounds, without the infinite one.

    Examples
    --------
    >>> batch_size_bounds(20)
    (1, 2, 4, 8, 16, 20)
    >>> batch_size_bounds(1)
    (1,)
    """
    return tuple(int(bound) for bound in exponential_buckets(1, 2, max_batch_size)[:-1])


def _positive(name: str, value: SupportsFloat) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{name} must be finite and above 0, got a number that no float can hold") from None
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be finite and above 0, got {number!r}")
    return number

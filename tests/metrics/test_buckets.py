"""The bucket bounds: exact, bounded, the same everywhere, and never a reason to crash."""

from __future__ import annotations

import doctest
import math
import sys
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pybatch.metrics import DELAY_BOUNDS_NS, MAX_BUCKETS, batch_size_bounds, buckets, exponential_buckets

inf = math.inf
tiny = math.ulp(0.0)
smallest_normal = sys.float_info.min
largest = sys.float_info.max

positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
normal = st.floats(min_value=smallest_normal, allow_infinity=False)
factors = st.floats(min_value=1, exclude_min=True, allow_infinity=False)
# Most of the whole range needs too many buckets; these make many calls that succeed.
useful_factors = st.one_of(factors, st.floats(min_value=1.1, max_value=100))


def test_bounds_grow_by_the_factor_and_finish_with_end_and_infinity():
    assert exponential_buckets(1, 2, 20) == (1, 2, 4, 8, 16, 20, inf)


def test_an_end_that_is_a_step_appears_once():
    assert exponential_buckets(1, 2, 16) == (1, 2, 4, 8, 16, inf)


def test_a_batch_of_at_most_one_leaves_a_single_bound():
    assert exponential_buckets(1, 2, 1) == (1, inf)


def test_a_start_beyond_the_end_leaves_the_end():
    assert exponential_buckets(5, 2, 3) == (3, inf)


@pytest.mark.parametrize(
    ("start", "factor", "end", "finite"),
    [
        (0.1, 2, 0.8, 4),
        (0.1, 3, 0.3, 2),  # 0.1 * 3 is above 0.3
        (0.1, 3, 0.9, 3),
        (0.001, 10, 1000, 7),  # 0.001 * 10**5 is below 100
        (1, 1.1, 1.1**30, 31),
        (1e-9, 10, 1e9, 19),
    ],
)
def test_a_bound_that_is_end_but_for_rounding_does_not_appear_beside_it(start, factor, end, finite):
    bounds = exponential_buckets(start, factor, end)
    assert len(bounds) == finite + 1
    assert bounds[-2] == end


@given(
    start=st.decimals(min_value="0.000001", max_value=1000, places=6),
    factor=st.decimals(min_value="1.01", max_value=20, places=2),
    steps=st.integers(0, MAX_BUCKETS - 2),
)
def test_a_decimal_end_reached_in_n_steps_makes_n_plus_one_finite_bounds(start, factor, steps):
    end = Fraction(start) * Fraction(factor) ** steps
    assert len(exponential_buckets(float(start), float(factor), end)) == steps + 2


@given(start=positive, factor=useful_factors, end=positive)
@example(start=tiny, factor=2.0, end=tiny)
@example(start=tiny, factor=2.0, end=9 * tiny)
@example(start=tiny, factor=1.1, end=1.0)
@example(start=tiny, factor=largest, end=largest)
@example(start=1.0, factor=1e300, end=1e308)
@example(start=largest / 2, factor=1.5, end=largest)
@example(start=1.0, factor=math.nextafter(1, 2), end=math.nextafter(1, 2))
@example(start=math.nextafter(largest, 0), factor=math.nextafter(1, 2), end=largest)
def test_any_range_gives_sound_bounds_or_refuses_the_factor(start, factor, end):
    try:
        bounds = exponential_buckets(start, factor, end)
    except ValueError as error:
        if not str(error).startswith("factor "):
            raise
        return
    assert len(bounds) <= MAX_BUCKETS
    assert bounds[-2:] == (end, inf)
    assert all(low < high for low, high in pairwise(bounds))
    *steps, last, _ = bounds
    assert steps[:1] in ([], [start])
    assert all(low * factor == high for low, high in pairwise(steps))
    if steps:
        assert steps[-1] * factor >= last * (1 - 2**-40), "a step is missing before the end"
        assert steps[-1] < last * (1 - 2**-40) or last < smallest_normal, "a twin of the end"
    else:
        assert start >= end * (1 - 2**-40)


@given(start=normal, factor=factors, end=normal)
@example(start=1.0, factor=2.0, end=2.0 ** (MAX_BUCKETS - 2))
@example(start=1.0, factor=2.0, end=2.0 ** (MAX_BUCKETS - 2) * 1.01)
def test_a_factor_is_refused_only_when_the_end_is_out_of_its_reach(start, factor, end):
    slack = 1 + Fraction(1, 2**39)
    reach = Fraction(start) * Fraction(factor) ** (MAX_BUCKETS - 2)
    assume(not Fraction(end) / slack < reach < Fraction(end) * slack)
    if reach < end:
        with pytest.raises(ValueError, match="factor must be large enough"):
            exponential_buckets(start, factor, end)
    else:
        assert exponential_buckets(start, factor, end)[-2] == end


@given(
    start=st.floats(1e-6, 1e6),
    factor=st.floats(1.3, 100),
    end=st.floats(1e-6, 1e6),
    exponent=st.integers(-100, 100),
)
def test_another_unit_that_is_a_power_of_two_scales_every_bound_exactly(start, factor, end, exponent):
    unit = 2.0**exponent
    scaled = exponential_buckets(start * unit, factor, end * unit)
    assert scaled == tuple(bound * unit for bound in exponential_buckets(start, factor, end))


@given(start=st.floats(smallest_normal, 1e300), factor=st.floats(1.1, 100), span=st.floats(1, 1e6))
def test_the_bits_are_those_of_exact_products_rounded_once_a_step(start, factor, span):
    *steps, _, _ = exponential_buckets(start, factor, start * span)
    assert all(float(Fraction(low) * Fraction(factor)) == high for low, high in pairwise(steps))


@pytest.mark.parametrize("number", [int, float, Fraction, np.float32, np.float64, np.int64, np.uint8])
def test_any_real_number_will_do(number):
    bounds = exponential_buckets(number(1), number(2), number(5))
    assert bounds == (1, 2, 4, 5, inf)
    assert {type(bound) for bound in bounds} == {float}


good = {"start": 1.0, "factor": 2.0, "end": 32.0}
each_argument = pytest.mark.parametrize("name", good)


@each_argument
@pytest.mark.parametrize("value", [True, np.True_, "1", b"1", None, 2j, np.complex128(2), Decimal(2), [2]])
def test_what_is_no_real_number_is_a_type_error_that_names_it(name, value):
    with pytest.raises(TypeError, match=f"^{name} must be a real number, got "):
        exponential_buckets(**{**good, name: value})


@each_argument
@pytest.mark.parametrize("value", [0, -0.0, -1, -tiny, inf, -inf, math.nan, np.float32("inf")])
def test_what_is_not_finite_and_positive_is_a_value_error_that_names_it(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be finite and above 0, got {float(value)!r}$"):
        exponential_buckets(**{**good, name: value})


@each_argument
@pytest.mark.parametrize(
    "value", [10**400, -(10**5000), Fraction(10**400, 3)], ids=["large", "unprintable", "Fraction"]
)
def test_what_no_float_can_hold_is_a_value_error_too(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be finite and above 0, got a number that no float can hold$"):
        exponential_buckets(**{**good, name: value})


@pytest.mark.parametrize("factor", [1, 0.5, tiny, Fraction(10**30 + 1, 10**30)])
@pytest.mark.parametrize("end", [32.0, 0.5], ids=["used", "unused"])
def test_a_factor_of_at_most_one_is_refused_even_when_it_would_not_be_used(factor, end):
    with pytest.raises(ValueError, match=f"^factor must be above 1, got {float(factor)!r}$"):
        exponential_buckets(1, factor, end)


@pytest.mark.parametrize(
    ("start", "factor", "end"),
    [(1, 1.0001, 1e6), (1, math.nextafter(1, 2), 2), (tiny, 1.4, 1.0), (tiny, 2, largest)],
    ids=["slow", "slowest", "standing still", "whole range"],
)
def test_a_factor_that_would_explode_is_refused_with_its_value_and_the_limit(start, factor, end):
    with pytest.raises(ValueError, match=rf"^factor .* {MAX_BUCKETS} buckets, got {factor * 1.0!r}$"):
        exponential_buckets(start, factor, end)


def test_the_largest_legal_count_is_made():
    assert len(exponential_buckets(1, 2, 2.0 ** (MAX_BUCKETS - 2))) == MAX_BUCKETS


@given(st.integers(1, 2**30))
@example(1)
@example(2**20)
@example(2**30)
def test_batch_size_bounds_are_few_whole_and_end_at_the_largest_batch(max_batch_size):
    bounds = batch_size_bounds(max_batch_size)
    assert len(bounds) <= 31
    assert bounds[-1] == max_batch_size
    assert all(low < high for low, high in pairwise(bounds))
    assert {type(bound) for bound in bounds} == {int}


def test_delay_bounds_are_few_and_have_the_round_numbers_that_objectives_name():
    assert len(DELAY_BOUNDS_NS) <= 31
    assert all(low < high for low, high in pairwise(DELAY_BOUNDS_NS))
    assert (DELAY_BOUNDS_NS[0], DELAY_BOUNDS_NS[-1]) == (100_000, 50_000_000_000)
    assert {5_000_000, 100_000_000, 1_000_000_000} < set(DELAY_BOUNDS_NS)


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(buckets).failed == 0

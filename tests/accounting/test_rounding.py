import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxaudit.accounting import conditional_bound, integer_norms, rounded

ENTRIES = st.lists(st.floats(-4, 4), min_size=1, max_size=5)


def norms(vector):
    magnitudes = [abs(float(x)) for x in vector]
    return math.fsum(magnitudes), math.hypot(*magnitudes), max(magnitudes)


def covered(vector, bounds):
    return all(norm <= bound * (1 + 1e-12) for norm, bound in zip(norms(vector), bounds, strict=True))


@pytest.mark.parametrize(
    "l2, dim, beta, bound",
    [
        (3.0, 16, 0.0, 7.0),
        (100.0, 4, 1e-300, 102.0),
        # l2² + d/4 + sqrt(2 · 1/2) (l2 + sqrt(d)/2) = 100 + 256 + 10 + 16
        (10.0, 1024, math.exp(-0.5), math.sqrt(382)),
        (np.inf, 7, 0.5, np.inf),
    ],
)
def test_conditional_bound_has_its_published_form(l2, dim, beta, bound):
    assert conditional_bound(l2, dim, beta) == pytest.approx(bound, rel=1e-14)


@pytest.mark.parametrize(
    "before, dim, rounding, after",
    [
        ((0.49, 0.49, 0.49), 10**6, "nearest", (0, 0, 0)),
        ((0.9, 0.9, 0.9), 10**6, "nearest", (1, 1, 1)),  # one entry can reach 1/2, and becomes 1
        ((np.inf, 1.0, np.inf), 10**6, "nearest", (4, 2, 1)),  # four entries of 1/2 and a little more
        ((np.inf, np.inf, 2.4), 1, "nearest", (2, 2, 2)),
        ((np.inf, np.inf, 2.4), 1, "stochastic", (3, 3, 3)),
        ((np.inf, 5.0, np.inf), 16, "stochastic", (36, 9, 5)),
        ((np.inf, 10.0, np.inf), 1024, "conditional", (382, math.sqrt(382), 10)),
        ((np.inf, np.inf, np.inf), 3, "stochastic", (np.inf, np.inf, np.inf)),
    ],
)
def test_norms_after_rounding_by_hand(before, dim, rounding, after):
    assert rounded(*before, dim, rounding, math.exp(-0.5)) == pytest.approx(after, rel=1e-5)


@given(ENTRIES)
def test_nearest_rounding_stays_within_the_norms(entries):
    assert covered(np.rint(entries), rounded(*norms(entries), len(entries), "nearest"))


@given(ENTRIES, st.sampled_from([0.1, 0.6]))
def test_every_stochastic_rounding_stays_within_the_norms(entries, beta):
    bounds = rounded(*norms(entries), len(entries), "stochastic")
    accepted = rounded(*norms(entries), len(entries), "conditional", beta)
    limit = conditional_bound(norms(entries)[1], len(entries), beta)
    for ends in itertools.product(*({math.floor(x), math.ceil(x)} for x in entries)):
        assert covered(ends, bounds)
        assert norms(ends)[1] > limit or covered(ends, accepted)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=6), st.floats(1, 2), st.floats(1, 2), st.floats(1, 2))
def test_integer_norms_hold_for_integers(vector, first, second, third):
    given_norms = [norm * loose for norm, loose in zip(norms(vector), (first, second, third), strict=True)]
    bounds = integer_norms(*given_norms, len(vector))
    assert covered(vector, bounds)
    assert all(bound <= norm * (1 + 2**-19) for bound, norm in zip(bounds, given_norms, strict=True))


@pytest.mark.parametrize("dim", [1, 4, 100])
@pytest.mark.parametrize("l2", [0.0, 0.5, 3.0, 1000.0])
def test_conditional_rounding_never_bounds_worse_than_stochastic(l2, dim):
    conditional = rounded(np.inf, l2, np.inf, dim, "conditional", 0.5)
    assert conditional <= rounded(np.inf, l2, np.inf, dim, "stochastic")


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"beta is 1\.0, allowed is"):
        conditional_bound(1.0, 4, 1.0)
    with pytest.raises(ValueError, match=r"norm is -1\.0"):
        rounded(-1.0, 1.0, 1.0, 4, "nearest")
    with pytest.raises(ValueError, match="dim is 0"):
        conditional_bound(1.0, 0, 0.5)
    with pytest.raises(ValueError, match="rounding is 'up', allowed are nearest"):
        rounded(1.0, 1.0, 1.0, 4, "up")

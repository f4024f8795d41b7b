"""Presets: shifts, or a bias, under which a head answers with a tie of two labels or with one label."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from jaxaudit.attacks.label_leakage.presets import bias_one_hot, bias_tie, channels_for, one_hot, tie

DIM = 512
# Known answers by a linear program, 12 random heads each: classes, channels, then feasible ties and the median length
# of their shifts (of few channels it has a heavy tail, which no median of 12 shows), then the same for single labels.
ANSWERS = [
    (10, 8, 9, np.inf, 11, np.inf),
    (10, 16, 12, np.inf, 12, np.inf),
    (10, 64, 12, 182, 12, 139),
    (100, 16, 8, np.inf, 9, np.inf),
    (100, 32, 12, np.inf, 12, np.inf),
    (100, 128, 12, 151, 12, 116),
]


def head(seed, classes, bias=0.0, dim=DIM):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((dim, classes)) / np.sqrt(dim), bias * rng.standard_normal(classes)


def first(channels, dim=DIM):
    return np.arange(dim) < channels


def probabilities(kernel, bias, embedding):
    """As a client computes them, in float32."""
    logits = np.float32(embedding) @ np.float32(kernel) + np.float32(bias)
    return np.asarray(jax.nn.softmax(logits))


def found(preset, *args, **limits):
    try:
        return preset(*args, **limits)
    except ValueError:
        return None


def test_a_tie_on_two_channels_is_the_only_one_there_is():
    kernel = np.array([[0.3, 0.1, -0.1], [0.1, 0.2, -0.2], [9.0, 9.0, 9.0]])
    # (0.2, -0.1)·β = 0 makes β a multiple of (1, 2), which puts 0 ahead of 2 by 1, so a margin of 20 takes 20 of it.
    beta = tie(kernel, np.zeros(3), [True, True, False], (0, 1))
    np.testing.assert_allclose(beta, [20, 40, 0], rtol=1e-6)
    np.testing.assert_allclose(tie(kernel, np.zeros(3), [True, True, False], (0, 1), length=2e3), beta * 50, rtol=0.1)
    # An odds of b₁ - b₀ = 0.1 takes (0.2, -0.1)·β = 0.1, which is (0.5, 0) and what it was.
    beta = tie(kernel, np.array([0.0, 0.1, -20.0]), [True, True, False], (0, 1), margin=20.1)
    np.testing.assert_allclose(beta, [0.5, 0, 0], atol=1e-4)


def test_one_label_on_one_channel_is_its_margin_over_the_nearest():
    kernel, bias = np.array([[0.5, 0.4, 0.1]]), np.array([0.0, 1.0, 2.0])
    # (0.5 - 0.4) β >= 20 + 1 and (0.5 - 0.1) β >= 20 + 2.
    np.testing.assert_allclose(one_hot(kernel, bias, [True]), [210], rtol=1e-6)
    with pytest.raises(ValueError, match="label 2 at odds of one is not feasible on 1 channels; give"):
        one_hot(kernel, bias, [True], label=2)


@pytest.mark.parametrize(("classes", "channels", "ties", "longest_tie", "singles", "longest_single"), ANSWERS)
def test_presets_are_feasible_as_often_as_known(classes, channels, ties, longest_tie, singles, longest_single):
    # False alarm: at most 1e-6 for each of the 12 shares.
    draws, support = 16, first(channels)
    for preset, feasible, longest in ((tie, ties, longest_tie), (one_hot, singles, longest_single)):
        tried = [found(preset, *head(seed, classes), support) for seed in range(draws)]
        lengths = [np.linalg.norm(beta) for beta in tried if beta is not None]
        assert fisher_exact([[feasible, 12 - feasible], [len(lengths), draws - len(lengths)]]).pvalue > 1e-6
        assert np.median(lengths) <= longest


@given(
    st.sampled_from([2, 3, 6]), st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 5.0, 800.0]), st.integers(0, 2**16)
)
def test_shifts_are_what_was_asked_for(classes, biased, length, seed):
    kernel, bias = head(seed, classes, biased)
    support = np.random.default_rng(seed).permutation(first(64))
    for preset, labels in ((tie, [1, 0]), (one_hot, [1])):
        beta = preset(kernel, bias, support, labels if preset is tie else 1, margin=20.0, length=length)
        logits = beta @ kernel + bias
        assert beta.min() >= 0
        assert not beta[~support].any()
        assert np.linalg.norm(beta) >= length
        assert np.ptp(logits[labels]) < 1e-9
        others = np.delete(logits, labels)
        assert others.size == 0 or logits[labels].min() - others.max() >= 20


def test_a_ceiling_holds_or_is_named():
    kernel, bias = head(0, 10)
    assert tie(kernel, bias, first(64), ceiling=60.0).max() <= 60
    assert np.linalg.norm(tie(kernel, bias, first(64), ceiling=60.0, length=300)) >= 300
    with pytest.raises(ValueError, match="a tie of labels 0 and 1 is not feasible on 64 channels"):
        tie(kernel, bias, first(64), ceiling=6.0)
    with pytest.raises(ValueError, match="shifts of length 480 below the model's ceiling of 60; lower attack"):
        tie(kernel, bias, first(64), ceiling=60.0, length=480)


def test_what_is_not_feasible_is_said_in_one_line():
    kernel, bias = head(0, 10)
    words = (
        "a tie of labels 0 and 1 is not feasible on 2 channels; give the target more (fewer clients or a wider "
        "model), or attack.edits = norm_and_bias"
    )
    with pytest.raises(ValueError) as caught:
        tie(kernel, bias, first(2))
    assert str(caught.value) == words
    with pytest.raises(ValueError, match="but 6 channels feed 512 inputs of the head"):
        tie(kernel, bias, np.ones(6, bool))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("preset", "of"), [("tie", tie), ("one_hot", lambda *args: one_hot(*args, 1))])
def test_channels_are_the_least_power_of_two(seed, preset, of):
    kernel, bias = head(seed, 100)
    labels = (1, 0)
    width = channels_for(preset, kernel, bias, labels, DIM)
    assert width in (16, 32, 64)
    args = (labels,) if preset == "tie" else ()
    assert of(kernel, bias, first(width), *args).any()
    assert width == 16 or found(of, kernel, bias, first(width // 2), *args) is None


def test_few_channels_are_used_whole_and_all_may_be_too_few():
    kernel = np.abs(head(0, 3, dim=5)[0]) * [1.0, 1.0, -1.0]
    assert channels_for("one_hot", kernel, np.zeros(3), (0, 1), 5) == 5
    with pytest.raises(ValueError, match="label 2 at odds of one is not feasible on 5 channels"):
        channels_for("one_hot", kernel, np.zeros(3), (2, 1), 5)
    # A ceiling takes more channels than the sign of the head does.
    kernel, bias = head(0, 10)
    assert channels_for("one_hot", kernel, bias, (0, 1), DIM) == 16
    assert channels_for("one_hot", kernel, bias, (0, 1), DIM, ceiling=6.0) == 256
    assert found(one_hot, kernel, bias, first(128), 0, ceiling=6.0) is None


@given(st.sampled_from([2, 10, 100]), st.sampled_from([0.1, 1.0, 100.0]), st.integers(0, 2**16))
def test_a_bias_ties_two_labels_in_float32(classes, length, seed):
    kernel, bias = head(seed, classes, bias=1.0)
    embedding = np.maximum(np.random.default_rng(seed).standard_normal(DIM), 0)
    embedding *= length / np.linalg.norm(embedding)
    edited = bias_tie(kernel, bias, embedding, (1, 0))
    assert edited.dtype == np.float32
    odds = probabilities(kernel, edited, embedding)
    np.testing.assert_allclose(odds[:2], 0.5, atol=1e-4)
    assert odds[2:].sum() < 1e-10
    # The honest bias but where it must change: one of the two stays, others only fall.
    assert (edited[:2] == np.float32(bias[:2])).any()
    assert (edited[2:] <= np.float32(bias[2:])).all()


@given(st.sampled_from([2, 10, 100]), st.sampled_from([0.1, 1.0, 100.0, 1e6]), st.integers(0, 2**16))
def test_a_bias_makes_one_label_certain_in_float32(classes, length, seed):
    kernel, bias = head(seed, classes, bias=1.0)
    embedding = np.maximum(np.random.default_rng(seed).standard_normal(DIM), 0)
    embedding *= length / np.linalg.norm(embedding)
    edited = bias_one_hot(kernel, bias, embedding, 1)
    assert edited.dtype == np.float32
    np.testing.assert_array_equal(probabilities(kernel, edited, embedding), np.arange(classes) == 1)
    assert edited[1] == np.float32(bias[1])
    assert (edited <= np.float32(bias)).all()

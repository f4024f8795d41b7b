"""Parts of one sample of scores: a pilot and the rest, the same many times, and coins for samples of fixed size."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .certify import epsilon_at
from .methods import failure_probability
from .pilot import robust_pilot
from .records import Method, Plan, part_of
from .samples import Scores

# A pilot of 500 is enough for a Gaussian fit and 20,000 for both tails; a twentieth is little beside the rest, and a
# tenth is what a small sample can spare.
_SHARE, _SHARE_OF_FEW, _ENOUGH, _MOST = 0.05, 0.1, 500, 20_000
# What a seed is used for: coins and splits of one seed must not read the same words.
_SPLIT, _TOSS = 1, 2
# Standard deviations of the number of heads that a sample of fixed size has room for.
_ROOM = 5.0


def split(scores: Scores, seed: int, share: float | None = None, most: int = _MOST) -> tuple[Scores, Scores]:
    """Split a sample at random into a pilot and the scores that certify.

    Where the arrays may share draws the same indices are taken from both, so that no draw is on both sides.

    Args:
      scores: of both hypotheses.
      seed: of the split.
      share: of the scores that become the pilot, in (0, 1); by default a twentieth, or up to a tenth of few scores.
      most: scores of each hypothesis in a pilot.

    Returns:
      (pilot, rest), with streams of their own.

    Raises:
      ValueError: where one of the parts would be empty.
    """
    named = f"split {seed} {share} {most}"
    if share is not None and not 0 < share < 1:
        raise ValueError(f"share of the pilot must be in (0, 1), got {share}")
    rng, sizes = _words(seed, _SPLIT), (scores.h0.size, scores.h1.size)
    wanted, failed = [_pilot_size(size, share, most) for size in sizes], scores.failed
    if min(wanted) < 1 or any(size - pilot < 1 for size, pilot in zip(sizes, wanted)):
        raise ValueError(f"{min(sizes)} scores cannot be split into a pilot and a rest; give more scores")
    if scores.design in ("paired", "nested"):
        chosen = rng.choice(max(sizes), max(wanted), replace=False, shuffle=False)
        picked = [chosen[chosen < size] for size in sizes]
    elif scores.design == "labelled":
        # Of all trials, whatever their labels and whether they failed: a number of each label would leave coins that
        # are not independent.
        m = sum(scores.trials)
        chosen = rng.choice(m, _pilot_size(m, share, 2 * most), replace=False, shuffle=False)
        picked = [chosen[chosen < scores.trials[0]], chosen[chosen >= scores.trials[0]] - scores.trials[0]]
        failed = tuple(int(f - (which >= size).sum()) for f, which, size in zip(failed, picked, sizes))
        picked = [which[which < size] for which, size in zip(picked, sizes)]
    else:
        picked = [rng.choice(size, pilot, replace=False, shuffle=False) for size, pilot in zip(sizes, wanted)]
    pilot = [array[which] for array, which in zip((scores.h0, scores.h1), picked)]
    rest = [np.delete(array, which) for array, which in zip((scores.h0, scores.h1), picked)]
    if not (all(part.size for part in pilot) and all(part.size for part in rest)):
        raise ValueError(f"{min(sizes)} scores cannot be split into a pilot and a rest; give more scores")
    return (
        Scores(*pilot, part_of(scores.stream, named, "pilot"), scores.design),
        # Trials without a score count as errors where errors are counted, and teach a pilot nothing.
        Scores(*rest, part_of(scores.stream, named, "certify"), scores.design, failed),
    )


def _words(seed: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose,)))


def _pilot_size(size: int, share: float | None, most: int) -> int:
    few = min(_ENOUGH, round(_SHARE_OF_FEW * size))
    return min(max(round(_SHARE * size), few) if share is None else round(share * size), most)


def multi_split(
    scores: Scores,
    delta: float,
    confidence: float = 0.95,
    method: Method = "union",
    splits: int = 20,
    seed: int = 0,
    choose: Callable[..., Plan] = robust_pilot,
) -> float:
    """Lower bound on epsilon that depends little on how the sample was split: the median over many splits.

    Args:
      scores: of both hypotheses.
      delta: in [0, 1).
      confidence: in (0, 1).
      method: sound for the design of the scores.
      splits: how many.
      seed: of all splits.
      choose: makes a plan from (pilot, trials, deltas, method, confidence).

    Returns:
      float, nats, at least 0.

    Guarantee:
      P(bound > true epsilon) <= 1 - confidence.

    Proof:
      Each split fails with probability at most α/2, its own level. The lower median exceeds the truth only where at
      least half of the splits fail, and by Markov's inequality P(failures ≥ splits / 2) ≤ (α/2) / (1/2) = α.

    Reference:
      Meinshausen, Meier & Bühlmann (2009), arXiv:0811.2177, Theorem 3.1.
    """
    if splits < 1:
        raise ValueError(f"splits must be 1 or more, got {splits}")
    halved, found = 1 - failure_probability(confidence) / 2, []
    for child in np.random.SeedSequence(seed).generate_state(splits):
        pilot, rest = split(scores, int(child))
        plan = choose(pilot, min(rest.trials), [delta], method, halved)
        found.append(epsilon_at(plan, rest.count(plan.thresholds), delta, halved).epsilon)
    return float(np.sort(found)[(splits - 1) // 2])


def toss(scores: Scores, seed: int) -> Scores:
    """Labelled trials from a sample of fixed size: a coin of its own decides which hypothesis a trial was made under.

    Pairs keep one of their two scores each. Of two independent samples of n or more, m = 2n - 5 √(2n) trials are
    taken, the number of heads is drawn as Bin(m, 1/2), and as many scores are chosen at random from each sample. In
    one case of two million there are too few; then what is returned certifies nothing, which keeps every guarantee.

    Args:
      scores: "paired", "nested" or "independent".
      seed: of the coins. Toss them once: choosing among seeds would be a selection.

    Returns:
      Scores of design "labelled".

    Raises:
      ValueError: for scores that are labelled already, pairs of unequal number, or fewer than 100 trials.
    """
    if scores.design == "labelled":
        raise ValueError("these scores are labelled already; their coins must not be tossed again")
    rng, n = _words(seed, _TOSS), min(scores.h0.size, scores.h1.size)
    if n < 100:
        raise ValueError(f"{n} trials, allowed are 100 or more under each hypothesis")
    if scores.design != "independent":
        if scores.h0.size != scores.h1.size or any(scores.failed):
            raise ValueError("coins for pairs need arrays of one length without failures; use the union method")
        heads = rng.random(n) < 0.5
        return replace(scores, h0=scores.h0[~heads], h1=scores.h1[heads], design="labelled")
    if any(scores.failed):
        raise ValueError("coins for a sample of fixed size need every trial's score; use the union method")
    trials = int(2 * n - np.ceil(_ROOM * np.sqrt(2 * n)))
    heads = int(rng.binomial(trials, 0.5))
    if heads > scores.h1.size or trials - heads > scores.h0.size:
        worst = max(scores.h0.max(), scores.h1.max()), min(scores.h0.min(), scores.h1.min())
        return Scores(np.full(100, worst[0]), np.full(100, worst[1]), scores.stream, "labelled")
    spared = [array.size - kept for array, kept in ((scores.h0, trials - heads), (scores.h1, heads))]
    kept = [
        np.delete(array, rng.choice(array.size, out, replace=False, shuffle=False))
        for array, out in zip((scores.h0, scores.h1), spared)
    ]
    return Scores(*kept, scores.stream, "labelled")

"""Trials of a pair of laws in every design, made from the same random numbers."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from reference import Law

from jaxaudit import bounds

LOOKS = 10


@dataclass(frozen=True)
class Sample:
    """Trials in every design: 2n labelled ones, n of each hypothesis, or n pairs.

    Attributes:
      law: of the scores.
      base: base draws, f64[2 n].
      coins: hypotheses of the labelled trials, bool[2 n].
      seed: for coins that are tossed afterwards, and for splits.
      stream: its name.
    """

    law: Law
    base: np.ndarray
    coins: np.ndarray
    seed: int
    stream: str

    @classmethod
    def draw(cls, law, rng, size, stream):
        return cls(law, law.draw(rng, 2 * size), rng.random(2 * size) < 0.5, int(rng.integers(2**32)), stream)

    @property
    def size(self):
        return self.base.size // 2

    def first(self, size):
        """Some of the trials."""
        return replace(self, base=self.base[: 2 * size], coins=self.coins[: 2 * size])

    @cached_property
    def independent(self):
        return self._scores(self.base[: self.size], self.base[self.size :], "independent")

    @cached_property
    def nested(self):
        return self._scores(self.base[: self.size], self.base[: self.size], "nested")

    @cached_property
    def paired(self):
        """Pairs as far from nested as they can be: few errors of one kind come with few of the other."""
        return self._scores(self.base[: self.size], self.law.mirrored(self.base[: self.size]), "paired")

    @cached_property
    def labelled(self):
        return self._scores(self.base[~self.coins], self.base[self.coins], "labelled")

    def _scores(self, h0, h1, design):
        return bounds.Scores(self.law.h0(h0), self.law.h1(h1), self.stream, design)

    def canaries(self):
        """Scores and coins of the labelled trials, in the order of the trials."""
        return np.where(self.coins, self.law.h1(self.base), self.law.h0(self.base)), self.coins

    def looks(self, design, threshold):
        """Errors i64[2, looks] and trials i64[2, looks] at growing numbers of trials, the last of them all."""
        ends = np.geomspace(self.size // 50, self.size, LOOKS).astype(int)
        heads = np.cumsum(self.coins)[2 * ends - 1]
        trials = np.array([2 * ends - heads, heads] if design == "labelled" else [ends, ends])
        scores = getattr(self, design)
        wrong = np.cumsum(scores.h0 >= threshold), np.cumsum(scores.h1 <= threshold)
        return np.array([errors[number - 1] for errors, number in zip(wrong, trials)]), trials

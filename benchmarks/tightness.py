"""How near certified bounds come to an ε that is known: means over many sets of scores, and against their number."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from measure import Page, at_least
from scipy.stats import norm

from jaxaudit import bounds

DELTA, CONFIDENCE = 1e-5, 0.95
FAILURE = 1 - CONFIDENCE
PINNED = {"jax-privacy": "2.0.0", "privacy-estimates": "0.1.0.post1"}
# Each number of trials needs a calibration of its own, which takes most of a second.
BAND_RUNS = 40
# What mean and two standard errors should reach in the Gaussian cells.
TARGETS = {
    "CC-CP, robust pilot": (2.24, 3.40, 5.93, 8.92),
    "CC-CP, Gaussian pilot": (2.30, 3.45, 6.08, 9.08),
    "PC-CP, robust pilot": (2.29, 3.42, 5.93, 8.88),
    "PC-CP, Gaussian pilot": (2.34, 3.47, 6.10, 9.02),
}


class Cell(NamedTuple):
    """Scores of H0 are of a law, those of H1 of the same law moved.

    Attributes:
      law: a method of NumPy's generators.
      shift: standard deviations of a normal law, scales of a Laplace law.
      scores: under each hypothesis, the pilot's included.
    """

    law: str
    shift: int
    scores: int

    @property
    def truth(self) -> float:
        """ε at DELTA; of Laplace laws the best event is a half line, and δ = 1 - exp((ε - shift) / 2)."""
        if self.law == "laplace":
            return self.shift + 2 * np.log1p(-DELTA)
        return bounds.gaussian_epsilon(DELTA, self.shift)

    @property
    def words(self) -> str:
        """Head of a column."""
        name = "Laplace, ε" if self.law == "laplace" else "Gaussian, μ"
        return f"{name} = {self.shift}, {self.scores:.0e}".replace("e+0", "e")

    def drawn(self, rng, design) -> bounds.Scores:
        """All scores; labelled ones are of 2 · scores trials, each with a coin of its own."""
        draw, heads = getattr(rng, self.law), self.scores
        if design == "labelled":
            heads = rng.binomial(2 * self.scores, 0.5)
        h0 = draw(size=2 * self.scores - heads)
        return bounds.Scores(h0, (h0 if design == "nested" else draw(size=heads)) + self.shift, "mine", design)

    def counted(self, rng, thresholds, design) -> bounds.Counts:
        """Counts of normal scores as `drawn` would give them, without the scores."""
        each, draws = self.scores, self.scores
        if design == "labelled":
            draws = rng.binomial(2 * each, 0.5)
            h0, h1 = _below(rng, thresholds, 2 * each - draws), _below(rng, thresholds - self.shift, draws)
        else:
            h0, h1 = np.split(_below(rng, np.concatenate([thresholds, thresholds - self.shift]), each), 2)
        trials = 2 * each - draws, draws
        return bounds.Counts(thresholds, trials[0] - h0, h1, *trials, "certify", design)


def _below(rng, places, numbers):
    """How many of independent normal numbers are below each place."""
    edges, where = np.unique(places, return_inverse=True)
    return rng.multinomial(numbers, np.diff(norm.cdf(edges), prepend=0, append=1)).cumsum()[where]


CELLS = (
    *(Cell("standard_normal", shift, size) for shift in (1, 3) for size in (10**4, 10**6)),
    *(Cell("laplace", shift, 10**4) for shift in (1, 3)),
)


def peer(name: str) -> bool:
    """Whether a peer is there, in the version that is compared with."""
    try:
        return version(name) == PINNED[name]
    except PackageNotFoundError:
        return False


def by_default(module, scores: bounds.Scores, deltas) -> list[float]:
    """What an auditing module with the interface of jax_privacy finds by default: one direction, all thresholds."""
    auditor = module.CanaryScoreAuditor(scores.h1, scores.h0)
    return [auditor.epsilon_clopper_pearson(FAILURE, delta) for delta in deltas]


def _jax_privacy(scores):
    from jax_privacy import auditing

    return by_default(auditing, scores, [DELTA])[0]


def section(page: Page, small: int, large: int) -> None:
    """Mean bounds of all methods, each from the same scores: so many runs of small cells and of large ones."""
    page.say(
        "## Tightness at δ = 1e-5",
        "",
        f"Mean bound of {CONFIDENCE:.0%} confidence ± its standard error, in {small} runs with 1e4 scores under each "
        f"hypothesis and {large} with 1e6 (the band in {min(BAND_RUNS, small)} and {min(BAND_RUNS, large)}); all "
        "methods see the same scores. The pilot comes out of them, by `bounds.split`; the band, the order statistics "
        "and jax_privacy need none. Last, the largest share, over the columns, of bounds above the true ε. What is "
        "not certified is read at the threshold of the Gaussian pilot; `gdp` is right for Gaussian scores only.",
        "",
    )
    for design, words in (
        ("labelled", "**Labelled trials**, twice as many as scores under each hypothesis, each with its own coin:"),
        ("nested", "**Pairs**: one draw serves both hypotheses."),
    ):
        page.say(words, "")
        runs = [
            [_every_bound(cell, design, (number, run)) for run in range(small if cell.scores < 10**5 else large)]
            for number, cell in enumerate(CELLS)
        ]
        page.table(f"method | {' | '.join(cell.words for cell in CELLS)} | above ε", _rows(runs))


def _rows(runs):
    yield "true ε", *(f"{cell.truth:.3f}" for cell in CELLS), ""
    for name in runs[0][0]:
        each = [np.array([found[name] for found in cell if name in found]) for cell in runs]
        above = max(np.mean(own > cell.truth) for own, cell in zip(each, CELLS))
        means, errors = zip(*((own.mean(), own.std() / np.sqrt(max(own.size - 1, 1))) for own in each))
        yield name, *(f"{mean:.3f} ± {error:.3f}" for mean, error in zip(means, errors)), f"{100 * above:.1f} %"
        if name in TARGETS:
            reached = zip(np.add(means, 2 * np.array(errors)), TARGETS[name])
            yield "mean + 2 standard errors", *(at_least(*one) for one in reached), "", "", ""


def _every_bound(cell, design, seed):
    """The bound of every method, by name, on the scores of one seed."""
    scores, short = cell.drawn(np.random.default_rng(seed), design), {"nested": "pc", "labelled": "cc"}[design]
    pilot, rest = bounds.split(scores, seed[1])
    trials, method, kind = min(rest.trials), f"{short}-cp", f"{short}-cp".upper()
    gaussian, found = bounds.gaussian_pilot(pilot, trials, [DELTA], method), {}
    for name, plan in (
        (f"{kind}, robust pilot", bounds.robust_pilot(pilot, trials, [DELTA], method)),
        (f"{kind}, Gaussian pilot", gaussian),
        ("union, robust pilot", bounds.robust_pilot(pilot, trials, [DELTA], "union")),
        ("anytime, robust pilot", bounds.robust_pilot(pilot, trials, [DELTA], f"{short}-anytime")),
    ):
        found[name] = bounds.epsilon_at(plan, rest.count(plan.thresholds), DELTA, CONFIDENCE).epsilon
    if seed[1] < BAND_RUNS:
        plan = bounds.declared(bounds.roc_thresholds(scores), [DELTA], "band")
        found["band"] = bounds.epsilon_at(plan, scores.count(plan.thresholds), DELTA, CONFIDENCE).epsilon
    if design == "labelled":
        found["order statistics"] = float(bounds.epsilon_order_statistics(scores, DELTA, FAILURE, "forward").epsilon)
    if peer("jax-privacy"):
        found["jax_privacy, its default"] = _jax_privacy(scores)
    (event,) = gaussian.events
    errors = rest.count([event.threshold]).at(event.threshold)
    # The melded bound is conjectured for hypotheses that share no draws.
    for name in ("melded", "jeffreys", "gdp") if design == "labelled" else ("jeffreys", "gdp"):
        estimate = bounds.ESTIMATES[name]
        value = estimate.function(*errors, rest.trials, DELTA, FAILURE, event.direction)
        found[f"not certified ({estimate.kind}): {name}"] = float(value)
    return found


def figure(path: Path, points, runs: int) -> None:
    """Mean bounds against the number of scores, of N(0, 1) and of N(μ, 1): powers of ten, runs of each."""
    import matplotlib.pyplot as plt

    from jaxaudit.plots import CEILING, ENERGY, MEASURED, PALETTE, PREDICTED, STYLE

    lines = {
        "CC-CP, labelled trials": ("cc-cp", "labelled", MEASURED, "-"),
        "PC-CP, pairs": ("pc-cp", "nested", ENERGY, "--"),
        "union, pairs": ("union", "nested", PALETTE[3], "-."),
        "band, any threshold": ("band", "nested", PALETTE[4], (0, (1, 1))),
    }
    sizes = [round(10**point) for point in points]
    with plt.rc_context(STYLE):
        drawn, panels = plt.subplots(1, 2, figsize=(8.4, 3.9))
        for ax, shift in zip(panels, (1, 3)):
            cells = [Cell("standard_normal", shift, size) for size in sizes]
            ax.axhline(cells[0].truth, color=PREDICTED, lw=1.6, label="true ε")
            top = [bounds.ceiling((size, size), DELTA, FAILURE, "cc-cp") for size in sizes]
            ax.plot(sizes, top, color=CEILING, ls=":", label="ceiling: no error at all")
            for name, (method, design, color, style) in lines.items():
                means = [
                    np.mean([_counted_bound(cell, method, design, run) for run in range(runs)]) for cell in cells
                ]
                ax.plot(sizes, means, color=color, ls=style, lw=2, label=name)
            if peer("jax-privacy"):
                few = [cell for cell in cells if cell.scores <= 10**6]
                ax.plot(
                    sizes[: len(few)],
                    [_peers_mean(cell, runs) for cell in few],
                    "kx",
                    clip_on=False,
                    label="jax_privacy, default",
                )
            ax.set(
                xscale="log",
                xlim=(sizes[0], sizes[-1]),
                ylim=(cells[0].truth / 5, 1.1 * cells[0].truth),
                title=f"Gaussian, μ = {shift}",
            )
            ax.yaxis.get_major_locator().set_params(integer=True, nbins=5)
            ax.set(xlabel="scores under each hypothesis, the pilot's included")
        panels[0].set(ylabel="ε (nats) at δ = $10^{-5}$")
        drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        for suffix in (".png", ".pdf"):
            drawn.savefig(path.with_suffix(suffix))


def _counted_bound(cell, method, design, run):
    """The bound of one run: a pilot of scores, and counts of the rest."""
    rng, pilots = np.random.default_rng((cell.shift, cell.scores, run)), min(cell.scores // 10, 20_000)
    if method == "band":
        plan = bounds.declared(np.linspace(-8, 8 + cell.shift, 500), [DELTA], method)
    else:
        pilot = cell._replace(scores=pilots).drawn(rng, design)
        plan = bounds.robust_pilot(pilot, cell.scores - pilots, [DELTA], method)
    counts = cell._replace(scores=cell.scores - pilots).counted(rng, plan.thresholds, design)
    return bounds.epsilon_at(plan, counts, DELTA, CONFIDENCE).epsilon


def _peers_mean(cell, runs):
    rngs = (
        np.random.default_rng((cell.shift, cell.scores, run)) for run in range(min(runs, 3 + 10**6 // cell.scores))
    )
    return np.mean([_jax_privacy(cell.drawn(rng, "labelled")) for rng in rngs])

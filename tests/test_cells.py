"""Many cells from the same draws are each of them alone; their bounds hold together; and pools are no populations.

The statistical tests fix their seeds; each says how often it would raise a false alarm.
"""

from dataclasses import replace
from functools import cache

import jax
import numpy as np
import pytest
import reference
from scipy import stats

import jaxaudit as ja
from jaxaudit import bounds, player
from jaxaudit.bounds import conditional
from jaxaudit.player import Player
from jaxaudit.populations.pool import PoolSums, RecordedPool

ONE = jax.devices()[:1]


def audit_of(population, attack=None, **more):
    return ja.Audit(population=population, aggregator=ja.SecureSum(), attack=attack or ja.GaussianLRT(), **more)


def scores_of(prepared, path="project", trials=512):
    """Scores cell by cell, without the slack that bounds stand off by."""
    game = getattr(prepared, path)()
    game = replace(game, slack=np.zeros_like(game.slack), nested=np.zeros_like(game.nested))
    return Player(tuple(ONE), 0, lambda name, trials: lambda done: None).scores(game, "certify", trials)


def saved(folder, name, **arrays):
    np.savez(folder / f"{name}.npz", **arrays)
    return str(folder / f"{name}.npz")


@pytest.fixture(scope="module")
def quick():
    """Hundreds of runs of a thousand trials: small batches of sums, and answers to the same numbers remembered.

    What a run computes is not touched: sums of integers do not depend on the batch, and remembered answers are the
    same.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(player._KEYS, "cpu", 2**14)
        patch.setattr(PoolSums, "width", lambda draws, params: 1024)
        patch.setattr(conditional, "delta_offset", remembering(conditional.delta_offset))
        for name, method in bounds.METHODS.items():
            patch.setitem(bounds.METHODS, name, replace(method, bound=remembering(method.bound)))
        yield


def remembering(function):
    answers = {}

    def answer(*args, **options):
        key = (
            *(arg if isinstance(arg, str) else (np.shape(arg), bytes(np.float64(arg))) for arg in args),
            *options.items(),
        )
        if key not in answers:
            answers[key] = function(*args, **options)
        return answers[key]

    return answer


# Cells.


@pytest.fixture(scope="module")
def several(pool_file):
    """Two pairs in three cohort sizes, the largest in the middle."""
    pair, cohort = ["random", "zeroed"], "without_replacement"
    return audit_of(ja.Arrays(path=str(pool_file), clients=[6, 15, 9], pair=pair, cohort=cohort)).prepare(0)


@pytest.fixture(scope="module")
def together(several):
    """All of them at once, on both paths."""
    return {path: scores_of(several, path) for path in ("fold", "project")}


@pytest.mark.parametrize("number", [0, 3, 4], ids=["random-6", "zeroed-15", "random-9"])
@pytest.mark.parametrize("path", ["fold", "project"])
def test_every_cell_has_the_scores_it_has_alone(several, together, path, number):
    """To the bit where the step is the same; alone, a smaller cohort may have a finer one."""
    cell, found = several.cells[number], together[path][number]
    alone = replace(several, cells=(cell,))
    (expected,) = scores_of(alone, path)
    games = [getattr(one, path)() for one in (several, alone)]
    many, one = (np.atleast_1d(game.scale if path == "project" else game.params.aggregator.step) for game in games)
    many, off = many[number if path == "project" else 0], 0.0
    if many != one[0]:
        assert cell.clients < 15 and one[0] < many
        # Half a step for every client in the score, or in each coordinate and float32.
        off = cell.clients * many
        if path == "fold":
            off = off * np.abs(cell.knowledge.weights).sum() + 2.0**-22 * np.abs(expected.h0).max()
    np.testing.assert_allclose(found.h0, expected.h0, rtol=0, atol=off)
    np.testing.assert_allclose(found.h1, expected.h1, rtol=0, atol=off)


def test_fold_and_project_agree_in_every_cell(together):
    for whole, short in zip(together["fold"], together["project"], strict=True):
        for left, right in ((whole.h0, short.h0), (whole.h1, short.h1)):
            np.testing.assert_allclose(left, right, rtol=0, atol=1e-5 * np.abs(left).max())


def test_a_recipe_of_one_size_is_a_cell_of_a_recipe_of_many(pool_file):
    """The largest cohort takes the same draws, whichever smaller ones are looked at on the way."""
    made = [
        audit_of(ja.Arrays(path=str(pool_file), clients=clients, cohort="with_replacement")).prepare(0)
        for clients in ([6, 15], 15)
    ]
    together, alone = scores_of(made[0])[1], scores_of(made[1])[0]
    np.testing.assert_array_equal(together.h0, alone.h0)
    np.testing.assert_array_equal(together.h1, alone.h1)


def test_distance_of_every_cell_is_that_of_its_scores(several):
    # Standard deviation of 65,536 scores: 0.3 % off; 2 % is far beyond any false alarm.
    game = several.project()
    for scores, distance in zip(scores_of(several, trials=65_536), game.distance):
        assert (scores.h1.mean() - scores.h0.mean()) / scores.h0.std() == pytest.approx(distance, rel=0.02)


@pytest.fixture(scope="module")
def result(pool_file):
    population = ja.Arrays(path=str(pool_file), clients=[6, 15, 9], pair=["random", "zeroed"])
    return ja.run(audit_of(population), trials=5000, deltas=[1e-1, 1e-2], confidence=0.9)


def test_cells_share_the_failure_probability_equally(result):
    assert len(result.cells) == 6 and result.recipe.confidence == 0.9
    for finding in result.cells:
        assert finding.confidence == pytest.approx(1 - 0.1 / 6, rel=1e-12)
        for bound in finding.bounds:
            assert bound.confidence == finding.confidence
            assert bound.significance <= 0.1 / 6
        shares = np.array([event.share for event in finding.plan.events])
        for bound in finding.bounds:
            # That of one of its events, which share what the cell may fail with.
            assert np.min(np.abs(shares / shares.sum() * 0.1 / 6 / bound.significance - 1)) < 1e-12
        assert all(bound.confidence == finding.confidence for bound in finding.population)


def test_cells_are_named_and_ordered_by_size_and_pair(result):
    assert [f.cell.name for f in result.cells] == [f"{pair}-{n}" for n in (6, 15, 9) for pair in ("random", "zeroed")]
    assert result.bounds == result.cells[0].bounds and result.headline is result.cells[0]


def test_every_cell_is_certified_with_its_own_counts(result):
    """From the scores of a certifying run, cell by cell."""
    game = result.prepared.game()
    scores = Player(tuple(ONE), 0, lambda name, trials: lambda done: None).scores(game, "certify", 5000)
    for finding, one in zip(result.cells, scores, strict=True):
        for found in (finding.histogram, finding.counts):
            counts = one.count(found.thresholds)
            np.testing.assert_array_equal(counts.errors_h0, found.errors_h0)
            np.testing.assert_array_equal(counts.errors_h1, found.errors_h1)
        for delta in finding.deltas:
            assert bounds.epsilon_at(finding.plan, counts, delta, finding.confidence) == finding.bound(delta)


# Rounds.


@pytest.fixture(scope="module")
def rounds_file(tmp_path_factory):
    """Three rounds of 60 clients, 4 updates each, of different noise in 5 dimensions."""
    rng = np.random.default_rng(3)
    updates = [rng.standard_normal((240, 5)) @ rng.standard_normal((5, 5)) for _ in range(3)]
    folder = tmp_path_factory.mktemp("rounds")
    arrays = {"client": np.tile(np.repeat(np.arange(60), 4), 3), "round": np.repeat([2, 5, 7], 240)}
    return saved(folder, "u", updates=np.concatenate(updates).astype(np.float32), **arrays)


def of_rounds(path, rounds, cohort, ridge=1e-9, **more):
    population = ja.Arrays(path=path, rounds=rounds, clients=[12, 6], cohort=cohort, pair="zeroed")
    return audit_of(population, ja.GaussianLRT(ridge=ridge), **more).prepare(0)


@pytest.mark.parametrize("cohort", ["fixed", "with_replacement", "without_replacement"])
def test_independent_rounds_add_their_squared_distances(cohort, rounds_file):
    """The best test of all rounds is the sum of the best of each: Δ² = Σ Δ_r², for a server that knows the pool."""
    knows = {"server_knows": "certify_pool"}
    each = [of_rounds(rounds_file, (r,), cohort, **knows).project().distance for r in (2, 5, 7)]
    found = of_rounds(rounds_file, (2, 5, 7), cohort, **knows).project().distance
    np.testing.assert_allclose(found**2, np.sum(np.square(each), axis=0), rtol=1e-6)


def test_rounds_add_their_log_likelihood_ratios(rounds_file):
    # Separation of 65,536 scores of all rounds together, against exact moments: 0.3 % off, 2 % is no false alarm.
    prepared = of_rounds(rounds_file, (2, 5, 7), "without_replacement")
    for scores, distance in zip(scores_of(prepared, trials=65_536), prepared.project().distance):
        assert (scores.h1.mean() - scores.h0.mean()) / scores.h0.std() == pytest.approx(distance, rel=0.02)
    for cell in prepared.cells:
        singles = [of_rounds(rounds_file, (r,), "without_replacement").cells for r in (2, 5, 7)]
        own = [next(c for c in cells if c.name == cell.name).knowledge for cells in singles]
        np.testing.assert_allclose(cell.knowledge.weights, np.concatenate([test.weights for test in own]), rtol=1e-9)
        np.testing.assert_allclose(cell.knowledge.each, np.concatenate([test.each for test in own]), rtol=1e-9)
        np.testing.assert_allclose(cell.knowledge.offset, np.concatenate([test.offset for test in own]), rtol=1e-9)


@pytest.mark.parametrize("path", ["fold", "project"])
def test_one_round_of_many_is_that_round_alone(path, rounds_file, tmp_path):
    arrays = np.load(rounds_file)
    own = {name: arrays[name][arrays["round"] == 5] for name in ("updates", "client")}
    alone = audit_of(ja.Arrays(path=saved(tmp_path, "own", **own), clients=[12, 6], pair="zeroed")).prepare(0)
    listed = of_rounds(rounds_file, (5,), "with_replacement", ridge=0.03)
    for left, right in zip(scores_of(alone, path), scores_of(listed, path)):
        np.testing.assert_array_equal(left.h0, right.h0)
        np.testing.assert_array_equal(left.h1, right.h1)


def test_fold_and_project_agree_over_rounds(rounds_file):
    prepared = of_rounds(rounds_file, (2, 5, 7), "without_replacement")
    for whole, short in zip(scores_of(prepared, "fold"), scores_of(prepared, "project"), strict=True):
        np.testing.assert_allclose(whole.h0, short.h0, rtol=0, atol=1e-4 * np.abs(whole.h0).max())
        np.testing.assert_allclose(whole.h1, short.h1, rtol=0, atol=1e-4 * np.abs(whole.h1).max())


def test_the_model_moves_on_between_rounds_and_training_goes_on_as_it_would_have():
    def models(rounds, audited):
        population = ja.Federated(clients=6, variants=4, rounds=rounds, audited_rounds=audited)
        sources = population.respond(0, None).certify.sources
        return np.stack([np.asarray(source.model.theta) for source in sources])

    path = models(1, 3)
    assert len(np.unique(path, axis=0)) == 3
    np.testing.assert_array_equal(models(2, 2), path[1:])
    np.testing.assert_array_equal(models(3, 1), path[2:])


def test_a_bound_over_rounds_says_that_later_models_were_kept():
    """One participation moves while later rounds stay as they were: a mechanism of its own, and it must be said."""
    population = ja.Federated(clients=6, variants=4, rounds=0, audited_rounds=2)
    prepared = audit_of(population).prepare(0)
    said = prepared.statement(prepared.cells[0])
    assert "2 rounds" in said and "the recorded course of the model (no trial changes it)" in said


# Finite pools.

DIM, SHIFT = 60, 1.0


def gaussian_pool(folder, certify, fit, seed):
    """Standard normal rows whose first `2 + fit + certify` are split as asked; and a pair on the first axis."""
    rows = np.random.default_rng(seed).standard_normal((2 + fit + certify, DIM)).astype(np.float32)
    np.save(folder / "u.npy", rows)
    pair = saved(folder, "pair", h0=np.zeros(DIM), h1=SHIFT * np.eye(DIM)[0])
    return {"path": str(folder / "u.npy"), "pair": pair, "fit_share": fit / (fit + certify)}


@pytest.mark.parametrize("cohort", ["with_replacement", "without_replacement"])
def test_a_server_that_knows_the_pool_sees_further_than_the_population_allows(cohort, tmp_path):
    """Δ²_pool = Δ² P / χ²(P - d), times (P - 1) / (P - n) without replacement, for P normal rows and n noise terms.

    Exactly so: the squared distance under a sample covariance is an inverse chi-square. The mean is d / P of
    1 / (1 - d / P) more than the population's, as the rule says. Two-sided at 1e-6 for each of 16 cells.
    """
    for seed in range(4):
        pool, cut = 120, stats.chi2(120 - DIM)
        recipe = gaussian_pool(tmp_path, pool, 40, seed)
        population = ja.Arrays(**recipe, clients=[3, 31], cohort=cohort)
        prepared = audit_of(population, ja.GaussianLRT(ridge=1e-9), server_knows="certify_pool").prepare(seed)
        assert len(prepared.responses.certify.sources[0].sizes) == pool
        for cell, distance in zip(prepared.cells, prepared.project().distance, strict=True):
            terms = cell.server.noise_terms
            spread = (pool - 1) / (pool - terms) if cohort == "without_replacement" else 1.0
            seen = SHIFT**2 / terms * pool * spread / distance**2
            assert cut.ppf(5e-7) < seen < cut.ppf(1 - 5e-7)


def test_the_inflation_is_what_the_rules_say(tmp_path):
    # Means of 12 pools, within 1 / √(1 - d / P) by 8 %: one standard deviation of the mean is 2.6 %, so 1 in 1,000.
    for pool in (90, 120, 240):
        found = []
        for seed in range(12):
            population = ja.Arrays(**gaussian_pool(tmp_path, pool, 4, seed), clients=4)
            attack = ja.GaussianLRT(ridge=1e-9)
            prepared = audit_of(population, attack, server_knows="certify_pool").prepare(seed)
            found.append(prepared.project().distance[0] / (SHIFT / np.sqrt(3)))
        assert np.median(found) == pytest.approx(1 / np.sqrt(1 - DIM / pool), rel=0.12)


@pytest.mark.parametrize("cohort", ["with_replacement", "without_replacement"])
def test_a_server_that_learned_elsewhere_sees_no_further(cohort, tmp_path):
    """Weights that had no part in the pool: w'S w / w'w is χ²(P - 1) / P. At 1e-6 for each of 16 cells."""
    for seed in range(4):
        pool = 120
        population = ja.Arrays(**gaussian_pool(tmp_path, pool, 120, seed), clients=[3, 31], cohort=cohort)
        prepared = audit_of(population, ja.GaussianLRT(ridge=1e-9)).prepare(seed)
        for cell, distance in zip(prepared.cells, prepared.project().distance, strict=True):
            terms = cell.server.noise_terms
            weights = cell.knowledge.weights[0]
            spread = (pool - terms) / (pool - 1) if cohort == "without_replacement" else 1.0
            own = SHIFT * weights[0] / np.linalg.norm(weights) / np.sqrt(terms * spread)
            assert own * np.sqrt(spread) <= SHIFT / np.sqrt(terms)
            low, high = stats.chi2(pool - 1).ppf([5e-7, 1 - 5e-7]) / pool
            assert low < (own / distance) ** 2 < high


# The population that a pool comes from.


def population_run(
    folder, seed, certify=300, fit=200, dim=3, shift=2.0, clients=(3, 6), stretch=1, stretched=(), **more
):
    """Rows from N(0, I), some of them stretched; a pair `shift` apart, cohorts without replacement."""
    rows = np.random.default_rng(seed).standard_normal((2 + fit + certify, dim)).astype(np.float32)
    rows[list(stretched)] *= np.float32(stretch)
    np.save(folder / "u.npy", rows)
    pair = saved(folder, "pair", h0=np.zeros(dim), h1=shift * np.eye(dim)[0])
    knows = {name: more.pop(name) for name in ("server_knows",) if name in more}
    population = ja.Arrays(
        path=str(folder / "u.npy"),
        pair=pair,
        clients=clients,
        cohort="without_replacement",
        fit_share=fit / (fit + certify),
    )
    audit = audit_of(population, ja.GaussianLRT(**{"ridge": 1e-6} | more), **knows)
    return ja.run(audit, trials=1000, seed=seed, deltas=[0.1], devices=ONE)


def test_population_bounds_stay_below_the_truth(tmp_path, quick):
    """60 pools: a row of bounds exceeds the truth with probability 5 % at most; more than 11 of them: below 1e-4."""
    exceeded, close = 0, []
    for seed in range(60):
        result = population_run(tmp_path, seed)
        above = False
        for finding in result.cells:
            terms = finding.cell.server.noise_terms
            weights = finding.cell.knowledge.weights[0]
            truth = bounds.gaussian_epsilon(0.1, 2.0 * weights[0] / np.linalg.norm(weights) / np.sqrt(terms))
            (bound,) = finding.population
            assert bound.trials == 300 // terms and bound.kind == "certified"
            above |= bound.epsilon > truth
            close.append(bound.epsilon / truth)
        exceeded += above
    assert exceeded <= 11
    assert np.mean(close) > 0.1  # and is not sound by saying nothing


@pytest.mark.parametrize("law", [True, False], ids=["law", "fixed clients"])
def test_where_nobody_is_a_sample_nothing_is_said_about_a_population(law, pool_file, quick):
    known = ja.Synthetic(law="gaussian", dim=2, clients=5)
    population = known if law else ja.Arrays(path=str(pool_file), clients=5, cohort="fixed")
    result = ja.run(audit_of(population), trials=1000, deltas=[0.1], devices=ONE)
    assert all(finding.population == () for finding in result.cells)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"cohort": "with_replacement", "partition": "by_class"},
        {"cohort": "without_replacement", "partition": "dirichlet"},
    ],
    ids=["fixed", "by class", "dirichlet"],
)
def test_clients_that_are_not_alike_or_trained_the_model_are_no_sample(fields):
    population = ja.Federated(clients=5, rounds=0, variants=2, pool_clients=20 * bool(fields), **fields)
    assert population.respond(0, None).fresh == ""


def test_independent_clients_speak_of_their_population(quick):
    population = ja.Federated(clients=[5, 8], rounds=0, variants=1, cohort="without_replacement", pool_clients=60)
    result = ja.run(audit_of(population), trials=1000, deltas=[0.1], devices=ONE)
    assert [finding.population[0].trials for finding in result.cells] == [60 // 4, 60 // 7]
    words = result.headline.population_statement
    assert "independent draws from one law" in words and "4 distinct clients of the population" in words


def test_a_server_that_knows_the_pool_says_nothing_about_the_population(tmp_path, quick):
    """Its weights were fitted to the very cohorts that would be the trials: the event is not fixed on other data."""
    # 66 rows in 60 dimensions: the pool is told apart where the population is not.
    result = population_run(tmp_path, 0, 66, 66, dim=60, shift=0.5, clients=2, server_knows="certify_pool")
    assert result.headline.population == ()


def test_the_audited_clients_do_not_choose_what_is_asked_about_their_population(tmp_path, quick, monkeypatch):
    """Settings are tuned on the audited pool's pilot trials; the population's are not, and nor are its thresholds."""
    asked, disjoint, ridge = [], RecordedPool.disjoint, [1e-6, 1.0, 100.0]

    def watched(pool, columns):
        asked.append(np.stack([column.test.weights for column in columns]))
        return disjoint(pool, columns)

    monkeypatch.setattr(RecordedPool, "disjoint", watched)
    first = population_run(tmp_path, 0, ridge=ridge, stretch=(1, 1, 1))
    order = first.prepared.responses.certify.sources[0].order
    second = population_run(tmp_path, 0, ridge=ridge, stretch=(0.2, 1, 30), stretched=order)
    np.testing.assert_array_equal(asked[0], asked[1])
    for one, other in zip(first.cells, second.cells, strict=True):
        assert one.population[0].significance == other.population[0].significance
        assert one.distance != other.distance


# Soundness of the whole path.


def test_no_bound_of_any_cell_exceeds_a_gaussian_epsilon(quick):
    """Two cohorts of two pairs with a closed form, all bounds together at 95 %.

    Allowed are 5 % of 300 runs: 32 or more have probability 1e-4 even if the guarantee were met with equality.
    """
    population = ja.Synthetic(law="gaussian", dim=2, clients=[3, 6], pair=["antipodal", "zeroed"])
    audit, deltas = audit_of(population, ja.GaussianLRT(ridge=1e-9)), (0.3, 1e-2)
    exceeded = 0
    for seed in range(300):
        result = ja.run(audit, trials=2000, seed=seed, deltas=deltas, devices=ONE)
        above = False
        for finding in result.cells:
            length = {"antipodal": 2, "zeroed": 1}[finding.cell.pair.name] * np.sqrt(2)
            distance = length / np.sqrt(finding.cell.server.noise_terms)
            for delta in (*deltas, 0.1):
                above |= finding.bound(delta).epsilon > gaussian_truth(delta, distance)
        exceeded += above
    assert exceeded <= 31


gaussian_truth = cache(bounds.gaussian_epsilon)


DELTA, ENDS = 2e-3, (1, 2, -1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, quick):
    """60 runs of six cells, [run][cell] (finding, true epsilon): the truth from the law of the audited pool.

    Whole numbers whose tails fall by four: every threshold in a tail tells the same ε, so bounds come close to it.
    """
    folder = tmp_path_factory.mktemp("geometric")
    values = np.arange(-6, 7)
    rows = np.repeat(values, 4 ** (7 - np.abs(values))).astype(np.float32)[:, None]
    pairs = tuple(saved(folder, f"to{end}", h0=np.zeros(1), h1=np.full(1, end)) for end in ENDS)
    population = ja.Arrays(path=saved(folder, "u", updates=rows), clients=(2, 3), pair=pairs)
    made = []
    for seed in range(60):
        result = ja.run(audit_of(population), trials=1000, seed=seed, deltas=[DELTA], devices=ONE)
        source = result.prepared.responses.certify.sources[0]
        one = np.bincount(source.rows(0, len(source.sizes))[:, 0].astype(int) + 6, minlength=13) / len(source.sizes)
        laws = {2: one, 3: np.convolve(one, one)}
        made.append(
            [(finding, lattice_truth(laws[finding.cell.clients], finding.cell.pair)) for finding in result.cells]
        )
    return made


def lattice_truth(law, pair):
    """Exact epsilon of a law on whole numbers against the same law moved by h1."""
    moved = [np.pad(law, (2 + shift, 2 - shift)) for shift in (0, int(pair.h1[0, 0]))]
    return reference.discrete_epsilon(DELTA, *moved)


def failures(runs, share):
    """Runs in which the bound of some cell exceeds so much of its truth."""
    return sum(any(f.bound(DELTA).epsilon > share * truth for f, truth in cells) for cells in runs)


def test_no_bound_of_any_cell_exceeds_a_lattice_epsilon(runs):
    """All six together at 95 %: 12 or more of 60 have probability 4e-5 even if that were met with equality."""
    assert failures(runs, 1.0) <= 11


def test_a_rule_that_overstates_by_a_sixth_would_be_caught(runs):
    """The bounds come so close to the truth that the test above has something to say."""
    assert failures(runs, 6 / 7) > 11

"""A recipe says the same in Python, in TOML and on the command line, and what is not legal is refused in one line."""

import dataclasses
import json
import sys
import tomllib
from importlib.metadata import EntryPoint

import numpy as np
import pytest

import jaxaudit as ja
from jaxaudit import config, parts

# One legal value for every field of every part, unlike its default wherever there is a choice.
PARTS = {
    ja.Federated: {
        "dataset": "mnist",
        "model": "mlp",
        "hidden": 5,
        "clients": 9,
        "cohort": "without_replacement",
        "pool_clients": 80,
        "dropout": 0.25,
        "batch_size": 3,
        "local_steps": 2,
        "learning_rate": 0.25,
        "momentum": 0.5,
        "rounds": 0,
        "audited_rounds": 2,
        "partition": "dirichlet",
        "alpha": 2.0,
        "variants": 7,
        "fit_share": 0.25,
        "fit_updates": 100,
        "pair": "worst",
    },
    ja.Arrays: {
        "path": "mine.npy",
        "layers": ("dense.*",),
        "rounds": (3, 4),
        "clients": (9, 17),
        "cohort": "fixed",
        "dropout": 0.25,
        "fit_share": 0.25,
        "pair": ("zeroed", "worst"),
    },
    ja.Synthetic: {
        "law": "gaussian",
        "dim": 3,
        "clients": 9,
        "spectrum": (1.0, 0.5, 2.0),
        "degrees": 4,
        "pair": "zeroed",
    },
    ja.SecureSum: {"ring_bits": 64, "wrap": True, "survivors": "hidden", "minimum": 3, "claim": "everyone"},
    ja.GaussianLRT: {"shrinkage": "oas", "ridge": 0.5, "rank": (3, 0)},
    ja.WrappedLRT: {"shrinkage": "oas", "ridge": 0.5, "rank": (3, 0)},
    ja.MixtureLRT: {"shrinkage": "oas", "ridge": 0.5, "rank": (3, 0)},
}
# The same for every stage; fields contradict each other only when a run begins.
NOISE = {"deviation": 2.0, "where": "local"}
STAGES = {
    ja.Clip: {"norm": 2.0, "order": "linf"},
    ja.Weight: {"factor": 0.25},
    ja.Rotate: {"seed": 3},
    ja.TopK: {"k": 5, "error_feedback": True},
    ja.RandomK: {"k": 5, "error_feedback": True, "scaled": False},
    ja.FixedPoint: {
        "bits": 8,
        "clip_range": 2.0,
        "rounding": "conditional",
        "beta": 0.25,
        "levels": 100,
        "step": 0.5,
        "shifted": True,
    },
    ja.Gaussian: NOISE,
    ja.DiscreteGaussian: NOISE,
    ja.Skellam: NOISE,
    ja.Binomial: NOISE,
}
# Fields without a default.
GIVEN = {"norm": 1.0, "factor": 1.0, "k": 1, "deviation": 1.0}
CHAIN = [{"kind": "clip", "norm": 1.0}, {"kind": "fixed_point", "bits": 12, "clip_range": 1.0}]
BUILT_IN = ", ".join(config.built_in())
PLAN = {"trials": 5000, "seed": 7, "deltas": (0.25, 0.0), "confidence": 0.5, "design": "labelled"}
# What a field needs beside it to be legal.
DRAWN = {"population.cohort": "with_replacement", "population.pool_clients": 100}
NEEDS = {
    (ja.Synthetic, "spectrum"): {"population.law": "gaussian", "population.dim": 3},
    (ja.Federated, "cohort"): DRAWN,
    (ja.Federated, "pool_clients"): DRAWN,
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Recipes are looked for, and their files are found, where the user stands."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own(elsewhere, monkeypatch):
    """A module of the user's own, with attacks and things that are none."""
    (elsewhere / "own_attack.py").write_text(
        "import jaxaudit as ja\n"
        "@ja.recipe\n"
        "class Louder(ja.GaussianLRT):\n"
        "    gain: float = 2.0\n"
        "@ja.recipe\n"
        "class Choosy(ja.GaussianLRT):\n"
        "    only: int | None = None\n"
        "class Plain: ...\n"
    )
    (elsewhere / "broken_attack.py").write_text("raise RuntimeError('not today')\n")
    monkeypatch.syspath_prepend(elsewhere)
    (elsewhere / "own_stage.py").write_text(
        "import jaxaudit as ja\n"
        "@ja.recipe\n"
        "class Tighter(ja.Clip):\n"
        "    slack: float = 0.5\n"
        "@ja.recipe\n"
        "class OneWay:\n"
        "    encode: int = 0\n"
    )
    yield
    for name in ("own_attack", "broken_attack", "own_stage"):
        sys.modules.pop(name, None)


def part_of(cls):
    return next(part for part in config.TABLES if cls in config.kinds(part).values())


def chosen(cls, **fields):
    """Overrides that choose a kind and some of its fields."""
    return {f"{part_of(cls)}.{name}": value for name, value in ({"kind": cls.kind} | fields).items()}


def staged(cls, **fields):
    """Overrides that put one stage behind a clip, in the place of another."""
    required = {name: GIVEN[name] for name in STAGES[cls] if name in GIVEN}
    own = {"kind": cls.kind} | required | fields
    return {"aggregator.stages": CHAIN} | {f"aggregator.stages.1.{name}": value for name, value in own.items()}


def refusal(source, overrides=None):
    with pytest.raises(ValueError) as caught:
        config.load(source, overrides or {})
    return str(caught.value)


def by_name(value):
    return value.__name__ if isinstance(value, type) else None


# One meaning


def test_the_built_in_recipe_is_the_default_audit():
    audit = ja.Audit(population=ja.Federated(), aggregator=ja.SecureSum(), attack=ja.GaussianLRT())
    assert config.load("membership") == config.make_recipe(audit)


@pytest.mark.parametrize("name", config.built_in())
def test_a_built_in_recipe_survives_toml(name):
    recipe = config.load(name)
    assert config.from_mapping(tomllib.loads(config.to_toml(recipe))) == recipe


@pytest.mark.parametrize("cls", PARTS, ids=by_name)
def test_every_part_survives_toml(cls):
    recipe = config.load("membership", chosen(cls, **PARTS[cls]) | PLAN | {"server_knows": "certify_pool"})
    assert config.from_mapping(tomllib.loads(config.to_toml(recipe))) == recipe


def test_a_recipe_survives_a_file(elsewhere):
    recipe = config.load("membership", PLAN)
    (elsewhere / "mine.toml").write_text(config.to_toml(recipe))
    assert config.load("mine.toml") == recipe


@pytest.mark.parametrize("cls", PARTS, ids=by_name)
def test_overrides_reach_every_field_of_a_part(cls):
    texts = [f"{path}={json.dumps(value)}" for path, value in chosen(cls, **PARTS[cls]).items()]
    recipe = config.load("membership", dict(config.parse_override(text) for text in texts))
    player = getattr(recipe.audit, part_of(cls))
    assert type(player) is cls
    names = [f.name for f in dataclasses.fields(cls) if f.name not in ("kind", "stages")]
    assert {name: getattr(player, name) for name in names} == PARTS[cls]


@pytest.mark.parametrize("cls", STAGES, ids=by_name)
def test_overrides_reach_every_field_of_a_stage(cls):
    clip, stage = config.load("membership", staged(cls, **STAGES[cls])).audit.aggregator.stages
    assert clip == ja.Clip(norm=1.0) and type(stage) is cls
    assert {f.name: getattr(stage, f.name) for f in dataclasses.fields(cls) if f.name != "kind"} == STAGES[cls]


@pytest.mark.parametrize("cls", STAGES, ids=by_name)
def test_every_stage_survives_toml(cls):
    recipe = config.load("membership", staged(cls, **STAGES[cls]))
    assert config.from_mapping(tomllib.loads(config.to_toml(recipe))) == recipe


def test_every_kind_of_stage_is_tried_here():
    assert set(config.kinds("stage").values()) == set(STAGES)


def test_a_file_lists_stages_in_the_order_of_a_client(elsewhere):
    (elsewhere / "mine.toml").write_text(
        "[aggregator]\nring_bits = 16\n"
        "[[aggregator.stages]]\nkind = 'clip'\nnorm = 1.0\n"
        "[[aggregator.stages]]\nkind = 'fixed_point'\nclip_range = 1.0\nrounding = 'stochastic'\n"
    )
    stages = (ja.Clip(norm=1.0), ja.FixedPoint(clip_range=1.0, rounding="stochastic"))
    assert config.load("mine.toml").audit.aggregator == ja.SecureSum(stages=stages, ring_bits=16)


def test_stages_and_their_fields_are_set_on_the_command_line():
    texts = [
        "aggregator.stages.1.bits=8",
        'aggregator.stages=[{kind="clip", norm=1.0}, {kind="fixed_point", clip_range=2.0}]',
        "aggregator.stages.0.order=linf",
    ]
    recipe = config.load("membership", dict(config.parse_override(text) for text in texts))
    assert recipe.audit.aggregator.stages == (ja.Clip(norm=1.0, order="linf"), ja.FixedPoint(clip_range=2.0, bits=8))


def test_overrides_leave_their_mapping_alone():
    mapping, overrides = {"aggregator": {"stages": [{"kind": "clip", "norm": 1.0}]}}, {"aggregator.stages": CHAIN}
    before = json.dumps([mapping, overrides])
    config.replaced(mapping, {"aggregator.stages.0.norm": 3.0})
    config.replaced(mapping, overrides | {"aggregator.stages.1.bits": 3})
    assert json.dumps([mapping, overrides]) == before


@pytest.mark.parametrize(
    "name, preset",
    [
        ("flower", lambda: ja.flower_secaggplus(examples=8)),
        ("tff-sum", lambda: ja.tff_sum(clip_range=1.0)),
        (
            "distributed-skellam",
            lambda: ja.tff_distributed_dp(clip=0.5, noise_multiplier=1.0, clients=60, dim=650, bits=16),
        ),
    ],
)
def test_the_recipe_of_a_stack_is_its_preset(name, preset):
    assert config.load(name).audit.aggregator == preset()


def test_overrides_reach_every_field_of_the_plan():
    recipe = config.load("membership", PLAN | {"server_knows": "certify_pool"})
    assert recipe.audit.server_knows == "certify_pool"
    assert {f.name: getattr(recipe, f.name) for f in dataclasses.fields(recipe) if f.name != "audit"} == PLAN


def test_a_new_kind_starts_its_table_afresh():
    assert config.load("membership", {"population.kind": "synthetic"}).audit.population == ja.Synthetic()


def test_a_new_kind_keeps_what_is_set_with_it():
    recipe = config.load("membership", {"population.dim": 5, "population.kind": "synthetic"})
    assert recipe.audit.population == ja.Synthetic(dim=5)


def test_naming_the_present_kind_keeps_its_table(elsewhere):
    (elsewhere / "mine.toml").write_text("[population]\nclients = 9\n")
    assert config.load("mine.toml", {"population.kind": "federated"}).audit.population == ja.Federated(clients=9)


@pytest.mark.parametrize(
    "text, known",
    [
        ("population.clients=20", ("population.clients", 20)),
        ("population.pair=worst", ("population.pair", "worst")),
        ('population.pair="worst"', ("population.pair", "worst")),
        ("population.path=a=b.npz", ("population.path", "a=b.npz")),
        ("population.path=/data/my updates.npz", ("population.path", "/data/my updates.npz")),
        ("attack.ridge=1e-3", ("attack.ridge", 1e-3)),
        ("deltas=[1e-3, 0.0]", ("deltas", [1e-3, 0.0])),
        (" seed = 3 ", ("seed", 3)),
        ("seed=0x10", ("seed", 16)),
    ],
)
def test_an_override_is_toml_or_a_bare_word(text, known):
    assert config.parse_override(text) == known


@pytest.mark.parametrize("text", ["", "population.clients", "=20", " =20"])
def test_an_override_without_path_or_value_is_refused(text):
    with pytest.raises(ValueError, match="write PATH=VALUE"):
        config.parse_override(text)


def test_a_recipe_can_be_a_key():
    assert len({config.load("membership"), config.load("membership"), config.load("membership", {"seed": 1})}) == 2


@pytest.mark.parametrize("deltas", [[1e-3], (1e-3,), np.array([1e-3])], ids=["list", "tuple", "array"])
def test_python_takes_deltas_as_a_sequence(small, deltas):
    assert config.make_recipe(small, deltas=deltas).deltas == (1e-3,)


def test_python_refuses_an_unknown_plan_in_one_line(small):
    with pytest.raises(ValueError, match=r"^trails is no field, .* did you mean trials\?$"):
        config.make_recipe(small, trails=2000)


def test_an_attack_of_another_package_is_found_by_its_entry_point(monkeypatch):
    entry = EntryPoint("theirs", "jaxaudit.attacks.membership:GaussianLRT", "jaxaudit.attacks")
    monkeypatch.setattr(parts, "entry_points", lambda group: [entry])
    assert config.load("membership", {"attack.kind": "theirs"}).audit.attack == ja.GaussianLRT(ridge=0.03)


def test_an_entry_point_that_cannot_be_loaded_is_named(monkeypatch):
    entry = EntryPoint("theirs", "no_such_module:Attack", "jaxaudit.attacks")
    monkeypatch.setattr(parts, "entry_points", lambda group: [entry])
    with pytest.raises(ValueError, match="attack theirs of no_such_module:Attack cannot be loaded"):
        config.kinds("attack")


# The digest


def test_the_digest_is_twelve_hexadecimal_digits():
    assert len(f"{int(config.digest(config.load('membership')), 16):012x}") == 12


@pytest.mark.parametrize("name", config.PLAN)
def test_the_digest_ignores_how_long_and_how_sure(name):
    assert config.digest(config.load("membership", {name: PLAN[name]})) == config.digest(config.load("membership"))


@pytest.mark.parametrize(
    "overrides", [{"seed": 1}, {"server_knows": "certify_pool"}, {"population.kind": "synthetic"}], ids=str
)
def test_the_digest_tells_laws_and_seeds_apart(overrides):
    assert config.digest(config.load("membership", overrides)) != config.digest(config.load("membership"))


@pytest.mark.parametrize("cls, name", [(cls, name) for cls in PARTS for name in PARTS[cls]], ids=by_name)
def test_the_digest_changes_with_every_field_of_a_part(cls, name):
    given = {"path": "default.npy"} if cls is ja.Arrays else {}
    start = chosen(cls, **given) | NEEDS.get((cls, name), {})
    changed = start | chosen(cls, **{name: PARTS[cls][name]})
    assert config.digest(config.load("membership", changed)) != config.digest(config.load("membership", start))


@pytest.mark.parametrize("cls, name", [(cls, name) for cls in STAGES for name in STAGES[cls]], ids=by_name)
def test_the_digest_changes_with_every_field_of_a_stage(cls, name):
    digests = {config.digest(config.load("membership", staged(cls, **f))) for f in ({}, {name: STAGES[cls][name]})}
    assert len(digests) == 2


def test_the_digest_changes_with_the_order_of_stages():
    digests = {config.digest(config.load("membership", {"aggregator.stages": c})) for c in (CHAIN, CHAIN[::-1])}
    assert len(digests) == 2


@pytest.mark.parametrize("field", ["path", "pair"])
def test_the_digest_changes_with_the_content_of_a_named_file(elsewhere, field):
    fields = {"path": "there.npz"} | {field: "named.npz"}
    digests = set()
    for content in (b"one", b"two"):
        (elsewhere / "named.npz").write_bytes(content)
        digests.add(config.digest(config.load("membership", chosen(ja.Arrays, **fields))))
    assert len(digests) == 2


def test_the_digest_ignores_files_that_the_recipe_does_not_name(elsewhere):
    before = config.digest(config.load("membership"))
    (elsewhere / "digits").write_text("the name of a dataset, but no file of the recipe")
    assert config.digest(config.load("membership")) == before


# An attack of the user's own


def test_an_own_attack_is_accepted_by_module_and_class(own):
    recipe = config.load("membership", {"attack.kind": "own_attack.Louder", "attack.gain": 3.0})
    assert recipe.audit.attack == sys.modules["own_attack"].Louder(gain=3.0)


@pytest.mark.parametrize("name", ["Louder", "Choosy"])
def test_an_own_attack_survives_toml(own, name):
    recipe = config.load("membership", {"attack.kind": f"own_attack.{name}"})
    assert config.from_mapping(tomllib.loads(config.to_toml(recipe))) == recipe


def test_an_own_stage_survives_toml(own):
    stage = {"kind": "own_stage.Tighter", "norm": 1.0, "slack": 0.25}
    recipe = config.load("membership", {"aggregator.stages": [stage]})
    assert recipe.audit.aggregator.stages == (sys.modules["own_stage"].Tighter(norm=1.0, slack=0.25),)
    assert config.from_mapping(tomllib.loads(config.to_toml(recipe))) == recipe


@pytest.mark.parametrize(
    "kind, words",
    [
        ("own_stage.OneWay", "which is no stage: it has no 'after'"),
        ("jaxaudit.GaussianLRT", "which is no stage: it has no 'encode'"),
        ("absent_stage.Clip", "cannot be imported"),
        ("clap", "allowed are clip, weight, rotate"),
        (3, "allowed are clip, weight, rotate"),
    ],
    ids=str,
)
def test_what_is_no_stage_is_refused_in_one_line(own, kind, words):
    text = refusal("membership", {"aggregator.stages": [{"kind": kind}]})
    assert "\n" not in text
    assert text.startswith(f"aggregator.stages.0.kind is {kind!r}") and words in text


@pytest.mark.parametrize(
    "kind, words",
    [
        ("own_attack.Plain", "no dataclass; decorate it with jaxaudit.recipe"),
        ("own_attack.Quieter", "cannot be imported"),
        ("absent_attack.Louder", "cannot be imported"),
        ("broken_attack.Louder", "cannot be imported"),
        ("jaxaudit.SecureSum", "attack"),
        (".own_attack.Louder", "cannot be imported"),
        (".Louder", "cannot be imported"),
        (
            {"module": "own_attack"},
            "allowed are gaussian_lrt, wrapped_lrt, mixture_lrt, label_leakage, or module.Class of your own",
        ),
    ],
    ids=str,
)
def test_what_is_no_attack_is_refused_in_one_line(own, kind, words):
    text = refusal("membership", {"attack.kind": kind})
    assert "\n" not in text
    assert text.startswith("attack.kind is ") and str(kind) in text and words in text


# Refusals: field, value, and the allowed range or the remedy


@pytest.mark.parametrize(
    "overrides, words",
    [
        ({"population.client": 3}, ("population.client is no field", "did you mean population.clients?")),
        ({"attack.rigde": 3}, ("attack.rigde is no field", "did you mean attack.ridge?")),
        ({"aggregator.stage": 3}, ("aggregator.stage is no field", "did you mean aggregator.stages?")),
        ({"aggregator.stages": 3}, ("aggregator.stages is 3", "allowed is a list of tables")),
        ({"aggregator.stages": [3]}, ("aggregator.stages.0 is 3", "allowed is a table with a kind")),
        ({"aggregator.stages": [{"norm": 1.0}]}, ("aggregator.stages.0.kind is missing", "allowed are clip,")),
        ({"aggregator.stages": [*CHAIN, {"kind": "clip"}]}, ("aggregator.stages.2.norm is missing", "--set aggr")),
        (
            {"aggregator.stages": [{"kind": "clip", "nrom": 1.0}]},
            ("stages.0.nrom is no", "mean aggregator.stages.0.norm"),
        ),
        (
            {"aggregator.stages": [{"kind": "clip", "norm": -1.0}]},
            (
                "aggregator.stages.0.norm is -1.0, allowed are > 0 and ≤ 1e+30",
                "; set it with --set aggregator.stages.0.norm=VALUE",
            ),
        ),
        (staged(ja.FixedPoint, bits=40), ("aggregator.stages.1.bits is 40, allowed are ≥ 0 and ≤ 32",)),
        (staged(ja.Skellam, deviation=-1.0), ("aggregator.stages.1.deviation is -1.0, allowed are > 0",)),
        (staged(ja.Clip) | {"aggregator.stages.2.bits": 8}, ("--set aggregator.stages.2.bits", "allowed are 0 to 1")),
        (
            staged(ja.Clip) | {"aggregator.stages.-1.bits": 8},
            ("--set aggregator.stages.-1.bits", "allowed are 0 to 1"),
        ),
        (
            {"aggregator.stages.0.bits": 8},
            ("--set aggregator.stages.0.bits: no such stage", "has no stages; list them"),
        ),
        ({"aggregator.stages.bits": 8}, ("--set aggregator.stages.bits: no such field", "aggregator.stages.N.FIELD")),
        ({"aggregator.stages": [3], "aggregator.stages.0.bits": 8}, ("aggregator.stages.0 is 3", "a table")),
        ({"aggregator.stages": CHAIN * 9}, ("aggregator.stages is a list of 18", "up to 16")),
        (
            {"aggregator.ring_bits": 40},
            (
                "aggregator.ring_bits is 40, allowed are 1 to 32, or 64",
                "; set it with --set aggregator.ring_bits=VALUE",
            ),
        ),
        ({"aggregator.ring_bits": 65}, ("aggregator.ring_bits is 65, allowed are ≥ 1 and ≤ 64",)),
        ({"kind": "secure_sum"}, ("kind is no field", "allowed are trials, seed")),
        ({"trails": 3}, ("trails is no field", "did you mean trials?")),
        ({"audit": 3}, ("audit is no field", "allowed are trials, seed, deltas, confidence")),
        ({"population.kind": "federate"}, ("population.kind is 'federate'", "federated, arrays, synthetic")),
        ({"attack.kind": 3}, ("attack.kind is ", "3", "allowed are gaussian_lrt")),
        ({"population": 3}, ("population is 3", "a table with a kind")),
        ({"population": 3, "population.clients": 9}, ("population", "3", "table")),
        ({"population": [{"kind": "arrays"}], "population.clients": 9}, ("population", "arrays", "table")),
        ({"population.clients.x": 3}, ("--set population.clients.x", "allowed are population.FIELD")),
        ({"cohort.clients": 3}, ("--set cohort.clients", "allowed are population.FIELD")),
        ({"population.": 3}, ("--set population.", "allowed are population.FIELD")),
        ({"population.clients": "9"}, ("population.clients is '9'", "integer", "≥ 2 and ≤ 100,000")),
        ({"population.clients": 9.0}, ("population.clients is 9.0", "integer", "--set population.clients=VALUE")),
        ({"population.clients": True}, ("population.clients is True", "integer")),
        ({"population.pair": 3}, ("population.pair is 3", "string")),
        ({"population.clients": 1}, ("population.clients is 1", "≥ 2 and ≤ 100,000", "cohort size")),
        ({"population.momentum": 1.0}, ("population.momentum is 1.0", "≥ 0 and < 1")),
        ({"population.learning_rate": 0.0}, ("population.learning_rate is 0.0", "> 0")),
        ({"population.fit_share": 1}, ("population.fit_share is 1", "> 0 and < 1")),
        ({"population.rounds": -1}, ("population.rounds is -1", "≥ 0 and ≤ 100,000")),
        ({"population.variants": 0}, ("population.variants is 0", "≥ 1 and ≤ 1,000,000")),
        ({"population.variants": 1}, ("population: variants is 1", 'allowed are 2 or more for cohort = "fixed"')),
        ({"attack.ridge": 0}, ("attack.ridge is 0", "> 0 and ≤ 1,000,000")),
        ({"population.learning_rate": float("nan")}, ("population.learning_rate is nan", "finite", "> 0")),
        ({"attack.ridge": float("inf")}, ("attack.ridge is inf", "finite", "≤ 1,000,000")),
        ({"population.model": "tree"}, ("population.model is 'tree'", "'softmax', 'mlp', 'cnn', 'lenet_bn'")),
        ({"population.dataset": "iris"}, ("population.dataset is 'iris'", "'digits', 'mnist'")),
        ({"population.pair": "nearest"}, ("population.pair is 'nearest'", "record, zeroed, random, worst")),
        ({"attack.shrinkage": "lasso"}, ("attack.shrinkage is 'lasso'", "'ridge', 'ledoit_wolf' or 'oas'")),
        ({"server_knows": "all"}, ("server_knows is 'all'", "'fit_pool' or 'certify_pool'")),
        (chosen(ja.Arrays), ("population.path is missing", ".npy, .npz or .safetensors", "--set population.path=")),
        (chosen(ja.Synthetic, degrees=2), ("population.degrees is 2", "≥ 3 and ≤ 1,000")),
        (chosen(ja.Synthetic, spectrum=[1.0]), ("population: spectrum", 'law = "sphere"', "leave it out")),
        (chosen(ja.Synthetic, law="gaussian", spectrum=[1.0]), ("population: spectrum holds 1", "allowed are 39")),
        ({"trials": 999}, ("trials is 999", "≥ 1,000 and ≤ 10,000,000,000,000")),
        ({"trials": 1e6}, ("trials is 1000000.0", "integer")),
        ({"seed": -1}, ("seed is -1", "≥ 0 and < 4,294,967,296")),
        ({"seed": 2**32}, ("seed is 4294967296", "≥ 0 and < 4,294,967,296")),
        ({"deltas": [1.0]}, ("deltas is 1.0", "less than 1", "--set deltas=VALUE")),
        ({"deltas": [0.1, -0.1]}, ("deltas is -0.1", "greater than or equal to 0")),
        ({"deltas": [float("nan")]}, ("deltas is nan", "finite")),
        ({"deltas": []}, ("deltas is []", "at least 1")),
        ({"deltas": 1e-3}, ("deltas is 0.001", "list")),
        ({"confidence": 1.0}, ("confidence is 1.0", "> 0 and < 1")),
        ({"design": "coupled"}, ("design is 'coupled'", "'paired' or 'labelled'")),
        (chosen(ja.Arrays, path="u.npy", dropout=1.0), ("population.dropout is 1.0", "≥ 0 and ≤ 0.99")),
        (
            chosen(ja.Arrays, path="u.npy", cohort="poisson", clients=[9, 17]),
            ("population: clients is [9, 17], allowed is one size", "run them one by one"),
        ),
        ({"confidence": "high"}, ("confidence is 'high'", "number", "> 0 and < 1")),
    ],
    ids=str,
)
def test_a_bad_value_is_refused_in_one_line(overrides, words):
    text = refusal("membership", overrides)
    assert "\n" not in text
    assert [word for word in words if word not in text] == [], text


@pytest.mark.parametrize(
    "source, content, words",
    [
        ("membershop", None, ("'membershop'", f"allowed are {BUILT_IN} or a file ending in .toml")),
        ("absent.toml", None, ("absent.toml", "not found", "give an existing file")),
        ("mine.toml", b"trials = = 3", ("mine.toml", "not valid TOML", "line 1")),
        ("mine.toml", b"population = 3", ("population is 3", "a table with a kind")),
        ("mine.toml", b"[[attack]]\nridge = 1.0", ("attack is ", "a table with a kind")),
        ("mine.toml", b"[attack]\nrigde = 1.0", ("attack.rigde is no field", "did you mean attack.ridge?")),
        ("mine.toml", b"# caf\xe9 in Latin-1\n", ("mine.toml", "UTF-8")),
    ],
    ids=["name", "absent", "syntax", "number", "array", "field", "encoding"],
)
def test_a_bad_file_is_refused_in_one_line(elsewhere, source, content, words):
    if content is not None:
        (elsewhere / source).write_bytes(content)
    text = refusal(source)
    assert "\n" not in text
    assert [word for word in words if word.lower() not in text.lower()] == [], text

"""The parts of a recipe by their kind: classes of this package, of other packages, and of the user's own."""

import dataclasses
import importlib
import json
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import ValidationError

from . import aggregation, attacks, populations
from .schema import allowed_range, explain, field_names, refuse_unknown


class Part(NamedTuple):
    """What a recipe chooses by a kind.

    Attributes:
      module: that has the classes of this package.
      names: of these classes.
      verbs: what a class of the user's own must have.
      default: the kind of a table that does not say it; "" where every table must.
      path: of such a table in a recipe.
    """

    module: ModuleType
    names: tuple[str, ...]
    verbs: tuple[str, ...]
    default: str
    path: str


_POPULATIONS = ("Federated", "Arrays", "Synthetic", "Deceived")
_STAGES = ("Clip", "Weight", "Rotate", "TopK", "RandomK", "FixedPoint")
_NOISES = ("Gaussian", "DiscreteGaussian", "Skellam", "Binomial")
_STAGE_VERBS = ("encode", "after", "prepare", "expected", "decode", "decoded_variance", "words")
_ATTACKS = ("GaussianLRT", "WrappedLRT", "MixtureLRT", "LabelLeakage")
PARTS = {
    "population": Part(populations, _POPULATIONS, ("respond",), "federated", "population"),
    "aggregator": Part(aggregation, ("SecureSum",), ("reveal",), "secure_sum", "aggregator"),
    "stage": Part(aggregation, _STAGES + _NOISES, _STAGE_VERBS, "", "aggregator.stages.N"),
    "attack": Part(attacks, _ATTACKS, ("score",), "gaussian_lrt", "attack"),
}
# Those that have a table of their own in every recipe.
TABLES = tuple(part for part in PARTS if part != "stage")


def kinds(part: str) -> dict[str, type]:
    """Classes by their tag: those of this package, and for attacks those of entry points `jaxaudit.attacks`.

    Args:
      part: "population", "aggregator", "stage" or "attack".

    Returns:
      Classes by kind.

    Raises:
      ValueError: in one line that names the entry point which cannot be loaded.
    """
    known = {cls.kind: cls for cls in (getattr(PARTS[part].module, name) for name in PARTS[part].names)}
    for entry in entry_points(group="jaxaudit.attacks") if part == "attack" else ():
        try:
            known[entry.name] = entry.load()
        except Exception as error:  # whatever another package may raise
            raise ValueError(
                f"attack {entry.name} of {entry.value} cannot be loaded: {error}; uninstall it"
            ) from error
    return known


def describe(kind: str) -> list[tuple[str, str, str, str]]:
    """The fields of a part as (dotted path, default, allowed, about).

    Raises:
      ValueError: for a kind that is not there.
    """
    known = {name: (part, cls) for part in PARTS for name, cls in kinds(part).items()}
    if kind not in known:
        raise ValueError(f"kind is {kind!r}, allowed are {', '.join(known)}")
    part, cls = known[kind]
    rows = []
    for name in field_names(cls):
        info = cls.__pydantic_fields__[name]
        choices = " ".join(map(str, get_args(info.annotation))) if get_origin(info.annotation) is Literal else ""
        default = "" if info.is_required() else json.dumps(info.default)
        allowed = choices or allowed_range(info.metadata)
        rows.append((f"{PARTS[part].path}.{name}", default, allowed, info.description or ""))
    return rows


def build(part: str, table: Any, path: str) -> Any:
    """The part that a table of a recipe says; an aggregator's stages are tables in a list.

    Args:
      part: as for `kinds`.
      table: a kind and fields.
      path: of the table in the recipe, for refusals.

    Returns:
      An instance of the class of that kind.

    Raises:
      ValueError: in one line.
    """
    if not isinstance(table, Mapping):
        raise ValueError(f"{path} is {table!r}, allowed is a table with a kind")
    fields = dict(table)
    cls = _chosen(part, fields.pop("kind", PARTS[part].default), path)
    refuse_unknown(fields, field_names(cls), f"{path}.")
    if part == "aggregator" and "stages" in fields:
        fields["stages"] = _stages(fields["stages"], f"{path}.stages")
    return construct(cls, fields, f"{path}.")


def table_of(part: str, player: Any) -> dict[str, Any]:
    """Kind and fields of a part; the inverse of `build`.

    Raises:
      ValueError: for a part that is no dataclass.
    """
    cls = type(player)
    if not dataclasses.is_dataclass(player):
        raise ValueError(f"{part} {cls.__name__} is no dataclass, so its recipe cannot be stored")
    kind = getattr(cls, "kind", None)
    tag = kind if kinds(part).get(kind) is cls else f"{cls.__module__}.{cls.__qualname__}"
    fields = {f.name: getattr(player, f.name) for f in dataclasses.fields(player) if f.name != "kind"}
    if part == "aggregator" and "stages" in fields:
        fields["stages"] = [table_of("stage", stage) for stage in fields["stages"]]
    return {"kind": tag} | {name: value for name, value in fields.items() if value is not None}  # TOML has no null


def construct(cls: type, fields: Mapping[str, Any], prefix: str = "") -> Any:
    """An instance; what is wrong with its fields is told in one line, with their paths.

    Raises:
      ValueError: in one line.
    """
    try:
        return cls(**fields)
    except ValidationError as error:
        raise ValueError(explain(error, cls, prefix)) from error
    except TypeError as error:
        raise ValueError(f"{prefix.rstrip('.')}: {error}") from error


def _stages(tables, path):
    if not isinstance(tables, tuple):
        raise ValueError(f'{path} is {tables!r}, allowed is a list of tables such as [{{kind="clip", norm= 1.0}}]')
    return tuple(build("stage", table, f"{path}.{place}") for place, table in enumerate(tables))


def _chosen(part, kind, path) -> type:
    known = kinds(part)
    if isinstance(kind, str) and kind in known:
        return known[kind]
    allowed = f"allowed are {', '.join(known)}, or module.Class of your own"
    if kind == "":
        raise ValueError(f"{path}.kind is missing, {allowed}")
    if not isinstance(kind, str) or "." not in kind:
        raise ValueError(f"{path}.kind is {kind!r}, {allowed}")
    return _imported(part, kind, path)


def _imported(part, kind, path):
    module, _, name = kind.rpartition(".")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # a console script does not look beside the recipe, `python -m` does
    try:
        cls = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever a module of the user's may raise
        raise ValueError(f"{path}.kind is {kind!r}, which cannot be imported ({error})") from error
    if not dataclasses.is_dataclass(cls):
        raise ValueError(f"{path}.kind is {kind!r}, which is no dataclass; decorate it with jaxaudit.recipe")
    for verb in PARTS[part].verbs:
        if not hasattr(cls, verb):
            raise ValueError(f"{path}.kind is {kind!r}, which is no {part}: it has no {verb!r}")
    return cls

"""Recipe <-> mapping <-> TOML, dotted replacement, digest, and errors that fit on one line."""

import dataclasses
import hashlib
import importlib
import json
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import tomli_w
from pydantic import Field, ValidationError

from . import aggregation, attacks, populations
from .audit import Audit
from .populations.index import path_sha256
from .schema import allowed_range, explain, field_names, recipe, refuse_unknown

# A ticket numbers trials in 44 bits; a little room is left for the last block.
MIN_TRIALS, MAX_TRIALS = 1000, 10**13
# What is planned about a law: it decides how the same trials are counted, and how many of them.
PLAN = ("trials", "deltas", "confidence", "design")
_BUILT_IN = files("jaxaudit") / "recipes"
_VERBS = {"population": "respond", "aggregator": "reveal", "attack": "score"}
_PARTS = {
    "population": (populations, ("Federated", "Arrays", "Synthetic"), "federated"),
    "aggregator": (aggregation, ("SecureSum",), "secure_sum"),
    "attack": (attacks, ("GaussianLRT",), "gaussian_lrt"),
}


@recipe
class Recipe:
    """An audit, and everything else that decides its numbers.

    Attributes:
      audit: the game.
      trials: certifying trials, each played under both hypotheses; planned in advance, because stopping when the
        result pleases would void the confidence.
      seed: in [0, 2^32).
      deltas: for which bounds are certified together.
      confidence: that all of them hold.
      design: "paired" (one draw of the others serves both hypotheses) or "labelled" (every trial has a fair bit of
        its own and is played under it alone: half as many trials of each hypothesis, all of them independent).
    """

    audit: Audit
    trials: int = Field(1_000_000, ge=MIN_TRIALS, le=MAX_TRIALS, description="certifying trials")
    seed: int = Field(0, ge=0, lt=2**32, description="of every random number")
    deltas: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = Field(
        (1e-2, 1e-3, 1e-4, 1e-5), min_length=1, max_length=100, description="for which bounds are certified together"
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="that all bounds hold at once")
    design: Literal["paired", "labelled"] = "paired"


def make_recipe(audit: Audit, **plan: Any) -> Recipe:
    """The recipe of an audit made in Python, with the fields of `Recipe`; deltas may be any sequence of numbers.

    Raises:
      ValueError: in one line.
    """
    refuse_unknown(plan, [name for name in field_names(Recipe) if name != "audit"])
    return _construct(Recipe, {"audit": audit} | _tuples(plan))


def load(source: str, overrides: Mapping[str, Any] = {}) -> Recipe:
    """A built-in recipe by name, or a TOML file, with some fields replaced.

    Args:
      source: "membership", or the path of a TOML file.
      overrides: values by dotted path, such as {"population.clients": 100}.

    Returns:
      Recipe.

    Raises:
      ValueError: in one line that names field, value, allowed range and remedy.
    """
    if source in built_in():
        file = _BUILT_IN / f"{source}.toml"
    elif source.endswith(".toml"):
        if not Path(source).is_file():
            raise ValueError(f"recipe {source}: not found; give an existing file or one of {', '.join(built_in())}")
        file = Path(source)
    else:
        raise ValueError(f"recipe is {source!r}, allowed are {', '.join(built_in())} or a file ending in .toml")
    try:
        mapping = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"recipe {source}: not valid TOML: {error}") from error
    return from_mapping(replaced(mapping, overrides))


def built_in() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.name.removesuffix(".toml") for path in _BUILT_IN.iterdir() if path.name.endswith(".toml"))


def kinds(part: str) -> dict[str, type]:
    """Classes by their tag: those of this package, and for attacks those of entry points `jaxaudit.attacks`.

    Raises:
      ValueError: in one line that names the entry point which cannot be loaded.
    """
    module, names, _ = _PARTS[part]
    known = {cls.kind: cls for cls in (getattr(module, name) for name in names)}
    for entry in entry_points(group="jaxaudit.attacks") if part == "attack" else ():
        try:
            known[entry.name] = entry.load()
        except Exception as error:  # whatever another package may raise
            raise ValueError(
                f"attack {entry.name} of {entry.value} cannot be loaded: {error}; uninstall it"
            ) from error
    return known


def from_mapping(mapping: Mapping[str, Any]) -> Recipe:
    """Build and validate; the inverse of `to_mapping`.

    Raises:
      ValueError: in one line.
    """
    rest = _tuples(mapping)
    parts = {part: _part(part, rest.pop(part, {})) for part in _PARTS}
    knows = {"server_knows": rest.pop("server_knows")} if "server_knows" in rest else {}
    own = [name for name in field_names(Recipe) if name != "audit"]
    refuse_unknown(rest, [*own, "server_knows", *_PARTS])
    return _construct(Recipe, {"audit": _construct(Audit, parts | knows)} | rest)


def to_mapping(recipe: Recipe) -> dict[str, Any]:
    """Plain values, ready for TOML or JSON."""
    mapping = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(recipe) if f.name != "audit"}
    mapping["server_knows"] = recipe.audit.server_knows
    for part in _PARTS:
        player = getattr(recipe.audit, part)
        if not dataclasses.is_dataclass(player):
            raise ValueError(f"{part} {type(player).__name__} is no dataclass, so its recipe cannot be stored")
        cls = type(player)
        kind = getattr(cls, "kind", None)
        tag = kind if kinds(part).get(kind) is cls else f"{cls.__module__}.{cls.__qualname__}"
        mapping[part] = {"kind": tag} | {
            f.name: getattr(player, f.name)
            for f in dataclasses.fields(player)
            if f.name != "kind" and getattr(player, f.name) is not None  # TOML has no null
        }
    return json.loads(json.dumps(mapping))


def to_toml(recipe: Recipe) -> str:
    """The recipe as a TOML document."""
    return tomli_w.dumps(to_mapping(recipe))


def replaced(mapping: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with values replaced by dotted path. A new `kind` starts its table afresh.

    Raises:
      ValueError: for a path through something that is not a table.
    """
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in mapping.items()}
    for path, value in sorted(overrides.items(), key=lambda item: not item[0].endswith(".kind")):
        *tables, field = path.split(".")
        if len(tables) > 1 or (tables and tables[0] not in _PARTS) or not field:
            heads = ", ".join(f"{part}.FIELD" for part in _PARTS)
            raise ValueError(f"--set {path}: no such field, allowed are {heads}, and the fields of the recipe itself")
        if not tables:
            result[field] = value
            continue
        table = result.setdefault(tables[0], {})
        if not isinstance(table, dict):
            raise ValueError(f"{tables[0]} is {table!r}, allowed is a table with a kind")
        if field == "kind" and value != table.get("kind", _PARTS[tables[0]][2]):
            table = result[tables[0]] = {}
        table[field] = value
    return result


def parse_override(text: str) -> tuple[str, Any]:
    """PATH=VALUE, where VALUE is TOML, or a bare word for a string.

    Example:
      >>> parse_override("population.clients=20"), parse_override("population.pair=worst")
      (('population.clients', 20), ('population.pair', 'worst'))
    """
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise ValueError(f"--set {text!r}: write PATH=VALUE, such as population.clients=20")
    try:
        return path.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return path.strip(), value.strip()


def digest(recipe: Recipe) -> str:
    """Names the law and the seed of a run: twelve hexadecimal digits.

    The `PLAN` does not count. Files that the recipe names count by their content.
    """
    mapping = to_mapping(recipe)
    for field in PLAN:
        del mapping[field]
    named = [v for v in _leaves(mapping) if isinstance(v, str) and Path(v).suffix and Path(v).is_file()]
    folder = mapping["population"].get("path", "")
    mapping["files"] = [path_sha256(path) for path in named + [folder] * Path(folder).is_dir() if path]
    return hashlib.sha256(json.dumps(mapping, sort_keys=True).encode()).hexdigest()[:12]


def _part(part: str, table: Any):
    if not isinstance(table, Mapping):
        raise ValueError(f"{part} is {table!r}, allowed is a table with a kind")
    fields = dict(table)
    kind = fields.pop("kind", _PARTS[part][2])
    known = kinds(part)
    cls = (known.get(kind) if isinstance(kind, str) else None) or _imported(part, kind, known)
    refuse_unknown(fields, field_names(cls), f"{part}.")
    return _construct(cls, fields, f"{part}.")


def _imported(part: str, kind: Any, known: Iterable[str]) -> type:
    module, dot, name = str(kind).rpartition(".")
    if not dot or not isinstance(kind, str):
        raise ValueError(f"{part}.kind is {kind!r}, allowed are {', '.join(known)}, or module.Class of your own")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # a console script does not look beside the recipe, `python -m` does
    try:
        cls = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever a module of the user's may raise
        raise ValueError(f"{part}.kind is {kind!r}, which cannot be imported ({error})") from error
    if not dataclasses.is_dataclass(cls):
        raise ValueError(f"{part}.kind is {kind!r}, which is no dataclass; decorate it with jaxaudit.recipe")
    if not hasattr(cls, _VERBS[part]):
        raise ValueError(f"{part}.kind is {kind!r}, which is no {part}: it has no {_VERBS[part]!r}")
    return cls


def _construct(cls, fields: Mapping[str, Any], prefix: str = ""):
    try:
        return cls(**fields)
    except ValidationError as error:
        raise ValueError(explain(error, cls, prefix)) from error
    except TypeError as error:
        raise ValueError(f"{prefix.rstrip('.')}: {error}") from error


def describe(kind: str) -> list[tuple[str, str, str, str]]:
    """The fields of a part as (dotted path, default, allowed, about).

    Raises:
      ValueError: for a kind that is not there.
    """
    known = {name: (part, cls) for part in _PARTS for name, cls in kinds(part).items()}
    if kind not in known:
        raise ValueError(f"kind is {kind!r}, allowed are {', '.join(known)}")
    part, cls = known[kind]
    rows = []
    for name in field_names(cls):
        info = cls.__pydantic_fields__[name]
        choices = " ".join(map(str, get_args(info.annotation))) if get_origin(info.annotation) is Literal else ""
        default = "" if info.is_required() else json.dumps(info.default)
        rows.append((f"{part}.{name}", default, choices or allowed_range(info.metadata), info.description or ""))
    return rows


def _tuples(value):
    """TOML arrays become tuples: recipes are hashable. NumPy's arrays and numbers become Python's."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _leaves(value):
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value

"""Recipe <-> mapping <-> TOML, dotted replacement, digest, and errors that fit on one line."""

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field

from .audit import Audit
from .parts import PARTS, TABLES, build, construct, table_of
from .parts import describe as describe
from .parts import kinds as kinds
from .populations.index import path_sha256
from .schema import field_names, recipe, refuse_unknown

# A ticket numbers trials in 44 bits; a little room is left for the last block.
MIN_TRIALS, MAX_TRIALS = 1000, 10**13
# What is planned about a law: it decides how the same trials are counted, and how many of them.
PLAN = ("trials", "deltas", "confidence", "design")
_BUILT_IN = files("jaxaudit") / "recipes"


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
    return construct(Recipe, {"audit": audit} | _tuples(plan))


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


def from_mapping(mapping: Mapping[str, Any]) -> Recipe:
    """Build and validate; the inverse of `to_mapping`.

    Raises:
      ValueError: in one line.
    """
    rest = _tuples(mapping)
    parts = {part: build(part, rest.pop(part, {}), part) for part in TABLES}
    knows = {"server_knows": rest.pop("server_knows")} if "server_knows" in rest else {}
    own = [name for name in field_names(Recipe) if name != "audit"]
    refuse_unknown(rest, [*own, "server_knows", *TABLES])
    return construct(Recipe, {"audit": construct(Audit, parts | knows)} | rest)


def to_mapping(recipe: Recipe) -> dict[str, Any]:
    """Plain values, ready for TOML or JSON."""
    mapping = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(recipe) if f.name != "audit"}
    mapping["server_knows"] = recipe.audit.server_knows
    tables = {part: table_of(part, getattr(recipe.audit, part)) for part in TABLES}
    return json.loads(json.dumps(mapping | tables))


def to_toml(recipe: Recipe) -> str:
    """The recipe as a TOML document."""
    return tomli_w.dumps(to_mapping(recipe))


def replaced(mapping: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with values replaced by dotted path. A new `kind` starts its table afresh.

    Raises:
      ValueError: for a path through something that is not a table, or to a stage that is not there.
    """
    result = _copied(mapping)
    # What is set as a whole comes before what is set inside it, and a kind before the fields that it allows.
    paths = sorted(overrides, key=lambda path: (path.count("."), not path.endswith(".kind")))
    for path in paths:
        *above, field = path.split(".")
        table, usual = _table(result, above, field, path)
        if above and field == "kind" and overrides[path] != table.get("kind", usual):
            table.clear()
        table[field] = _copied(overrides[path])
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


def _table(mapping, above, field, path):
    """The table that a dotted path ends in, and the kind it has where it says none."""
    in_stage = above[:2] == ["aggregator", "stages"] and len(above) == 3
    if not field or not (in_stage or above in [[], *([part] for part in TABLES)]):
        heads = ", ".join(f"{part.path}.FIELD" for part in PARTS.values())
        raise ValueError(f"--set {path}: no such field, allowed are {heads}, and the fields of the recipe itself")
    if not above:
        return mapping, None
    part = above[0]
    table = mapping.setdefault(part, {})
    if not isinstance(table, dict):
        raise ValueError(f"{part} is {table!r}, allowed is a table with a kind")
    if not in_stage:
        return table, PARTS[part].default
    stages, place = table.get("stages", []), above[2]
    if not isinstance(stages, list) or not (place.isdecimal() and int(place) < len(stages)):
        raise ValueError(f"--set {path}: no such stage, allowed are {_places(stages)}")
    if not isinstance(stages[int(place)], dict):
        raise ValueError(f"aggregator.stages.{place} is {stages[int(place)]!r}, allowed is a table with a kind")
    return stages[int(place)], PARTS["stage"].default


def _places(stages):
    count = len(stages) if isinstance(stages, list) else 0
    listed = "--set 'aggregator.stages=[{kind=\"clip\", norm=1.0}]'"
    if not count:
        return f"none, for the recipe has no stages; list them with {listed}"
    return f"{'0' if count == 1 else f'0 to {count - 1}'}; to add one, list them all with {listed}"


def _copied(value):
    """Tables and lists of one's own, to be changed."""
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list | tuple) else value


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

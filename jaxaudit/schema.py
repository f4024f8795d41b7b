"""What every recipe is: a frozen, keyword-only dataclass that refuses bad values, and says so on one line."""

import dataclasses
import difflib
from collections.abc import Callable, Iterable
from typing import Annotated, Any, NamedTuple, dataclass_transform

import annotated_types
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def recipe(cls):
    """Validated frozen dataclass. Unknown fields are errors, and a number is not a string."""
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    return dataclass(frozen=True, kw_only=True, config=config)(cls)


def several(value) -> tuple:
    """One value or a list of them, as a tuple."""
    return value if isinstance(value, tuple) else (value,)


class Allowed(NamedTuple):
    """What a field may hold, in words, where limits cannot say it."""

    words: str


def one_or_more(of: type, what: str, good: Callable[[Any], bool]):
    """The type of a field that holds one value or a list of different ones, each of which must be `good`."""

    def check(value):
        chosen = several(value)
        if not chosen or len(set(chosen)) < len(chosen) or not all(map(good, chosen)):
            raise ValueError(f"not one or more different {what}")
        return value

    return Annotated[
        of | tuple[of, ...],
        BeforeValidator(as_tuple),
        AfterValidator(check),
        Allowed(f"one or more different {what}"),
    ]


def as_tuple(value):
    """A list as a tuple, for recipes are hashable; anything else as it is."""
    return tuple(value) if isinstance(value, list) else value


def listed(value):
    """The same, and one value as a list of one."""
    return (value,) if isinstance(value, str | int | float) else as_tuple(value)


def field_names(cls) -> list[str]:
    """Names of the fields of a recipe, its tag apart."""
    return [f.name for f in dataclasses.fields(cls) if f.name != "kind"]


def refuse_unknown(fields: Iterable[str], allowed: Iterable[str], prefix: str = "") -> None:
    """Raise ValueError naming the first field that is not allowed, and what it may have been meant for."""
    allowed = list(allowed)
    for field in fields:
        if field not in allowed:
            close = difflib.get_close_matches(field, allowed, n=1)
            hint = f"; did you mean {prefix}{close[0]}?" if close else ""
            raise ValueError(f"{prefix}{field} is no field, allowed are {', '.join(allowed) or 'none'}{hint}")


def explain(error: ValidationError, cls: type, prefix: str = "") -> str:
    """The first thing that is wrong: field, value, allowed range and remedy, on one line."""
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ").replace("valid tuple", "list")
    if not first["loc"]:
        return f"{prefix.rstrip('.')}: {message}"
    name = str(first["loc"][0])
    info, path = cls.__pydantic_fields__[name], f"{prefix}{name}"
    about = f" ({info.description})" if info.description else ""
    remedy = f"; set it with --set {path}=VALUE"
    given = list(first["input"]) if isinstance(first["input"], tuple) else first["input"]
    if first["type"].startswith("missing"):
        return f"{path} is missing{about}{remedy}"
    if message.startswith(f"{name} is "):  # a validator that says it all
        return f"{prefix}{message}{remedy}"
    span = allowed_range(info.metadata)
    if not span or "type" in first["type"] or "finite" in first["type"]:
        span = f"{message[0].lower()}{message[1:]}" + (f", {span}" if span else "")
        return f"{path} is {given!r}: {span}{about}{remedy}"
    return f"{path} is {given!r}, allowed are {span}{about}{remedy}"


def allowed_range(metadata: Iterable[Any]) -> str:
    """The allowed range of a field: its limits, or their words."""
    signs = {
        annotated_types.Ge: ("ge", "≥"),
        annotated_types.Gt: ("gt", ">"),
        annotated_types.Le: ("le", "≤"),
        annotated_types.Lt: ("lt", "<"),
    }
    limits = [(*signs[type(limit)], limit) for limit in metadata if type(limit) in signs]
    words = [one.words for one in metadata if isinstance(one, Allowed)]
    return " and ".join([*words, *(f"{sign} {_plain(getattr(limit, name))}" for name, sign, limit in limits)])


def _plain(limit):
    """A limit as people write it: 1,000,000 rather than 1,000,000.0, and 1e+30 rather than 31 digits."""
    if abs(limit) >= 1e18 or 0 < abs(limit) < 1e-9:
        return f"{limit:g}"
    return f"{int(limit):,}" if float(limit).is_integer() else f"{limit:,}"

"""Records as JSON, and the count dictionaries of privacy-estimates as records."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from .records import Bound, Event, Plan
from .samples import Counts

_VERSION = 1
_KINDS = {"counts": Counts, "plan": Plan, "bound": Bound}


def to_json(record: Counts | Plan | Bound) -> str:
    """A record as JSON text, every number as it is: reading it back gives an equal record.

    Args:
      record: counts, a plan or a bound.

    Returns:
      str, an object with "jaxaudit" (version of the format), "record" (its kind) and the fields of the record.

    Example:
      >>> print(to_json(Counts([0.5], [3], [4], 10, 12, "mine")))
      {"jaxaudit": 1, "record": "counts", "thresholds": [0.5], "errors_h0": [3], "errors_h1": [4], "trials_h0": 10,
      "trials_h1": 12, "stream": "mine", "design": "paired"}
    """
    kind = next((name for name, cls in _KINDS.items() if type(record) is cls), None)
    if kind is None:
        raise ValueError(f"only counts, plans and bounds are written as JSON, got {type(record).__name__}")
    values = {
        name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in asdict(record).items()
    }
    return json.dumps({"jaxaudit": _VERSION, "record": kind} | values, allow_nan=False, ensure_ascii=False)


def from_json(text: str) -> Counts | Plan | Bound:
    """The record that a text holds: one of ours, or the counts of privacy-estimates.

    privacy-estimates writes `AttackResults` as {"FN": …, "FP": …, "TN": …, "TP": …}, which are counts at one
    threshold that it does not name; it is called 0 here. How its trials depend on each other it does not say either,
    so the design is "paired", which assumes nothing.

    Args:
      text: JSON.

    Returns:
      Counts, Plan or Bound.

    Raises:
      ValueError: in one line that says what is wrong.

    Example:
      >>> from_json('{"FN": 1, "FP": 2, "TN": 8, "TP": 9}').errors_h0
      array([2])
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError("holds no record: allowed is an object, as `bounds.to_json` writes it")
    if {"FN", "FP", "TN", "TP"} <= found.keys():
        return _confusion(found)
    version, kind = found.pop("jaxaudit", None), found.pop("record", None)
    if not (isinstance(kind, str) and kind in _KINDS):
        raise ValueError(
            f"record is {kind!r}, allowed are {', '.join(_KINDS)}, or an object with the counts FN, FP, TN and TP"
        )
    if version != _VERSION:
        raise ValueError(f"format {version!r}, this version of jaxaudit reads {_VERSION}; update jaxaudit")
    _check_fields(kind, _KINDS[kind], found)
    if kind == "plan":
        for event in found["events"]:
            _check_fields("plan, event", Event, event)
        found["events"] = tuple(Event(**event) for event in found["events"])
        found |= {name: tuple(found[name]) for name in ("deltas", "fitted_on")}
    try:
        return _KINDS[kind](**found)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"{kind} with a field of the wrong type ({error})") from error


def _number(value) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _whole(value) -> bool:
    return type(value) is int and abs(value) < 2**63


def _many(of: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(of, value))


_TEXT = "text", lambda value: isinstance(value, str)
_NUMBER = "a finite number", _number
_COUNT = "whole numbers", _whole
_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "thresholds": ("a list of finite numbers", _many(_number)),
    "errors_h0": _COUNT,
    "errors_h1": _COUNT,
    "trials_h0": _COUNT,
    "trials_h1": _COUNT,
    "trials": _COUNT,
    "stream": _TEXT,
    "kind": _TEXT,
    "assumption": _TEXT,
    "events": ("a list of objects", _many(lambda value: isinstance(value, dict))),
    "deltas": ("a list of numbers in [0, 1)", _many(lambda value: _number(value) and 0 <= value < 1)),
    "fitted_on": ("a list of texts", _many(_TEXT[1])),
    "delta": ("a number in [0, 1)", lambda value: _number(value) and 0 <= value < 1),
    "direction": ("'forward' or 'reverse'", lambda value: value in ("forward", "reverse")),
    "threshold": _NUMBER,
    "share": _NUMBER,
    "epsilon": _NUMBER,
    "confidence": _NUMBER,
    "ceiling": _NUMBER,
    "significance": _NUMBER,
}


def _check_fields(kind: str, cls: type, found: dict[str, Any]) -> None:
    """Raise ValueError for a field that is missing, unknown or of the wrong type; the record checks the rest."""
    names = {field.name for field in fields(cls)}
    if names != found.keys():
        raise ValueError(f"{kind} with missing or unknown fields: {', '.join(sorted(names ^ found.keys()))}")
    for name in found.keys() & _FIELDS.keys():
        words, good = _FIELDS[name]
        good = _many(good) if kind == "counts" and name.startswith("errors") else good
        unset = cls is Event and name == "delta" and found[name] is None
        if not unset and not good(found[name]):
            raise ValueError(f"{kind}: {name} must be {words}, got {str(found[name])[:60]}")


def _confusion(found: dict[str, Any]) -> Counts:
    numbers = {name: found[name] for name in ("FN", "FP", "TN", "TP")}
    for name, number in numbers.items():
        if not (_whole(number) and number >= 0):
            raise ValueError(f"{name} is {str(number)[:60]}, allowed are whole numbers >= 0")
    trials = numbers["FP"] + numbers["TN"], numbers["FN"] + numbers["TP"]
    if min(trials) < 1:
        raise ValueError("FP + TN and FN + TP must be 1 or more")
    return Counts([0.0], [numbers["FP"]], [numbers["FN"]], *trials, "declared counts")

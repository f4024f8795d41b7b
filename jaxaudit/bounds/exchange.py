"""Records as JSON, and the count dictionaries of privacy-estimates as records."""

import json
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
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError("holds no record: allowed is an object, as `bounds.to_json` writes it")
    if {"FN", "FP", "TN", "TP"} <= found.keys():
        return _confusion(found)
    version, kind = found.pop("jaxaudit", None), found.pop("record", None)
    if kind not in _KINDS:
        raise ValueError(
            f"record is {kind!r}, allowed are {', '.join(_KINDS)}, or an object with the counts FN, FP, TN and TP"
        )
    if version != _VERSION:
        raise ValueError(f"format {version!r}, this version of jaxaudit reads {_VERSION}; update jaxaudit")
    names = {field.name for field in fields(_KINDS[kind])}
    if names != found.keys():
        wrong = ", ".join(sorted(names ^ found.keys()))
        raise ValueError(f"{kind} with missing or unknown fields: {wrong}")
    try:
        return _KINDS[kind](**_typed(kind, found))
    except (TypeError, KeyError) as error:
        raise ValueError(f"{kind} with a field of the wrong type ({error})") from error


def _typed(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    if kind == "plan":
        events = tuple(Event(**event) for event in found["events"])
        return found | {"events": events} | {name: tuple(found[name]) for name in ("deltas", "fitted_on")}
    if kind == "counts":
        numbers = [found["trials_h0"], found["trials_h1"], *found["errors_h0"], *found["errors_h1"]]
        if not all(type(number) is int for number in numbers):
            raise ValueError("counts must be whole numbers")
    return found


def _confusion(found: dict[str, Any]) -> Counts:
    numbers = {name: found[name] for name in ("FN", "FP", "TN", "TP")}
    for name, number in numbers.items():
        if type(number) is not int or number < 0:
            raise ValueError(f"{name} is {number!r}, allowed are whole numbers >= 0")
    trials = numbers["FP"] + numbers["TN"], numbers["FN"] + numbers["TP"]
    if min(trials) < 1:
        raise ValueError("FP + TN and FN + TP must be 1 or more")
    return Counts([0.0], [numbers["FP"]], [numbers["FN"]], *trials, "declared counts")

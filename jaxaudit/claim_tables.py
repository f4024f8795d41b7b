"""The tables and sentences of what is claimed, estimated or planned, beside the certified bounds of `tables`."""

import decimal
import math
from collections.abc import Callable, Sequence

from rich.console import Group
from rich.text import Text

from .bounds import ESTIMATES, Bound, percent
from .scores import has_confidence
from .tables import add_columns, delta_words, framed, titled, valued

_UNITS = (("years", 31_557_600), ("days", 86_400), ("h", 3600), ("min", 60), ("s", 1))
_TRIALS = (("T", 1e12), ("G", 1e9), ("M", 1e6))
# Columns that an estimate and a delta take in a table as wide as there are estimates.
_WIDE, _FIRST = 13, 8
# The least p-value that is told from smaller ones, with its rounding.
_FLOOR = 1.1e-150


def estimate_table(estimates: Sequence[Bound], width: int = 110) -> Group:
    """What is not certified, under a heading of its own.

    Args:
      estimates: from `scores.estimated`.
      width: of the terminal. A wide one has a row for every delta and a column for every estimate, a narrow one a row
        for each of both.
    """
    names = list(dict.fromkeys(one.method for one in estimates))
    deltas = list(dict.fromkeys(one.delta for one in estimates))
    at = {(one.delta, one.method): _estimated(one.epsilon) for one in estimates}
    table = framed()
    if width >= _FIRST + _WIDE * len(names):
        add_columns(table, left=[], right=["δ", *(f"{name}\n{ESTIMATES[name].kind}" for name in names)])
        for delta in deltas:
            table.add_row(delta_words(delta), *(at[delta, name] for name in names))
    else:
        add_columns(table, left=["δ", "estimate"], right=["ε"])
        for delta in deltas:
            for name in names:
                first = delta_words(delta) if name == names[0] else ""
                table.add_row(first, f"{name}\n{ESTIMATES[name].kind}", at[delta, name])
    without = dict.fromkeys(one.method for one in estimates if not has_confidence(one))
    title = (
        "\nNot certified: estimates under assumptions, from the counts at the thresholds of the bounds above, each "
        f"alone at {percent(estimates[0].confidence)} ({', '.join(without)}: of no confidence)"
    )
    return titled(title, table)


def _estimated(epsilon):
    return "≈ ∞" if math.isinf(epsilon) else valued(epsilon, "≈")


def estimate_sentence(estimates: Sequence[Bound]) -> Text:
    """What would have to be true for each estimate."""
    said = {}
    for one in estimates:
        said.setdefault(one.assumption, {})[one.method] = None
    words = ". ".join(f"{' and '.join(names)}: {assumption}" for assumption, names in said.items())
    return Text.assemble(("Assumed: ", "bold"), f"{words}.")


def claim_table(rows: Sequence[dict], title: str) -> Group:
    """A claim against the trials: a row for every cell, with the p-value of the claim where there is one."""
    several = len(rows) > 1
    table = framed()
    numbers = ["ε claimed", "ε certified", "p-value", *["adjusted"] * several]
    add_columns(table, left=["cell"] * several, right=numbers)
    table.add_column("verdict", no_wrap=True)
    for row in rows:
        table.add_row(
            *[row["cell"]] * several,
            f"≤ {row['claimed']:g}",
            Text(valued(row["certified"], "≥"), "bold"),
            _p_value(row["p_value"]),
            *[_p_value(row["adjusted"])] * several,
            Text("contradicted", "bold red") if row["contradicted"] else "stands",
        )
    return titled(title, table)


def claim_sentence(rows: Sequence[dict], claim: str, level: float, confidence: float) -> Text:
    """What the verdict on a claim means, and what it does not.

    Args:
      rows: of the table; without p-values the law of the score was computed.
      claim: in words.
      level: of the test.
      confidence: that all certified bounds of the table hold.
    """
    contradicted, exact = any(row["contradicted"] for row in rows), rows[0]["p_value"] is None
    heading = ("Contradicted: ", "bold red") if contradicted else ("Not contradicted: ", "bold")
    wrong = (
        "either the implementation is wrong, or an assumption of the claim is broken (adjacency, sybils, dropouts, "
        "noise of honest clients)"
    )
    if exact and contradicted:
        said = f"the computed law of the score contradicts {claim}, with certainty: {wrong}."
    elif exact:
        said = (
            f"the computed law of the score does not contradict {claim}. That is no proof of privacy: another attack "
            "or other candidates may."
        )
    elif contradicted:
        said = (
            f"the trials contradict the claim of {claim} (smallest {_named(rows)} at most {level:g}): {wrong}, or "
            f"the trials are not of the declared design; or, with probability at most {level:g}, it is chance."
        )
    else:
        said = f"no {_named(rows)} is at most {level:g}.{_exceeded(rows, level, confidence)} That is no proof of "
        said += f"privacy: another attack, other candidates or more trials may contradict {claim}."
    return Text.assemble(heading, said)


def _named(rows):
    return "adjusted p-value" if len(rows) > 1 else "p-value"


def _exceeded(rows, level, confidence):
    """Why a bound above the claim is no verdict against it."""
    if not any(row["certified"] > row["claimed"] for row in rows):
        return ""
    which = "The certified ε" if len(rows) == 1 else "A certified ε"
    return (
        f" {which} exceeds the claim at {percent(confidence)} confidence, but not at level {level:g}, which the "
        "verdict asks for; --level chooses it, before the trials."
    )


def plan_table(rows: Sequence, seconds: Callable[[int], float], title: str) -> Group:
    """Trials and time for every wanted tightness, and what the planned trials are expected to show.

    Args:
      rows: from `forecast.expect`.
      seconds: of so many trials.
      title: of the table.
    """
    several = len({row.cell for row in rows}) > 1
    table = framed()
    if several:
        table.add_column("cell", overflow="fold")
    add_columns(table, left=[], right=["predicted", "tightness", "trials", "time", "expected", "ceiling"])
    before = None
    for row in rows:
        first = [row.cell] * several + [f"{row.predicted:.3f}"]
        first, before = first if row.cell != before else [""] * len(first), row.cell
        told = "–", "–", "–"
        if row.trials is not None:
            told = duration(seconds(row.trials)), f"{row.epsilon:.3f}", f"{row.ceiling:.3f}"
        table.add_row(
            *first,
            f"{100 * row.tightness:.0f}%{'*' if row.planned else ' '}",
            "over 10T" if row.trials is None else short(row.trials),
            *told,
        )
    return titled(title, table)


def plan_sentence(speed: float, prepare_s: float) -> Text:
    """Where the numbers of a plan come from, and what they are worth."""
    return Text.assemble(
        ("How to read it: ", "bold"),
        "predicted is the ε of a Gaussian model of the score, and tightness the part of it that a bound is expected "
        "to certify if δ is the recipe's only one; * are the trials that the recipe plans. It is a plan, not a "
        "bound: the ε of a score with other tails than the model's may be smaller or larger, and a run shows which. "
        "The ceiling is the most that so many trials could certify. Time is "
        f"{speed:,.0f} trials/s, as measured here; "
        f"{duration(prepare_s)} of preparation, the verdict and the figures come on top.",
    )


def short(trials: int) -> str:
    """A number of trials, in millions where there are some.

    Example:
      >>> [short(trials) for trials in (2000, 999_999, 1_234_567, 110_000_000, 999_999_999)]
      ['2,000', '999,999', '1.23M', '110M', '1G']
    """
    for unit, size in _TRIALS:
        # Of three digits; what rounds to a thousand has the next unit.
        if trials >= size or (size > 1e6 and trials >= 0.9995 * size):
            return f"{trials / size:.3g}{unit}"
    return f"{trials:,}"


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would say them in.

    Example:
      >>> [duration(seconds) for seconds in (0.2, 12, 100, 7000, 3e5, 1e9)]
      ['under 1 s', '12 s', '1.7 min', '1.9 h', '3.5 days', '32 years']
    """
    if seconds < 1:
        return "under 1 s"
    unit, size = next((unit, size) for unit, size in _UNITS if seconds >= size)
    number = seconds / size
    return f"{number:,.1f} {unit}" if number < 9.95 and size > 1 else f"{number:,.0f} {unit}"


def _p_value(p):
    if p is None:
        return "–"
    if p <= _FLOOR:
        return "below 1e-150"
    # Never rounded down.
    up = decimal.Context(prec=2, rounding=decimal.ROUND_CEILING).create_decimal_from_float(p)
    return f"{float(up):.2g}"

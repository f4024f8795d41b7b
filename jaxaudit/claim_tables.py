"""The tables and sentences of what is claimed, estimated or planned, beside the certified bounds of `tables`."""

import decimal
from collections.abc import Callable, Sequence

from rich.console import Group
from rich.text import Text

from .bounds import ESTIMATES, Bound, percent
from .store import UNBOUNDED
from .tables import add_columns, framed, valued

_UNITS = (("years", 31_557_600), ("days", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def estimate_table(estimates: Sequence[Bound]) -> Group:
    """What is not certified, under a heading of its own: a row for every delta, a column for every estimate."""
    names = list(dict.fromkeys(one.method for one in estimates))
    table = framed("")
    add_columns(table, left=[], right=["δ", *(f"{name}\n{ESTIMATES[name].kind}" for name in names)])
    for delta in dict.fromkeys(one.delta for one in estimates):
        at = {one.method: one.epsilon for one in estimates if one.delta == delta}
        table.add_row(f"{delta:g}", *("≈ ∞" if at[name] >= UNBOUNDED else valued(at[name], "≈") for name in names))
    title = (
        "Not certified: estimates under assumptions, from the counts at the thresholds of the bounds above, each "
        f"alone at {percent(1 - estimates[0].significance)}"
    )
    return Group(Text(title, "bold"), table)


def estimate_sentence(estimates: Sequence[Bound]) -> Text:
    """What would have to be true for each estimate."""
    said = {}
    for one in estimates:
        said.setdefault(one.assumption, {})[one.method] = None
    words = ". ".join(f"{' and '.join(names)}: {assumption}" for assumption, names in said.items())
    return Text.assemble(("Assumed: ", "bold"), f"{words}.")


def claim_table(rows: Sequence[dict], title: str) -> Group:
    """A claim against the trials: a row for every cell, with the p-value of the claim."""
    several = len(rows) > 1
    table = framed("")
    numbers = ["ε claimed", "ε certified", "p-value", *["adjusted (Holm)"] * several]
    add_columns(table, left=["cell"] * several, right=numbers)
    table.add_column("verdict")
    for row in rows:
        table.add_row(
            *[row["cell"]] * several,
            f"≤ {row['claimed']:g}",
            Text(valued(row["certified"], "≥"), "bold"),
            _p_value(row["p_value"]),
            *[_p_value(row["adjusted"])] * several,
            Text("contradicted", "bold red") if row["contradicted"] else "not contradicted",
        )
    return Group(Text(title, "bold"), table)


def claim_sentence(contradicted: bool, epsilon: float, delta: float, level: float) -> Text:
    """What the verdict on a claim means, and what it does not."""
    claim = f"({epsilon:g}, {delta:g})-DP"
    if contradicted:
        return Text.assemble(
            ("Contradicted: ", "bold red"),
            f"the trials contradict the claim of {claim} (smallest p-value at most {level:g}): either the "
            "implementation is wrong, or an assumption of the claim is broken (adjacency, sybils, dropouts, noise of "
            "honest clients).",
        )
    return Text.assemble(
        ("Not contradicted: ", "bold"),
        f"no p-value is at most {level:g}. That is no proof of privacy: another attack, other candidates or more "
        f"trials may contradict {claim}.",
    )


def plan_table(rows: Sequence, seconds: Callable[[int], float], title: str) -> Group:
    """Trials and time for every wanted tightness, and what the planned trials are expected to show.

    Args:
      rows: from `forecast.expect`.
      seconds: of so many trials.
      title: of the table.
    """
    several = len({row.cell for row in rows}) > 1
    table = framed("")
    add_columns(
        table, left=["cell"] * several, right=["predicted", "tightness", "trials", "time", "expected", "ceiling"]
    )
    before = None
    for row in rows:
        first = [row.cell] * several + [f"{row.predicted:.3f}"]
        first, before = first if row.cell != before else [""] * len(first), row.cell
        told = "–", "–", "–"
        if row.trials is not None:
            told = duration(seconds(row.trials)), f"{row.epsilon:.3f}", f"{row.ceiling:.3f}"
        table.add_row(
            *first,
            f"{'as planned, ' * row.planned}{100 * row.tightness:.0f}%",
            "over 1e13" if row.trials is None else f"{row.trials:,}" if row.trials < 1e10 else f"{row.trials:.1e}",
            *told,
        )
    return Group(Text(title, "bold"), table)


def plan_sentence(speed: float, prepare_s: float) -> Text:
    """Where the numbers of a plan come from, and what they are worth."""
    return Text.assemble(
        ("How to read it: ", "bold"),
        "predicted is the ε of a Gaussian model of the score, and tightness the part of it that a bound is expected "
        "to certify. It is a plan, not a bound: the ε of a score with other tails than the model's may be smaller or "
        "larger, and a run shows which. The ceiling is the most that so many trials could certify. Time is "
        f"{speed:,.0f} trials/s, as measured here, beside {duration(prepare_s)} of preparation.",
    )


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
    if 0 < p <= 1e-300:
        return "≤ 1e-300"
    # Never rounded down.
    up = decimal.Context(prec=2, rounding=decimal.ROUND_CEILING).create_decimal_from_float(p)
    return f"{float(up):.2g}"

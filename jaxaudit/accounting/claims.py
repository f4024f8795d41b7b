"""Proved upper bounds beside certified lower ones: what the trials say against them, and how both are told.

What is proved holds of a mechanism, what is certified of the system that ran. Where the second contradicts the first,
either the system is not the mechanism, or the proof assumes what the system does not keep.
"""

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, Context, Decimal
from typing import Any, NamedTuple

from ..bounds import Counts, Plan, claim_p_value, holm

# Probability, at most, that a run whose claims are all true says that one of them is contradicted.
LEVEL = 1e-6
# How the columns are to be read.
READING = (
    " An upper bound is proved of the mechanism, for all candidates of its adjacency, all pools and all attacks, and "
    "not of this pair; the ratio is certified to upper."
)
_READING_ASSUMED = (
    " The claimed ε would hold if everyone of the planned cohort had sent its noise, which is not so here; the ratio "
    "is certified to claimed."
)


class OnTrial(NamedTuple):
    """What is claimed of a cell, and what it is held against.

    Attributes:
      proved: pairs (delta, epsilon), finite: the claim, made before the trials.
      evidence: plans and the counts of their trials.
      assumed: the system is known to break an assumption of the claim.
    """

    proved: Sequence[tuple[float, float]]
    evidence: Sequence[tuple[Plan, Counts]]
    assumed: bool


def violations(cells: Sequence[OnTrial]) -> list[dict[str, Any] | None]:
    """The verdict of the trials on the claims of a run.

    Args:
      cells: of one run, all of them: their p-values are adjusted together.

    Returns:
      for every cell None where nothing was tested, else what summary.json holds: "level", "p_value" (the smallest
      adjusted one of the cell), "violated", "kind" ("implementation" or "assumption", None where not violated) and
      "words".

    Guarantee:
      If all claims are true, P(any cell is violated) <= `LEVEL`.
    """
    tested = [
        (number, (claim_p_value(*evidence, epsilon, delta), delta, epsilon))
        for number, cell in enumerate(cells)
        for delta, epsilon in cell.proved
        for evidence in cell.evidence
    ]
    worst: dict[int, tuple[float, ...]] = {}
    for joint, (number, test) in zip(holm([test[0] for _, test in tested]), tested):
        # Of several with the same adjusted p-value, the words name the one that is smallest by itself.
        worst[number] = min((joint, *test), worst.get(number, (math.inf,)))
    return [
        _verdict(*worst[number], assumed=cell.assumed) if number in worst else None
        for number, cell in enumerate(cells)
    ]


def _verdict(joint, alone, delta, epsilon, assumed):
    del alone
    violated, kind = joint <= LEVEL, None
    # Never rounded down.
    up = float(Context(prec=2, rounding=ROUND_CEILING).create_decimal_from_float(joint))
    found = f"smallest p-value {up:.2g}, adjusted for all δ and cells"
    words = f"No contradiction of the claim was found ({found}); that is no proof of it."
    if violated:
        against = f"the trials speak against ε ≤ {rounded_up(epsilon)} at δ = {delta:g} (p = {up:.2g}, level 1e-6)"
        kind = "assumption" if assumed else "implementation"
        words = f"The implementation contradicts the claim: {against}; what ran is not what was proved."
        if assumed:
            words = f"An assumption of the claim is broken: {against}; it counts noise that was not added."
    return {"level": LEVEL, "p_value": joint, "violated": violated, "kind": kind, "words": words}


def assumed(cells: Sequence[dict]) -> bool:
    """Whether the system of some cell is known to break an assumption of its claim, so nothing is proved of it."""
    return any(cell["claim"]["assumed"] for cell in cells if cell.get("claim"))


def reading(cells: Sequence[dict]) -> str:
    """How the columns of these cells are to be read; nothing where no row has an upper bound."""
    if not any(columns(cell["bounds"]) for cell in cells):
        return ""
    return _READING_ASSUMED if assumed(cells) else READING


def columns(rows: Sequence[dict], assumed: bool = False) -> dict[str, list[str]]:
    """What a table of bounds shows of upper ones: proved epsilon, and certified to proved, rounded against both.

    Args:
      rows: as in summary.json.
      assumed: some of them is only claimed, and must not be called an upper bound.

    Returns:
      columns by their names; none where no row has an upper bound.
    """
    upper = [row["epsilon_upper"] for row in rows]
    if all(one is None for one in upper):
        return {}
    return {
        "claimed" if assumed else "upper": ["–" if one is None else rounded_up(one) for one in upper],
        "ratio": [_ratio(row["epsilon_lower"], one) for row, one in zip(rows, upper)],
    }


def _ratio(lower, upper):
    if not upper:
        return "–"
    return "> 999" if lower > 999 * upper else f"{math.floor(100 * lower / upper) / 100:.2f}"


def make_room(table: dict[str, list], width: int, *spare: tuple[str, ...]) -> None:
    """Leave out columns of a table with upper bounds until no number is cut off; other tables stay as they are.

    Args:
      table: cells by the names of columns; changed in place. Errors may take a line for each of their words, once
        the rates that were made of them are gone.
      width: of the terminal.
      spare: columns that are left out together, the first ones first.
    """

    def room(name, cells):
        wraps = name == "errors" and "FPR" not in table
        words = (str(cell).split() if wraps else [str(cell)] for cell in (name, *cells))
        return 2 + max(len(word) for cell in words for word in cell)

    for names in spare:
        if table.keys() & {"upper", "claimed"} and 1 + sum(room(*column) for column in table.items()) > width:
            for name in names:
                table.pop(name, None)


def sentences(cells: Sequence[dict]) -> list[tuple[str, str, dict | None]]:
    """What is said below the table: what the claims say, each once, and every contradiction of the trials.

    Args:
      cells: their summaries, as in summary.json.

    Returns:
      headings, sentences, and the cells that they are of, None for all; empty where nothing is claimed.
    """
    claimed = [cell for cell in cells if cell["claim"]]
    if not claimed:
        return []
    said: dict[str, list[dict]] = {}
    for cell in claimed:
        said.setdefault(_claimed(cell["claim"]), []).append(cell)
    judged = sorted((cell for cell in claimed if cell["violation"]), key=lambda cell: cell["violation"]["p_value"])
    told = [("Violation", cell, cell) for cell in judged if cell["violation"]["violated"]]
    told = told or [("Claim tested", cell, None) for cell in judged[:1]]
    bounds = [("Claim" if assumed(of) else "Upper bound", words, of[0]) for words, of in said.items()]
    return [*bounds, *((heading, cell["violation"]["words"], of) for heading, cell, of in told)]


def _claimed(claim):
    words = f"{claim['words']} ({claim['source']})."
    if all(epsilon is None for epsilon in claim["epsilons"]):
        words += f" No finite ε is {'claimed' if claim['assumed'] else 'proved'}."
    if claim["assumed"]:
        words += " The audited system is known to break an assumption of it, so it is no bound on that system."
    return words


def rounded_up(epsilon: float) -> str:
    """An upper bound in three decimals that are proved, too.

    Example:
      >>> rounded_up(3.2491), rounded_up(3.25)
      ('3.250', '3.250')
    """
    return str(Decimal(epsilon).quantize(Decimal("0.001"), ROUND_CEILING))

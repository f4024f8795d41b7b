"""What an attack recovered of the clients' private content, and the sentences that must be said with it."""

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .layout import add_columns, framed, say, titled
from .runs import Run

# A terminal shows no more; recovery.npz has the rest.
_CLIENTS, _CLASSES = 64, 20
_DROPPED, _ZERO = "–", "·"
# Columns that a narrow terminal leaves out of the table of noise.
_ERROR, _ROUNDS, _TRIALS = "largest\nerror", "\nrounds", "client-\ntrials"


def show(run: Run, console: Console) -> None:
    """Print what was recovered of every client, how that fares under noise, and what must be said with it.

    Args:
      run: with `recovery` arrays and its words in the summary.
      console: to print on.
    """
    told = run.summary["recovery"]
    table, classes = histogram_table(run.recovery, console.width)
    title = f"Recovered from one secure sum without noise: {told['what']} of {told['clients']:,} clients"
    console.print(titled(f"{title}, {told['classes']} classes, {batch_words(told['batch'])} each", table))
    say(console, "Recovered", _recovered(run.recovery, classes))
    names = class_names(run.recovery)
    if names:
        some = f" (the first {classes})" if classes < len(names) else ""
        say(console, f"Classes{some}", ", ".join(f"{number} {name}" for number, name in enumerate(names[:classes])))
    title = "\nRecovery against noise: share of clients whose whole histogram is right"
    console.print(titled(title, noise_table(told["rows"], told["null"], console.width)))
    say(console, "How to read it", _reading(told))
    say(console, "Adversary", told["adversary"])
    say(console, "The server knows", run.summary.get("server_knows", ""))
    # What is real is said of every run, below its bounds.
    say(console, "Model", told["model"] * (told["model"] != run.summary.get("real")))
    say(console, "Design", told["design"])
    say(console, "Mode", f"{told['mode']}; embeddings of a client's batch differ by {told['spread']:.2g}")
    for note in told["notes"]:
        say(console, "Note", note)
    console.print()


def histogram_table(recovery: Mapping[str, np.ndarray], width: int = 110) -> tuple[Table, int]:
    """True and recovered counts: a row for every client, a column for every class.

    Args:
      recovery: `truth` and `found`, i64[clients, classes]; a truth of -1 is a client that dropped out.
      width: of the terminal. A narrow one leaves out the overlap, and then classes, for no number may be cut off.

    Returns:
      the table, and the number of classes that it shows.
    """
    truth, found = recovery["truth"], recovery["found"]
    clients, classes = min(len(truth), _CLIENTS), min(truth.shape[1], _CLASSES)
    present, exact = (truth >= 0).all(axis=1), (truth == found).all(axis=1)
    first = ["client", "target", *(str(client) for client in range(1, clients))]
    counts = [
        [str(number), *(_count(*pair) for pair in zip(truth[:clients, number], found[:clients, number]))]
        for number in range(classes)
    ]
    marks = ["✓" if right else "✗" for right in exact]
    shares = [_down(share) for share in _overlap(truth, found)]
    last = [
        [heading, *(cell if there else _DROPPED for cell, there in zip(cells[:clients], present))]
        for heading, cells in (("exact", marks), ("overlap", shares))
    ]
    # All classes without the overlap tell more than some with it; of more than a terminal shows, some are missing
    # in any case.
    wanted = [(classes, 2), (classes, 1)] if classes == truth.shape[1] else []
    for number, more in [*wanted, *((some, 2) for some in range(classes, 0, -1)), (1, 1)]:
        columns = [first, *counts[:number], *last[:more]]
        if 1 + sum(1 + max(map(len, column)) for column in columns) <= width:
            break
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    add_columns(table, left=[], right=[column[0] for column in columns])
    for row in list(zip(*columns))[1:]:
        table.add_row(*map(_coloured, row), style="bold" if row[0] == "target" else None)
    return table, number


def _count(truth, found):
    """A count that is right, or both with an arrow, so that colour alone never tells."""
    if truth < 0:
        return _DROPPED
    if truth != found:
        return f"{truth}→{found}"
    return str(truth) if truth else _ZERO


def _coloured(cell):
    if "→" in cell or cell == "✗":
        return Text(cell, "bold red")
    return Text(cell, {"✓": "green", _ZERO: "dim", _DROPPED: "dim"}.get(cell, ""))


def _overlap(truth, found):
    """Share of a client's labels that were recovered; what is found too much does not count."""
    return np.minimum(truth, found).sum(axis=1) / np.maximum(truth.sum(axis=1), 1)


def class_names(recovery: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the classes; none where they are not known, or are their numbers."""
    names = [str(name) for name in recovery.get("names", ())]
    return [] if names == [str(number) for number in range(len(names))] else names


def batch_words(batch: int | Sequence[int]) -> str:
    """Records of a client: how many, or the fewest and the most of several sizes.

    Example:
      >>> batch_words(64), batch_words([16, 64]), batch_words(1)
      ('64 records', '16 to 64 records', '1 record')
    """
    least, most = (min(batch), max(batch)) if isinstance(batch, Sequence) else (batch, batch)
    if least < most:
        return f"{least:,} to {most:,} records"
    return f"{most:,} record{'s' * (most != 1)}"


def _recovered(recovery, classes):
    truth, found = recovery["truth"], recovery["found"]
    present = (truth >= 0).all(axis=1)
    right, wrong = int((truth == found)[present].all(axis=1).sum()), truth[present] != found[present]
    words = [f"{right:,} of {present.sum():,} clients exactly"]
    if wrong.any():
        words.append(f"{wrong.sum():,} of {wrong.size:,} counts are wrong (7→6 is a true 7 recovered as 6)")
    words.append(f"{_ZERO} is a count of 0")
    if not present.all():
        words.append(f"dropped out ({_DROPPED}): {(~present).sum():,}")
    sentence = "; ".join(words) + "."
    cut = [
        f"{shown} of {there:,} {what}"
        for shown, there, what in ((_CLIENTS, len(truth), "clients"), (classes, truth.shape[1], "classes"))
        if shown < there
    ]
    if cut:
        sentence += f" Shown are the first {' and '.join(cut)}; recovery.npz of the run folder has all."
    return sentence + " ✓ and overlap are over all classes." * (classes < truth.shape[1])


def noise_table(rows: Sequence[dict], null: Mapping[str, float], width: int = 110) -> Table:
    """Recovery against the noise multiplier, above the guess of whoever sees only the pooled histogram.

    Args:
      rows: of the summary.
      null: `exact` and `overlap` of that guess.
      width: of the terminal. A narrow one shows fewer columns, for no number may be cut off.
    """
    columns = {
        "noise\nmultiplier": [f"{row['noise_multiplier']:g}{'†' * row['clip_known'] or ' '}" for row in rows],
        "clients\nexact": [_down(row["exact"]) for row in rows],
        "95%\ninterval": [f"[{_down(row['exact_lower'])}, {_up(row['exact_upper'])}]" for row in rows],
        "label\noverlap": [_down(row["overlap"]) for row in rows],
        _ERROR: [_DROPPED if row["largest_error"] is None else f"{row['largest_error']:.1e}" for row in rows],
        _ROUNDS: [f"{row['rounds']:,}" for row in rows],
        _TRIALS: [f"{row['clients']:,}" for row in rows],
        "": ["← recipe" if row["recipe"] else "" for row in rows],
    }
    guess = ["pooled guess", _down(null["exact"]), "", _down(null["overlap"])]
    for spare in (_ROUNDS, _TRIALS, _ERROR):
        cells = zip_longest(columns.items(), guess, fillvalue="")
        if 1 + sum(2 + max(map(len, (*name.split("\n"), *column, last))) for (name, column), last in cells) > width:
            del columns[spare]
    table = framed()
    add_columns(table, left=[], right=list(columns))
    for row in zip(*columns.values()):
        table.add_row(*row)
    table.add_section()
    table.add_row(*guess, style="dim")
    return table


def _reading(told):
    clip = " † is a row whose decoder was told the clients' clip factors." * any(
        row["clip_known"] for row in told["rows"]
    )
    return (
        "an interval is Clopper-Pearson's at 95%, for its row alone; overlap is the share of labels recovered; the "
        "largest error is that of a count before rounding. The pooled guess gives every client an equal share of the "
        f"pooled histogram, which is all that a sum of honest models tells.{clip} Recovery is measured; it "
        "certifies no ε."
    )


def _down(share):
    """Never rounded up: 1.000 is all of them. A decimal that a float stands for may lie a hair above it."""
    return f"{math.floor(1000 * share + 1e-9) / 1000:.3f}"


def _up(share):
    return f"{math.ceil(1000 * share - 1e-9) / 1000:.3f}"

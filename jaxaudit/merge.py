"""Parts of one run, from other machines and days, become the run: disjoint ranges add up, and only all of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from . import config, report, runs, store


def merge(folders: Sequence[str | Path]) -> runs.Run:
    """The run that all parts together are.

    Args:
      folders: run folders that `run --range` wrote.

    Returns:
      Run, with bounds.

    Raises:
      ValueError: in one line, where parts belong to different runs, overlap, or leave a gap.
    """
    found = sorted(((store.read(folder), Path(folder)) for folder in folders), key=lambda found: found[0].part)
    for part, at in found:
        if part.exact:
            raise ValueError(f"{at} is an exact run, which has no trials to add; leave it out")
    parts, (first, first_at) = [part for part, _ in found], found[0]
    for part, at in found[1:]:
        _require_same(first_at, first, at, part)
    _require_gapless(found, first.summary["trials"])
    cells = []
    for number, cell in enumerate(first.cells):
        own = [part.cells[number] for part in parts]
        cells.append(
            replace(
                cell,
                counts=_sum(one.counts for one in own),
                histogram=_sum(one.histogram for one in own),
                off_span=cell.off_span and (cell.off_span[0], _sum(one.off_span[1] for one in own)),
            )
        )
    whole = {
        "range": [0, first.summary["trials"]],
        "timing": _added([part.summary["timing"] for part in parts]),
        "provenance": first.summary["provenance"] | {"parts": [_origin(part) for part in parts]},
    }
    return report.judged(replace(first, summary=first.summary | whole, cells=tuple(cells)))


def _require_same(first_at, first, at, part):
    told = [{"digest": run.summary["digest"]} | run.summary["recipe"] for run in (first, part)]
    for name in ("digest", *config.PLAN):
        of_first, of_part = (one[name] for one in told)
        if of_first != of_part:
            raise ValueError(
                f"{first_at} and {at} are parts of different runs: {name} is {of_first} and {of_part}; merge parts "
                "of one run"
            )
    plans = [[(cell.plan, cell.off_span and cell.off_span[0]) for cell in run.cells] for run in (first, part)]
    if part.summary["fingerprint"] != first.summary["fingerprint"] or plans[0] != plans[1]:
        raise ValueError(
            f"{first_at} and {at} were prepared differently, although their recipe is the same: their machines or "
            "versions differ in the last bits; run the parts again on machines of one kind"
        )


def _require_gapless(found, trials):
    reached, before = 0, None
    for part, at in ((run.part, at) for run, at in found):
        if part.first < reached:
            raise ValueError(
                f"{before} and {at} overlap: both hold trial {part.first:,}; a trial counts once, leave one out"
            )
        if part.first > reached:
            raise ValueError(
                f"trials {reached:,} to {part.first - 1:,} are missing before {at}; run them with --range "
                f"{reached}:{part.first - reached}"
            )
        reached, before = part.first + part.count, at
    if reached < trials:
        raise ValueError(
            f"trials {reached:,} to {trials - 1:,} of {trials:,} are missing; run them with --range "
            f"{reached}:{trials - reached}"
        )


def _sum(counts):
    total, *rest = counts
    for one in rest:
        total = total + one
    return total


def _added(timings):
    total = {name: sum(timing[name] for timing in timings) for name in timings[0]}
    return total | {"trials_per_s": sum(t["trials_per_s"] * t["trials_s"] for t in timings) / total["trials_s"]}


def _origin(part):
    provenance = part.summary["provenance"]
    return {"range": list(part.part)} | {name: provenance[name] for name in ("device", "devices", "jax", "git")}

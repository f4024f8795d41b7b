"""Trials per second against pool, cohort and cores; a billion trials in one process; a card's share of its limit.

python benchmarks/scaling.py [--quick] [--out results/scaling.md]

One core, two cores and, where there is one, a graphics card take turns, each in a process of its own that has nothing
else. Times are wall time, with counting at 200 thresholds.
"""

import numpy as np
from measure import Page, at_most, cores, options
from worker import Worker

POOLS = (1000, 10_000, 100_000, 1_000_000, 4_000_000)
CLIENTS = (10, 60, 200, 1000, 10_000)
# Integer instructions of a draw: half of Threefry's 60 additions, rotations and exclusive ors in rounds and of its 12
# further additions; 6 for the index; 5 or 6 for address, addition and loop.
PER_DRAW = 48
FASTER = 128


def swept(page, workers, draws, turns):
    """Pools and cohorts."""
    page.say(
        "## Pool and cohort",
        "",
        "Cohorts drawn with replacement; the columns of a row count the same, bit for bit. Busy is CPU time over "
        "wall time; ns are wall time per draw on one core.",
        "",
    )
    rates = " | ".join(f"10⁶ trials/s, {name}" for name in workers)
    times = " | ".join(f"{name} / 1 core" for name in list(workers)[1:])
    columns = " | ".join(part for part in ("pool | clients", rates, times, "busy | ns") if part)
    for settings in ([(pool, 60) for pool in POOLS], [(10_000, terms) for terms in CLIENTS]):
        page.table(columns, (_row(workers, *setting, draws, turns) for setting in settings))


def _row(workers, pool, terms, draws, turns):
    trials = max(20_000, draws // terms)
    first = [ask("count", pool=pool, terms=terms, trials=trials)["gave"] for ask in workers.values()]
    assert len(set(first)) == 1, f"counts differ for {terms} clients of {pool}"
    # A card has hardly begun when a core is done.
    each = [trials * (1 if "core" in name else FASTER) for name in workers]
    walls, busy = [], []
    for _ in range(turns):
        answers = [ask("count", pool=pool, terms=terms, trials=own) for ask, own in zip(workers.values(), each)]
        walls.append([answer["wall_s"] / own for answer, own in zip(answers, each)])
        busy.append([answer["cpu_s"] / answer["wall_s"] for answer in answers])
    walls = np.array(walls)
    return (
        f"{pool:,}",
        f"{terms:,}",
        *(f"{1e-6 / wall:.3g}" for wall in np.median(walls, axis=0)),
        *(f"{times:.2f}" for times in np.median(walls[:, :1] / walls[:, 1:], axis=0)),
        ", ".join(f"{share:.2f}" for share in np.median(busy, axis=0)),
        f"{1e9 * np.median(walls[:, 0]) / terms:.2f}",
    )


def billion(page, trials):
    """Many trials in a process that has done nothing else."""
    worker = Worker("cpu", cores())
    found = worker("against_law", trials=trials)
    worker.close()
    assert found["peak_mib"] < 1024, found["peak_mib"]
    # Four hundred nearly normal numbers, and a seed that is fixed.
    assert found["z"] < 6, found["z"]
    page.say(
        "## Many trials in one process",
        "",
        f"{trials:,} trials of 60 clients of 10,000 on {len(cores())} cores: {found['wall_s']:.1f} s, or "
        f"{trials / found['wall_s'] / 1e6:.2f} million a second (busy {found['cpu_s'] / found['wall_s']:.2f}); the "
        f"first million, compilation included, {found['first_s']:.1f} s before that. Peak memory of the process "
        f"{found['peak_mib']:,.0f} MiB, {found['before_mib']:,.0f} MiB after the first million. The 400 counts are "
        f"at most {found['z']:.2f} standard errors from the exact law (by FFT).",
        "",
    )


def card(page, workers, trials, turns):
    """A graphics card: time of the billion, its share of the integer limit, and two cores beside it."""
    page.say("## Graphics card", "")
    name, ask = list(workers.items())[-1]
    if "core" in name:
        ask("limit", lanes=2**12)  # that the kernel agrees with NumPy can be seen anywhere
        page.say("Not measured on a GPU: there is none here.", "")
        return
    lanes, counted, sums, limits = 2**26, [], [], []
    for turn in range(turns + 1):
        answers = [ask("count", pool=10_000, terms=60, trials=trials), ask("sums", terms=60, trials=2**24)]
        limit = ask("limit", lanes=lanes)
        if turn:
            counted.append(answers[0]["wall_s"] / trials)
            sums.append(answers[1]["wall_s"] / answers[1]["gave"])
            limits.append(limit["instructions"] / limit["wall_s"])
    two = list(workers.values())[-2]("count", pool=10_000, terms=60, trials=trials // 50)["wall_s"] * 50 / trials
    counted, sums, limits = np.array(counted), np.array(sums), np.array(limits)
    billion_s = 1e9 * float(np.median(counted))
    page.say(
        f"1e9 trials of 60 clients on {name}, after compilation, in s: {at_most(billion_s, 1)} with counting at 200 "
        f"thresholds, {1e9 * np.median(sums):.2f} for the sums alone. Its limit of integer instructions, by "
        f"independent chains of multiply-add and exclusive or: {np.median(limits) / 1e12:.2f}e12 a second; at "
        f"{PER_DRAW} a draw the sums reach {np.median(PER_DRAW * 60 / sums / limits):.0%} of it, and with counting "
        f"{np.median(PER_DRAW * 60 / counted / limits):.0%}. On {list(workers)[-2]} of the same machine they take "
        f"{np.median(two / counted):,.0f} times as long.",
        "",
    )


def main():
    chosen = options("Trials per second against pool, cohort and cores.")
    draws, turns, trials = (2**21, 2, 10**7) if chosen.quick else (2**26, 5, 10**9)
    own = cores()
    default = Worker(None, own)
    machine = default("machine")
    workers = {f"{size} core{'s' * (size > 1)}": Worker("cpu", own[-size:]) for size in (1, 2) if size <= len(own)}
    if machine["backend"] == "cpu":
        default.close()
    else:
        workers[machine["kind"]] = default
    page = Page("Pool, cohort, cores, and a billion trials")
    page.say(f"{machine['facts']}; {turns} turns{', small sizes, of which times say little' * chosen.quick}.", "")
    swept(page, workers, draws, turns)
    billion(page, trials)
    card(page, workers, trials, turns)
    for worker in workers.values():
        worker.close()
    page.write(chosen)


if __name__ == "__main__":
    main()

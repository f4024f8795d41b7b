"""What a client's way through the channel costs, stage by stage, beside a plain float sum and the memory's speed.

python benchmarks/channel_speed.py [--quick] [--out FILE]

Ratios are medians over turns in which all rows of a table run one after the other, of the process's CPU time, so
that a busy machine slows all of them alike; on a quiet core wall time equals it.
"""

import os
import sys
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import games
import jax
import jax.numpy as jnp
import numpy as np
from measure import FULL, QUICK, Effort, Page, at_most, cores, facts, options, pin, side_by_side

import jaxaudit as ja
from jaxaudit.aggregation.secure_sum import SumState
from jaxaudit.game import Evaluation, FoldParams, FoldProgram
from jaxaudit.player import play_block
from jaxaudit.populations.pool import RecordedPool
from jaxaudit.random import CERTIFY, numbered
from jaxaudit.types import LinearTest, Pair, SumView, linear_score

CLIENTS, TARGET, PLAIN, COPY = 100, 2.0, "float32 sum", "copy"
# The others; and what is added in a trial, for the target sends under either bit.
SEATS, ADDED = CLIENTS - 1, CLIENTS + 1
# Entries are standard normal numbers, and every update is clipped to this share of its expected length.
STEP, FINE, RANGE, SHARE, NOISE = 2.0**-7, 2.0**-20, 8.0, 0.9, 10.0
# What rounding adds to an entry, in squared steps.
VARIANCE = {"nearest": 1 / 12, "stochastic": 1 / 6, "conditional": 1 / 6}
# Entries that are added before the clock is looked at, and those of the pool; the trial that has to agree.
ENTRIES, NUMBERS, FIRST = 2**27, 10**8, (0, CERTIFY, 0, 0)
# Dimension, trials at a time (0: as many as the game plays), rows (None: all; not where they take minutes a turn).
GAMES = ((10_000, 0, None), (1_000_000, 2, None), (1_000_000, 0, 6))
ABOUT = f"""## Throughput of the channel

{CLIENTS} clients on {{cores}} core(s), whole updates: {SEATS} others are drawn without replacement, the target sends
under either bit; in a trial {ADDED} updates are read, encoded, added, two sums decoded and scored. Rates are of CPU
time. Moved: an update is read (4 bytes an entry), the running sum read and written (8 bytes), mostly in the cache;
copied: 512 MiB are read and written. Every stage runs in every trial here; an audit of recorded updates applies those
that draw no random words once, which leaves the rows of integers. Residues equal Python's integers in each of 64
entries, decoded sums are off the float64 sum by the deviation that rounding and noise predict, within 5 %.
"""


@dataclass(frozen=True)
class FloatSum:
    """What every row is measured against: adds float32 vectors as they are."""

    def init(self, dim):
        """Nothing added yet."""
        return SumState(jnp.zeros(dim, jnp.float32), jnp.zeros((), jnp.int32))

    def add(self, params, state, ticket, seat, update):
        """One more."""
        return SumState(state.total + update, state.survivors + jnp.int32(1))

    def reveal(self, params, state, ticket):
        """The sum."""
        return SumView(state.total, state.survivors)


class Row(NamedTuple):
    """One aggregator in the game.

    Attributes:
      program, params, size: of the game on whole updates; entries of the running sum.
      ring_bits: of the ring whose residues are compared, 0 where decoded sums are.
      clipped: length that longer updates get.
      error: deviation of an entry of the decoded sum from the sum of the updates, by rounding and noise.
    """

    program: FoldProgram
    params: FoldParams
    size: int
    ring_bits: int = 0
    clipped: float = np.inf
    error: float = 0.0


def _channels(dim):
    clip, rotate = ja.Clip(norm=SHARE * dim**0.5), ja.Rotate()
    nearest, tossed, held = (ja.FixedPoint(step=STEP, clip_range=RANGE, rounding=how) for how in VARIANCE)
    noises = (("Skellam", ja.Skellam(deviation=NOISE)), ("discrete Gaussian", ja.DiscreteGaussian(deviation=NOISE)))
    yield "round to nearest", (nearest,)
    yield "round stochastically", (tossed,)
    for name, noise in noises:
        yield f"round to nearest, {name} noise", (nearest, noise)
    yield "clip, round conditionally", (clip, held)
    yield "clip, rotate, round to nearest", (clip, rotate, nearest)
    for name, noise in noises:
        yield f"clip, rotate, round conditionally, {name} noise", (clip, rotate, held, noise)


def _rows(dim, loaded, pair):
    zero, plain, fine = jnp.zeros(1, jnp.float32), ja.SecureSum(), (ja.FixedPoint(step=FINE),)
    known, step = LinearTest(jnp.asarray(pair[:1]), zero, zero), plain.prepare(loaded.limit, CLIENTS)

    def row(aggregator, numbers, size, pool=loaded.params, **more):
        program = FoldProgram(loaded.draws, aggregator, linear_score, dim, (Evaluation(0, SEATS),))
        return Row(program, FoldParams(pool, numbers, (known,)), size, **more)

    yield PLAIN, row(FloatSum(), (), dim)
    yield "plain secure sum", row(plain, step, dim, error=float(step.step) * np.sqrt(CLIENTS / 12))
    # Steady stages are applied before the trials. Each ring has its own table: one just read is partly in the cache.
    for bits in (32, 16):
        chain = ja.SecureSum(stages=fine, ring_bits=bits, wrap=True).fitted(dim, CLIENTS, False)
        integers = loaded.params._replace(rows=jnp.asarray(chain.sent(np.asarray(loaded.params.rows))))
        channel, numbers, error = chain.channel.started(1), chain.params(1.0), FINE * np.sqrt(CLIENTS / 12)
        yield f"integers modulo 2^{bits}", row(channel, numbers, dim, integers, ring_bits=bits, error=error)
    for name, stages in _channels(dim):
        chain = ja.SecureSum(stages=stages).fitted(dim, CLIENTS, False)
        (rounding,) = (stage.rounding for stage in stages if stage.kind == "fixed_point")
        error = np.hypot(STEP * np.sqrt(CLIENTS * VARIANCE[rounding]), NOISE * ("noise" in name))
        clipped = SHARE * dim**0.5 if "clip" in name else np.inf
        yield name, row(chain.channel, chain.params(1.0), chain.last.dim, clipped=clipped, error=error)


def _keys(row, width, room):
    words = map(jnp.uint32, (*FIRST, room))
    return play_block(row.program, games._mesh(), width, room, row.params, *words).block_until_ready()


def _agree(name, row, loaded, width):
    """Assert that the first trial is the sum of its updates, but for what the row's rounding and noise predict."""
    (view,) = jax.jit(row.program.reveal)(row.params, numbered(*map(jnp.uint32, FIRST)))
    (seats,) = games.seats(loaded.draws.seating, loaded.params.groups, 1)[0]
    recorded, total = np.asarray(loaded.params.rows), np.asarray(view.total, np.float64)[:, 0]
    who, sums = np.array([[*seats, len(recorded) - 2 + bit] for bit in (0, 1)]), np.zeros(total.shape)
    for bit, one in np.argwhere(who >= 0):
        update = recorded[who[bit, one]].astype(np.float64)
        sums[bit] += update * min(1, row.clipped / np.linalg.norm(update))
    off = total - sums
    if row.ring_bits:
        ring, sent, whole = np.asarray(view.ring)[:, 0], np.asarray(row.params.pool.rows), 2**row.ring_bits
        for entry in range(0, row.program.dim, row.program.dim // 64):
            exact = [sum(int(sent[one, entry]) for one in own) % whole for own in who]
            assert exact == ring[:, entry].tolist(), f"{name}: entry {entry} is not the sum of its integers"
        off = ((ring - sums / FINE + whole / 2) % whole - whole / 2) * FINE
    size = np.sqrt(np.mean(off**2))  # 5 % of a deviation from 10,000 entries are seven standard deviations
    fits = abs(size / row.error - 1) < 0.05 if row.error else size < 1e-5
    assert fits, f"{name}: off by {size:.3g}, expected {row.error:.3g}"
    # What is timed is the same trial; in batches a length may be rounded otherwise, and with it a few entries.
    timed = row.program.decode(np.asarray(_keys(row, width, 1))[0])[:, 0]
    here = total @ np.asarray(row.params.knowledge[0].weights, np.float64)[0]
    assert np.abs(timed - here).max() < 1e-3 * np.linalg.norm(total), f"{name}: scores are {timed}, not {here}"


def _table(dim, width, kept, effort):
    count = NUMBERS // dim // (1 if effort is FULL else 10)
    updates, pair = (np.random.default_rng(s).standard_normal((n, dim), np.float32) for s, n in ((0, count), (1, 2)))
    held = games.Held(updates, np.ones(count, np.int64))
    pool = RecordedPool((held,), cohort="without_replacement", noise_terms=SEATS, what="updates", clients=None)
    loaded = pool.load([Pair("given", pair[:1], pair[1:], adjacency="", source="")])
    played = loaded.draws.width(loaded.params)
    width, rows = width or played, dict(islice(_rows(dim, loaded, pair), kept))
    for name, row in rows.items():
        _agree(name, row, loaded, width)
    room = max(1, ENTRIES // (width * ADDED * dim)) if effort is FULL else 1
    source, target = np.ones(2**27, np.float32), np.zeros(2**27, np.float32)
    runs = {name: lambda row=row: len(_keys(row, width, room)) * ADDED for name, row in rows.items()}
    costs = side_by_side(runs | {COPY: lambda: np.copyto(target, source) or 2 * source.nbytes}, effort.turns)
    copied = costs[COPY].cpu
    yield f"### dim {dim:,}, {width} trials at a time (a run of this size plays {played})\n"
    yield f"{count:,} updates are recorded; {1e-9 / np.median(copied):.1f} GB/s copied.\n"
    yield "| | updates/s | ns per entry | GB/s moved | moved / copied | times the float sum |\n" + "| --- " * 6 + "|"
    for name, row in rows.items():
        cost, size, over = costs[name], 4 * (dim + 2 * row.size), costs[name].over(costs[PLAIN])
        rate, share = 1e9 / cost.cpu_ns, np.median(size * copied / cost.cpu)
        shown = f"{rate:,.0f} | {cost.cpu_ns / dim:.2f} | {rate * size / 1e9:.1f} | {share:.2f}"
        yield f"| {name} | {shown} | {at_most(over, TARGET) if row.ring_bits else f'{over:.2f}'} |"
    yield ""


def lines(effort: Effort = FULL) -> list[str]:
    """The section: a table for every dimension, agreement asserted first."""
    played = GAMES if effort is FULL else GAMES[:1]
    return [ABOUT.format(cores=len(cores())), *(line for game in played for line in _table(*game, effort))]


def main():
    chosen = options("What a client's way through the channel costs.")
    if hasattr(os, "sched_setaffinity") and len(cores()) > 1:
        # Thread pools ask for the number of cores when they are made, some at import: so begin again on one.
        pin(cores()[-1:])
        os.execv(sys.executable, sys.orig_argv)
    effort, page = QUICK if chosen.quick else FULL, Page("What a client's way through the channel costs")
    page.say(f"{facts()}; {effort.turns} turns{', small sizes, of which times say little' * chosen.quick}.", "")
    page.say(*lines(effort))
    page.write(chosen)


if __name__ == "__main__":
    main()

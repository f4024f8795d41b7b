"""A chain of stages, fitted to a cohort on the host: what the server and the accountant must know about it."""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..fixed_point import fixed_step
from ..random import Ticket
from .channel import WIDE, Channel, ChannelParams
from .stage import UNBOUNDED, Norms, Setting, Stage

# A normal number of the generator is within so many standard deviations.
_REACH = 7.0
# What a client remembers is hardly ever larger than so many updates.
_MEMORY = 64.0
# Updates that are encoded at once.
_ROWS = 2048


@dataclass(frozen=True, eq=False)
class Fitted:
    """One stage where it stands.

    Attributes:
      stage: the recipe.
      setting: what reaches it.
      params: its arrays.
    """

    stage: Stage
    setting: Setting
    params: Any


@dataclass(frozen=True, eq=False)
class Chain:
    """A channel for cohorts of known size, before any trial.

    Attributes:
      dim: entries of an update.
      links: the stages, in the order in which a client applies them.
      last: what leaves the last of them.
      channel: what runs in a trial.
      clients: of the largest cohort, the target included.
      varying: clients may be absent.
    """

    dim: int
    links: tuple[Fitted, ...]
    last: Setting
    channel: Channel
    clients: int
    varying: bool

    def words(self, projected: bool) -> str:
        """What is simulated of the protocol, in words.

        Args:
          projected: one number for each update is summed, and the noise is drawn for all clients at once.
        """
        own = [link for link in self.links if not getattr(link.stage, "central", False)]
        stages = "; ".join(link.stage.words(link.setting) for link in own) or "sends its update"
        trusted = "".join(f"; {link.stage.words(link.setting)}" for link in self.links if link not in own)
        ring = (
            ""
            if not self.last.step
            else (
                "; summed in 64 bits"
                if self.last.ring_bits == WIDE
                else f"; summed modulo 2^{self.last.ring_bits}, "
                f"{'where sums may wrap' if self.may_wrap else 'where no sum of the cohort can wrap'}"
            )
        )
        hidden = "" if self.channel.announced else "; the server is not told how many sent"
        abort = f"; rounds with fewer than {self.channel.minimum:,} clients are aborted" * (self.channel.minimum > 0)
        drawn = "; the noise of all clients drawn at once from the law of its sum" * (projected and bool(self.noises))
        protocol = f"each client: {stages}{ring}{trusted}{hidden}{abort}{drawn}"
        return f"the ideal functionality of secure aggregation ({protocol})"

    @property
    def digest(self) -> str:
        """Names everything that decides what becomes of an update."""
        return repr((*(link.stage for link in self.links), self.last))

    @property
    def noises(self) -> list[Fitted]:
        """The stages that add noise."""
        return [link for link in self.links if hasattr(link.stage, "share")]

    @property
    def ahead(self) -> int:
        """So many of the first stages make the same of an update every time."""
        first = next((place for place, size in enumerate(self.channel.remembered) if size), len(self.links))
        steady = [link.stage.steady for link in self.links[:first]]
        return steady.index(False) if False in steady else len(steady)

    @cached_property
    def may_wrap(self) -> bool:
        """Whether some sum of the cohort leaves the ring."""
        if not self.last.step or self.last.ring_bits == WIDE:
            return False
        sent, noise, ring = self.last.crowd * self.norms.linf, self._noise_reach(), 2.0**self.last.ring_bits
        if not self.channel.shifted:
            return sent + noise > ring / 2 - 1
        shift = self.last.crowd * sum(int(link.params.shift) for link in self.links if hasattr(link.params, "shift"))
        return shift + sent + noise > ring - 1 or shift - sent - noise < 0

    def _noise_reach(self):
        # Of integer noise, all shares of the cohort at once.
        laws = [(link.stage, link.setting) for link in self.noises if link.setting.step and not link.stage.central]
        return sum(self.last.crowd * stage.client_law(setting).reach for stage, setting in laws)

    @property
    def norms(self) -> Norms:
        """Of what a client sends, but for noise that it added after all else, in the units of the sum."""
        found = UNBOUNDED
        for link, after in zip(self.links, self._after):
            if not hasattr(link.stage, "share"):
                found = after.norms
        return found

    @property
    def gain(self) -> float:
        """How much longer a decoded sum is than the sum of what is sent: decoding is a multiple of a projection."""
        return float(np.linalg.norm(self.scores(np.eye(1, self.dim))))

    @property
    def _after(self):
        """What leaves every stage."""
        return [*(link.setting for link in self.links[1:]), self.last]

    @cached_property
    def faithful(self) -> bool:
        """But for noise, the server sees the sum of what updates always become, and how many there are."""
        channel = self.channel
        if self.may_wrap or not channel.announced or channel.minimum or channel.remembered:
            return False
        return all(hasattr(link.stage, "share") or link.stage.steady for link in self.links)

    @property
    def l2_clips(self) -> list[float]:
        """The norms that updates are clipped to, as whole vectors."""
        return [link.stage.norm for link in self.links if getattr(link.stage, "order", "") == "l2"]

    @property
    def by_entry(self) -> bool:
        """What becomes of an entry of an update does not depend on the others."""
        stages = [link.stage for link in self.links]
        mixing = any(stage.kind in ("rotate", "top_k", "random_k") for stage in stages)
        # An l2 clip and a conditional rounding look at the length of the whole vector.
        return not (
            mixing or self.l2_clips or any(getattr(stage, "rounding", "") == "conditional" for stage in stages)
        )

    @cached_property
    def linear(self) -> bool:
        """The decoded sum is the sum of what steady encodings are decoded to, and of noise with a law of its own."""
        if not self.faithful or self.channel.shifted:
            return False
        # Noise before a rounding becomes part of what is rounded.
        first_noise = next((place for place, link in enumerate(self.links) if not link.stage.steady), len(self.links))
        mixed = any(not hasattr(link.stage, "share") for link in self.links[first_noise:])
        shared = any(not link.stage.central for link in self.noises)
        return not mixed and not (self.varying and shared)

    def params(self, limit: Any) -> ChannelParams:
        """What a trial looks up, for updates with no entry beyond `limit`."""
        step, reach = 1.0, 1.0
        if not self.last.step:
            step, reach = self.finest(float(np.max(limit)))
        return ChannelParams(tuple(link.params for link in self.links), jnp.float32(step), jnp.float32(reach))

    def finest(self, limit: float) -> tuple[float, float]:
        """The step in which real vectors are summed, and the largest magnitude of their entries.

        Args:
          limit: no entry of an update is larger; may be infinite where a stage clips.
        """
        reach = self._reach(limit)
        return float(fixed_step(self.last.crowd * reach)), reach

    def _reach(self, reach):
        for link in self.links:
            if hasattr(link.stage, "share"):
                reach += 0.0 if link.stage.central else _REACH * link.stage.share(link.setting)
                continue
            norms = link.setting.norms
            own = Norms(norms.l1, norms.l2, min(reach, norms.linf)).tightened(link.setting.dim)
            found = link.stage.after(link.setting._replace(norms=own)).norms.linf
            reach = found if np.isfinite(found) else _MEMORY * reach
        return reach

    def sent(self, rows: np.ndarray) -> np.ndarray:
        """What steady stages make of updates: f32 or i32[n, size of the first stage that is not steady]."""
        params, parts = self.params(1.0), []
        for at in range(0, len(rows), _ROWS):
            own = jnp.asarray(rows[at : at + _ROWS], jnp.float32)
            parts.append(np.asarray(_encoded(self.channel, params, own, self.ahead)))
        return np.concatenate(parts)

    def arrived(self, rows: np.ndarray) -> np.ndarray:
        """What updates add to the decoded sum on average, exactly where all stages before the noise are steady."""
        mean, _ = self.spread(rows)
        return mean

    def spread(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean of what updates add to the decoded sum, and its variance by the randomness of the encoding.

        Args:
          rows: f32[n, dim].

        Returns:
          (f64[n, dim], f64[dim]): the variance is the average over the rows; that of noise stages is not in it.
        """
        own = tuple(link.params for link in self.links)
        means, spread = [], 0.0
        for at in range(0, len(rows), _ROWS):
            part = jnp.asarray(rows[at : at + _ROWS], jnp.float32)
            mean, variance = _expected(self._quiet, own, part)
            mean = np.asarray(mean, np.float64)
            with jax.enable_x64(True):
                means.append(np.asarray(jax.vmap(lambda one: self._decoded(one, 1))(jnp.asarray(mean))))
            spread = spread + np.asarray(variance, np.float64) * (len(part) / len(rows))
        for link in reversed(self.links):
            spread = link.stage.decoded_variance(jax.tree.map(np.asarray, link.params), spread)
        return np.concatenate(means), np.broadcast_to(spread, (self.dim,))

    @property
    def _quiet(self):
        """The stages but those that add noise."""
        noisy = [hasattr(link.stage, "share") for link in self.links]
        return tuple(None if is_noise else stage for is_noise, stage in zip(noisy, self.channel.stages))

    def scores(self, weights: np.ndarray) -> np.ndarray:
        """What a linear score of the decoded sum reads of what clients send: the adjoint of the decoding.

        Args:
          weights: f64[k, dim].

        Returns:
          f64[k, size], for one integer step of every entry, or for one unit where vectors are real.
        """
        with jax.enable_x64(True):
            # Of nobody: what a shifted encoding adds for each client is no part of the score.
            _, back = jax.vjp(lambda total: self._decoded(total, 0), jnp.zeros(self.last.dim, jnp.float64))
            return np.stack([np.asarray(back(jnp.asarray(one, jnp.float64))[0]) for one in weights])

    def _decoded(self, total, survivors):
        for link in reversed(self.links):
            total = link.stage.decode(link.params, total, survivors)
        return total


@partial(jax.jit, static_argnums=(0, 3))
def _encoded(channel, params, rows, ahead):
    ticket = Ticket(jnp.uint32(0), jnp.uint32(0), jnp.uint32(0))
    return jax.vmap(lambda row: channel.encode(params, row, ticket, jnp.uint32(0), 0, ahead))(rows)


@partial(jax.jit, static_argnums=0)
def _expected(stages, params, rows):
    def one(vector):
        variance = jnp.float32(0)
        for stage, own in zip(stages, params):
            if stage is not None:
                vector, variance = stage.expected(own, vector, variance)
        return vector, variance

    means, variances = jax.vmap(one)(rows)
    return means, variances.mean(axis=0)

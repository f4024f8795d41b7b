"""Noise of differential privacy, as deployments add it: by the aggregator, or in shares by the clients."""

from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from ..random import Ticket, normals
from ..schema import recipe
from .laws import IntegerLaw, Table, binomial, discrete_gaussian, draw, skellam, table
from .stage import UNBOUNDED, Setting

_MAX_DEVIATION = 1e12
_OF_DEVIATION = "standard deviation of the noise, in units of the update"


NAMES = {
    "gaussian": "Gaussian",
    "discrete_gaussian": "discrete Gaussian",
    "skellam": "Skellam",
    "binomial": "binomial",
}


class _Additive:
    """What all noise has in common: it is centred, so decoding leaves a sum as it is."""

    def words(self, setting: Setting) -> str:
        """Who adds what."""
        noise = f"{NAMES[self.kind]} noise of deviation {self.deviation:g}"
        return {
            "central": f"a trusted party adds {noise} to the decoded sum",
            "distributed": f"adds its share of {noise} on the sum of {setting.clients:,} clients",
            "local": f"adds {noise}",
        }[self.where]

    def decode(self, params, total, survivors) -> Any:
        """The sum as it is."""
        del params, survivors
        return total

    def decoded_variance(self, params, variance) -> Any:
        """Variances as they are."""
        del params
        return variance


@recipe
class Gaussian(_Additive):
    """Normal noise on real vectors: on the sum, or in every client's share of it.

    Attributes:
      kind: "gaussian".
      deviation: standard deviation in units of the update, above 0: of what a client adds where that is "local", else
        of the sum of all clients' noise.
      where: "central", on the decoded sum, by the aggregator before the server sees it; "distributed", a share of
        variance deviation² / clients from every client of the largest cohort, so that dropouts take noise away; or
        "local", `deviation` from every client.

    Reference:
      Dwork, Kenthapadi, McSherry, Mironov & Naor (2006), "Our data, ourselves", for noise in shares.
    """

    kind: Literal["gaussian"] = "gaussian"
    deviation: float = Field(gt=0, le=_MAX_DEVIATION, description=_OF_DEVIATION)
    where: Literal["central", "distributed", "local"] = "central"

    @property
    def central(self) -> bool:
        """The aggregator adds it, by `disturb`; encoding does nothing then."""
        return self.where == "central"

    @property
    def steady(self) -> bool:
        """Encoding draws nothing."""
        return self.central

    def share(self, setting: Setting) -> float:
        """Standard deviation of one client's share in units of the update; of all noise where that is central."""
        return float(self.deviation / np.sqrt(setting.clients if self.where == "distributed" else 1))

    def prepare(self, setting: Setting) -> jax.Array:
        """f32[], the deviation of a share.

        Raises:
          ValueError: where clients would add real noise to integers.
        """
        if setting.step and not self.central:
            raise ValueError(
                f"where is {self.where!r} after a fixed_point stage, allowed is 'central': real noise cannot be added"
                " to integers; put it before fixed_point, or use discrete_gaussian or skellam"
            )
        return jnp.float32(self.share(setting))

    def after(self, setting: Setting) -> Setting:
        """A vector with noise in it has no bound."""
        return setting if self.central else setting._replace(norms=UNBOUNDED)

    def encode(self, params, vector, ticket: Ticket) -> jax.Array:
        """The vector with the client's noise."""
        return vector if self.central else vector + params * normals(ticket, 0, vector.shape[0])

    def expected(self, params, vector, variance) -> tuple[Any, Any]:
        """The mean as it is; the variance with a client's noise."""
        return vector, variance if self.central else variance + params * params

    def disturb(self, params, total, ticket: Ticket) -> jax.Array:
        """What the aggregator makes of a decoded sum.

        Args:
          params: from `prepare`.
          total: f32[dim], in units of the update.
          ticket: of the aggregator alone, from word 0.

        Returns:
          f32[dim]: with central noise; otherwise the sum as it is.
        """
        return total + params * normals(ticket, 0, total.shape[0]) if self.central else total


class IntegerNoise(NamedTuple):
    """The noise of one client.

    Attributes:
      table: of its law, in steps.
      variance: f32[], in squared steps.
    """

    table: Table
    variance: jax.Array


class _InSteps(_Additive):
    """Noise on integers, added by the clients; `_law` makes the law of a share from its variance in squared steps."""

    central: ClassVar[bool] = False
    steady: ClassVar[bool] = False

    def client_law(self, setting: Setting) -> IntegerLaw:
        """The law of one client's share, in steps.

        Raises:
          ValueError: where no fixed-point stage comes before, or where the noise is too wide for a table.
        """
        if not setting.step:
            raise ValueError(
                f"real vectors reach {self.kind} noise, allowed are integers; put it after a fixed_point stage"
            )
        return self._law((self.deviation / setting.step) ** 2 / self._sharers(setting))

    def share(self, setting: Setting) -> float:
        """Standard deviation of one client's share in steps; of a discrete Gaussian, the parameter σ of its law."""
        return float(self.deviation / setting.step / np.sqrt(self._sharers(setting)))

    def _sharers(self, setting: Setting) -> int:
        return setting.clients if self.where == "distributed" else 1

    def prepare(self, setting: Setting) -> IntegerNoise:
        """The table of a client's noise; ValueErrors are those of `client_law` and `table`."""
        law = self.client_law(setting)
        return IntegerNoise(table(law), jnp.float32(law.variance))

    def after(self, setting: Setting) -> Setting:
        """A vector with noise in it has no bound."""
        return setting._replace(norms=UNBOUNDED)

    def encode(self, params: IntegerNoise, vector, ticket: Ticket) -> jax.Array:
        """The vector, i32[dim], with the client's noise."""
        return vector + draw(params.table, ticket, vector.shape[0])

    def expected(self, params: IntegerNoise, vector, variance) -> tuple[Any, Any]:
        """The mean as it is; the variance with a client's noise."""
        return vector, variance + params.variance


@recipe
class DiscreteGaussian(_InSteps):
    """Discrete Gaussian noise on integers, from every client.

    A sum of discrete Gaussians is close to one, but is none.

    Attributes:
      kind: "discrete_gaussian".
      deviation: in units of the update, above 0, √ of the laws' variance parameter: of what a client adds where that
        is "local", else of the sum.
      where: "distributed", a share of deviation² / clients from every client of the largest cohort, so that dropouts
        take noise away; or "local", `deviation` from every client.

    Reference:
      Canonne, Kamath & Steinke (2020), arXiv:2004.00010; Kairouz, Liu & Steinke (2021), "The distributed discrete
      Gaussian mechanism for federated learning with secure aggregation", arXiv:2102.06387.
    """

    kind: Literal["discrete_gaussian"] = "discrete_gaussian"
    deviation: float = Field(gt=0, le=_MAX_DEVIATION, description=_OF_DEVIATION)
    where: Literal["distributed", "local"] = "distributed"

    def _law(self, variance: float) -> IntegerLaw:
        return discrete_gaussian(variance)


@recipe
class Skellam(_InSteps):
    """Skellam noise on integers, from every client: differences of two Poisson draws, whose sums are Skellam again.

    Attributes:
      kind: "skellam".
      deviation: standard deviation in units of the update, above 0: of what a client adds where that is "local", else
        of the sum.
      where: "distributed" or "local", as for `DiscreteGaussian`.

    Reference:
      Agarwal, Kairouz & Liu (2021), "The Skellam mechanism for differentially private federated learning",
      arXiv:2110.04995.
    """

    kind: Literal["skellam"] = "skellam"
    deviation: float = Field(gt=0, le=_MAX_DEVIATION, description=_OF_DEVIATION)
    where: Literal["distributed", "local"] = "distributed"

    def _law(self, variance: float) -> IntegerLaw:
        return skellam(variance)


@recipe
class Binomial(_InSteps):
    """Centred binomial noise on integers, from every client, whose sums are binomial again.

    A client tosses the smallest even number of fair coins whose variance is at least that of its share: two or more.

    Attributes:
      kind: "binomial".
      deviation: standard deviation in units of the update, above 0: of what a client adds where that is "local", else
        of the sum; the coins make it this or more.
      where: "distributed" or "local", as for `DiscreteGaussian`.

    Reference:
      Agarwal, Suresh, Yu, Kumar & McMahan (2018), "cpSGD: communication-efficient and differentially-private
      distributed SGD", arXiv:1805.10559.
    """

    kind: Literal["binomial"] = "binomial"
    deviation: float = Field(gt=0, le=_MAX_DEVIATION, description=_OF_DEVIATION)
    where: Literal["distributed", "local"] = "distributed"

    def share(self, setting: Setting) -> float:
        """Standard deviation of one client's coins, in steps."""
        return float(np.sqrt(self.client_law(setting).parameter) / 2)

    def words(self, setting: Setting) -> str:
        """How many coins a client tosses, and what comes of them."""
        coins, sharers = self.client_law(setting).parameter, self._sharers(setting)
        deviation = self.share(setting) * setting.step * np.sqrt(sharers)
        whose = f" on the sum of {sharers:,} clients" * (self.where == "distributed")
        return f"tosses {coins:,} fair coins: binomial noise of deviation {deviation:.4g}{whose}"

    def _law(self, variance: float) -> IntegerLaw:
        return binomial(2 * max(1, int(np.ceil(2 * variance))))

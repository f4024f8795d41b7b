r"""The interface of `jax_privacy.auditing` (release 2.0.0), with bounds that are proved.

    from jaxaudit.bounds import auditing  # instead of: from jax_privacy import auditing

Names, arguments, defaults, checks and meanings are those of `jax_privacy`, and so are the values, to the digits of
its own root finding and for the same seeds, but for what soundness asks:

  - `epsilon_clopper_pearson` over all thresholds, the default, is the largest bound of a band that holds at all of
    them (`equal_level_limit`). There, the failure probability is divided by the number of vertices of the empirical
    hull, which depends on the data and has no proof. For Gaussian scores the band is tighter from 1e5 canaries on
    and up to 0.04 looser below; one-sided, it spends four fifths on the false positives.
  - `epsilon_one_run` and `epsilon_one_run_fdp` over all thresholds guess the highest scores, as many as each of a
    fixed list of numbers, and pay for each of these; this is mostly tighter, too. `Split` and `MultiSplit` are
    refused: the theorems want the number of guesses fixed before the run, and a threshold that was chosen on some of
    the canaries depends on the run that made the others.
  - `epsilon_from_gdp` is 0 where nothing is refuted; there it is up to 3.6 on scores that carry no information.
  - `max_accuracy` with a significance looks at all thresholds; the vertices of the hull do not bound the others.
  - Scores must be finite. There, NaN are dropped without a word.
  - Limits are rounded outwards, by at most 4e-11 of their value.
"""

from .auditor import ScoreAuditor as ScoreAuditor
from .strategies import Bonferroni as Bonferroni
from .strategies import BootstrapParams as BootstrapParams
from .strategies import Explicit as Explicit
from .strategies import MultiSplit as MultiSplit
from .strategies import Split as Split
from .strategies import ThresholdStrategy as ThresholdStrategy

CanaryScoreAuditor = ScoreAuditor

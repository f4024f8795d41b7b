"""Certified lower bounds on epsilon from error counts: NumPy and SciPy only, usable without the rest.

    pilot, rest = bounds.split(bounds.Scores(h0, h1, "mine", design="labelled"), seed=0)
    plan = bounds.robust_pilot(pilot, min(rest.trials), deltas=[1e-5], method="cc-cp")
    print(bounds.epsilon_at(plan, rest.count(plan.thresholds), delta=1e-5))

Design note: everything here is NumPy float64 on the host. What runs per trial belongs in JAX; what turns a handful
of integers into a claim belongs where 1e-12 tails are exact and nothing is traced.
"""

from .anytime import epsilon_anytime as epsilon_anytime
from .anytime import spending as spending
from .bands import dkw_limit as dkw_limit
from .bands import epsilon_simultaneous as epsilon_simultaneous
from .bands import equal_level_limit as equal_level_limit
from .certify import claim_p_value as claim_p_value
from .certify import delta_at as delta_at
from .certify import epsilon_at as epsilon_at
from .certify import holm as holm
from .certify import privacy_curve as privacy_curve
from .conditional import epsilon_labelled as epsilon_labelled
from .conditional import epsilon_paired as epsilon_paired
from .epsilon import delta_clopper_pearson as delta_clopper_pearson
from .epsilon import epsilon_clopper_pearson as epsilon_clopper_pearson
from .epsilon import error_limits as error_limits
from .estimates import ESTIMATES as ESTIMATES
from .exact import Tails as Tails
from .exact import Term as Term
from .exact import exact_curve as exact_curve
from .exact import exact_epsilon as exact_epsilon
from .exact import exact_tails as exact_tails
from .exchange import from_json as from_json
from .exchange import to_json as to_json
from .intervals import clopper_pearson_lower as clopper_pearson_lower
from .intervals import clopper_pearson_upper as clopper_pearson_upper
from .methods import METHODS as METHODS
from .methods import best_method as best_method
from .methods import ceiling as ceiling
from .one_run import epsilon_one_run as epsilon_one_run
from .order_statistics import epsilon_order_statistics as epsilon_order_statistics
from .pilot import best_plan as best_plan
from .pilot import declared as declared
from .pilot import gaussian_pilot as gaussian_pilot
from .pilot import robust_pilot as robust_pilot
from .planning import expected_epsilon as expected_epsilon
from .planning import trials_needed as trials_needed
from .records import Bound as Bound
from .records import Event as Event
from .records import Plan as Plan
from .records import percent as percent
from .records import rounded_down as rounded_down
from .samples import Counts as Counts
from .samples import Scores as Scores
from .samples import with_score as with_score
from .split import multi_split as multi_split
from .split import split as split
from .split import toss as toss
from .theory import balanced_error as balanced_error
from .theory import clients_needed as clients_needed
from .theory import cube_distance as cube_distance
from .theory import gaussian_delta as gaussian_delta
from .theory import gaussian_distance as gaussian_distance
from .theory import gaussian_epsilon as gaussian_epsilon
from .theory import gaussian_tradeoff as gaussian_tradeoff
from .theory import sphere_distance as sphere_distance
from .tradeoff import Tradeoff as Tradeoff
from .tradeoff import area_under_roc as area_under_roc
from .tradeoff import histogram_edges as histogram_edges
from .tradeoff import roc_band as roc_band
from .tradeoff import roc_thresholds as roc_thresholds
from .tradeoff import tradeoff as tradeoff

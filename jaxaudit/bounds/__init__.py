"""Certified lower bounds on epsilon from error counts: NumPy and SciPy only, usable without the rest.

    pilot = bounds.Scores(h0, h1, stream="first half")
    plan = bounds.robust_pilot(pilot, trials=fresh_h0.size, deltas=[1e-3])
    counts = bounds.Scores(fresh_h0, fresh_h1, stream="second half").count(plan.thresholds)
    print(bounds.certify(plan, counts, delta=1e-3))

Design note: everything here is NumPy float64 on the host. What runs per trial belongs in JAX; what turns a handful
of integers into a claim belongs where 1e-12 tails are exact and nothing is traced.
"""

from .certify import certify as certify
from .epsilon import ceiling as ceiling
from .epsilon import epsilon_clopper_pearson as epsilon_clopper_pearson
from .epsilon import epsilon_paired as epsilon_paired
from .epsilon import error_limits as error_limits
from .exact import Tails as Tails
from .exact import Term as Term
from .exact import exact_curve as exact_curve
from .exact import exact_epsilon as exact_epsilon
from .exact import exact_tails as exact_tails
from .intervals import clopper_pearson_lower as clopper_pearson_lower
from .intervals import clopper_pearson_upper as clopper_pearson_upper
from .pilot import robust_pilot as robust_pilot
from .records import Bound as Bound
from .records import Counts as Counts
from .records import Event as Event
from .records import Plan as Plan
from .records import Scores as Scores
from .records import percent as percent
from .records import rounded_down as rounded_down
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
from .tradeoff import privacy_curve as privacy_curve
from .tradeoff import roc_band as roc_band
from .tradeoff import roc_thresholds as roc_thresholds
from .tradeoff import tradeoff as tradeoff

"""Upper bounds on epsilon: what noise, as deployed, is proved to guarantee. NumPy and SciPy only.

    reach = accounting.sensitivity(*accounting.rounded(l1, l2, linf, dim, "stochastic"), "replacement")
    noise = accounting.Mechanism("skellam", *reach, dim, deviation=2.0, shares=((100, 1.0),))
    print(accounting.epsilon_upper(noise, 1e-5), accounting.source(noise))

Design note: a mechanism is numbers, so that whatever was simulated, and any deployment, can be asked about. Every
bound is the least of what several theorems prove, each in the file of its noise.
"""

from .mechanism import Mechanism as Mechanism
from .mechanism import delta_upper as delta_upper
from .mechanism import epsilon_upper as epsilon_upper
from .mechanism import sensitivity as sensitivity
from .mechanism import source as source
from .rounding import conditional_bound as conditional_bound
from .rounding import integer_norms as integer_norms
from .rounding import rounded as rounded

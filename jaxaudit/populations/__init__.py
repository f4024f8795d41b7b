"""Who sends what: recipes of populations, and the pools they prepare."""

from .arrays import Arrays as Arrays
from .deceived import Deceived as Deceived
from .federated import Federated as Federated
from .synthetic import Synthetic as Synthetic

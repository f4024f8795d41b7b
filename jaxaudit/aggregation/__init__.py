"""What the protocol reveals of the clients' updates, and the stages that encode them on their way."""

from .clip import Clip as Clip
from .encoding import FixedPoint as FixedPoint
from .noise import Binomial as Binomial
from .noise import DiscreteGaussian as DiscreteGaussian
from .noise import Gaussian as Gaussian
from .noise import Skellam as Skellam
from .presets import flower_secaggplus as flower_secaggplus
from .presets import tff_distributed_dp as tff_distributed_dp
from .presets import tff_sum as tff_sum
from .rotate import Rotate as Rotate
from .secure_sum import SecureSum as SecureSum
from .sparsify import RandomK as RandomK
from .sparsify import TopK as TopK
from .weight import Weight as Weight

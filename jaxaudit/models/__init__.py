"""The flax models that clients train, the local training itself, and federated averaging."""

from .averaging import average as average
from .bait import Bait as Bait
from .classifiers import CNN as CNN
from .classifiers import MLP as MLP
from .classifiers import Softmax as Softmax
from .layer_norm import Mixer as Mixer
from .mobile import MobileNet as MobileNet
from .normalised import VGGBN as VGGBN
from .normalised import LeNetBN as LeNetBN
from .objective import Objective as Objective
from .registry import Name as Name
from .registry import build as build
from .registry import check as check
from .residual import PreActResNet as PreActResNet
from .residual import ResNet18 as ResNet18
from .training import LocalTraining as LocalTraining

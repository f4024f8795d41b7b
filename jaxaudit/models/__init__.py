"""The flax models that clients train, the local training itself, and federated averaging."""

from .averaging import average as average
from .classifiers import CNN as CNN
from .classifiers import MLP as MLP
from .classifiers import Name as Name
from .classifiers import Softmax as Softmax
from .classifiers import build as build
from .classifiers import check as check
from .training import LocalTraining as LocalTraining

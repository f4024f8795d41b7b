"""The flax models that clients train, and the local training itself."""

from .classifiers import MLP as MLP
from .classifiers import Name as Name
from .classifiers import Softmax as Softmax
from .classifiers import build as build
from .training import LocalTraining as LocalTraining

"""The models by name."""

from typing import Literal, get_args

from flax import linen as nn

from .classifiers import CNN, MLP, Softmax
from .layer_norm import Mixer
from .mobile import MobileNet
from .normalised import VGGBN, LeNetBN
from .residual import PreActResNet, ResNet18

Name = Literal[
    "softmax",
    "mlp",
    "cnn",
    "lenet_bn",
    "vgg_bn",
    "vgg11_bn",
    "resnet18",
    "preact_resnet",
    "mobilenet",
    "layernorm",
]

_BUILDERS = {
    "softmax": lambda classes, hidden: Softmax(classes),
    "mlp": MLP,
    "cnn": lambda classes, hidden: CNN(classes),
    "lenet_bn": LeNetBN,
    "vgg_bn": lambda classes, hidden: VGGBN(classes, ((16,), (32, 32), (64, hidden))),
    "vgg11_bn": lambda classes, hidden: VGGBN(classes, ((64,), (128,), (256, 256), (512, 512), (512, 512))),
    "resnet18": lambda classes, hidden: ResNet18(classes),
    "preact_resnet": PreActResNet,
    "mobilenet": MobileNet,
    "layernorm": Mixer,
}


def check(name: Name, shape: tuple[int, ...]) -> None:
    """Refuse a model that cannot read the records.

    Args:
      name: of the model.
      shape: of one record, e.g. `data.inputs.shape[1:]`.

    Raises:
      ValueError: unless the model is "softmax" or "mlp", on anything but images: of 4×4 pixels or more for "cnn", of
        8×8 or more for those with normalisation layers.

    Example:
      >>> check("cnn", (28, 28, 1))
      >>> check("resnet18", (8, 8, 1))
    """
    _require_known(name)
    least = {"softmax": 0, "mlp": 0, "cnn": 4}.get(name, 8)
    if least and (len(shape) != 3 or min(shape[:2]) < least):
        raise ValueError(
            f"population.model is '{name}', but a record of population.dataset has shape {shape}, allowed are images "
            f"(height ≥ {least}, width ≥ {least}, channels); for other records set --set population.model=mlp or "
            "softmax"
        )


def build(name: Name, classes: int, hidden: int) -> nn.Module:
    """A model by name; `check` says whether it can read the records.

    Args:
      name: of the model.
      classes: number of classes.
      hidden: width of the hidden layer of "mlp", and of the embedding, the input of the head, of the models with
        normalisation layers. "softmax", "cnn" and, with 512 by design, "vgg11_bn" and "resnet18" make no use of it.

    Returns:
      A flax module from inputs to logits.

    Raises:
      ValueError: for an unknown name.
    """
    _require_known(name)
    return _BUILDERS[name](classes, hidden)


def _require_known(name) -> None:
    if name not in _BUILDERS:
        raise ValueError(f"population.model is '{name}', allowed are {', '.join(get_args(Name))}")

"""What the server infers. A new attack is one file here and one line below, or an entry point `jaxaudit.attacks`."""

from .label_leakage import LabelLeakage as LabelLeakage
from .membership import GaussianLRT as GaussianLRT
from .mixture import MixtureLRT as MixtureLRT
from .wrapped import WrappedLRT as WrappedLRT

"""Label leakage: client-specific models make every client's labels a linear function of the secure sum."""

from .attack import LabelLeakage as LabelLeakage

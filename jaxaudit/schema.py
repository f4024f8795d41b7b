"""What every recipe is: a frozen, keyword-only dataclass that refuses bad values on construction."""

from typing import dataclass_transform

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def recipe(cls):
    """Validated frozen dataclass. Unknown fields are errors, and a number is not a string."""
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    return dataclass(frozen=True, kw_only=True, config=config)(cls)

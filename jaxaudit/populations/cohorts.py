"""The fields of a recipe that say how many take part, and how they are chosen."""

from typing import Literal

from pydantic import Field

from ..schema import one_or_more, several

Cohort = Literal["fixed", "with_replacement", "without_replacement", "poisson"]


def cohort_field(most: int):
    """The type of a recipe's `clients`: one cohort size of 2 to `most`, or a list of several."""
    return one_or_more(int, f"cohort sizes ≥ 2 and ≤ {most:,}", lambda clients: 2 <= clients <= most)


def dropout_field():
    """A recipe's `dropout`: the probability that a client of the cohort sends nothing."""
    return Field(0.0, ge=0, le=0.99, description="probability that a client of the cohort sends nothing")


def require_one_poisson_size(cohort: Cohort, clients: int | tuple[int, ...]) -> None:
    """Raise ValueError where several Poisson cohorts are asked for: they share no draws."""
    if cohort == "poisson" and len(several(clients)) > 1:
        raise ValueError(
            f'clients is {list(several(clients))}, allowed is one size for cohort = "poisson": cohorts of other '
            "rates share no draws; run them one by one"
        )

"""Rules that certify nothing, in the form of certificates: kept to be caught."""

from dataclasses import replace

from certificates import Certificate, certified, watched
from reference import published_rule

from jaxaudit import bounds


def planned_on_itself(design, method):
    """The plan is made on the very trials that certify, under another name."""

    def bound(_, fresh, deltas):
        scores = getattr(fresh, design)
        called_another = replace(scores, stream="another")
        return certified(bounds.robust_pilot(called_another, fresh.size, deltas, method), scores, deltas)

    return Certificate(bound)


def published():
    """The best of 1000 thresholds."""

    def bound(_, fresh, deltas):
        return [published_rule(fresh.independent.h0, fresh.independent.h1, delta) for delta in deltas]

    return Certificate(bound)


UNSOUND = {
    "rule of arXiv:2403.17775": published(),
    "CC-CP, plan made on the certifying trials": planned_on_itself("labelled", "cc-cp"),
    "CC-CP, worst of ten looks unpaid": watched("labelled", "cc-cp"),
}

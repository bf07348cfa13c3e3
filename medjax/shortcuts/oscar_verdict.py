"""The decision of an audit by one rule, so that two users decide alike, and the audit's table.

    answer = verdict(audit(key, ts, ba, sa, regions))          answer.decision, answer.reasons
    answers = verdicts([on_grid, on_superpixels])              Holm's correction over the audits
    to_table(found)                                            every correlation with its interval and p-values

The rule, whose limits are those of `Limits`:

1. Undecided: there are too few images or regions; ρ(TS, SA | BA) is undefined, as where TS is BA, or more than 5 % of
   its resamples are; the spatial null has too few maps for a p below α; or BA's profile is not reliable (split-half),
   since its noise is left in both residuals and correlates them.
2. Shortcut: ρ(TS, SA | BA) > 0, its spatial p is below α, by Holm's correction over the audits that are judged
   together, and its 95 % bootstrap interval lies above 0.
3. No evidence: otherwise, if the profiles of TS and SA are reliable too, since noise there hides a shortcut; undecided
   if not. It is no proof of absence: a shortcut that lies where the task looks anyway leaves none.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medjax.errors import ConfigError
from medjax.metrics.multiple_testing import holm
from medjax.report.html import Table
from medjax.shortcuts.oscar import SYMBOLS
from medjax.shortcuts.oscar_audit import Audit

SHORTCUT, NO_EVIDENCE, UNDECIDED = "shortcut", "no evidence", "undecided"
MAX_UNDEFINED = 0.05  # fraction of resamples without a correlation above which an interval is not used


class Limits(NamedTuple):
    """Limits of the rule; those who compare audits leave them as they are."""

    alpha: float = 0.05  # of the spatial p
    min_reliability: float = 0.8  # of the profiles
    min_images: int = 20
    min_regions: int = 16


class Verdict(NamedTuple):
    """Decision of an audit."""

    decision: str  # "shortcut", "no evidence" or "undecided"
    reasons: tuple[str, ...]  # what it rests on, one sentence each
    p: float  # spatial p of ρ(TS, SA | BA), after Holm's correction


def verdict(audit: Audit, limits: Limits = Limits()) -> Verdict:  # noqa: B008 (immutable)
    """Decision of one audit, by the rule of this module.

    Raises:
        ConfigError: a limit is out of range.
    """
    return verdicts([audit], limits)[0]


def verdicts(audits: Sequence[Audit], limits: Limits = Limits()) -> list[Verdict]:  # noqa: B008 (immutable)
    """Decisions of audits that are judged together, such as those of several partitions, methods or networks.

    Raises:
        ConfigError: a limit is out of range.
    """
    check_limits(limits)
    p = np.array([one.p_spatial.shortcut for one in audits])
    adjusted = np.asarray(holm(np.where(np.isnan(p), 1.0, p)))  # an undefined one is a test too
    return [_decide(one, float(own), len(audits), limits) for one, own in zip(audits, adjusted, strict=True)]


def check_limits(limits: Limits) -> None:
    """Check that α and the reliability are between 0 and 1.

    Raises:
        ConfigError: one is not.
    """
    if not (0 < limits.alpha < 1 and 0 <= limits.min_reliability <= 1):
        found = f"{limits.alpha:g}, {limits.min_reliability:g}"
        raise ConfigError(f"alpha, min_reliability: {found}; expected numbers between 0 and 1")


def rule(limits: Limits = Limits()) -> str:  # noqa: B008 (immutable)
    """The rule as one paragraph, for a report."""
    r, alpha, reliability = SYMBOLS["shortcut"], f"{limits.alpha:g}", f"{limits.min_reliability:g}"
    return (
        f"Rule: undecided with fewer than {limits.min_images} images or {limits.min_regions} regions, an undefined "
        f"{r}, a spatial null too small for p < {alpha}, or a split-half reliability of BA's profile below "
        f"{reliability}. Shortcut if {r} > 0 with a spatial p below {alpha} (Holm over audits judged together) "
        "and a 95 % bootstrap interval above 0. Else no evidence; undecided if the reliability of TS or SA is below "
        f"{reliability}."
    )


def to_table(audit: Audit) -> Table:
    """Table of the correlations: value, 95 % interval, spatial p and permutation p."""
    columns = (audit.correlations, audit.low, audit.high, audit.p_spatial, audit.p_permutation)
    rows = [[symbol, *(float(getattr(one, name)) for one in columns)] for name, symbol in SYMBOLS.items()]
    null = "surrogate maps" if np.isnan(audit.p_torus.ts_sa) else "mirrored shifts of the grid"
    caption = (
        f"Rank profiles of {audit.images} images in {len(audit.regions)} regions; 95 % bootstrap intervals over "
        f"images, whose noise lowers them: a value may lie above its interval. The spatial p is of {null}; that of "
        "permuted regions ignores that neighbouring regions resemble each other, and is as a rule far too small."
    )
    return Table(["correlation", "value", "low", "high", "p, spatial", "p, permutation"], rows, caption)


def _decide(audit: Audit, p: float, tests: int, limits: Limits) -> Verdict:
    r, low, high = audit.correlations.shortcut, audit.low.shortcut, audit.high.shortcut
    ts, ba, sa = audit.reliability
    unsound = _unsound(audit, tests, limits)
    if unsound:
        return Verdict(UNDECIDED, unsound, p)
    evidence = (
        f"{SYMBOLS['shortcut']} = {r:.3f}, 95 % interval {low:.3f} to {high:.3f}",
        f"spatial p = {p:.2g}" + (f" after Holm's correction over {tests} audits" if tests > 1 else ""),
        f"split-half reliability {ts:.2f} (TS), {ba:.2f} (BA), {sa:.2f} (SA)",
    )
    if r > 0 and p < limits.alpha and low > 0:
        return Verdict(SHORTCUT, evidence, p)
    reliable = min(ts, sa) >= limits.min_reliability  # NaN is not
    return Verdict(NO_EVIDENCE if reliable else UNDECIDED, evidence, p)


def _unsound(audit: Audit, tests: int, limits: Limits) -> tuple[str, ...]:
    """Why nothing can be decided."""
    ba, spatial = audit.reliability[1], audit.p_spatial.shortcut
    smallest = audit.smallest_p * tests
    checks = {
        f"{audit.images} images, fewer than {limits.min_images}": audit.images < limits.min_images,
        f"{len(audit.regions)} regions, fewer than {limits.min_regions}": len(audit.regions) < limits.min_regions,
        f"{SYMBOLS['shortcut']} is undefined: BA explains TS or SA": bool(np.isnan(audit.correlations.shortcut)),
        "no spatial p-value: regions too few, or too evenly spaced; choose others": bool(np.isnan(spatial)),
        f"undefined in {audit.undefined:.0%} of the resamples": audit.undefined > MAX_UNDEFINED,
        f"no spatial p below {smallest:.2g} is possible": smallest >= limits.alpha,
        f"split-half reliability of BA {ba:.2f}, below {limits.min_reliability:g}": not ba >= limits.min_reliability,
    }
    return tuple(reason for reason, holds in checks.items() if holds)

"""Fairness of a binary classifier in one number: worst group, gaps between attribute groups, equalised odds, and so on.

    data = cases(label, attribute, score)                                     group_metrics
    equalized_odds_difference(data)
    bootstrap(key, summary, data, subject=subject)["auroc_gap"]               group_bootstrap: estimate, low, high

A gap is the largest minus the smallest value over the attribute groups, of which there may be more than two. It is
never negative, and on average larger than the true one where groups are small: compare models by the interval of their
paired difference. Where a group has no case of the kind, a gap or a worst value is NaN, not that of the others.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from medjax.shortcuts import group_metrics
from medjax.shortcuts.group_metrics import GroupedPredictions, Weights

OVERALL = ("accuracy", "balanced_accuracy", "auroc", "tpr_at_tnr", "ece")  # also measured of all cases


class Metrics(NamedTuple):
    """Metrics of a classifier by name."""

    overall: dict[str, Scalar]  # of all cases
    groups: dict[str, Float[Array, " attribute"]]
    summary: dict[str, Scalar]  # over the groups: worst values and gaps


def gap(values: Float[Array, " attribute"]) -> Scalar:
    """Largest minus smallest value over the groups; NaN if one of them is."""
    return jnp.max(values) - jnp.min(values)


def worst_group_accuracy(data: GroupedPredictions, weights: Weights = None) -> Scalar:
    """Smallest accuracy over the groups of label and attribute."""
    return jnp.min(group_metrics.accuracy_by_label(data, weights))


def adjusted_accuracy(data: GroupedPredictions, weights: Weights = None) -> Scalar:
    """Mean accuracy of the groups of label and attribute, each of which counts the same.

    Not scikit-learn's `balanced_accuracy_score(adjusted=True)`, which rescales balanced accuracy to 0 at chance.
    """
    return jnp.mean(group_metrics.accuracy_by_label(data, weights))


def equal_opportunity_difference(data: GroupedPredictions, weights: Weights = None) -> Scalar:
    """Gap of the true-positive rates.

    Source: Hardt, Price & Srebro, NeurIPS 2016.
    """
    return gap(group_metrics.true_positive_rate(data, weights))


def equalized_odds_difference(data: GroupedPredictions, weights: Weights = None) -> Scalar:
    """The larger one of the gaps of true-positive and false-positive rates, as in fairlearn.

    Source: Hardt, Price & Srebro, NeurIPS 2016.
    """
    rates = group_metrics.accuracy_by_label(data, weights)
    return jnp.max(jnp.max(rates, axis=1) - jnp.min(rates, axis=1))


def demographic_parity_difference(data: GroupedPredictions, weights: Weights = None) -> Scalar:
    """Gap of the fractions predicted positive. It is not 0 for a perfect classifier where prevalences differ."""
    return gap(group_metrics.selection_rate(data, weights))


def metrics(data: GroupedPredictions, weights: Weights = None, tnr: float = 0.9) -> Metrics:
    """All metrics by name, of all cases, of each attribute group, and the gaps and worst values over the groups.

    `tnr` is the true-negative rate of `tpr_at_tnr`, at one threshold for all groups.
    """
    every = jnp.ones_like(data.member[:1])
    rows = by_group(data._replace(member=jnp.concatenate([every, data.member])), weights, tnr)  # all cases first
    overall, groups = ({name: values[part] for name, values in rows.items()} for part in (0, slice(1, None)))
    rates = jnp.stack([groups["accuracy_label_0"], groups["accuracy_label_1"]])
    summary = {
        "worst_group_accuracy": jnp.min(rates),
        "adjusted_accuracy": jnp.mean(rates),
        "equalized_odds_difference": jnp.maximum(gap(rates[0]), gap(rates[1])),
        "equal_opportunity_difference": gap(groups["tpr"]),
        "demographic_parity_difference": gap(groups["selection_rate"]),
        **{f"{name}_min": jnp.min(groups[name]) for name in ("balanced_accuracy", "auroc")},
        **{
            f"{name}_gap": gap(groups[name]) for name in ("accuracy", "balanced_accuracy", "auroc", "tpr_at_tnr", "ece")
        },
        "ece_max": jnp.max(groups["ece"]),
    }
    return Metrics({name: overall[name] for name in OVERALL}, groups, summary)


def summary(data: GroupedPredictions, weights: Weights = None, tnr: float = 0.9) -> dict[str, Scalar]:
    """The numbers of `metrics` that are one: those of all cases, and the gaps and worst values over the groups."""
    found = metrics(data, weights, tnr)
    return {**found.overall, **found.summary}


def by_group(
    data: GroupedPredictions, weights: Weights = None, tnr: float = 0.9
) -> dict[str, Float[Array, " attribute"]]:
    """Metrics of each attribute group by name, and accuracies of each label: `accuracy_label_0`, `accuracy_label_1`."""
    rates = group_metrics.accuracy_by_label(data, weights)
    return {
        "accuracy": group_metrics.accuracy(data, weights),
        "balanced_accuracy": jnp.mean(rates, axis=0),
        "tpr": rates[1],
        "fpr": 1 - rates[0],
        "selection_rate": group_metrics.selection_rate(data, weights),
        "auroc": group_metrics.auroc(data, weights),
        "tpr_at_tnr": group_metrics.tpr_at_tnr(data, weights, tnr),
        "ece": group_metrics.calibration_error(data, weights),
        "accuracy_label_0": rates[0],
        "accuracy_label_1": rates[1],
    }

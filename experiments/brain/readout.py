"""Metrics of `brain_mri_bias`: attribute AUC, group gaps of the diagnosis with intervals, audits of the networks."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Scalar
from ml_collections import FrozenConfigDict

from experiments.brain.networks import INTENSITIES, Cell, TrainedNetwork
from experiments.brain.source import source
from experiments.brain.subjects import Subjects, training_subset
from medjax.iterate import static_partial
from medjax.metrics.detection import auroc
from medjax.metrics.summary import summarize_runs
from medjax.shortcuts import fairness, group_metrics
from medjax.shortcuts.group_bootstrap import Interval, bootstrap
from medjax.shortcuts.group_metrics import GroupedPredictions, cases
from medjax.shortcuts.oscar_audit import Audit, audit_ranks
from medjax.shortcuts.rank_profile import rank_profile, rank_regions
from medjax.shortcuts.surrogates import centroid_distances
from medjax.shortcuts.volume_svm import svm_scores, volume_svm

SVM_C = 0.01  # a strong penalty: there are half as many volumes as subjects of a class
Networks = Mapping[tuple[str, str, str], Sequence[TrainedNetwork]]  # architecture, intensities, training → seeds
# (architecture, intensities, tied attribute, site) → number → intervals of baseline, biased, and biased − baseline
Intervals = Mapping[tuple[str, str, str, str], Mapping[str, tuple[Interval, Interval, Interval]]]


def by_role(study: Sequence[Cell], trained: Sequence[TrainedNetwork]) -> dict[Any, list[TrainedNetwork]]:
    """Networks of all seeds by architecture, intensities and training."""
    found: dict[Any, list[TrainedNetwork]] = {}
    for cell, network in zip(study, trained, strict=True):
        found.setdefault((cell.architecture, cell.intensities, cell.training), []).append(network)
    return found


def classification(networks: Networks, tests: Mapping[str, Subjects]) -> dict[str, float]:
    """AUC of every network on all sites, of what it was trained for; balanced accuracy of the diagnosis.

    `auc/ARCHITECTURE/INTENSITIES/TRAINING/SITE`, mean over seeds, and `sd/…`.
    """
    metrics: dict[str, float] = {}
    for (architecture, intensities, training), several in networks.items():
        learns = training.removeprefix("attribute_") if training.startswith("attribute_") else "diagnosis"
        for site, test in tests.items():
            name = f"{architecture}/{intensities}/{training}/{site}"
            rows = []
            for one in several:
                score, positive = _score(one.logits[site]), test.label(learns) == 1
                rates = [np.mean((score > 0)[positive == value] == value) for value in (True, False)]
                rows.append({f"auc/{name}": float(auroc(score, positive)), f"bacc/{name}": float(np.mean(rates))})
            metrics |= summarize_runs(rows)
    return metrics


def volume_baseline(config: FrozenConfigDict, tests: Mapping[str, Subjects]) -> dict[str, float]:
    """AUC of a linear SVM on region volumes, for the diagnosis and both attributes, trained on balanced sets.

    Nothing where the subjects have no volumes.
    """
    subjects, rows = source(config.data), list[dict[str, float]]()
    pool = subjects.pool(INTENSITIES[0])
    if not pool.volume_mm3.size:
        return {}
    for seed in range(config.seeds):
        chosen = training_subset(pool, config.data.train, None, config.anti_fraction, config.seed + seed)
        row = dict[str, float]()
        for learns in ("diagnosis", *subjects.attributes):
            svm = volume_svm(pool.volume_mm3[chosen], pool.label(learns)[chosen], SVM_C)
            training = "baseline" if learns == "diagnosis" else f"attribute_{learns}"
            for site, test in tests.items():
                score = svm_scores(svm, test.volume_mm3).astype(np.float32)
                row[f"auc/svm/volumes/{training}/{site}"] = float(auroc(score, test.label(learns) == 1))
        rows.append(row)
    return summarize_runs(rows)


def group_gaps(networks: Networks, tests: Mapping[str, Subjects], resamples: int) -> tuple[dict[str, float], Intervals]:
    """Gaps of the diagnosis, subjects whose attribute is as the tie has it minus the others, baseline and biased.

    For each architecture, intensities, attribute and site: intervals of baseline, biased, and biased − baseline, of the
    mean over seeds, by resampled subjects. As metrics, `NAME/ARCHITECTURE/INTENSITIES/ATTRIBUTE/SITE/WHICH` with
    `low/…` and `high/…`.
    """
    metrics = dict[str, float]()
    found = dict[tuple[str, str, str, str], dict[str, tuple[Interval, Interval, Interval]]]()
    for architecture, intensities, training in networks:
        if not training.startswith("biased_"):
            continue
        attribute = training.removeprefix("biased_")
        both = [networks[architecture, intensities, name] for name in ("baseline", training)]
        for site, test in tests.items():
            aligned = (test.attributes[attribute] == test.diagnosis).astype(int)
            number = np.tile(np.arange(len(aligned)), len(both[0]))
            data = [_cases(test.diagnosis, aligned, some, site) for some in both]
            metric = static_partial(_mean_over_seeds, len(both[0]))
            key = jax.random.key(0)
            each = [
                bootstrap(key, metric, one, other, subject=number, resamples=resamples)
                for one, other in ((data[0], None), (data[1], None), (data[1], data[0]))
            ]
            where = f"{architecture}/{intensities}/{attribute}/{site}"
            found[architecture, intensities, attribute, site] = {
                name: (each[0][name], each[1][name], each[2][name]) for name in each[0]
            }
            for name, which in ((name, k) for name in each[0] for k in range(3)):
                one, label = each[which][name], ("baseline", "biased", "difference")[which]
                metrics |= {
                    f"{name}/{where}/{label}": float(one.estimate),
                    f"low/{name}/{where}/{label}": float(one.low),
                    f"high/{name}/{where}/{label}": float(one.high),
                }
    return metrics, found


def region_profiles(networks: Networks) -> dict[tuple[str, str], Float[np.ndarray, " region"]]:
    """Rank profile of each architecture and training, of the ranks' mean over seeds: 1 is most important."""
    return {
        (architecture, training): np.asarray(rank_profile(_ranks(several)))
        for (architecture, intensities, training), several in networks.items()
        if intensities == INTENSITIES[0]
    }


def region_truth(
    profiles: Mapping[tuple[str, str], Float[np.ndarray, " region"]],
    names: Sequence[str],
    true_regions: Mapping[str, Sequence[str]],
) -> dict[str, float]:
    """AUROC of the rank profile for the regions that carry the sign, `truth/ARCHITECTURE/TRAINING`, and chance 0.5."""
    metrics = dict[str, float]()
    for (architecture, training), profile in profiles.items():
        learns = training.removeprefix("attribute_") if training.startswith("attribute_") else "diagnosis"
        true = true_regions.get(learns)
        carries = np.array([name[:-2] in true for name in names]) if true else np.zeros(len(names), bool)
        if carries.any():
            metrics[f"truth/{architecture}/{training}"] = float(auroc(-profile, carries))
    return metrics


def run_audits(config: FrozenConfigDict, networks: Networks) -> dict[tuple[str, str], Audit]:
    """OSCAR audit of the biased networks, by architecture and attribute: TS biased, BA baseline, SA attribute."""
    found, a, subjects = dict[tuple[str, str], Audit](), config.audit, source(config.data)
    regions = subjects.space().regions
    distances = centroid_distances(regions.labels, len(regions.names), (config.data.voxel_mm,) * 3)
    for architecture in dict.fromkeys(name for name, _, _ in networks):
        for attribute in subjects.attributes if subjects.diagnoses > 1 else ():
            roles = (f"biased_{attribute}", "baseline", f"attribute_{attribute}")
            ranks = jnp.stack([_ranks(networks[architecture, INTENSITIES[0], role]) for role in roles])
            found[architecture, attribute] = audit_ranks(
                jax.random.key(config.seed), ranks, regions, distances, resamples=a.resamples,
                permuted=a.permuted,
            )  # fmt: skip
    return found


def flat_audits(audits: Mapping[tuple[str, str], Audit]) -> dict[str, float]:
    """Metrics of the audits: `shortcut/ARCHITECTURE/ATTRIBUTE`, `task/…`, their bounds and spatial p-values, …"""
    metrics = dict[str, float]()
    for (architecture, attribute), one in audits.items():
        where = f"{architecture}/{attribute}"
        for name in ("shortcut", "task", "deviation"):
            metrics |= {
                f"{name}/{where}": getattr(one.correlations, name),
                f"low/{name}/{where}": getattr(one.low, name),
                f"high/{name}/{where}": getattr(one.high, name),
                f"p_spatial/{name}/{where}": getattr(one.p_spatial, name),
                f"p_permutation/{name}/{where}": getattr(one.p_permutation, name),
            }
        metrics[f"effective_area/{where}"] = one.effective_area
        metrics[f"reliability_ba/{where}"] = one.reliability[1]
    return {name: float(value) for name, value in metrics.items()}


def _ranks(several: Sequence[TrainedNetwork]) -> Float[Array, "subject region"]:
    return jnp.mean(jnp.stack([rank_regions(one.region_means) for one in several]), axis=0)


def _score(logits: Float[np.ndarray, "subject 2"]) -> Float[np.ndarray, " subject"]:
    return logits[:, 1].astype(float) - logits[:, 0]


def _cases(label: np.ndarray, aligned: np.ndarray, several: Sequence[TrainedNetwork], site: str) -> GroupedPredictions:
    """Labels and predictions of all seeds, one after the other."""
    number = len(several)
    score = np.concatenate([_score(one.logits[site]) for one in several])
    return cases(np.tile(label, number), np.tile(aligned, number), score, threshold=0, attributes=2)


def _mean_over_seeds(seeds: int, data: GroupedPredictions, weights: Array) -> dict[str, Scalar]:
    """Mean over networks of AUC and balanced accuracy of each group, of their gaps and of the worst group."""
    parts = jax.tree.map(lambda values: jnp.stack(jnp.split(values, seeds, axis=-1)), data)
    each = jax.vmap(_gaps)(parts, weights.reshape(seeds, -1))
    return jax.tree.map(partial(jnp.mean, axis=0), each)


def _gaps(data: GroupedPredictions, weights: Array) -> dict[str, Scalar]:
    auc, accuracy = group_metrics.auroc(data, weights), group_metrics.balanced_accuracy(data, weights)
    return {
        "auc_opposite": auc[0],
        "auc_same": auc[1],
        "auc_gap": auc[1] - auc[0],
        "balanced_accuracy_opposite": accuracy[0],
        "balanced_accuracy_same": accuracy[1],
        "balanced_accuracy_gap": accuracy[1] - accuracy[0],
        "worst_group_accuracy": fairness.worst_group_accuracy(data, weights),
    }

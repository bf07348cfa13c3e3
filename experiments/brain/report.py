"""Tables and figures of `brain_mri_bias`."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from jaxtyping import Float, Int
from ml_collections import FrozenConfigDict

from experiments.brain.networks import INTENSITIES
from experiments.brain.readout import Intervals, Networks
from experiments.brain.subjects import Labels, Source, Space, Subjects, group_sizes
from medjax.metrics.summary import cell
from medjax.report.figures import Scale, montage
from medjax.report.html import Figure, Table
from medjax.report.intervals import intervals
from medjax.report.overlay import overlay
from medjax.running.workdir import WorkDir, save_figure
from medjax.shortcuts.oscar_audit import Audit
from medjax.shortcuts.oscar_figures import plot_scores
from medjax.shortcuts.oscar_verdict import verdicts

VIEW_MM = (26.0, -20.0, -8.0)  # where the planes of a figure meet: the right hippocampus
TRAININGS = {
    "attribute_anatomy": "anatomical attribute",
    "attribute_contrast": "contrast attribute",
    "attribute_sex": "sex",
    "attribute_race": "race",
    "baseline": "diagnosis, balanced",
    "biased_anatomy": "diagnosis, tied to anatomy",
    "biased_contrast": "diagnosis, tied to contrast",
    "biased_sex": "diagnosis, tied to sex",
    "biased_race": "diagnosis, tied to race",
}


def table_of_auc(metrics: Mapping[str, float]) -> Table:
    """Table of AUC by network, intensities and training, on each site."""
    rows = list[list[str]]()
    sites = sorted({key.rsplit("/", 1)[1] for key in metrics if key.startswith("auc/")})
    for name in dict.fromkeys(key.rsplit("/", 1)[0] for key in metrics if key.startswith("auc/")):
        _, architecture, intensities, training = name.split("/")
        rows.append([TRAININGS[training], architecture, intensities, *(cell(metrics, f"{name}/{s}") for s in sites)])
    rows.sort(key=lambda row: list(TRAININGS.values()).index(str(row[0])))
    header = ["learns", "network", "intensities", *(f"AUC, site {site}" for site in sites)]
    svm = " SVM: of the regions' volumes." if any(row[1] == "svm" for row in rows) else ""
    return Table(header, rows, f"Mean ± sd over seeds, on balanced test sets.{svm}")


def table_of_gaps(gaps: Intervals) -> Table:
    """Table of the gap in the diagnosis' AUC, baseline and biased, with 95 % intervals."""
    rows = [
        [*_where(place), *(_interval(one) for one in numbers["auc_gap"]), _interval(numbers["worst_group_accuracy"][2])]
        for place, numbers in gaps.items()
    ]
    header = ["network", "tied to", "site", "AUC gap, baseline", "biased", "difference", "worst group, difference"]
    caption = (
        "AUC gap: subjects whose attribute is as the biased training set ties it to the diagnosis, minus the others. "
        "Worst group: accuracy of the worst of the four groups of diagnosis and attribute, biased − baseline. "
        "Mean over seeds; 95 % bootstrap intervals over test subjects, paired between the networks."
    )
    return Table(header, rows, caption)


def table_of_groups(gaps: Intervals) -> Table:
    """Table of the diagnosis' AUC and balanced accuracy of the subjects on both sides of the gap."""
    names = ("auc_same", "auc_opposite", "balanced_accuracy_same", "balanced_accuracy_opposite")
    rows = [
        [*_where(place), label, *(_interval(numbers[name][which]) for name in names)]
        for place, numbers in gaps.items()
        for which, label in enumerate(("balanced", "biased"))
    ]
    header = [
        "network", "attribute", "site", "trained on", "AUC, same", "AUC, opposite", "balanced accuracy, same",
        "balanced accuracy, opposite",
    ]  # fmt: skip
    caption = "Same: attribute as the biased training set has it with the diagnosis. Balanced accuracy at 0.5."
    return Table(header, rows, caption)


def table_of_regions(
    profiles: Mapping[tuple[str, str], Float[np.ndarray, " region"]], names: Sequence[str], number: int = 6
) -> Table:
    """Table of the most important regions of each network."""
    rows = []
    for (architecture, training), profile in profiles.items():
        best = np.argsort(profile, kind="stable")[:number]
        rows.append([TRAININGS[training], architecture, ", ".join(f"{names[k]} ({profile[k]:.1f})" for k in best)])
    return Table(["learns", "network", "most important regions (median rank)"], rows, "Ranks averaged over seeds.")


def table_of_audits(audits: Mapping[tuple[str, str], Audit]) -> Table:
    """Table of the audits: correlations with intervals, spatial p, effective area, reliability and verdict."""
    rows = []
    for ((architecture, attribute), one), answer in zip(audits.items(), verdicts(list(audits.values())), strict=True):
        r = one.correlations
        rows.append(
            [
                architecture, attribute, f"{r.shortcut:.2f} ({one.low.shortcut:.2f} to {one.high.shortcut:.2f})",
                f"{one.p_spatial.shortcut:.2g}", f"{one.p_permutation.shortcut:.2g}",
                f"{r.task:.2f} ({one.low.task:.2f} to {one.high.task:.2f})", f"{one.effective_area:.2f}",
                f"{one.reliability[1]:.2f}", answer.decision,
            ]
        )  # fmt: skip
    header = [
        "network", "tied attribute", "ρ(TS, SA | BA)", "p, spatial", "p, permutation", "ρ(TS, BA | SA)",
        "effective area", "reliability of BA", "verdict",
    ]  # fmt: skip
    return Table(header, rows, "TS: biased, BA: baseline, SA: attribute. Holm's correction over the audits.")


def gap_figures(work: WorkDir, gaps: Intervals) -> list[Figure]:
    """Forest plot of the difference that the bias makes to the gap in AUC."""
    names = [", ".join(_where(place)) for place in gaps]
    each = [numbers["auc_gap"][2] for numbers in gaps.values()]
    low, mid, high = (np.array([float(getattr(one, name)) for one in each]) for name in ("low", "estimate", "high"))
    figure = intervals(names, mid, low, high, "AUC gap, biased − baseline")
    return [Figure(save_figure(work, "gaps", figure), "Difference in the gap, with 95 % intervals over test subjects.")]


def map_figures(work: WorkDir, networks: Networks, space: Space) -> list[Figure]:
    """Mean attribution maps of each architecture, for both tasks, over the template."""
    figures, at = list[Figure](), _voxel(space)
    for architecture in dict.fromkeys(name for name, _, _ in networks):
        maps = {}
        for training, label in TRAININGS.items():
            several = networks.get((architecture, INTENSITIES[0], training))
            if several is None:
                continue
            mean = np.mean([one.mean_map for one in several], axis=0) * (space.regions.labels >= 0)
            maps[label] = mean / max(float(mean.max()), 1e-16)
        figure = overlay(maps, space.t1, space.affine, unit="attribution, fraction of its maximum", at=at)
        caption = f"{architecture}: mean over test subjects and seeds, in template space."
        figures.append(Figure(save_figure(work, f"maps_{architecture}", figure), caption))
    return figures


def audit_figures(work: WorkDir, audits: Mapping[tuple[str, str], Audit], space: Space) -> list[Figure]:
    """Region contribution scores of each audit, over the template."""
    figures = []
    for (architecture, attribute), one in audits.items():
        figure = plot_scores(one, space.regions, space.t1, space.affine)
        caption = f"{architecture}, diagnosis tied to {attribute}."
        figures.append(Figure(save_figure(work, f"scores_{architecture}_{attribute}", figure), caption))
    return figures


def table_of_subjects(
    subjects: Source, training: Mapping[str | None, Int[np.ndarray, " train"]], tests: Mapping[str, Subjects]
) -> Table:
    """Table of the number of subjects of each diagnosis and attribute, in the pool, training and test sets."""
    pool, names = subjects.labels(), ("diagnosis", *subjects.attributes)
    everyone = {"training pool": group_sizes(pool, subjects.attributes)}
    for tied, chosen in training.items():
        attributes = {name: one[chosen] for name, one in pool.attributes.items()}
        title = "training, balanced" if tied is None else f"tied to {tied}"
        everyone[title] = group_sizes(Labels(pool.diagnosis[chosen], attributes), subjects.attributes)
    everyone |= {f"test, site {site}": group_sizes(one, subjects.attributes) for site, one in tests.items()}
    rows = []
    for group in product((0, 1), repeat=3):
        if any(counts[group] for counts in everyone.values()):
            classes = [subjects.classes[name][k] for name, k in zip(names, group, strict=True)]
            rows.append([*classes, *(int(counts[group]) for counts in everyone.values())])
    return Table([*names, *everyone], rows, "Number of subjects; training sets of the first seed.")


def cohort_figure(work: WorkDir, test: Subjects, subjects: Source) -> Figure:
    """Mean images of the test set: of class 0 of the diagnosis and of both attributes, and with class 1 of each."""
    space, names = subjects.space(), ("diagnosis", *subjects.attributes)
    kinds = {", ".join(dict.fromkeys(subjects.classes[name][0] for name in names)): (0, 0, 0)}
    kinds |= {subjects.classes[name][1]: tuple(np.eye(3, dtype=int)[k].tolist()) for k, name in enumerate(names)}
    means = {}
    for kind, group in kinds.items():
        who = np.all([test.label(name) == value for name, value in zip(names, group, strict=True)], axis=0)
        if who.any():
            means[kind] = test.image[who, ..., 0].mean(0)
    figure = montage(means, space.affine, scale=Scale("SD", "gray", -2.0, 2.0), at_mm=VIEW_MM)
    caption = "Mean images of test subjects of site A; one label of each differs from those of the first."
    return Figure(save_figure(work, "cohort", figure), caption)


def summary(config: FrozenConfigDict, subjects: Source) -> list[str]:
    """Summary of the data and of what may not be concluded from them."""
    rare = f"{100 * config.anti_fraction:g} % of each diagnosis has the other attribute"
    sets = f"In the biased sets {rare}; test sets are balanced." if subjects.diagnoses > 1 else "Sets are balanced."
    return [f"{subjects.description} {sets}", subjects.caution]


def _voxel(space: Space) -> Int[np.ndarray, "3"]:
    """Voxel at `VIEW_MM`."""
    return np.rint(np.linalg.solve(space.affine, [*VIEW_MM, 1.0])[:3]).astype(int)


def _where(place: tuple[str, str, str, str]) -> list[str]:
    """Network, attribute and site; the intensities, where they are z-scored over the volume, are beside the network."""
    architecture, intensities, attribute, site = place
    return [architecture + ("" if intensities == INTENSITIES[0] else f" ({intensities})"), attribute, site]


def _interval(one: object) -> str:
    estimate, low, high = (float(getattr(one, name)) for name in ("estimate", "low", "high"))
    return f"{estimate:.2f} ({low:.2f} to {high:.2f})"

"""ShortMR: can a network tell an attribute from a brain MRI, and does imbalance by it bias the diagnosis? (paper 5)

A cohort is simulated on real anatomy: a disease that is an atrophy, and two attributes, one anatomical (sex-like) and
one of contrast (race-like). Or scans on disk are read, of subjects with Alzheimer's disease or without, whose
attributes are sex and race. A 3-D ResNet and a Swin transformer learn to predict each attribute, and the diagnosis from
a balanced set or from sets in which one attribute is tied to it. All are tested on balanced sets of the same site and
of another one: AUC of attributes and diagnosis beside a linear SVM on region volumes; the gap between subjects whose
attribute is as the tie has it and the others, baseline against biased; the regions that the networks attribute their
decisions to; and an OSCAR audit of the biased networks.
"""

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict, FrozenConfigDict

from experiments.brain import report
from experiments.brain.networks import (
    CLASSES,
    INTENSITIES,
    TRACED,
    Cell,
    TrainedNetwork,
    cells,
    plan_networks,
    train_all,
    training_sets,
)
from experiments.brain.readout import (
    by_role,
    classification,
    flat_audits,
    group_gaps,
    region_profiles,
    region_truth,
    run_audits,
    volume_baseline,
)
from experiments.brain.source import source
from medjax.errors import MedjaxError
from medjax.models.model import Network
from medjax.report.html import Report, Section
from medjax.running.experiment import Result, run_module, single_result
from medjax.running.network_part import network_part
from medjax.running.plan import Stage
from medjax.running.workdir import WorkDir
from medjax.shortcuts.oscar_verdict import rule

__all__ = ["TRACED", "plan", "population", "run"]


def run(config: ConfigDict, work: WorkDir, *, network: Network | None = None) -> Result:
    """Result of the study; `network` is the one architecture in place of ResNet and Swin, trained as the ResNet."""
    return single_result(population([config], [work], network=network))


def population(
    configs: Sequence[ConfigDict], works: Sequence[WorkDir], *, network: Network | None = None
) -> list[Result | MedjaxError]:
    """Results of several configs, whose networks train as populations; an error in place of a Result that failed."""
    own = None if network is None else network_part(network, CLASSES, "--part network").value
    studies = [cells(FrozenConfigDict(config), work, own) for config, work in zip(configs, works, strict=True)]
    for study in studies:
        training_sets(study[0].config)  # whether there are enough subjects, before hours of training
    trained = iter(train_all([one for study in studies for one in study]))
    return [summarize(study, [next(trained) for _ in study]) for study in studies]


def plan(config: ConfigDict, *, network: Network | None = None) -> list[Stage]:
    """Stages of the study: trainings, and logits and attribution of the test subjects of every network."""
    own = None if network is None else network_part(network, CLASSES, "--part network").value
    return plan_networks(cells(FrozenConfigDict(config), WorkDir(Path()), own))


def summarize(study: Sequence[Cell], trained: Sequence[TrainedNetwork | MedjaxError]) -> Result | MedjaxError:
    """Metrics, tables and figures of a study."""
    if failed := next((one for one in trained if isinstance(one, MedjaxError)), None):
        return failed
    config, work = study[0].config, study[0].work
    networks = by_role(study, [one for one in trained if isinstance(one, TrainedNetwork)])
    subjects = source(config.data)
    tests, template = subjects.tests(INTENSITIES[0]), subjects.space()
    names = template.regions.names
    gap_metrics, gaps = group_gaps(networks, tests, config.audit.resamples)
    profiles, audits = region_profiles(networks), run_audits(config, networks)
    metrics = classification(networks, tests) | volume_baseline(config, tests) | gap_metrics
    metrics |= region_truth(profiles, names, subjects.true_regions) | flat_audits(audits)
    table, auc = report.table_of_gaps(gaps), report.table_of_auc(metrics)
    sizes = report.table_of_subjects(subjects, training_sets(config), tests)
    regions = report.table_of_regions(profiles, names)
    cohort = Section("Cohort", "", [report.cohort_figure(work, tests["A"], subjects)], sizes)
    attribution = Section("Attribution", "", report.map_figures(work, networks, template), regions)
    sections = [cohort, Section("Attributes and diagnosis", "", table=auc), attribution]
    if subjects.diagnoses > 1:
        maps = report.audit_figures(work, audits, template)
        sections[2:2] = [
            Section("Bias of the diagnosis", "", report.gap_figures(work, gaps), table),
            Section("Groups", "", table=report.table_of_groups(gaps)),
        ]
        sections += [Section("Audit", rule(), maps, report.table_of_audits(audits))]
    title, text = "Shortcut learning from brain MRI", report.summary(config, subjects)
    return Result(metrics, Report(title, text, sections), table if subjects.diagnoses > 1 else auc)


if __name__ == "__main__":
    run_module(__file__)

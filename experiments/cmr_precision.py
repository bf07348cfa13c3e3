"""Precision of cardiac biomarkers: is the distribution of a biomarker the same on a rescan, and is it honest? (paper 3)

2-D U-Nets learn short-axis cine segmentation on one scanner by nnU-Net's recipe. A deep ensemble, test-time
augmentation, Monte-Carlo dropout and SWAG then give samples of ventricular volumes, ejection fractions and mass of
subjects who were scanned twice on two other scanners. Point estimates are compared by Bland–Altman limits, ICC and
coefficient of variation; distributions by the overlap of intervals and by tests, at equal numbers of samples. The
hearts are simulated, so that the truth is known: how often the intervals hold it, before and after recalibration, and
how much of the difference between two scans of an unchanged heart they explain.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict, FrozenConfigDict

from experiments.cmr import report
from experiments.cmr.networks import TRACED, Cell, PlannedNetwork, design_network, swag_posterior, train_all
from experiments.cmr.readout import Cohort, as_cohort, cohort_metrics, fraction_intervals, test_metrics
from experiments.cmr.sampling import make_methods, sample_cohort
from experiments.cmr.scans import Session, cohort_names, source
from medjax.errors import MedjaxError
from medjax.metrics.summary import summarize_runs
from medjax.models.model import Network
from medjax.report.html import Report, Section
from medjax.running.experiment import Result, run_module, single_result
from medjax.running.plan import Stage
from medjax.running.workdir import WorkDir
from medjax.segmentation import step_plan

__all__ = ["TRACED", "plan", "population", "run"]

SLICES = 10  # of a short-axis scan, for the plan
Cohorts = dict[str, list[Cohort]]  # by name, one for each seed


def run(config: ConfigDict, work: WorkDir, *, network: Network | PlannedNetwork | None = None) -> Result:
    """Result of the study; `network`, a Model or a function of the plan that gives one, replaces the U-Net."""
    return single_result(population([config], [work], network=network))


def population(
    configs: Sequence[ConfigDict], works: Sequence[WorkDir], *, network: Network | PlannedNetwork | None = None
) -> list[Result | MedjaxError]:
    """Results of several configs, whose networks train as one population; an error in place of one that failed."""
    studies = [cells(FrozenConfigDict(config), work, network) for config, work in zip(configs, works, strict=True)]
    trained = iter(train_all([one for study in studies for one in study], training_sessions))
    return [summarize(study, [next(trained) for _ in study]) for study in studies]


def plan(config: ConfigDict, *, network: Network | PlannedNetwork | None = None) -> list[Stage]:
    """Stages of the study: trainings, SWAG's further steps, and samples of every slice.

    The network is planned for simulated hearts; subjects are counted as `data.subjects` and `data.test`, with two scans
    of `SLICES` slices in two phases.
    """
    small = ConfigDict(config.to_dict())
    small.data.update({"layout": "simulated", "train": 2})
    design, model = design_network(FrozenConfigDict(config), source(FrozenConfigDict(small), 0).training(), network)
    t, swag, data = config.training, config.swag, config.data
    train = partial(step_plan.training, model=model, plan=design, rate=t.rate)
    number = config.seeds * config.members
    stages = [train("training", epochs=t.epochs, iterations=t.iterations, number=number)]
    if "swag" in config.methods:
        stages.append(train("SWAG", epochs=swag.snapshots, iterations=swag.every, number=config.seeds))
    sessions = data.test + sum(data.subjects * (3 if name in data.still else 2) for name in data.cohorts)
    samples = config.seeds * len(config.methods) * max(config.numbers)
    slices = 2 * SLICES * sessions
    return [*stages, step_plan.prediction("samples", model, design, design.patch, slices, samples, mirror=False)]


def cells(config: FrozenConfigDict, work: WorkDir, network: Network | PlannedNetwork | None) -> list[Cell]:
    """Networks of the study: every member of every seed's ensemble, planned on the first training set.

    Scans on disk are all read once: what is wrong with one is known before the training, not days later.
    """
    data = source(config, 0)
    if config.data.layout != "simulated":
        for read in (data.test, *data.cohorts.values()):
            read()
    design, model = design_network(config, data.training(), network)
    every = [(seed, member) for seed in range(config.seeds) for member in range(config.members)]
    return [Cell(config, work, design, model, seed, member) for seed, member in every]


def training_sessions(cell: Cell) -> Sequence[Session]:
    """Training set of a network: that of its seed."""
    return source(cell.config, cell.seed).training()


def summarize(study: Sequence[Cell], trained: Sequence[PyTree | MedjaxError]) -> Result | MedjaxError:
    """Samples of every cohort, metrics over seeds, tables and figures."""
    if failed := next((one for one in trained if isinstance(one, MedjaxError)), None):
        return failed
    config, work = _with_names(study[0].config), study[0].work
    cohorts = sample(study, trained)
    of_seeds = [{name: own[seed] for name, own in cohorts.items()} for seed in range(config.seeds)]
    rows = [seed_metrics(config, one, seed) for seed, one in enumerate(of_seeds)]
    names = dict.fromkeys(name for row in rows for name in row)
    metrics = summarize_runs([{name: row.get(name, np.nan) for name in names} for row in rows])
    metrics |= intervals_over_seeds(config, cohorts)
    weights = sum(leaf.size for leaf in jax.tree.leaves(trained[0]))
    first = of_seeds[0]
    figures = [one for name in config.data.cohorts for one in report.figures_of_cohort(work, config, first[name], name)]
    table = report.table_of_precision(metrics, config)
    sections = [
        Section(
            "Segmentation", "", [report.figure_of_segmentations(work, first)], report.table_of_dice(metrics, config)
        ),
        Section("Precision", "Agreement of scan and rescan, at equal numbers of samples.", figures, table),
        Section("Points beside distributions", "", table=report.table_of_biomarkers(metrics, config)),
        Section("Calibration", "", table=report.table_of_calibration(metrics, config)),
        Section("Definitions of overlap", "", table=report.table_of_definitions(metrics, config)),
    ]
    return Result(metrics, Report("Precision of cardiac biomarkers", report.summary(config, weights), sections), table)


def sample(study: Sequence[Cell], trained: Sequence[PyTree]) -> Cohorts:
    """Samples of all methods of the test set and of every cohort, by name, one for each seed."""
    config, found = study[0].config, dict[str, list[Cohort]]()
    for seed in range(config.seeds):
        own = [params for cell, params in zip(study, trained, strict=True) if cell.seed == seed]
        first = study[seed * config.members]
        methods = make_methods(config, seed, own, partial(swag_posterior, first, own[0], training_sessions))
        data = source(config, seed)
        sessions: dict[str, Callable[[], Sequence[Sequence[Session]]]] = {"A": data.test}
        sessions |= data.cohorts
        for name, read in sessions.items():
            made = sample_cohort(first.work, f"{seed}_{name}", read, first.design, first.model, methods, config.numbers)
            found.setdefault(name, []).append(as_cohort(*made))
    return found


def seed_metrics(config: FrozenConfigDict, cohorts: dict[str, Cohort], seed: int) -> dict[str, float]:
    """Metrics of one seed."""
    metrics = test_metrics(config, cohorts["A"], "A")
    for name in config.data.cohorts:
        metrics |= cohort_metrics(config, cohorts[name], name, seed)
    return metrics


def intervals_over_seeds(config: FrozenConfigDict, cohorts: Cohorts) -> dict[str, float]:
    """Bootstrap intervals of the fractions of cases, as low/… and high/… of a metric's name."""
    found = dict[str, float]()
    for name, method, n in report.settings(config):
        own = fraction_intervals(config, cohorts[name], method, n)
        found |= {f"{figure}/{name}/{method}/{n}/all": value for figure, value in own.items()}
    return found


def _with_names(config: FrozenConfigDict) -> FrozenConfigDict:
    """Config with the cohorts' names in place of their files: what metrics, figures and tables call them."""
    return FrozenConfigDict({**config.to_dict(), "data": {**config.data.to_dict(), "cohorts": cohort_names(config)}})


if __name__ == "__main__":
    run_module(__file__)

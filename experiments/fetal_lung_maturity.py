"""Fetal lung maturity from diffusion MRI: automatic segmentation, IVIM fit, agreement with manual masks (paper 6).

A 3-D U-Net of nnU-Net's make learns the lungs on baseline frames of simulated fetal scans. On unseen fetuses
each voxel of the scan is fitted, and the lungs are read in the true ("manual") and in the network's mask. Agreement is
assessed by Bland–Altman limits, intraclass correlation, an equivalence test, and the difference that a paired t test
could detect; maturity by a regression of the perfusion fraction on gestational age with a group effect.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.fetal import readings
from experiments.fetal.report import AGREEMENT, Cohort, agreement_table, report
from medjax.ivim.fit import fit
from medjax.ivim.maps import STEPS
from medjax.metrics.paired import paired_agreement
from medjax.metrics.regression import Regression, regress, undefined_regression
from medjax.metrics.summary import range_over_runs, summarize_runs
from medjax.models.model import Network
from medjax.models.plain_unet import plain_unet
from medjax.phantoms.fetal import LUNGS, Fetal, Motion, cohort, fetal
from medjax.running.experiment import Result, run_module
from medjax.running.network_part import network_part
from medjax.running.plan import Stage, array
from medjax.running.progress import track
from medjax.running.workdir import WorkDir, stage
from medjax.segmentation import step_plan
from medjax.segmentation.nnunet import train_folds
from medjax.segmentation.nnunet_predict import predict_case
from medjax.segmentation.plan import Case, Plan, fingerprint
from medjax.segmentation.plan import plan as plan_network

FIRST_TEST_SEED = 1_000_000  # seeds of test cohorts start here
TERMS = ("intercept", "age", "hinge", "group")
PlannedNetwork = Callable[[Plan], Network]


def run(config: ConfigDict, work: WorkDir, *, network: Network | PlannedNetwork | None = None) -> Result:
    """Train on one cohort and read another; tables are means over such pairs of cohorts, figures of the first.

    `network` takes the place of nnU-Net's: a Model of patches, or a function of the plan that gives one.
    """
    data, margin, knot, boundary_mm = config.data, config.margin, config.knot, config.boundary_mm
    sequence = {name: data[name] for name in ("bvalues", "shape", "spacing", "snr")}
    scan = partial(fetal, motion=Motion(**config.motion), **sequence)
    simulate = partial(cohort, restricted_fraction=data.restricted_fraction, ages=tuple(data.ages), scan=scan)
    cohorts = []
    for seed in track(range(config.seed, config.seed + config.seeds), "cohorts"):
        scans = partial(simulate, seed, data.train), partial(simulate, FIRST_TEST_SEED + seed, data.test)
        settings = {"boundary_mm": boundary_mm, "checkpoints": work.checkpoints / f"cohort_{seed}", **config.training}
        study = partial(study_cohort, *scans, network, seed=seed, **settings)
        cohorts.append(stage(work, f"studied_{seed}", study))
    metrics = over_cohorts([measure(one, margin, knot, boundary_mm) for one in cohorts])
    summary = report(cohorts, metrics, regress_on_age(cohorts[0], knot), boundary_mm, work)
    return Result(metrics, summary, agreement_table(metrics))


def plan(config: ConfigDict, *, network: Network | PlannedNetwork | None = None) -> list[Stage]:
    """Stages of the study: trainings and predictions, and the least-squares fits of the scans.

    The network is planned for two of the fetuses.
    """
    d, t = config.data, config.training
    scan = partial(fetal, **{name: d[name] for name in ("bvalues", "shape", "spacing", "snr")})
    cases = [lung_case(one) for one in cohort(config.seed, 2, d.restricted_fraction, tuple(d.ages), scan)]
    design, model = design_network(cases, t.memory_gb, t.base_width, t.patch, network)
    frames, scans = array(len(d.bvalues), prod(d.shape)), config.seeds * d.test
    fitting = partial(fit, bvalues=jnp.asarray(d.bvalues), steps=STEPS["gaussian"])
    return [
        step_plan.training("training", model, design, t.epochs, t.iterations, t.rate, config.seeds * t.folds),
        step_plan.prediction("prediction", model, design, tuple(d.shape), scans, t.folds),
        Stage("IVIM fits", fitting, (frames,), scans * (len(readings.FITS) + 1)),
    ]


def lung_case(scan: Fetal) -> Case:
    """Baseline frame of a scan and its lungs, to train on."""
    return Case(scan.signals[0][..., None], (scan.labels == LUNGS).astype(np.int32), scan.spacing)


def design_network(
    cases: Sequence[Case], memory_gb: float, base_width: int, patch: Sequence[int],
    network: Network | PlannedNetwork | None,
) -> tuple[Plan, Network]:  # fmt: skip
    """Plan for the training cases, and its network; `network` replaces it. A `patch` of () is planned."""
    sides = tuple(patch) or None
    design = plan_network(fingerprint(cases, 2), memory_gb=memory_gb, base_width=base_width, patch=sides)
    unet = plain_unet(design.classes, design.widths, design.kernels, design.strides)
    return design, network_part(unet if network is None else network, design, "--part network").value


def study_cohort(
    training: Callable[[], Sequence[Fetal]],
    testing: Callable[[], Sequence[Fetal]],
    network: Network | PlannedNetwork | None,
    *,
    seed: int,
    boundary_mm: Sequence[float],
    checkpoints: Path,
    base_width: int,
    memory_gb: float,
    patch: tuple[int, int, int] | tuple[()],
    folds: int,
    **recipe: Any,
) -> Any:
    """Train on baseline frames of some fetuses; segment, fit and read others: readings as arrays over fetuses.

    Args:
        training: → scans to train on.
        testing: → scans to test on.
        network: a Model of patches, or plan → Model; None: nnU-Net's.
        seed: random seed.
        boundary_mm: dilations and erosions of the manual mask.
        checkpoints: folder of the trainings.
        base_width: features of the first level.
        memory_gb: memory of the plan.
        patch: patch size, voxels; (): planned.
        folds: number of the five folds to train.
        recipe: other keywords of `train_folds`.
    """
    cases = [lung_case(one) for one in training()]
    design, model = design_network(cases, memory_gb, base_width, patch, network)
    params = train_folds(
        model, cases, design, checkpoints, seed=seed, number=folds,
        progress=lambda steps, fold: track(steps, f"steps, cohort {seed} fold {fold}"), **recipe,
    )  # fmt: skip
    rows = []
    for one in track(testing(), "fetuses"):
        image = one.signals[0][..., None]
        automatic = predict_case(model, params, image, one.spacing, design, keep={1: 2}).labels == 1
        rows.append(readings.read_scan(one, automatic, boundary_mm))
    return readings.stack(rows)


def over_cohorts(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Metrics over cohorts: means and standard deviations; of p-values minimum and maximum."""
    tests = [{name: value for name, value in row.items() if re.search(r"_p(/|$)", name)} for row in rows]
    rest = [{name: value for name, value in row.items() if name not in tests[0]} for row in rows]
    return (summarize_runs(rest) if len(rest) > 1 else rest[0]) | range_over_runs(tests)


def measure(data: Cohort, margin: Mapping[str, float], knot: float, boundary_mm: Sequence[float]) -> dict[str, float]:
    """Metrics of a cohort; `margin` is that of equivalence, as a fraction of the manual mean."""
    return {
        **segmentation(data), **agreement(data, margin), **readings.accuracy_of_fits(data),
        **maturity(data, knot), **readings.effect_of_outline(data, boundary_mm),
    }  # fmt: skip


def segmentation(data: Cohort) -> dict[str, float]:
    """Segmentation metrics, and detection of corrupted frames in the automatic mask."""
    (true, automatic), corrupted, left_out = data["volume"].T, data["corrupted"], data["left_out"]
    return {
        "dice/mean": float(np.mean(data["dice"])),
        "dice/sd": float(np.std(data["dice"], ddof=1)),
        "dice/min": float(np.min(data["dice"])),
        "lungs_missed": float(np.sum(automatic == 0)),
        "volume_error": float(np.mean(automatic / true - 1)),
        "identifiable": float(np.mean(data["identifiable"])),
        "frames/corrupted": float(np.sum(corrupted)),
        "frames/detected": float(np.sum(corrupted & left_out)),
        "frames/wrongly_left_out": float(np.sum(~corrupted & left_out)),
    }


def agreement(data: Cohort, margin: Mapping[str, float]) -> dict[str, float]:
    """Agreement of automatic and manual medians, in the fetuses whose lungs the network found."""
    out, seen = dict[str, float](), data["volume"][:, 1] > 0
    for name in readings.PARAMETERS:
        manual, automatic = data["read"][readings.VOXEL_FIT][name][seen].T
        found = paired_agreement(manual, automatic, margin[name], margin[name] / 10)
        out |= {f"{key}/{name}": value for key, value in zip(AGREEMENT, found, strict=True)}
    return out


def maturity(data: Cohort, knot: float) -> dict[str, float]:
    """Coefficients of the regression of f on age, and their p-values."""
    out = dict[str, float]()
    for mask, fitted in regress_on_age(data, knot).items():
        out[f"regression/{mask}/r_squared"] = fitted.r_squared
        for term, value, p in zip(TERMS, fitted.coefficients.tolist(), fitted.p.tolist(), strict=True):
            out |= {f"regression/{mask}/{term}": value, f"regression/{mask}/{term}_p": p}
    return out


def regress_on_age(data: Cohort, knot: float) -> dict[str, Regression]:
    """Piecewise-linear regression of f on age, with an offset of the restricted; NaN where too few lungs were found."""
    out = dict[str, Regression]()
    for mask, values in readings.lung_f(data).items():
        seen = np.isfinite(values)
        age, f, restricted = data["age"][seen], values[seen], data["restricted"][seen].astype(bool)
        out[mask] = undefined_regression(TERMS)
        if len(f) > len(TERMS):
            out[mask] = regress(age, f, restricted, knot, interaction=False, name="age")
    return out


if __name__ == "__main__":
    run_module(__file__)

"""Can fetal lungs be segmented on diffusion MRI and their maturity read from IVIM with nobody in the loop? (paper 6)

A 3-D U-Net of nnU-Net's make learns the lungs on baseline frames of simulated fetal scans. On fetuses it has not seen
each voxel of the scan is fitted, and the lungs are read in the true ("manual") and in the network's mask. Agreement is
judged by Bland–Altman limits, intraclass correlation, an equivalence test, and by what a test of no difference could
have seen at all; maturity by a regression of the perfusion fraction on gestational age with a group effect.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.fetal import readings
from experiments.fetal.report import AGREEMENT, Cohort, agreement_table, report
from medjax.metrics.paired import paired_agreement
from medjax.metrics.regression import Regression, regress, undefined
from medjax.metrics.summary import over_runs, range_over_runs
from medjax.models.model import Network
from medjax.models.plain_unet import plain_unet
from medjax.phantoms.fetal import LUNGS, Fetal, Motion, cohort, fetal
from medjax.running.experiment import Result, run_module
from medjax.running.network_part import network_part
from medjax.running.progress import track
from medjax.running.workdir import WorkDir, stage
from medjax.segmentation.nnunet import train_folds
from medjax.segmentation.nnunet_predict import predict_case
from medjax.segmentation.plan import Case, Plan, fingerprint, plan

TEST = 1_000_000  # seeds of cohorts that are tested on start here
TERMS = ("intercept", "age", "hinge", "group")
PlannedNetwork = Callable[[Plan], Network]


def run(config: ConfigDict, work: WorkDir, *, network: Network | PlannedNetwork | None = None) -> Result:
    """Train on one cohort, read another; tables are means over such pairs of cohorts, figures of the first.

    `network` takes the place of nnU-Net's: a Model of patches, or a function of the plan that gives one.
    """
    data, margin, knot, boundary_mm = config.data, config.margin, config.knot, config.boundary_mm
    sequence = {name: data[name] for name in ("bvalues", "shape", "spacing", "snr")}
    scan = partial(fetal, motion=Motion(**config.motion), **sequence)
    simulate = partial(cohort, share_restricted=data.restricted, ages=tuple(data.ages), scan=scan)
    cohorts = []
    for seed in track(range(config.seed, config.seed + config.seeds), "cohorts"):
        scans = partial(simulate, seed, data.train), partial(simulate, TEST + seed, data.test)
        settings = {"boundary_mm": boundary_mm, "checkpoints": work.checkpoints / f"cohort_{seed}", **config.training}
        study = partial(study_cohort, *scans, network, seed=seed, **settings)
        cohorts.append(stage(work, f"studied_{seed}", study))
    metrics = over_cohorts([measure(one, margin, knot, boundary_mm) for one in cohorts])
    shown = report(cohorts, metrics, regress_on_age(cohorts[0], knot), boundary_mm, work)
    return Result(metrics, shown, agreement_table(metrics))


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
    """Learn the lungs on baseline frames of some fetuses; segment, fit and read others: arrays over fetuses."""
    cases = [Case(one.signals[0][..., None], (one.labels == LUNGS).astype(np.int32), one.spacing) for one in training()]
    design = plan(fingerprint(cases, 2), memory_gb=memory_gb, base_width=base_width, patch=patch or None)
    unet = plain_unet(design.classes, design.widths, design.kernels, design.strides)
    model = network_part(unet if network is None else network, design, "--part network").value
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
    """Means, and standard deviations where there are several; of p-values the least and the most."""
    tests = [{name: value for name, value in row.items() if re.search(r"_p(/|$)", name)} for row in rows]
    rest = [{name: value for name, value in row.items() if name not in tests[0]} for row in rows]
    return (over_runs(rest) if len(rest) > 1 else rest[0]) | range_over_runs(tests)


def measure(one: Cohort, margin: Mapping[str, float], knot: float, boundary_mm: Sequence[float]) -> dict[str, float]:
    """The metrics of a cohort; `margin` says what counts as equivalent, as a fraction of the manual mean."""
    return {
        **segmentation(one), **agreement(one, margin), **readings.accuracy_of_fits(one),
        **maturity(one, knot), **readings.effect_of_outline(one, boundary_mm),
    }  # fmt: skip


def segmentation(one: Cohort) -> dict[str, float]:
    """Masks against the truth, and outlier frames found with the automatic one."""
    (true, automatic), bad, left_out = one["volume"].T, one["bad"], one["left_out"]
    return {
        "dice/mean": float(np.mean(one["dice"])),
        "dice/sd": float(np.std(one["dice"], ddof=1)),
        "dice/least": float(np.min(one["dice"])),
        "missed": float(np.sum(automatic == 0)),
        "volume_error": float(np.mean(automatic / true - 1)),
        "identifiable": float(np.mean(one["identifiable"])),
        "frames/bad": float(np.sum(bad)),
        "frames/found": float(np.sum(bad & left_out)),
        "frames/wrongly_left_out": float(np.sum(~bad & left_out)),
    }


def agreement(one: Cohort, margin: Mapping[str, float]) -> dict[str, float]:
    """Automatic against manual, in the fetuses whose lungs the network saw."""
    out, seen = dict[str, float](), one["volume"][:, 1] > 0
    for name in readings.PARAMETERS:
        manual, automatic = one["read"][readings.MAIN][name][seen].T
        found = paired_agreement(manual, automatic, margin[name], margin[name] / 10)
        out |= {f"{key}/{name}": value for key, value in zip(AGREEMENT, found, strict=True)}
    return out


def maturity(one: Cohort, knot: float) -> dict[str, float]:
    """Coefficients of f on age, and their p-values."""
    out = dict[str, float]()
    for mask, fitted in regress_on_age(one, knot).items():
        out[f"regression/{mask}/r_squared"] = fitted.r_squared
        for term, value, p in zip(TERMS, fitted.coefficients.tolist(), fitted.p.tolist(), strict=True):
            out |= {f"regression/{mask}/{term}": value, f"regression/{mask}/{term}_p": p}
    return out


def regress_on_age(one: Cohort, knot: float) -> dict[str, Regression]:
    """f on age in two pieces that meet at the knot, with an offset of the restricted; NaN where few lungs were seen."""
    out = dict[str, Regression]()
    for mask, values in readings.lung_f(one).items():
        seen = np.isfinite(values)
        age, f, restricted = one["age"][seen], values[seen], one["restricted"][seen].astype(bool)
        out[mask] = undefined(TERMS)
        if len(f) > len(TERMS):
            out[mask] = regress(age, f, restricted, knot, interaction=False, name="age")
    return out


if __name__ == "__main__":
    run_module(__file__)

"""Can fetal lungs be segmented on diffusion MRI and their maturity read from IVIM with nobody in the loop? (paper 6)

A 3-D U-Net of nnU-Net's make learns the lungs on baseline frames of simulated fetal scans. On fetuses it has not seen
each voxel of the scan is fitted, and the lungs are read in the true ("manual") and in the network's mask. Agreement is
judged by Bland–Altman limits, intraclass correlation, an equivalence test, and by what a test of no difference could
have seen at all; maturity by a regression of the perfusion fraction on gestational age with a group effect.
"""

from functools import partial
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from scipy import stats

from experiments._fetal import KEPT, MAIN, PARAMETERS, networks, studied
from experiments._fetal_tables import (
    AGREEMENT,
    CLEANED,
    MASKS,
    agreement_table,
    boundary_table,
    cell,
    dice_table,
    reading_table,
    regression_table,
)
from medjax.atomic import write_csv
from medjax.metrics.agreement import (
    bland_altman,
    detectable_difference,
    icc,
    power_of_paired_test,
    power_of_tost,
    tost,
)
from medjax.metrics.regression import Regression, regress
from medjax.report.gallery import gallery
from medjax.report.html import Figure, Report, Section
from medjax.report.points import Line, points
from medjax.running.experiment import Result, run_module
from medjax.running.progress import track
from medjax.running.workdir import WorkDir, save_figure, stage

COLUMNS = (
    *("cohort", "weeks", "restricted", "dice", "ml_true", "ml_automatic"),
    *("f_true", "f_manual", "f_automatic", "f_automatic_frames_left_out"),
)
UNITS = {"f": "", "d": " mm²/s", "d_star": " mm²/s", "f_d_star": " mm²/s"}


def run(config: ConfigDict, work: WorkDir) -> Result:
    """Every cohort: networks, then readings; tables are means over cohorts, figures of the first."""
    found = []
    for seed in track(range(config.seeds), "cohorts"):
        planned, params = networks(config, seed, work)
        found.append(stage(work, f"studied_{seed}", partial(studied, config, seed, planned, params)))
    metrics = _mean_sd([_metrics(config, one) for one in found])
    agreement = agreement_table(metrics)
    sections = [
        Section("Segmentation", "", [_pictures(found[0], work), _dice(found, work)], dice_table(found)),
        Section("Manual against automatic", "", _bland_altman(found[0], work), agreement),
        Section("Maturity", "", _courses(config, found[0], work), regression_table(metrics)),
        Section("What a reading is worth", "", table=reading_table(metrics, found[0])),
        Section("The outline", "", table=boundary_table(config, metrics)),
    ]
    return Result(metrics, Report("Fetal lung maturity", _summary(config, metrics), sections), agreement)


# ── numbers ──


def _metrics(config: ConfigDict, one: dict[str, Any]) -> dict[str, float]:
    """Of one cohort."""
    out = {
        "dice/mean": float(np.mean(one["dice"])),
        "dice/sd": float(np.std(one["dice"], ddof=1)),
        "dice/least": float(np.min(one["dice"])),
        "missed": float(np.sum(one["volume"][:, 1] == 0)),
        "volume_error": float(np.mean(one["volume"][:, 1] / one["volume"][:, 0] - 1)),
        "identifiable": float(np.mean(one["identifiable"])),
        "frames/bad": float(np.sum(one["bad"])),
        "frames/found": float(np.sum(one["bad"] & one["left_out"])),
        "frames/wrongly_left_out": float(np.sum(~one["bad"] & one["left_out"])),
    }
    seen = one["volume"][:, 1] > 0
    for k, name in enumerate(PARAMETERS):
        manual, automatic = one["read"][MAIN][seen, :, k].T
        out |= {f"{key}/{name}": value for key, value in _agreement(manual, automatic, config.margin[name]).items()}
    for reading, values in one["read"].items():
        for k, name in enumerate(PARAMETERS):
            off = values[:, 0, k] / one["truth"][:, k] - 1
            out[f"bias/{reading}/{name}"], out[f"spread/{reading}/{name}"] = (
                float(np.mean(off)),
                float(np.std(off, ddof=1)),
            )
            out[f"correlation/{reading}/{name}"] = float(np.corrcoef(values[:, 0, k], one["truth"][:, k])[0, 1])
    for mask, values in _values(one).items():
        fitted = _regressed(config, one, values)
        for term, value, p in zip(*fitted[:2], fitted.p, strict=True):
            out |= {f"regression/{mask}/{term}": float(value), f"regression/{mask}/{term}_p": float(p)}
        out[f"regression/{mask}/r_squared"] = fitted.r_squared
    plain = one["read"][MAIN][:, 0]
    for k, mm in enumerate(config.boundary_mm):
        for j, name in enumerate(PARAMETERS):
            out[f"boundary/{mm:+g}_mm/{name}"] = float(np.nanmean(one["boundary"][:, k, j] / plain[:, j] - 1))
    return out


def _agreement(manual: np.ndarray, automatic: np.ndarray, share: float) -> dict[str, float]:
    """Differences are automatic − manual and, but for p-values and correlations, shares of the manual mean."""
    if len(manual) < 3:  # the network saw next to nothing
        return dict.fromkeys(AGREEMENT, float("nan"))
    mean, number = float(manual.mean()), len(manual)
    limits, margin = bland_altman(automatic, manual), share * mean
    values = (
        limits.bias / mean,
        limits.lower / mean,
        limits.upper / mean,
        icc(np.stack([manual, automatic], 1)).value,
        tost(automatic - manual, margin).p,
        power_of_tost(number, limits.sd, margin),
        float(stats.ttest_rel(automatic, manual).pvalue),
        detectable_difference(number, limits.sd) / mean,
        power_of_paired_test(number, limits.sd, margin / 10),
    )
    return dict(zip(AGREEMENT, values, strict=True))


def _values(one: dict[str, Any]) -> dict[str, np.ndarray]:
    """f of each fetus: true, in the manual and in the automatic mask, and there without spoilt frames."""
    read = {mask: one["read"][MAIN][:, k, 0] for k, mask in enumerate(MASKS)}
    return {"truth": one["truth"][:, 0], **read, CLEANED: one["read"][KEPT][:, 1, 0]}


def _regressed(config: ConfigDict, one: dict[str, Any], values: np.ndarray) -> Regression:
    seen = np.isfinite(values)
    restricted = one["restricted"][seen].astype(bool)
    return regress(one["age"][seen], values[seen], restricted, config.knot, interaction=False, name="age")


def _mean_sd(cohorts: list[dict[str, float]]) -> dict[str, float]:
    """Means over cohorts, standard deviations under `sd/…` where there are several; of p `least/…` and `most/…`."""
    every = {name: np.array([one[name] for one in cohorts]) for name in cohorts[0]}
    tested = {
        name: values for name, values in every.items() if name.split("/")[0].endswith("_p") or name.endswith("_p")
    }
    rest = {name: values for name, values in every.items() if name not in tested}
    means = {name: float(values.mean()) for name, values in rest.items()}
    for name, values in tested.items():
        means |= {f"least/{name}": float(values.min()), f"most/{name}": float(values.max())}
    return means | {f"sd/{name}": float(values.std(ddof=1)) for name, values in rest.items() if len(values) > 1}


# ── figures ──


def _pictures(one: dict[str, Any], work: WorkDir) -> Figure:
    """Slices through the lungs of some fetuses, with the network's outline and the true one."""
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    names: list[str] = []
    for k in np.linspace(0, len(one["age"]) - 1, 4).astype(int):
        image = np.clip(one["slice"][k] / np.quantile(one["slice"][k], 0.99), 0, 1).astype(np.float32)
        for mask, name in zip(one["outlines"][k], ("true", "network"), strict=True):
            images.append(image.T[::-1])
            labels.append(mask.T[::-1].astype(np.int32))
            names.append(f"{name}, {one['age'][k]:.0f} weeks")
    drawn = gallery(np.stack(images), np.stack(labels), names, 4, "Simulated, b = 0")
    return Figure(save_figure(work, "lungs", drawn))


def _dice(found: list[dict[str, Any]], work: WorkDir) -> Figure:
    """Dice of every fetus; `fetuses.csv` has the numbers, and what was read."""
    rows: list[list[str]] = []
    for k, one in enumerate(found):
        values = np.stack(list(_values(one).values()), 1)
        for row in zip(one["age"], one["restricted"], one["dice"], one["volume"], values, strict=True):
            age, restricted, dice, volume, f = row
            numbers = [f"{value:.4f}" for value in (dice, *volume, *f)]
            rows.append([str(k), f"{age:.2f}", str(int(restricted)), *numbers])
    write_csv(work.path / "fetuses.csv", COLUMNS, rows)
    groups = {f"cohort {k}": (one["age"], one["dice"]) for k, one in enumerate(found)}
    return Figure(
        save_figure(work, "dice", points(groups, "gestational age, weeks", "Dice")), "Each fetus; fetuses.csv"
    )


def _bland_altman(one: dict[str, Any], work: WorkDir) -> list[Figure]:
    out = []
    for k, name in enumerate(PARAMETERS[:2]):
        manual, automatic = one["read"][MAIN][:, :, k].T
        seen = np.isfinite(automatic)
        if seen.sum() < 3:
            continue
        limits = bland_altman(automatic[seen], manual[seen])
        restricted = one["restricted"].astype(bool)
        groups = {
            group: ((manual + automatic)[inside & seen] / 2, (automatic - manual)[inside & seen])
            for group, inside in (("normal", ~restricted), ("growth-restricted", restricted))
        }
        levels = (limits.lower, limits.bias, limits.upper)
        drawn = points(groups, f"mean of both, {name}{UNITS[name]}", "automatic − manual", levels=levels)
        out.append(Figure(save_figure(work, f"bland_altman_{name}", drawn), f"Bland–Altman: {name}"))
    return out


def _courses(config: ConfigDict, one: dict[str, Any], work: WorkDir) -> list[Figure]:
    """f against age, true and as read with nobody in the loop."""
    out = []
    restricted = one["restricted"].astype(bool)
    for mask, values in _values(one).items():
        if mask == "manual":
            continue
        fitted = _regressed(config, one, values)
        x = np.linspace(one["age"].min(), one["age"].max(), 60)
        base = np.stack([np.ones_like(x), x - config.knot, np.maximum(x - config.knot, 0)], 1) @ fitted.coefficients[:3]
        groups = {
            name: (one["age"][inside], values[inside])
            for name, inside in (("normal", ~restricted), ("growth-restricted", restricted))
        }
        lines = {"normal": Line(x, base), "growth-restricted": Line(x, base + fitted.coefficients[3])}
        title = f"f of the lungs, {'true' if mask == 'truth' else mask}"
        drawn = points(groups, "gestational age, weeks", "f", lines=lines, title=title)
        out.append(Figure(save_figure(work, "maturity_" + mask.replace(",", "").replace(" ", "_"), drawn)))
    return out


def _summary(config: ConfigDict, metrics: dict[str, float]) -> list[str]:
    d = config.data
    return [
        f"Simulated fetal scans, {config.seeds} cohorts: networks learnt from {d.train} fetuses each and read {d.test} "
        f"others, {d.restricted:.0%} of them growth-restricted; {len(d.bvalues)} b-values, SNR {d.snr:g}, motion.",
        f"Dice {cell(metrics, 'dice/mean')} over cohorts; {metrics['identifiable']:.0%} of the lungs' voxels tell "
        "f, D and D* to half their value or better.",
        "The published study is of patients, with a protocol that its abstract does not give: its Dice of 0.8214 is of "
        "different data.",
    ]


if __name__ == "__main__":
    run_module(__file__)

"""How much wrong ground truth can a U-Net stand, and can wrong labels be found and repaired while it trains? (paper 1)

Simulated echocardiograms get wrong labels: at random, always in the same direction, or without their apex, in a tenth
to three quarters of the images. A fifth of the images is hard but correctly labelled. A plain
run on these labels is probed as it goes: variance of gradients (VOG) in several forms, losses, margins. At the end of
early learning its suspects are dropped, or repaired with the network's own predictions, and training goes on; the
oracle drops what is truly wrong. All are judged on clean labels of hearts that no training saw.
"""

from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments._echo import LOSS, VOG, leaves, plain_run, strategies
from medjax.errors import ConfigError
from medjax.labels.dynamics import Settings
from medjax.labels.errors import Corrupted, corrupt
from medjax.models.model import Network
from medjax.models.unet import unet
from medjax.phantoms.echo import CLASSES, GROUPS, Echo, echo
from medjax.report.figures import curves
from medjax.report.gallery import gallery
from medjax.report.html import Figure, Report, Section, Table
from medjax.running.experiment import Result, run_module
from medjax.running.progress import track
from medjax.running.workdir import WorkDir, save_figure, stage

TEST = 1_000_000  # first seed of hearts that are tested on
STRATEGIES = ("plain", "drop", "refurbish_loss", "refurbish_vog", "oracle")
SHOWN = ("vog", "vog_published", "gradient", "loss", "dice_mean", "aum", "softmin")


def run(config: ConfigDict, work: WorkDir) -> Result:
    """Every cell: kind of error × share of wrong labels × seed; then tables over seeds.

    Raises:
        ConfigError: strategies are asked for at a share that is not among the fractions, or probes do not fit the run.
    """
    e, t = config.errors, config.training
    if not set(e.repaired) <= set(e.fractions):
        raise ConfigError(
            f"errors.repaired {tuple(e.repaired)}; expected some of errors.fractions {tuple(e.fractions)}"
        )
    if not t.probe_every <= t.latest <= t.epochs or t.probe_every * config.data.train < t.batch:
        raise ConfigError(
            f"training: probe_every {t.probe_every}, latest {t.latest}, epochs {t.epochs}; expected rising"
        )
    kinds = (*e.kinds, *e.more_kinds)
    cells = [(kind, share, seed) for seed in range(config.seeds) for kind in kinds for share in e.fractions]
    found: dict[tuple[str, float, int], dict[str, Any]] = {}
    for kind, share, seed in track(cells, "cells"):
        name = f"{kind}_{share:g}_{seed}"
        found[kind, share, seed] = stage(work, name, partial(_cell, config, kind, share, seed))
    clean = [stage(work, f"clean_{seed}", partial(_clean, config, seed)) for seed in range(config.seeds)]
    metrics, deviations = _metrics(found, kinds, e.fractions, config)
    metrics["dice/plain/none/0"], deviations["sd/dice/plain/none/0"] = _mean_sd([one["dice"] for one in clean])
    detection = _detection_table(metrics, deviations, kinds, e.fractions)
    repair = _repair_table(metrics, deviations, kinds, e.repaired)
    sections = [
        Section("Images", "", [_pictures(config, work, kinds)]),
        Section("Which labels are wrong?", "At the end of the plain run.", _curves(found, config, work), detection),
        Section("What repair brings", "", table=repair),
        Section("Labels after repair", "", table=_quality_table(metrics, kinds, e.repaired)),
    ]
    return Result(
        metrics | deviations, Report("Label errors in echo segmentation", _summary(config), sections), detection
    )


def _data(config: ConfigDict, seed: int) -> tuple[Echo, Echo]:
    """Training and test images of a seed."""
    d = config.data
    if config.camus:
        every = _camus(config.camus, d.size)
        patients = np.random.default_rng(seed).permutation(len(every.images) // len(GROUPS))
        rows = (len(GROUPS) * patients[:, None] + np.arange(len(GROUPS))).ravel()  # a heart is in one part only
        parts = rows[: d.train], rows[d.train : d.train + d.test]
        first, second = (Echo(*(array[part] for array in every)) for part in parts)
        return first, second
    return echo(seed, d.train, d.size, d.hard), echo(TEST + seed, d.test, d.size, d.hard)


@lru_cache(maxsize=1)
def _camus(folder: str, size: int) -> Echo:
    from medjax.datasets.camus import camus

    return camus(Path(folder), size)


def _wrong(config: ConfigDict, data: Echo, kind: str, share: float, seed: int) -> Corrupted:
    return corrupt(seed, data.labels, kind, share, config.errors.target[kind])


def _cell(config: ConfigDict, kind: str, share: float, seed: int) -> dict[str, Any]:
    """The plain run of a cell and, where `repaired` says so, the strategies."""
    s = _settings(config)
    data, test = _data(config, seed)
    wrong = _wrong(config, data, kind, share, seed)
    model = _network(config)
    judgement, out = plain_run(seed, model, data, wrong, test, s)
    out["dice"] = {"plain": out["test_dice"][-1]}
    if share in config.errors.repaired:
        dice, out["labels"] = strategies(seed, model, data, wrong, test, judgement, s)
        out["dice"] |= dice
    return leaves(out)


def _clean(config: ConfigDict, seed: int) -> dict[str, Any]:
    """The plain run on true labels: what the others fall short of."""
    data, test = _data(config, seed)
    right = corrupt(seed, data.labels, "random", 0.0)
    _, out = plain_run(seed, _network(config), data, right, test, _settings(config))
    return {"dice": np.asarray(out["test_dice"][-1])}


def _network(config: ConfigDict) -> Network:
    return unet(len(CLASSES), tuple(config.training.widths))


def _settings(config: ConfigDict) -> Settings:
    t = config.training
    steps = t.epochs * config.data.train // t.batch
    every = t.probe_every * config.data.train // t.batch
    latest = t.latest * config.data.train // t.batch
    return Settings(len(CLASSES), t.rate, t.batch, steps, every, latest)


# ── what comes of it ──


def _metrics(found: Any, kinds: Any, shares: Any, config: ConfigDict) -> tuple[dict[str, float], dict[str, float]]:
    """Means over seeds, and standard deviations under `sd/…`."""
    means: dict[str, float] = {}
    deviations: dict[str, float] = {}
    for kind in kinds:
        for share in shares:
            cells = [_flat(found[kind, share, seed], config.training.probe_every) for seed in range(config.seeds)]
            for name in cells[0]:
                whole = f"{name}/{kind}/{share:g}"
                means[whole], deviations[f"sd/{whole}"] = _mean_sd([cell[name] for cell in cells])
    return means, deviations


def _mean_sd(values: Any) -> tuple[float, float]:
    each = np.array(values, float)
    return float(each.mean()), float(each.std(ddof=1)) if len(each) > 1 else float("nan")


def _flat(cell: dict[str, Any], probe_every: int) -> dict[str, float]:
    """`auroc/DETECTOR` at the end of the plain run, `auroc_asked/…` when the labels were judged, `dice/STRATEGY`, …"""
    out = {f"auroc/{name}": float(values[-1]) for name, values in cell["auroc"].items()}
    asked = round(float(cell["epoch_asked"]) / probe_every) - 1
    out |= {f"auroc_asked/{name}": float(values[asked]) for name, values in cell["auroc"].items()}
    for group in ("dice", "average_precision", "poor_among_right"):
        out |= {f"{group}/{name}": float(value) for name, value in cell[group].items()}
    out["epoch_asked"] = float(cell["epoch_asked"])
    for strategy, values in cell.get("labels", {}).items():
        out |= {f"labels_{name}/{strategy}": float(value) for name, value in values.items()}
    return out


def _said(metrics: dict[str, float], deviations: dict[str, float], name: str, digits: int) -> str:
    deviation = deviations[f"sd/{name}"]
    return f"{metrics[name]:.{digits}f}" + ("" if np.isnan(deviation) else f" ± {deviation:.{digits}f}")


def _detection_table(metrics: Any, deviations: Any, kinds: Any, shares: Any) -> Table:
    names = [
        key.split("/")[1] for key in metrics if key.startswith("auroc/") and key.endswith(f"/{kinds[0]}/{shares[0]:g}")
    ]
    columns = [(kind, share) for kind in kinds for share in shares]
    rows: list[list[Any]] = [
        [name, *(_said(metrics, deviations, f"auroc/{name}/{kind}/{share:g}", 2) for kind, share in columns)]
        for name in names
    ]
    header = ["AUROC", *(f"{kind} {share:g}" for kind, share in columns)]
    return Table(header, rows, "Mean ± SD over seeds; 0.5 is chance, below it the ranking is upside down.")


def _repair_table(metrics: Any, deviations: Any, kinds: Any, shares: Any) -> Table:
    rows: list[list[Any]] = [
        [kind, f"{share:g}", *(_said(metrics, deviations, f"dice/{name}/{kind}/{share:g}", 3) for name in STRATEGIES)]
        for kind in kinds
        for share in shares
    ]
    return Table(["error", "share wrong", *STRATEGIES], rows, "Dice of clean test labels, mean ± SD over seeds.")


def _quality_table(metrics: Any, kinds: Any, shares: Any) -> Table:
    rows: list[list[Any]] = []
    for kind in kinds:
        for share in shares:
            for name in ("as_given_dice_mean", "refurbish_loss", "as_given_vog", "refurbish_vog"):
                cells = [metrics.get(f"labels_{part}/{name}/{kind}/{share:g}", float("nan")) for part in PARTS]
                rows.append([f"{kind} {share:g}", name, *(round(value, 3) for value in cells)])
    return Table(["error", "labels", *PARTS], rows, "Dice of labels with the truth; recall and precision of the flags.")


PARTS = ("all", "bad", "flagged", "falsely_flagged", "recall", "precision")


def _curves(found: Any, config: ConfigDict, work: WorkDir) -> list[Figure]:
    """AUROC against epoch, of each kind at each share that is repaired."""
    out = []
    for kind in config.errors.kinds:
        for share in config.errors.repaired:
            cells = [found[kind, share, seed]["auroc"] for seed in range(config.seeds)]
            every = jax.tree.map(lambda *each: np.stack(each), *cells)
            x = config.training.probe_every * np.arange(1, len(every[VOG][0]) + 1)
            lines = {name: every[name].mean(0) for name in SHOWN}
            drawn = curves(x, lines, "epoch", "AUROC", title=f"{kind}, {share:g} of the labels wrong")
            out.append(Figure(save_figure(work, f"auroc_{kind}_{share:g}".replace(".", "_"), drawn)))
    return out


def _pictures(config: ConfigDict, work: WorkDir, kinds: Any) -> Figure:
    """Some images, as labelled truly and wrongly."""
    data, _ = _data(config, 0)
    few = np.r_[np.flatnonzero(~data.hard)[:6], np.flatnonzero(data.hard)[:2]]
    labels, names = [data.labels[few]], [("hard" if hard else "true label") for hard in data.hard[few]]
    for kind in kinds:
        labels.append(_wrong(config, data, kind, 1.0, 0).labels[few])
        names += [kind] * len(few)
    images = np.tile(data.images[few, ..., 0], (len(labels), 1, 1))
    drawn = gallery(images, np.concatenate(labels), names, len(few), "Simulated" * (not config.camus))
    return Figure(save_figure(work, "images", drawn), "Outlines: left ventricle, its wall, left atrium.")


def _summary(config: ConfigDict) -> list[str]:
    d = config.data
    source = "CAMUS" if config.camus else "Simulated echocardiograms"
    return [
        f"{source}: {d.train} training and {d.test} test images of {d.size}² pixels, {config.seeds} seeds; "
        f"{_data(config, 0)[0].hard.mean():.0%} of the training images are hard to read.",
        f"`drop` and `refurbish_vog` take the images that VOG flags (Otsu's threshold), `refurbish_loss` those of "
        f"{LOSS}; they are judged at the end of early learning, when agreement with the labels rises slowly.",
        "The published study is of CAMUS, with settings that its abstract does not give: its figures do not compare.",
    ]


if __name__ == "__main__":
    run_module(__file__)

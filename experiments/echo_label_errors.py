"""How much wrong ground truth can a U-Net stand, and can wrong labels be found and repaired while it trains? (paper 1)

Simulated echocardiograms get wrong labels: at random, always in the same direction, or without their apex, in a tenth
to three quarters of the images. A fifth of the images is hard but correctly labelled. A plain
run on these labels is probed as it goes: variance of gradients (VOG) in several forms, losses, margins. At the end of
early learning its suspects are dropped, or repaired with the network's own predictions, and training goes on; the
oracle drops what is truly wrong. All are judged on clean labels of hearts that no training saw.

All plain runs are one population, all that go on another. A network of one's own is any segmentation Model; scores of
labels are a LabelScore, a column `score` more, or a dict of them in place of the built-in ones.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments.echo import tables
from experiments.echo.cells import LOSS, VOG, Cell, Training, run_cells
from medjax.datasets.camus import camus, split
from medjax.errors import ConfigError, MedjaxError
from medjax.labels.dynamics import Settings
from medjax.labels.errors import KINDS
from medjax.labels.scores import LabelScore, built_in
from medjax.metrics.summary import over_runs
from medjax.models.model import Network
from medjax.models.unet import unet
from medjax.phantoms.echo import CLASSES, Echo, echo
from medjax.report.html import Report, Section
from medjax.running.experiment import Result, run_module
from medjax.running.workdir import WorkDir

TEST = 1_000_000  # first seed of hearts that are tested on
SHOWN = (VOG, "vog_published", "gradient", "loss", LOSS, "aum", "softmin")
TARGETS = tuple(f"errors.target.{kind}" for kind in KINDS)
TRACED = ("seed", "training.rate", "data.hard", "errors.kinds", "errors.fractions", "errors.repaired", *TARGETS)
Scores = Mapping[str, LabelScore] | LabelScore
Images = Mapping[tuple[float, int], tuple[Echo, Echo]]  # (fraction of hard ones, seed): training and test images


def run(
    config: ConfigDict, work: WorkDir, *, network: Network | None = None, label_scores: Scores | None = None
) -> Result:
    """Every cell: kind of error × fraction of wrong labels × seed; then tables over seeds.

    Raises:
        ConfigError: strategies are asked for at a fraction that is not among the fractions, or probes do not fit.
        DataError: images or labels that cannot be trained on, or a loss that is not finite.
    """
    [result] = population([config], [work], network=network, label_scores=label_scores)
    if isinstance(result, MedjaxError):
        raise result
    return result


def population(
    configs: Sequence[ConfigDict],
    works: Sequence[WorkDir],
    *,
    network: Network | None = None,
    label_scores: Scores | None = None,
) -> list[Result | MedjaxError]:
    """The results of configs that differ in TRACED keys, or an error in place of one that cannot be or diverged."""
    refused = [_refusal(config) for config in configs]
    training, images = _training(configs[0], network, label_scores), _images(configs)
    cells = [
        cell
        for config, work, error in zip(configs, works, refused, strict=True)
        for cell in ([] if error else _cells(config, work, images))
    ]
    found = run_cells(training, cells)
    return [
        error
        or _result(config, work, images, [(c, one) for c, one in zip(cells, found, strict=True) if c.work is work])
        for config, work, error in zip(configs, works, refused, strict=True)
    ]


def _cells(config: ConfigDict, work: WorkDir, images: Images) -> list[Cell]:
    """The plain runs of a config: of every condition and, on true labels, what the others fall short of."""
    e, rate = config.errors, config.training.rate
    conditions = [(kind, x, e.target[kind], x in e.repaired) for kind in _kinds(config) for x in e.fractions]
    return [
        Cell(work, kind, x, seed, target, repaired, rate, *images[config.data.hard, seed])
        for seed in _seeds(config)
        for kind, x, target, repaired in [*conditions, (None, 0.0, None, False)]
    ]


def _kinds(config: ConfigDict) -> tuple[str, ...]:
    return (*config.errors.kinds, *config.errors.more_kinds)


def _seeds(config: ConfigDict) -> range:
    return range(config.seed, config.seed + config.seeds)


def _images(configs: Sequence[ConfigDict]) -> Images:
    """Training and test images of every seed: simulated hearts, or CAMUS's, which are read once."""
    d, folder = configs[0].data, configs[0].camus
    every = camus(Path(folder), d.size) if folder else None

    def drawn(hard: float, seed: int) -> tuple[Echo, Echo]:
        if every is not None:
            first, second = split(every, seed, d.train, d.test)
            return first, second
        return echo(seed, d.train, d.size, hard), echo(TEST + seed, d.test, d.size, hard)

    keys = dict.fromkeys((config.data.hard, seed) for config in configs for seed in _seeds(config))
    return {key: drawn(*key) for key in keys}


def _training(config: ConfigDict, network: Network | None, label_scores: Scores | None) -> Training:
    t = config.training
    steps, every, latest = (x * config.data.train // t.batch for x in (t.epochs, t.probe_every, t.latest))
    settings = Settings(len(CLASSES), t.rate, t.batch, steps, every, latest)
    scores: dict[str, LabelScore] = built_in()
    if isinstance(label_scores, LabelScore):
        scores |= {"score": label_scores}
    elif label_scores is not None:  # what flags the suspects stays, unless it is among them
        scores = {LOSS: scores[LOSS], VOG: scores[VOG], **label_scores}
    model = network or unet(len(CLASSES), tuple(t.widths))
    return Training(model, settings, scores, config.population.strategy or None, config.population.width or None)


def _refusal(config: ConfigDict) -> ConfigError | None:
    """Why a config cannot be run."""
    e, t = config.errors, config.training
    if not set(e.repaired) <= set(e.fractions) or not all(0 < fraction <= 1 for fraction in e.fractions):
        repaired = f"errors.repaired {tuple(e.repaired)}, errors.fractions {tuple(e.fractions)}"
        return ConfigError(f"{repaired}; expected some of the fractions, and those from 0 to 1")
    if unknown := set(_kinds(config)) - set(KINDS):
        return ConfigError(f"errors.kinds: {', '.join(sorted(unknown))}; expected some of {', '.join(KINDS)}")
    if not t.probe_every <= t.latest <= t.epochs or t.probe_every * config.data.train < t.batch:
        epochs = f"probe_every {t.probe_every}, latest {t.latest}, epochs {t.epochs}"
        return ConfigError(f"training: {epochs}; expected rising")
    return None


def _result(
    config: ConfigDict, work: WorkDir, images: Images, found: Sequence[tuple[Cell, Any]]
) -> Result | MedjaxError:
    """Means and standard deviations over seeds, tables and figures; or the first error of a cell."""
    for _, one in found:
        if isinstance(one, MedjaxError):
            return one
    by_condition: dict[tuple[str | None, float], list[Any]] = {}
    for cell, one in found:
        by_condition.setdefault((cell.kind, cell.fraction), []).append(one)
    clean = by_condition.pop((None, 0.0))
    metrics = over_runs([{"dice/plain/none/0": float(one["metrics"]["dice"]["plain"])} for one in clean])
    for (kind, x), seeds in by_condition.items():
        metrics |= over_runs([_flat(one["metrics"], f"{kind}/{x:g}") for one in seeds])
    scores = list(clean[0]["curves"])
    shown = [name for name in scores if name in SHOWN or name not in built_in()]
    repaired = [(kind, x) for kind, x in by_condition if x in config.errors.repaired]
    detection = tables.detection(metrics, scores, list(by_condition))
    curves = [
        tables.auroc_curves(
            work, one, {name: [seed["curves"][name] for seed in by_condition[one]] for name in shown},
            config.training.probe_every,
        )
        for one in repaired if one[0] in config.errors.kinds
    ]  # fmt: skip
    data, _ = images[config.data.hard, config.seed]
    targets = {kind: config.errors.target[kind] for kind in _kinds(config)}
    sections = [
        Section("Images", "", [tables.pictures(work, data, targets, config.seed, not config.camus)]),
        Section("Which labels are wrong?", "At the end of the plain run.", curves, detection),
        Section("What repair brings", "", table=tables.repair(metrics, repaired)),
        Section("Labels after repair", "", table=tables.repaired_labels(metrics, repaired)),
    ]
    report = Report("Label errors in echo segmentation", _summary(config, float(data.hard.mean())), sections)
    return Result(metrics, report, detection)


def _flat(metrics: Mapping[str, Any], condition: str) -> dict[str, float]:
    """`auroc/SCORE/CONDITION` and so on."""
    named = jax.tree_util.tree_leaves_with_path(metrics)
    return {f"{jax.tree_util.keystr(p, simple=True, separator='/')}/{condition}": float(value) for p, value in named}


def _summary(config: ConfigDict, hard: float) -> list[str]:
    d = config.data
    return [
        f"{'CAMUS' if config.camus else 'Simulated echocardiograms'}: {d.train} training and {d.test} test images of "
        f"{d.size}² pixels, {config.seeds} seeds; {hard:.0%} of the training images are hard to read.",
        f"`drop` and `refurbish_vog` take the images that VOG flags (Otsu's threshold), `refurbish_loss` those of "
        f"{LOSS}; they are judged at the end of early learning, when agreement with the labels rises slowly.",
        "The published study is of CAMUS, with settings that its abstract does not give: its figures do not compare.",
    ]


if __name__ == "__main__":
    run_module(__file__)

"""How much wrong ground truth can a U-Net stand, and can wrong labels be found and repaired while it trains? (paper 1)

Simulated echocardiograms get wrong labels: at random, always in the same direction, or without their apex, in a tenth
to three quarters of the images. A fifth of the images is hard but correctly labelled. A plain run on these labels is
probed as it goes: variance of gradients (VOG) in several forms, losses, margins. At the end of early learning its
suspects are dropped, or repaired with the network's own predictions, and training goes on; the oracle drops what is
truly wrong. All are judged on clean labels of hearts that no training saw.

All plain runs are one population, all that go on another. A network of one's own is any segmentation Model, or a
function of the number of classes that gives one; scores of labels are a LabelScore, a column `score` more, or a dict of
them in place of the built-in ones.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path

from ml_collections import ConfigDict

from experiments.echo import tables
from medjax.datasets.camus import camus, split
from medjax.errors import ConfigError, MedjaxError
from medjax.labels.comparison import Case, Compared, compare
from medjax.labels.dynamics import Settings
from medjax.labels.errors import KINDS, corrupt
from medjax.labels.scores import LabelScore, with_own
from medjax.labels.strategies import drop_corrupted, drop_flagged, refurbish_flagged
from medjax.metrics.summary import flat, over_runs
from medjax.models.model import Network
from medjax.models.unet import unet
from medjax.phantoms.echo import CLASSES, Echo, echo
from medjax.report.html import Report, Section
from medjax.running.cells import cell_name
from medjax.running.experiment import Result, only, run_module
from medjax.running.network_part import network_part
from medjax.running.workdir import WorkDir

LOSS, VOG = "dice_mean", "vog"  # the scores whose suspects are dropped or repaired
STRATEGIES = {
    "drop": drop_flagged(VOG),
    "refurbish_loss": refurbish_flagged(LOSS),
    "refurbish_vog": refurbish_flagged(VOG),
    "oracle": drop_corrupted,
}
TRACED = (
    "seed", "training.rate", "data.hard", "errors.kinds", "errors.more_kinds", "errors.fractions", "errors.repaired",
    *(f"errors.target.{kind}" for kind in KINDS),
)  # fmt: skip
TEST = 1_000_000  # first seed of hearts that are tested on
Scores = Mapping[str, LabelScore] | LabelScore
Given = Network | Callable[[int], Network]


def run(
    config: ConfigDict, work: WorkDir, *, network: Given | None = None, label_scores: Scores | None = None
) -> Result:
    """Every cell: kind of error × fraction of wrong labels × seed; then tables over seeds."""
    return only(population([config], [work], network=network, label_scores=label_scores))


def population(
    configs: Sequence[ConfigDict],
    works: Sequence[WorkDir],
    *,
    network: Given | None = None,
    label_scores: Scores | None = None,
) -> list[Result | MedjaxError]:
    """The same of several configs, whose runs train together; an error in place of a Result that has failed."""
    d, t, how = configs[0].data, configs[0].training, configs[0].population
    every = camus(Path(configs[0].camus), d.size) if configs[0].camus else None
    studies = [cases(config, work, every) for config, work in zip(configs, works, strict=True)]
    steps, probe_every, latest = (epochs * d.train // t.batch for epochs in (t.epochs, t.probe_every, t.latest))
    found = iter(
        compare(
            [case for study in studies for case in study],
            network_part(network or unet(len(CLASSES), tuple(t.widths)), len(CLASSES), "--part network").value,
            Settings(len(CLASSES), t.rate, t.batch, steps, probe_every, latest),
            with_own(label_scores, needed=(LOSS, VOG)),
            STRATEGIES,
            strategy=how.strategy or None,
            width=how.width or None,
        )
    )
    each = zip(configs, studies, strict=True)
    return [_error(config) or judge(config, study, [next(found) for _ in study]) for config, study in each]


def cases(config: ConfigDict, work: WorkDir, every: Echo | None) -> list[Case]:
    """The data of each cell and, with true labels, what the others fall short of; of CAMUS, where `every` heart is."""
    d, e = config.data, config.errors
    found = []
    for seed in range(config.seed, config.seed + config.seeds) if _error(config) is None else ():
        if every is None:
            train, test = echo(seed, d.train, d.size, d.hard), echo(TEST + seed, d.test, d.size, d.hard)
        else:
            train, test = split(every, seed, d.train, d.test)
        for kind, fraction in _conditions(config):
            error = "random" if kind == "clean" else kind
            wrong = partial(corrupt, seed, train.labels, error, fraction, e.target.get(kind))
            name = cell_name((kind, fraction, seed))
            found.append(
                Case(
                    work, name, seed, config.training.rate, train.images, train.labels, wrong, train.hard, test.images,
                    test.labels, compared=fraction in e.repaired,
                )
            )  # fmt: skip
    return found


def _conditions(config: ConfigDict) -> list[tuple[str, float]]:
    """Kinds of error and fractions of wrong labels; last, none."""
    e = config.errors
    return [*product((*e.kinds, *e.more_kinds), e.fractions), ("clean", 0.0)]


def _error(config: ConfigDict) -> ConfigError | None:
    """Strategies at a fraction that is not among the fractions, or probes that do not fit the run."""
    e, t = config.errors, config.training
    if not set(e.repaired) <= set(e.fractions):
        found = f"errors.repaired {tuple(e.repaired)}"
        return ConfigError(f"{found}; expected some of errors.fractions {tuple(e.fractions)}")
    if not t.probe_every <= t.latest <= t.epochs or t.probe_every * config.data.train < t.batch:
        epochs = f"probe_every {t.probe_every}, latest {t.latest}, epochs {t.epochs}"
        return ConfigError(f"training: {epochs}; expected rising")
    return None


def judge(config: ConfigDict, study: Sequence[Case], found: Sequence[Compared | MedjaxError]) -> Result | MedjaxError:
    """Means and standard deviations over seeds, tables and figures; or what went wrong with a cell."""
    failed = [one for one in found if isinstance(one, MedjaxError)]
    if failed:
        return failed[0]
    conditions, good = _conditions(config), [one for one in found if isinstance(one, Compared)]
    by_condition = {one: good[k :: len(conditions)] for k, one in enumerate(conditions)}
    clean = by_condition.pop(conditions[-1])
    metrics = over_runs([{"dice/plain/none/0": float(one.metrics["dice"]["plain"])} for one in clean])
    for (kind, fraction), seeds in by_condition.items():
        metrics |= over_runs([flat(one.metrics, f"{kind}/{fraction:g}") for one in seeds])
    repaired = [one for one in by_condition if one[1] in config.errors.repaired]
    curves = [
        tables.auroc_curves(
            study[0].work, *one, [seed.curves for seed in by_condition[one]], config.training.probe_every
        )
        for one in repaired
        if one[0] in config.errors.kinds
    ]
    detection = tables.detection(metrics, list(clean[0].curves), list(by_condition))
    names = ("plain", *STRATEGIES)
    sections = [
        Section("Images", "", [tables.pictures(study[0], config.errors.target, list(by_condition), not config.camus)]),
        Section("Which labels are wrong?", "At the end of the plain run.", curves, detection),
        Section("What repair brings", "", table=tables.repair(metrics, names, repaired)),
        Section("Labels after repair", "", table=tables.repaired_labels(metrics, LOSS, VOG, repaired)),
    ]
    d = config.data
    summary = [
        f"{'CAMUS' if config.camus else 'Simulated echocardiograms'}: {d.train} training and {d.test} test images of "
        f"{d.size}² pixels, {config.seeds} seeds; {study[0].hard.mean():.0%} of the training images are hard to read.",
        f"`drop` and `refurbish_vog` take the images that VOG flags (Otsu's threshold), `refurbish_loss` those of "
        f"{LOSS}; they are judged at the end of early learning, when agreement with the labels rises slowly.",
        "The published study is of CAMUS, with settings that its abstract does not give: its figures do not compare.",
    ]
    return Result(metrics, Report("Label errors in echo segmentation", summary, sections), detection)


if __name__ == "__main__":
    run_module(__file__)

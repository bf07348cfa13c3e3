"""Label errors in echocardiography segmentation: their detection and repair from a U-Net's training dynamics (paper 1).

Labels of simulated echocardiograms are corrupted at random, systematically, or by truncation of the apex, in a tenth to
three quarters of the images. A fifth of the images is of poor quality but correctly labelled. During a plain run on
these labels scores are tracked: variance of gradients (VOG) in several forms, losses, margins. At the end of early
learning the flagged images are dropped, or their labels refurbished with the network's own predictions, and training
continues; the oracle drops the truly corrupted ones. Where most labels are wrong, the same is also done with scores
that a trusted set orients: ten labels of each end of the ranking are checked. All are tested on clean labels of
held-out hearts.

All plain runs are one population, all continued ones another. A custom network is any segmentation Model, or a function
of the number of classes that makes one; custom label scores are a LabelScore, an additional column `score`, or a dict
of them in place of the built-in ones.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import jax
from ml_collections import ConfigDict

from experiments.echo import tables
from medjax.datasets.camus import camus, split
from medjax.errors import MedjaxError, pluralize
from medjax.labels import dynamics
from medjax.labels.audit import PROBED
from medjax.labels.comparison import Cell, Comparison, compare
from medjax.labels.dynamics import TrainingSettings
from medjax.labels.errors import KINDS, corrupt
from medjax.labels.probe import probe
from medjax.labels.scores import LabelScore, required_gradients, with_custom_scores
from medjax.labels.strategies import drop_corrupted, drop_flagged, refurbish_flagged, with_trusted_set
from medjax.metrics.summary import flatten_metrics, summarize_runs
from medjax.models.model import Network, finest_logits
from medjax.models.unet import unet
from medjax.phantoms.echo import CLASSES, Echo, echo
from medjax.report.html import Report, Section
from medjax.running.cells import cell_name
from medjax.running.experiment import Result, run_module, single_result
from medjax.running.network_part import network_part
from medjax.running.plan import Stage, abstract, array
from medjax.running.workdir import WorkDir

LOSS, VOG = "dice_mean", "vog"  # scores whose flagged labels are dropped or refurbished
STRATEGIES = {
    "drop": drop_flagged(VOG),
    "refurbish_loss": refurbish_flagged(LOSS),
    "refurbish_vog": refurbish_flagged(VOG),
    "oracle": drop_corrupted,
}
TRUSTED = {
    "drop_trusted": with_trusted_set(STRATEGIES["drop"], VOG),
    "refurbish_loss_trusted": with_trusted_set(STRATEGIES["refurbish_loss"], LOSS),
    "refurbish_vog_trusted": with_trusted_set(STRATEGIES["refurbish_vog"], VOG),
}
TRACED = (
    "seed", "training.rate", "data.hard", "errors.kinds", "errors.more_kinds", "errors.fractions",
    "errors.strategy_fractions", "errors.trusted_fractions", *(f"errors.target_dice.{kind}" for kind in KINDS),
)  # fmt: skip
TEST_SEED = 1_000_000  # first seed of the test hearts
Scores = Mapping[str, LabelScore] | LabelScore
NetworkPart = Network | Callable[[int], Network]


def run(
    config: ConfigDict, work: WorkDir, *, network: NetworkPart | None = None, label_scores: Scores | None = None
) -> Result:
    """Result of every cell, kind of error × fraction of wrong labels × seed, with tables over seeds."""
    return single_result(population([config], [work], network=network, label_scores=label_scores))


def population(
    configs: Sequence[ConfigDict],
    works: Sequence[WorkDir],
    *,
    network: NetworkPart | None = None,
    label_scores: Scores | None = None,
) -> list[Result | MedjaxError]:
    """Results of several configs, whose runs train as one population; an error in place of a Result that failed."""
    d, t, how = configs[0].data, configs[0].training, configs[0].population
    real = camus(Path(configs[0].camus), d.size) if configs[0].camus else None
    studies = [cells(config, work, real) for config, work in zip(configs, works, strict=True)]
    steps, probe_every, latest = (n * d.train // t.batch for n in (t.epochs, t.probe_every, t.latest_judgement))
    comparisons = iter(
        compare(
            [cell for study in studies for cell in study],
            network_part(network or unet(len(CLASSES), tuple(t.widths)), len(CLASSES), "--part network").value,
            TrainingSettings(len(CLASSES), t.rate, t.batch, steps, probe_every, latest),
            with_custom_scores(label_scores, needed=(LOSS, VOG)),
            STRATEGIES | TRUSTED,
            strategy=how.strategy or None,
            width=how.width or None,
        )
    )
    each = zip(configs, studies, strict=True)
    return [summarize(config, study, [next(comparisons) for _ in study]) for config, study in each]


def cells(config: ConfigDict, work: WorkDir, real: Echo | None) -> list[Cell]:
    """Cells of a config: condition × seed, the last condition without errors; of CAMUS if `real`, else simulated."""
    d, e = config.data, config.errors
    out = []
    for seed in range(config.seed, config.seed + config.seeds):
        if real is None:
            train, test = echo(seed, d.train, d.size, d.hard), echo(TEST_SEED + seed, d.test, d.size, d.hard)
        else:
            train, test = split(real, seed, d.train, d.test)
        for kind, fraction in _conditions(config):
            error = "random" if kind == "clean" else kind
            wrong = partial(corrupt, seed, train.labels, error, fraction, e.target_dice.get(kind))
            name = cell_name((kind, fraction, seed))
            out.append(
                Cell(
                    work, name, seed, config.training.rate, train.images, train.labels, wrong, train.hard, test.images,
                    test.labels, strategies=_strategies(config, fraction),
                )
            )  # fmt: skip
    return out


def _conditions(config: ConfigDict) -> list[tuple[str, float]]:
    """Conditions: kind of error and fraction of wrong labels; the last one has none."""
    e = config.errors
    return [*product((*e.kinds, *e.more_kinds), e.fractions), ("clean", 0.0)]


def _strategies(config: ConfigDict, fraction: float) -> list[str]:
    """Names of the strategies that are compared where this fraction of the labels is wrong."""
    e = config.errors
    if fraction not in e.strategy_fractions:
        return []
    return [*STRATEGIES, *(TRUSTED if fraction in e.trusted_fractions else ())]


def plan(config: ConfigDict, *, network: NetworkPart | None = None, label_scores: Scores | None = None) -> list[Stage]:
    """Stages of the study: plain runs, probes of all images, and continued runs, which make at most all steps."""
    d, t = config.data, config.training
    model = network_part(network or unet(len(CLASSES), tuple(t.widths)), len(CLASSES), "--part network").value
    steps, every = (n * d.train // t.batch for n in (t.epochs, t.probe_every))
    algorithm = dynamics.algorithm(model, TrainingSettings(len(CLASSES), t.rate, t.batch, steps, every))
    labels = partial(array, dtype="int32")
    images = [(array(n, d.size, d.size, 1), labels(n, d.size, d.size)) for n in (t.batch, min(PROBED, d.train))]
    batch = dynamics.Batch(*images[0], array(t.batch), labels(t.batch))
    state = abstract(algorithm.init, abstract(jax.random.key, 0), images[0][0])
    each = [len(_strategies(config, fraction)) for _, fraction in _conditions(config)]
    runs, continued = config.seeds * len(each), config.seeds * sum(each)
    gradients = required_gradients(with_custom_scores(label_scores, needed=(LOSS, VOG)))
    look = partial(probe, partial(finest_logits, model), gradients=gradients)
    return [
        Stage("plain runs", algorithm.step, (state, batch), runs * steps),
        Stage("probes", look, (state.params, *images[1]), runs * -(-steps // every) * -(-d.train // PROBED)),
        Stage("continued runs", algorithm.step, (state, batch), continued * steps),
    ]


def summarize(
    config: ConfigDict, study: Sequence[Cell], comparisons: Sequence[Comparison | MedjaxError]
) -> Result | MedjaxError:
    """Means and standard deviations over seeds, tables and figures; or the error of a cell."""
    failed = [one for one in comparisons if isinstance(one, MedjaxError)]
    if failed:
        return failed[0]
    trusted = sorted({*config.errors.trusted_fractions} & {*config.errors.strategy_fractions})
    conditions, good = _conditions(config), [one for one in comparisons if isinstance(one, Comparison)]
    by_condition = {one: good[k :: len(conditions)] for k, one in enumerate(conditions)}
    clean = by_condition.pop(conditions[-1])
    metrics = summarize_runs([{"dice/plain/none/0": float(one.metrics["dice"]["plain"])} for one in clean])
    for (kind, fraction), seeds in by_condition.items():
        metrics |= summarize_runs([flatten_metrics(one.metrics, f"{kind}/{fraction:g}") for one in seeds])
    compared = [one for one in by_condition if one[1] in config.errors.strategy_fractions]
    curves = [
        tables.auroc_curves(
            study[0].work, *one, [seed.curves for seed in by_condition[one]], config.training.probe_every
        )
        for one in compared
        if one[0] in config.errors.kinds
    ]
    detection = tables.detection(metrics, list(clean[0].curves), list(by_condition))
    names = ("plain", *STRATEGIES, *(TRUSTED if trusted else ()))
    examples = tables.error_examples(study[0], config.errors.target_dice, list(by_condition), not config.camus)
    sections = [
        Section("Images", "", [examples]),
        Section("Detection of wrong labels", "At the end of the plain run.", curves, detection),
        Section("Test Dice of the strategies", "", table=tables.test_dice(metrics, names, compared)),
        Section("Labels after refurbishment", "", table=tables.label_dice(metrics, LOSS, VOG, compared, trusted)),
    ]
    d = config.data
    summary = [
        f"{'CAMUS' if config.camus else 'Simulated echocardiograms'}: {d.train} training and {d.test} test images of "
        f"{d.size}² pixels, {pluralize(config.seeds, 'seed')}; {study[0].hard.mean():.0%} of the training images have "
        "poor quality.",
        f"`drop` and `refurbish_vog` take the images that VOG flags (Otsu's threshold), `refurbish_loss` those that "
        f"{LOSS} flags, at the end of early learning, when agreement with the labels rises slowly.",
        "`_trusted`: with the score turned round where ten checked labels of each end of its ranking say so.",
        "The published study is of CAMUS, with settings that its abstract does not give: its numbers do not compare.",
    ]
    return Result(metrics, Report("Label errors in echo segmentation", summary, sections), detection)


if __name__ == "__main__":
    run_module(__file__)

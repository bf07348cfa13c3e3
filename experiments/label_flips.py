"""Label flips: segmentation with the right boundary and the wrong class, where class and scene correlate (paper 2).

Two shapes that differ in their outline alone lie on two textures, and in training a fraction ρ of each shape lies on
its own texture. Networks trained at each ρ are tested on images with equally many of each pair: the fraction of the
foreground that is flipped to the other class, or missed; the IoU gap of the rare pairs to the common ones; how well
flip-risk, which needs no ground truth, detects flipped images, against entropy and least confidence; and the effect of
balanced batches, GroupDRO and background CutMix.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from experiments.flips import figures
from experiments.flips.members import (
    CHUNK,
    CLASSES,
    NAMES,
    TRACED,
    Cell,
    TrainedNetwork,
    assess_images,
    image_losses,
    member,
    splits,
    train,
)
from medjax.errors import MedjaxError, pluralize
from medjax.metrics.summary import cell, summarize_runs
from medjax.models.model import Network, check_network
from medjax.models.unet import unet
from medjax.phantoms.scenes import Scenes
from medjax.report.html import Report, Section, Table
from medjax.running.experiment import Result, run_module, single_result
from medjax.running.network_part import network_part
from medjax.running.plan import Stage, array, training_stage
from medjax.running.workdir import WorkDir
from medjax.shortcuts.flip_measures import measures

__all__ = ["TRACED", "plan", "population", "run"]

NetworkPart = Network | Callable[[int], Network]  # a Model, or a function of the number of classes that makes one
RISKS = {"flip_risk": "flip-risk", "entropy": "entropy", "least_confidence": "least confidence"}
SELECTION = {
    "last": "those after the last step of a cosine schedule",
    "validation": "those with the lowest validation loss, balanced over groups",
}


def run(config: ConfigDict, work: WorkDir, *, network: NetworkPart | None = None) -> Result:
    """Result of the study: metrics averaged over seeds, tables and figures; `network` replaces the U-Net."""
    return single_result(population([config], [work], network=network))


def population(
    configs: Sequence[ConfigDict], works: Sequence[WorkDir], *, network: NetworkPart | None = None
) -> list[Result | MedjaxError]:
    """Results of several configs, whose networks train as populations; an error in place of a Result that failed."""
    studies = [cells(config, work, network) for config, work in zip(configs, works, strict=True)]
    trained = iter(train([one for study in studies for one in study]))
    return [summarize(study, [next(trained) for _ in study]) for study in studies]


def cells(config: ConfigDict, work: WorkDir, network: NetworkPart | None) -> list[Cell]:
    """Cells of the study: every seed, correlation and method.

    Raises:
        ConfigError: `network` is not a network.
        DataError: its logits do not fit.
    """
    frozen, own = FrozenConfigDict(config), unet(CLASSES, tuple(config.model.widths)) if network is None else network
    model = network_part(own, CLASSES, "--part network").value
    side, channels = config.scenes.side, 1 if config.data.layout == "scenes" else 3
    check_network(model, (side, side, channels), CLASSES)
    every = product(range(config.seeds), config.correlations, config.methods)
    return [Cell(frozen, work, model, method, correlation, seed) for seed, correlation, method in every]


def plan(config: ConfigDict, *, network: NetworkPart | None = None) -> list[Stage]:
    """Stages of the study: training of every network, its validation, and its assessment on the test images."""
    every = cells(config, WorkDir(Path()), network)
    t, side, channels = config.training, config.scenes.side, 1 if config.data.layout == "scenes" else 3

    def images(number: int) -> Scenes:
        label, group = array(number, side, side, dtype="int32"), array(number, dtype="int32")
        return Scenes(array(number, side, side, channels), label, group)

    stages, model = list[Stage](), every[0].model
    for robust, title in ((False, "training"), (True, "training, GroupDRO")):
        if own := [one for one in every if (one.method == "group_dro") == robust]:
            study_member = member(own[0])
            algorithm = study_member.make(study_member.settings)
            first = (array(2, side, side, channels),)
            stages.append(training_stage(title, algorithm, model.init, first, images(t.batch), len(own) * t.steps))
    [state, _] = stages[0].arguments
    if t.selection == "validation":
        times = len(every) * (t.steps // t.validate_every) * -(-config.scenes.validation // CHUNK)
        loss = partial(image_losses, model)
        stages.append(Stage("validation", loss, (state.params, images(min(CHUNK, config.scenes.validation))), times))
    times = len(every) * -(-config.scenes.test // CHUNK)
    assess = partial(assess_images, model)
    return [*stages, Stage("test", assess, (state.params, images(min(CHUNK, config.scenes.test))), times)]


def summarize(study: Sequence[Cell], trained: Sequence[TrainedNetwork | MedjaxError]) -> Result | MedjaxError:
    """Metrics of every network on the test images, averaged over seeds; figures and tables."""
    found: dict[tuple[str, float], list[TrainedNetwork]] = {}  # of a method and a correlation, a network for each seed
    for which, one in zip(study, trained, strict=True):
        if isinstance(one, MedjaxError):
            return one
        found.setdefault((which.method, which.correlation), []).append(one)
    config, work, model, *_ = study[0]
    test = splits(study[0]).test
    metrics: dict[str, float] = {}
    for setting, networks in found.items():
        each = [measures(one.assessment, np.asarray(test.group), config.flip_prone) for one in networks]
        metrics |= summarize_runs([{metric(name, *setting): value for name, value in one.items()} for one in each])

    rho, method, count = config.figures.correlation, config.methods[0], config.figures.images
    source = "Drawn shapes" if config.data.layout == "scenes" else config.data.layout
    settings = [(method, rho) for method in config.methods for rho in config.correlations]
    table = table_of_flips(metrics, settings)
    note = f"{source}, {NAMES[method]}, ρ = {rho:g}"
    examples = figures.flip_examples(work, model, found[method, rho][0], test, config.flip_prone[0], count, note)
    lines = figures.against_correlation(work, metrics, config.methods, config.correlations)
    deciles = figures.deciles(work, {method: found[method, rho] for method in config.methods}, rho)
    sections = [
        Section("Flips", "", [examples]),
        Section("Against the correlation", "Mean ± sd over seeds.", lines),
        Section("Flip, miss and IoU gap", "", table=table),
        Section("Detection of flipped images", "", [deciles], table_of_risks(metrics, settings, config.flip_prone)),
    ]
    return Result(metrics, Report("Right regions, wrong labels", summary(config), sections), table)


def metric(name: str, method: str, correlation: float) -> str:
    """Metric name of the study: flip_group/1 of a network → flip_group/METHOD/ρ/1."""
    first, *rest = name.split("/")
    return "/".join([first, method, f"{correlation:g}", *rest])


def table_of_flips(metrics: Mapping[str, float], settings: Sequence[tuple[str, float]]) -> Table:
    """Table of flip, miss and IoU gap, by method and correlation."""
    columns = {
        "flip": "flip",
        "rare": "flip_rare",
        "miss": "miss",
        "IoU gap": "iou_gap",
        "foreground IoU": "foreground_iou",
    }
    rows = [
        [NAMES[method], f"{rho:g}", *(cell(metrics, metric(name, method, rho)) for name in columns.values())]
        for method, rho in settings
    ]
    return Table(["method", "ρ", *columns], rows, "Mean ± sd over seeds; flip and miss are means over images.")


def table_of_risks(
    metrics: Mapping[str, float], settings: Sequence[tuple[str, float]], flip_prone: Sequence[float]
) -> Table:
    """Table of the fraction of images with a flip above each τ, and of each risk's AUROC for them."""
    names = ["flip_prone", *(f"{risk}_auroc" for risk in RISKS)]
    rows = [
        [NAMES[method], f"{rho:g}", f"{tau:g}", *(cell(metrics, metric(f"{n}/{tau:g}", method, rho)) for n in names)]
        for method, rho in settings
        for tau in flip_prone
    ]
    header = ["method", "ρ", "τ", "images above τ", *RISKS.values()]
    return Table(header, rows, "AUROC for images whose flip exceeds τ; – undefined.")


def summary(config: ConfigDict) -> list[str]:
    """Summary of the study's data and of the published results."""
    s = config.scenes
    return [
        f"{s.train} training images of {s.side}² pixels at each correlation, {s.test} test images, equally many of "
        f"each class in each scene, {pluralize(config.seeds, 'seed')} of data and start. The parameters kept are, for "
        f"every method, {SELECTION[config.training.selection]}.",
        "Published figures (COCO-CD and Waterbirds-Seg, ρ = 0.95, networks with ImageNet encoders: mean flip of images "
        "0.07 to 0.14, 30 to 47 % of it in the top decile of flip-risk) are of other data.",
    ]


if __name__ == "__main__":
    run_module(__file__)

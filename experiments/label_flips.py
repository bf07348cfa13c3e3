"""Does a segmenter keep the boundary and swap the name where class and scene go together? Label flips (paper 2).

Two shapes that differ in their outline alone lie on two textures, and in training a fraction ρ of each shape lies on
its own texture. Networks trained at each ρ are judged on images with equally many of each pair: how much of the
foreground is flipped to the other class, how much missed, how far the rare pairs fall behind the common ones; whether
the flip-risk, which needs no truth, finds the images that are flipped, against plain entropy and maximum probability;
and what evenly drawn batches, GroupDRO and background CutMix do about it.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from experiments.flips import figures
from experiments.flips.members import CLASSES, NAMES, TRACED, Case, Trained, splits, train
from medjax.errors import ConfigError, MedjaxError
from medjax.metrics.summary import cell, over_runs
from medjax.models.model import Network, check_network
from medjax.models.unet import unet
from medjax.report.html import Report, Section, Table
from medjax.running.experiment import Result, only, run_module
from medjax.running.network_part import network_part
from medjax.running.workdir import WorkDir
from medjax.shortcuts.flip_measures import measures

__all__ = ["TRACED", "population", "run"]

Given = Network | Callable[[int], Network]  # a Model, or a function of the number of classes that gives one
RISKS = {"flip_risk": "flip-risk", "entropy": "entropy", "max_probability": "max. probability"}
SELECTION = {
    "last": "those after the last step of a cosine schedule",
    "validation": "those with the lowest validation loss, balanced over groups",
}


def run(config: ConfigDict, work: WorkDir, *, network: Given | None = None) -> Result:
    """Train every network, measure, average over seeds, draw. `network` takes the place of the U-Net."""
    return only(population([config], [work], network=network))


def population(
    configs: Sequence[ConfigDict], works: Sequence[WorkDir], *, network: Given | None = None
) -> list[Result | MedjaxError]:
    """The same of several configs, whose networks train together; an error in place of a Result that has failed."""
    studies = [cases(config, work, network) for config, work in zip(configs, works, strict=True)]
    trained = iter(train([case for study in studies for case in study]))
    return [judge(study, [next(trained) for _ in study]) for study in studies]


def cases(config: ConfigDict, work: WorkDir, network: Given | None) -> list[Case]:
    """A network for every seed, correlation and method.

    Raises:
        ConfigError: `network` is none, and gives none; or the correlation that is shown is none of the study's.
        DataError: its logits do not fit.
    """
    if config.shown.correlation not in config.correlations:
        expected = f"one of correlations {tuple(config.correlations)}"
        raise ConfigError(f"shown.correlation {config.shown.correlation:g}; expected {expected}")
    frozen, own = FrozenConfigDict(config), unet(CLASSES, tuple(config.model.widths)) if network is None else network
    model = network_part(own, CLASSES, "--part network").value
    side, channels = config.scenes.side, 1 if config.data.layout == "scenes" else 3
    check_network(model, (side, side, channels), CLASSES)
    every = product(range(config.seeds), config.correlations, config.methods)
    return [Case(frozen, work, model, method, correlation, seed) for seed, correlation, method in every]


def judge(study: Sequence[Case], trained: Sequence[Trained | MedjaxError]) -> Result | MedjaxError:
    """Measures of every network on the test images, averaged over seeds; figures and tables."""
    found: dict[tuple[str, float], list[Trained]] = {}  # of a method and a correlation, a network for each seed
    for case, one in zip(study, trained, strict=True):
        if isinstance(one, MedjaxError):
            return one
        found.setdefault((case.method, case.correlation), []).append(one)
    config, work, model, *_ = study[0]
    test = splits(study[0]).test
    metrics: dict[str, float] = {}
    for setting, networks in found.items():
        each = [measures(one.assessment, np.asarray(test.group), config.flip_prone) for one in networks]
        metrics |= over_runs([{metric(name, *setting): value for name, value in one.items()} for one in each])

    rho, method, shown = config.shown.correlation, config.methods[0], config.shown.images
    source = "Drawn shapes" if config.data.layout == "scenes" else config.data.layout
    settings = [(method, rho) for method in config.methods for rho in config.correlations]
    table = table_of_flips(metrics, settings)
    note = f"{source}, {NAMES[method]}, ρ = {rho:g}"
    flipped = figures.flipped(work, model, found[method, rho][0], test, config.flip_prone[0], shown, note)
    lines = figures.against_correlation(work, metrics, config.methods, config.correlations)
    deciles = figures.deciles(work, {method: found[method, rho] for method in config.methods}, rho)
    sections = [
        Section("Flips", "", [flipped]),
        Section("Against the correlation", "Mean ± sd over seeds.", lines),
        Section("Flip, miss and gap", "", table=table),
        Section("Which images are flipped", "", [deciles], table_of_risks(metrics, settings, config.flip_prone)),
    ]
    return Result(metrics, Report("Right regions, wrong labels", summary(config), sections), table)


def metric(name: str, method: str, correlation: float) -> str:
    """flip_group/1 of a network → flip_group/METHOD/ρ/1 of the study."""
    first, *rest = name.split("/")
    return "/".join([first, method, f"{correlation:g}", *rest])


def table_of_flips(metrics: Mapping[str, float], settings: Sequence[tuple[str, float]]) -> Table:
    """A row for each method and correlation."""
    columns = {"flip": "flip", "rare": "flip_rare", "miss": "miss", "gap": "gap", "foreground IoU": "foreground_iou"}
    rows = [
        [NAMES[method], f"{rho:g}", *(cell(metrics, metric(name, method, rho)) for name in columns.values())]
        for method, rho in settings
    ]
    return Table(["method", "ρ", *columns], rows, "Mean ± sd over seeds; flip and miss are means over images.")


def table_of_risks(
    metrics: Mapping[str, float], settings: Sequence[tuple[str, float]], flip_prone: Sequence[float]
) -> Table:
    """How many images have a flip above each τ, and how well each risk finds them."""
    names = ["flip_prone", *(f"{risk}_auroc" for risk in RISKS)]
    rows = [
        [NAMES[method], f"{rho:g}", f"{tau:g}", *(cell(metrics, metric(f"{n}/{tau:g}", method, rho)) for n in names)]
        for method, rho in settings
        for tau in flip_prone
    ]
    header = ["method", "ρ", "τ", "images above τ", *RISKS.values()]
    return Table(header, rows, "AUROC for images whose flip exceeds τ; – undefined.")


def summary(config: ConfigDict) -> list[str]:
    """What was done, and what was published."""
    s = config.scenes
    return [
        f"{s.train} training images of {s.side}² pixels at each correlation, {s.test} test images, equally many of "
        f"each class in each scene, {config.seeds} seeds of data and start. The parameters kept are, for every method, "
        f"{SELECTION[config.training.selection]}.",
        "Published figures (COCO-CD and Waterbirds-Seg, ρ = 0.95, networks with ImageNet encoders: mean flip of images "
        "0.07 to 0.14, 30 to 47 % of it in the top decile of flip-risk) are of other data.",
    ]


if __name__ == "__main__":
    run_module(__file__)

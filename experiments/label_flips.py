"""Does a segmenter keep the boundary and swap the name where class and scene go together? Label flips (paper 2).

Two shapes that differ in their outline alone lie on two textures, and in training a fraction ρ of each shape lies on
its own texture. Networks trained at each ρ are judged on images with equally many of each pair: how much of the
foreground is flipped to the other class, how much missed, how far the rare pairs fall behind the common ones; whether
the flip-risk, which needs no truth, finds the images that are flipped, against plain entropy and maximum probability;
and what evenly drawn batches, GroupDRO and background CutMix do about it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from experiments.flips import figures
from experiments.flips.members import CLASSES, NAMES, TRACED, Member, Trained, splits, train
from medjax.errors import MedjaxError
from medjax.metrics.summary import cell, over_runs
from medjax.models.model import Network
from medjax.models.unet import unet
from medjax.report.html import Report, Section, Table
from medjax.running.experiment import Result, run_module
from medjax.running.workdir import WorkDir
from medjax.shortcuts.flip_measures import measures

__all__ = ["TRACED", "population", "run"]

RISKS = {"flip_risk": "flip-risk", "entropy": "entropy", "max_probability": "max. probability"}
SELECTION = {
    "last": "those after the last step of a cosine schedule",
    "validation": "those with the lowest validation loss, balanced over groups",
}


def run(config: ConfigDict, work: WorkDir, *, network: Network | None = None) -> Result:
    """Train every member, measure, average over seeds, draw. `network` takes the place of the U-Net."""
    [result] = population([config], [work], network=network)
    if isinstance(result, MedjaxError):
        raise result
    return result


def population(
    configs: Sequence[ConfigDict], works: Sequence[WorkDir], *, network: Network | None = None
) -> list[Result | MedjaxError]:
    """The same of several configs, whose members train together; an error in place of a Result that has failed."""
    studies = [members_of(config, work, network) for config, work in zip(configs, works, strict=True)]
    networks = iter(train([member for study in studies for member in study]))
    return [judge(study, [next(networks) for _ in study]) for study in studies]


def members_of(config: ConfigDict, work: WorkDir, network: Network | None) -> list[Member]:
    """A network for every method, correlation and seed."""
    frozen, model = FrozenConfigDict(config), network or unet(CLASSES, tuple(config.model.widths))
    return [
        Member(frozen, work, model, method, correlation, seed)
        for seed in range(config.seeds)
        for correlation in config.correlations
        for method in config.methods
    ]


def judge(study: Sequence[Member], networks: Sequence[Trained | MedjaxError]) -> Result | MedjaxError:
    """Measures of every network on the test images, averaged over seeds; figures and tables."""
    if failed := [one for one in networks if isinstance(one, MedjaxError)]:
        return failed[0]
    (config, work, model, *_), test = study[0], splits(study[0]).test
    found: dict[tuple[str, float], list[Trained]] = {}
    for member, one in zip(study, networks, strict=True):
        found.setdefault((member.method, member.correlation), []).append(one)
    metrics: dict[str, float] = {}
    for place, several in found.items():
        each = [measures(one.assessment, np.asarray(test.group), config.flip_prone) for one in several]
        metrics |= over_runs([{name_of(name, *place): value for name, value in one.items()} for one in each])

    rho, method = config.shown.correlation, config.methods[0]
    note = f"Drawn shapes, {NAMES[method]}, ρ = {rho:g}"
    flipped = figures.flipped(work, model, found[method, rho][0], test, config.flip_prone[0], config.shown.images, note)
    lines = figures.against_correlation(work, metrics, config.methods, config.correlations)
    deciles = figures.deciles(work, {m: found[m, rho] for m in config.methods}, rho)
    table = table_of_flips(metrics, found)
    sections = [
        Section("Flips", "", [flipped]),
        Section("Against the correlation", "Mean ± sd over seeds.", lines),
        Section("Flip, miss and gap", "", table=table),
        Section("Which images are flipped", "", [deciles], table_of_risks(metrics, found, config.flip_prone)),
    ]
    return Result(metrics, Report("Right regions, wrong labels", summary(config), sections), table)


def name_of(name: str, method: str, correlation: float) -> str:
    """flip_group/1 of a network's measures → flip_group/METHOD/ρ/1 of the metrics."""
    first, *rest = name.split("/")
    return "/".join([first, method, f"{correlation:g}", *rest])


def table_of_flips(metrics: Mapping[str, float], found: Mapping[tuple[str, float], object]) -> Table:
    """A row for each method and correlation."""
    columns = {"flip": "flip", "rare": "flip_rare", "miss": "miss", "gap": "gap", "foreground IoU": "foreground_iou"}
    rows = [
        [NAMES[method], f"{rho:g}", *(cell(metrics, name_of(name, method, rho)) for name in columns.values())]
        for method, rho in sorted(found, key=lambda place: list(NAMES).index(place[0]))
    ]
    return Table(["method", "ρ", *columns], rows, "Mean ± sd over seeds; flip and miss are means over images.")


def table_of_risks(
    metrics: Mapping[str, float], found: Mapping[tuple[str, float], object], flip_prone: Sequence[float]
) -> Table:
    """AUROC of each risk for the images above each τ."""
    rows = [
        [NAMES[method], f"{rho:g}", f"{tau:g}"]
        + [cell(metrics, name_of(f"{name}/{tau:g}", method, rho)) for name in names]
        for names in [["flip_prone", *(f"{risk}_auroc" for risk in RISKS)]]
        for method, rho in sorted(found, key=lambda place: list(NAMES).index(place[0]))
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

"""Does a segmenter keep the boundary and swap the name where class and scene go together? Label flips (paper 2).

Two shapes that differ in their outline alone lie on two textures, and in training a share ρ of each shape lies on its
own texture. Networks trained at each ρ are judged on images with equally many of each pair: how much of the foreground
is flipped to the other class, how much missed, how far the rare pairs fall behind the common ones; whether the
flip-risk, which needs no truth, finds the images that are flipped, against plain entropy and maximum probability; and
what evenly drawn batches, GroupDRO and background CutMix do about it.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments._flips import GROUPS, NAMES, Judged, Member, Setup, members, setup, splits
from medjax.metrics.detection import auroc
from medjax.metrics.overlap import overlap_of
from medjax.phantoms.scenes import Scenes
from medjax.report.figures import Scale, curves, montage
from medjax.report.html import Figure, Report, Section, Table
from medjax.running.experiment import Result, run_module
from medjax.running.workdir import WorkDir, save_figure
from medjax.shortcuts import flips

COMMON = (0, 3)  # groups 2 · class + scene in which the scene is the class's own
RISKS = {"flip_risk": "flip-risk", "entropy": "entropy", "max_probability": "max. probability"}
Members = dict[tuple[str, float], list[Member]]


def run(config: ConfigDict, work: WorkDir) -> Result:
    """Train every member, measure, average over seeds, draw."""
    b = setup(config)
    found = members(config, work, b)
    test = splits(config, config.correlations[0], 0).test
    group = np.asarray(test.group)
    metrics: dict[str, float] = {}
    for (method, correlation), several in found.items():
        each = [measures(member.judged, group, config.flip_prone) for member in several]
        for name in each[0]:
            mean, spread = _over_seeds([one[name] for one in each])
            metrics[name.format(f"{method}/{correlation:g}")] = mean
            metrics["sd/" + name.format(f"{method}/{correlation:g}")] = spread
    sections = [
        Section("Flips", "", [_picture(config, work, b, found, test)]),
        Section("Against the correlation", "Mean ± sd over seeds.", _figures(config, work, metrics)),
        Section("Flip, miss and gap", "", table=(merit := _merit(config, metrics))),
        Section("Which images are flipped", "", [_deciles(config, work, found)], _risks(config, metrics)),
    ]
    return Result(metrics, Report("Right regions, wrong labels", _summary(config), sections), merit)


def measures(judged: Judged, group: np.ndarray, prone: tuple[float, ...]) -> dict[str, float]:
    """Everything that is counted of one network; `{}` in a name is where its method and correlation go.

    flip, miss and those of groups are means over images, flip_global is over pixels; gap is the mean over classes of
    IoU(common) − IoU(rare). NaN: a risk's AUROC where all images or none are flip-prone.
    """
    confusion = np.asarray(judged.confusion)
    shares, grouped = flips.decompose(confusion), flips.by_group(confusion, group, GROUPS)
    flip, miss = np.asarray(shares.flip), np.asarray(shares.miss)
    common = np.isin(group, COMMON)
    out: dict[str, Any] = {
        "flip/{}": np.nanmean(flip),
        "miss/{}": np.nanmean(miss),
        "flip_global/{}": flips.decompose(confusion.sum(0)).flip,
        "foreground_iou/{}": flips.foreground_iou(confusion.sum(0)),
        "gap/{}": jnp.mean(flips.gaps(grouped)),
        "flip_common/{}": np.nanmean(flip[common]),
        "flip_rare/{}": np.nanmean(flip[~common]),
    }
    for number, counts in enumerate(grouped):
        out[f"flip_group/{{}}/{number}"] = np.nanmean(flip[group == number])
        out[f"miss_group/{{}}/{number}"] = np.nanmean(miss[group == number])
        out[f"dice_group/{{}}/{number}"] = overlap_of(counts).dice[1 + number // 2]
    for name in RISKS:
        risk = np.asarray(getattr(judged, name))
        known = np.isfinite(risk) & np.isfinite(flip)
        for tau in prone:
            area = auroc(risk[known], flip[known] > tau) if known.any() else np.nan
            out[f"{name}_auroc/{{}}/{tau:g}"] = area
        out[f"{name}_top_decile_share/{{}}"] = flips.deciles(risk, flip).top_share if known.sum() >= 10 else np.nan
    out |= {f"flip_prone/{{}}/{tau:g}": np.nanmean(flip > tau) for tau in prone}
    return {name: float(value) for name, value in out.items()}


def _over_seeds(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation of those that are defined; NaN where none, or only one, is."""
    known = np.array([value for value in values if np.isfinite(value)])
    mean = float(known.mean()) if len(known) else float("nan")
    return mean, float(known.std(ddof=1)) if len(known) > 1 else float("nan")


def _figures(config: ConfigDict, work: WorkDir, metrics: dict[str, float]) -> list[Figure]:
    """Flip, rare groups' flip, miss and gap against the correlation, a line a method, a band of one sd."""
    drawn = {
        "flip": "flip, share of the foreground",
        "flip_rare": "flip in the rare groups",
        "miss": "miss, share of the foreground",
        "gap": "IoU, common − rare groups",
    }
    figures = []
    for name, label in drawn.items():
        lines = {
            NAMES[m]: [f"{name}/{m}/{correlation:g}" for correlation in config.correlations] for m in config.methods
        }
        series = {method: [metrics[key] for key in keys] for method, keys in lines.items()}
        spread = {method: [metrics[f"sd/{key}"] for key in keys] for method, keys in lines.items()}
        figure = curves(list(config.correlations), series, "correlation ρ in training", label, spread=spread)
        figures.append(Figure(save_figure(work, name, figure), f"{label[0].upper()}{label[1:]}."))
    return figures


def _deciles(config: ConfigDict, work: WorkDir, found: Members) -> Figure:
    """Mean flip by decile of flip-risk, at the correlation that is shown, with sd over seeds."""
    correlation, series, spread = config.shown.correlation, dict[str, np.ndarray](), dict[str, np.ndarray]()
    for method in config.methods:
        each = [
            flips.deciles(member.judged.flip_risk, flips.decompose(member.judged.confusion).flip).flip
            for member in found[method, correlation]
            if np.isfinite(member.judged.flip_risk).sum() >= 10
        ]
        series[NAMES[method]] = np.mean(each, axis=0) if each else np.full(10, np.nan)
        spread[NAMES[method]] = np.std(each, axis=0, ddof=1) if len(each) > 1 else np.zeros(10)
    figure = curves(list(range(1, 11)), series, "decile of flip-risk", "mean flip", spread=spread)
    return Figure(save_figure(work, "deciles", figure), f"Images in order of their flip-risk, ρ = {correlation:g}.")


def _picture(config: ConfigDict, work: WorkDir, b: Setup, found: Members, test: Scenes) -> Figure:
    """Flipped images of the first ERM member: image, truth, prediction, and how unsure it is of the name."""
    method, correlation, count = config.methods[0], config.shown.correlation, config.shown.images
    member = found[method, correlation][0]
    flip = np.nan_to_num(np.asarray(flips.decompose(member.judged.confusion).flip))
    most = np.argsort(-flip, kind="stable")[: max(int((flip > config.flip_prone[0]).sum()), count)]
    some = most[np.linspace(0, len(most) - 1, count).astype(int)]  # from all of it to the least that counts
    image = np.asarray(test.image)[some]
    logits = b.model.apply(member.params, jnp.asarray(image))
    named, unsure = np.asarray(logits).argmax(-1), np.asarray(flips.identity_entropy(logits))
    shown = {
        "image": image[..., 0],
        "truth": np.asarray(test.label)[some],
        "prediction": named,
        "unsure": np.where(named > 0, unsure, 0.0),
    }
    tiles = {name: _tiled(array).T[:, ::-1, None] for name, array in shown.items()}
    labels, grey = Scale("class", "viridis", 0.0, 2.0), Scale("image", "gray", -1.5, 2.0)
    scales = {"image": grey, "truth": labels, "prediction": labels}
    figure = montage(
        tiles, np.eye(4), scale=Scale("entropy", "inferno", 0.0, 1.0), other_scales=scales,
        note=f"Drawn shapes, {NAMES[method]}, ρ = {correlation:g}",
    )  # fmt: skip
    for axes in figure.axes:
        for text in list(axes.texts):  # these pictures have no left and right
            text.remove()
    return Figure(
        save_figure(work, "flipped", figure),
        "Test images with flips, from the most flipped on. Unsure: entropy of the name, where foreground is predicted.",
    )


def _tiled(images: np.ndarray) -> np.ndarray:
    """Images side by side, in two rows if that comes out even."""
    rows = np.split(images, 2) if len(images) % 2 == 0 else [images]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


def _merit(config: ConfigDict, metrics: dict[str, float]) -> Table:
    columns = {"flip": "flip", "rare": "flip_rare", "miss": "miss", "gap": "gap", "foreground IoU": "foreground_iou"}
    said = _reader(metrics)
    rows = [
        [NAMES[method], f"{correlation:g}", *(said(f"{key}/{method}/{correlation:g}") for key in columns.values())]
        for method in config.methods
        for correlation in config.correlations
    ]
    return Table(["method", "ρ", *columns], rows, "Mean ± sd over seeds; flip and miss are means over images.")


def _risks(config: ConfigDict, metrics: dict[str, float]) -> Table:
    said = _reader(metrics)
    rows = [
        [NAMES[method], f"{correlation:g}", f"{tau:g}", said(f"flip_prone/{method}/{correlation:g}/{tau:g}"),
         *(said(f"{name}_auroc/{method}/{correlation:g}/{tau:g}") for name in RISKS)]
        for method in config.methods
        for correlation in config.correlations
        for tau in config.flip_prone
    ]  # fmt: skip
    return Table(
        ["method", "ρ", "τ", "images above τ", *RISKS.values()],
        rows,
        "AUROC for images whose flip exceeds τ; – undefined.",
    )


def _reader(metrics: dict[str, float]) -> Callable[[str], str]:
    def said(name: str) -> str:
        mean, spread = metrics[name], metrics[f"sd/{name}"]
        if np.isnan(mean):
            return "–"
        return f"{mean:.3f}" if np.isnan(spread) else f"{mean:.3f} ± {spread:.3f}"

    return said


def _summary(config: ConfigDict) -> list[str]:
    rule = {
        "last": "those after the last step of a cosine schedule",
        "validation": "those with the lowest validation loss, balanced over groups",
    }
    s = config.scenes
    return [
        f"{s.train} training images of {s.side}² pixels at each correlation, {s.test} test images, equally many of "
        f"each class in each scene, {config.seeds} seeds of data and start. The parameters kept are, for every method, "
        f"{rule[config.training.selection]}.",
        "Published figures (COCO-CD and Waterbirds-Seg, ρ = 0.95, networks with ImageNet encoders: mean flip of images "
        "0.07 to 0.14, 30 to 47 % of it in the top decile of flip-risk) are of other data.",
    ]


if __name__ == "__main__":
    run_module(__file__)

"""Readings of a fetal scan: IVIM maps by several fits, and their medians over the lungs in true and automatic mask.

The true mask of the simulation stands for the manual one. Maps are fitted once for a whole scan, since voxels are
fitted one by one; a mask only selects voxels.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from medjax.ivim.fit import fit
from medjax.ivim.maps import STEPS, maps, named_maps
from medjax.ivim.outliers import outlier_frames
from medjax.ivim.regions import fit_mean_signal, region_medians
from medjax.ivim.signal import Ivim
from medjax.metrics.overlap import mean_dice
from medjax.metrics.paired import accuracy
from medjax.metrics.regions import boundary_sensitivity
from medjax.phantoms.fetal import LUNGS, Fetal

PARAMETERS = ("f", "d", "d_star", "f_d_star")
FITS: dict[str, dict[str, Any]] = {
    "voxels": {}, "rician": {"noise": "rician"}, "robust": {"noise": "student"}, "segmented": {"method": "segmented"}
}  # fmt: skip
VOXEL_FIT = "voxels"  # a least-squares fit of each voxel, and the median over the mask
WITHOUT_OUTLIERS = "frames left out"  # the same, without outlier frames of the automatic mask
MEAN_SIGNAL_FIT = "mean signal"  # a least-squares fit of the mean over the mask
MIN_LUNG_FRACTION = 0.99  # fraction of lung in a voxel whose true parameters count


def read_scan(scan: Fetal, automatic: Bool[np.ndarray, "x y z"], boundary_mm: Sequence[float]) -> dict[str, Any]:
    """Readings of a scan: Dice, lung volumes (ml), outlier frames, and each fit's medians in both masks (`read`)."""
    manual, bvalues = scan.labels == LUNGS, jnp.asarray(scan.bvalues)
    masks, flat = (manual, automatic), scan.signals.reshape(len(bvalues), -1)
    lungs, slices = automatic if automatic.any() else manual, np.indices(manual.shape)[2]
    left_out = outlier_frames(scan.signals[:, lungs], scan.bvalues, slices=slices[lungs])
    found = {name: maps(flat, scan.bvalues, slices=slices.ravel(), **options) for name, options in FITS.items()}
    cleaned = fit(jnp.asarray(flat), bvalues, weights=jnp.asarray(~left_out, jnp.float32), steps=STEPS["gaussian"])
    parameters = {name: fitted.parameters for name, fitted in found.items()} | {WITHOUT_OUTLIERS: cleaned.parameters}
    read = {name: [region_medians(p, mask.ravel()) for mask in masks] for name, p in parameters.items()}
    read[MEAN_SIGNAL_FIT] = [fit_mean_signal(scan.signals, scan.bvalues, mask) for mask in masks]
    volumes = {name: values.reshape(manual.shape) for name, values in named_maps(parameters[VOXEL_FIT]).items()}
    outlines = boundary_sensitivity(volumes, manual, scan.spacing, boundary_mm).values()
    pure, z = manual & (scan.lung_fraction > MIN_LUNG_FRACTION), int(np.argmax(manual.sum((0, 1))))
    return {
        "age": scan.age,
        "restricted": scan.restricted,
        "dice": mean_dice(manual.astype(np.int32), automatic.astype(np.int32)),
        "volume": np.array([mask.sum() * float(np.prod(scan.spacing)) / 1000 for mask in masks]),
        "truth": region_medians(Ivim(*scan.parameters), pure if pure.any() else manual),
        "read": {name: stack(medians) for name, medians in read.items()},
        "boundary": stack([{name: summary.median for name, summary in part.maps.items()} for part in outlines]),
        "identifiable": float(np.asarray(found[VOXEL_FIT].identifiable)[manual.ravel()].mean()),
        "corrupted": scan.corrupted,
        "left_out": left_out,
        "slice": scan.signals[0, :, :, z],
        "outlines": np.stack([mask[:, :, z] for mask in masks]),
    }


def stack(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stack trees of equal structure: leaves get a first axis of rows."""
    return jax.tree.map(lambda *each: np.stack(each), *rows)


def lung_f(cohort: Mapping[str, Any]) -> dict[str, Float[np.ndarray, " fetus"]]:
    """Lung f of each fetus: true, in the manual and the automatic mask, and there without outlier frames."""
    manual, automatic = cohort["read"][VOXEL_FIT]["f"].T
    cleaned = cohort["read"][WITHOUT_OUTLIERS]["f"][:, 1]
    return {
        "truth": cohort["truth"]["f"],
        "manual": manual,
        "automatic": automatic,
        f"automatic, {WITHOUT_OUTLIERS}": cleaned,
    }


def accuracy_of_fits(cohort: Mapping[str, Any]) -> dict[str, float]:
    """Bias, SD of the relative error and correlation of each fit in the manual mask, against the truth."""
    out = dict[str, float]()
    for fit_name, name in product(cohort["read"], PARAMETERS):
        found = accuracy(cohort["truth"][name], cohort["read"][fit_name][name][:, 0])
        out |= {f"{key}/{fit_name}/{name}": value for key, value in found._asdict().items()}
    return out


def effect_of_outline(cohort: Mapping[str, Any], boundary_mm: Sequence[float]) -> dict[str, float]:
    """Relative change of medians when the manual mask is eroded or dilated."""
    out = dict[str, float]()
    for name in PARAMETERS:
        change = np.nanmean(cohort["boundary"][name] / cohort["read"][VOXEL_FIT][name][:, :1] - 1, axis=0)
        out |= {f"boundary/{mm:+g}_mm/{name}": float(value) for mm, value in zip(boundary_mm, change, strict=True)}
    return out

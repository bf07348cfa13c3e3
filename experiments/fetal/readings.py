"""What is read of a scan: maps by several fits, and their medians over the lungs in the true and the automatic mask.

The mask of the simulation plays the manual one. Maps are fitted once for a whole scan, since voxels are fitted one by
one; a mask only says which of them are read.
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
MAIN = "voxels"  # a least-squares fit of each voxel, and the median over the mask
KEPT = "frames left out"  # the same, without outlier frames of the automatic mask
MEAN = "mean signal"  # a least-squares fit of the mean over the mask
PURE = 0.99  # fraction of lung in a voxel whose true parameters count


def read_scan(one: Fetal, automatic: Bool[np.ndarray, "x y z"], boundary_mm: Sequence[float]) -> dict[str, Any]:
    """Dice, volumes (ml), outlier frames, and `read`: of each fit and parameter the manual and the automatic median."""
    manual, bvalues = one.labels == LUNGS, jnp.asarray(one.bvalues)
    masks, flat = (manual, automatic), one.signals.reshape(len(bvalues), -1)
    left_out = outlier_frames(one.signals[:, automatic if automatic.any() else manual], one.bvalues)
    found = {name: maps(flat, one.bvalues, **options) for name, options in FITS.items()}
    cleaned = fit(jnp.asarray(flat), bvalues, weights=jnp.asarray(~left_out, jnp.float32), steps=STEPS["gaussian"])
    parameters = {name: fitted.parameters for name, fitted in found.items()} | {KEPT: cleaned.parameters}
    read = {name: [region_medians(p, mask.ravel()) for mask in masks] for name, p in parameters.items()}
    read[MEAN] = [fit_mean_signal(one.signals, one.bvalues, mask) for mask in masks]
    volumes = {name: values.reshape(manual.shape) for name, values in named_maps(parameters[MAIN]).items()}
    outlines = boundary_sensitivity(volumes, manual, one.spacing, boundary_mm).values()
    pure, z = manual & (one.lung_share > PURE), int(np.argmax(manual.sum((0, 1))))
    return {
        "age": one.age,
        "restricted": one.restricted,
        "dice": mean_dice(manual.astype(np.int32), automatic.astype(np.int32)),
        "volume": np.array([mask.sum() * float(np.prod(one.spacing)) / 1000 for mask in masks]),
        "truth": region_medians(Ivim(*one.parameters), pure if pure.any() else manual),
        "read": {name: stack(medians) for name, medians in read.items()},
        "boundary": stack([{name: summary.median for name, summary in part.maps.items()} for part in outlines]),
        "identifiable": float(np.asarray(found[MAIN].identifiable)[manual.ravel()].mean()),
        "bad": one.bad,
        "left_out": left_out,
        "slice": one.signals[0, :, :, z],
        "outlines": np.stack([mask[:, :, z] for mask in masks]),
    }


def stack(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Their leaves as arrays with a first axis of rows."""
    return jax.tree.map(lambda *each: np.stack(each), *rows)


def lung_f(one: Mapping[str, Any]) -> dict[str, Float[np.ndarray, " fetus"]]:
    """f of each fetus of a cohort: true, in the manual and the automatic mask, and there without outlier frames."""
    manual, automatic = one["read"][MAIN]["f"].T
    cleaned = one["read"][KEPT]["f"][:, 1]
    return {"truth": one["truth"]["f"], "manual": manual, "automatic": automatic, f"automatic, {KEPT}": cleaned}


def accuracy_of_fits(one: Mapping[str, Any]) -> dict[str, float]:
    """Bias, spread and correlation over fetuses of each fit in the manual mask, against the truth."""
    out = dict[str, float]()
    for fit_name, name in product(one["read"], PARAMETERS):
        found = accuracy(one["truth"][name], one["read"][fit_name][name][:, 0])
        out |= {f"{key}/{fit_name}/{name}": value for key, value in found._asdict().items()}
    return out


def effect_of_outline(one: Mapping[str, Any], boundary_mm: Sequence[float]) -> dict[str, float]:
    """How medians change when the manual mask is eroded or dilated."""
    out = dict[str, float]()
    for name in PARAMETERS:
        change = np.nanmean(one["boundary"][name] / one["read"][MAIN][name][:, :1] - 1, axis=0)
        out |= {f"boundary/{mm:+g}_mm/{name}": float(value) for mm, value in zip(boundary_mm, change, strict=True)}
    return out

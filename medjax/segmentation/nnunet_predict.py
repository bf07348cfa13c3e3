"""nnU-Net's prediction by one network or an ensemble, and its postprocessing: the largest component of a structure.

    prediction = predict_case(model, [fold.state.params], volume, spacing, plan)        on the volume's own grid
    keep = determine_postprocessing(labels_of_validation_cases, references, classes=3)
    predict_case(model, params, volume, spacing, plan, keep=keep)

Source: Isensee et al., Nature Methods 18, 2021; nnU-Net v2.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, PyTree

from medjax.errors import DataError
from medjax.io.nnunet_labels import Structure
from medjax.iterate import static_partial
from medjax.metrics.overlap import overlap
from medjax.models.model import Network, finest_logits
from medjax.segmentation.components import keep_largest
from medjax.segmentation.evaluation import structure_mask
from medjax.segmentation.patches import prepare_image
from medjax.segmentation.plan import Plan, case_spacing
from medjax.segmentation.regions import paint_regions
from medjax.segmentation.resample import Spacing, resample_logits, uncrop
from medjax.segmentation.sliding_window import predict


class Prediction(NamedTuple):
    """Predicted labels and probabilities of classes, or regions, of an image, on its own grid."""

    labels: Int[np.ndarray, "x y z"]
    probabilities: Float[np.ndarray, "x y z class"]


def predict_case(
    model: Network,
    params: Sequence[PyTree],
    image: Float[np.ndarray, "x y z channel"],
    spacing: Spacing,
    plan: Plan,
    *,
    step: float = 0.5,
    mirror: tuple[int, ...] | None = None,
    keep: int | Mapping[Structure, int] | Mapping[int, int] | None = None,
    batch: int | None = None,
) -> Prediction:
    """Predicted labels and probabilities of every voxel of an image, by one network or the mean of an ensemble.

    Preprocessed as in training; mean logits of the networks by sliding window with mirroring; resampled to the image's
    grid, then the softmax. Of deep supervision the finest logits count. Outside the nonzero crop all is background.
    Of regions each has its sigmoid, and those above 0.5 are painted in the plan's order (`paint_regions`).

    Args:
        params: parameters of each network of the ensemble.
        spacing: voxel size, mm.
        step: distance of neighbouring tiles, in tiles.
        mirror: axes of test-time mirroring, some of those of the plan, which the network has learned; None: all.
        keep: number of largest components of the structures that stay (`keep_largest`), None: all; probabilities do not
            change.
        batch: tiles in a batch; None: 1, or of the slices of a 2-D plan as many as in training.

    Raises:
        DataError: no parameters, an image of other channels than planned, NaN, or every voxel 0; an axis that training
            did not mirror; logits that are not finite.
    """
    axes = plan.mirror if mirror is None else mirror
    if not set(axes) <= set(plan.mirror):
        raise DataError(f"mirror: {axes}; expected some of the axes {plan.mirror}, which training mirrored")
    prepared, box = prepare_image(image, spacing, plan)
    apply = static_partial(finest_logits, model)
    tiles = (1 if plan.slice_axis is None else plan.batch) if batch is None else batch
    logits = np.asarray(predict(apply, params, prepared, plan.patch, step, axes, tiles))
    if not np.isfinite(logits).all():
        raise DataError("prediction: logits are not finite; expected a network with finite weights")
    x, y, z = image[box].shape[:3]
    logits = resample_logits(logits, case_spacing(plan, spacing), spacing, (x, y, z))
    inside = np.asarray(jax.nn.sigmoid(logits) if plan.regions else jax.nn.softmax(logits))
    background = np.zeros(plan.outputs, np.float32)
    background[0] = 0 if plan.regions else 1
    probabilities = uncrop(inside, box, image.shape[:3], background)
    labels = paint_regions(probabilities, plan.region_order) if plan.regions else probabilities.argmax(-1)
    labels = labels.astype(np.int32)
    return Prediction(labels if keep is None else keep_largest(labels, keep), probabilities)


def determine_postprocessing(
    predictions: Sequence[Int[np.ndarray, "..."]],
    references: Sequence[Int[np.ndarray, "..."]],
    classes: int,
    count: int = 1,
    *,
    structures: Sequence[Structure] | None = None,
    ignore: int | None = None,
) -> dict[Structure, int]:
    """Postprocessing {class: count}: structures whose mean Dice rises if only the `count` largest components stay.

    For a cross-validation's predictions; cases in which neither has the structure are left out. The result is a `keep`
    of `predict_case`. Of paired organs the largest component is one of two: use count 2.

    Args:
        classes: number of classes; each but the background is a structure, unless there are `structures`.
        count: number of components.
        structures: classes and regions (tuples of classes); a region may spoil another, so each is tried by itself.
        ignore: number of the reference's voxels that count for nothing.
    """
    chosen = dict[Structure, int]()
    for kind in range(1, classes) if structures is None else structures:
        plain = _mean_dice(predictions, references, kind, ignore)
        kept = _mean_dice([keep_largest(one, {kind: count}) for one in predictions], references, kind, ignore)
        if kept > plain:
            chosen[kind] = count
    return chosen


def case_dice(
    prediction: Int[np.ndarray, "*space"], reference: Int[np.ndarray, "*space"], classes: int
) -> Float[np.ndarray, " structure"]:
    """Dice of each foreground class of a case; NaN where neither prediction nor reference has it."""
    return np.asarray(overlap(prediction, reference, classes).dice)[1:]


def foreground_mean_dice(scores: Float[np.ndarray, "case structure"]) -> float:
    """Foreground mean Dice of a cross-validation: the mean over cases of each structure, then the mean of those.

    NaN marks cases where neither prediction nor reference has the structure, see `case_dice`; they are left out, and so
    are structures that no case has. NaN if none has any.

    Source: nnU-Net v2's summary of a validation, `foreground_mean`.
    """
    columns = [column[np.isfinite(column)] for column in scores.T]
    means = [column.mean() for column in columns if len(column)]
    return float(np.mean(means)) if means else np.nan


def _mean_dice(
    predictions: Sequence[np.ndarray], references: Sequence[np.ndarray], kind: Structure, ignore: int | None
) -> float:
    pairs = [
        (structure_mask(one, kind) & (true != ignore), structure_mask(true, kind))
        for one, true in zip(predictions, references, strict=True)
    ]
    scores = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs if a.any() or b.any()]
    return float(np.mean(scores)) if scores else np.nan

"""Target subjects of a cohort, with lesions that PET, MR or both show, and measures of an image of one.

target = make_target(work, "target_0", setup, head, …)      a subject with lesions, kept as a stage
measure(image, target)                                      NRMSE, SSIM, recovery of lesions
leakage(image, control, target)                             what an image has of lesions that the MR alone shows
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from experiments.pet.multi_subject import People
from experiments.pet.scans import ScanSetup, Subject
from experiments.pet.subjects import subject_of
from medjax.metrics.image import contrast_recovery, nrmse, ssim
from medjax.pet.grid import Grid
from medjax.phantoms.brain import KINDS, Brain, Lesion, LesionKind, add_lesions, random_lesions
from medjax.phantoms.head_anatomies import CENTER_MM
from medjax.phantoms.multi_subject import SubjectHead, on_grid, tissue_labels
from medjax.running.workdir import WorkDir, stage

SLAB_MARGIN_MM = 18.0  # between lesions' centres and the first and last planes
MEASURES = ("nrmse", "ssim", "pet_lesion_recovery", "matched_lesion_recovery", "mr_lesion_leakage")
RECOVERED = {"pet_lesion_recovery": "pet", "matched_lesion_recovery": "both"}


class Lesions(NamedTuple):
    """Lesions of a target: as many of each kind, in white matter."""

    each: int  # of each kind: in PET only, in MR only, in both
    radius_mm: tuple[float, float] = (5.0, 8.0)
    contrast: float = 2.5  # factor of the activity
    mr_contrast: float = 0.6  # factor of the T1


class Target(NamedTuple):
    """A target subject: what is scanned of it, its MR, and masks."""

    subject: Subject
    mr: Any  # T1, 0 outside the brain
    control_mr: Any  # the same without the lesions that the MR alone shows
    rings: dict[str, Any]  # white matter around the lesions of each kind
    contrast: float  # factor of the activity in lesions that PET shows

    def lesions(self, kind: str) -> np.ndarray:
        """Mask of the lesions of a kind."""
        return self.subject.truth.lesions == KINDS[kind]


def make_target(
    work: WorkDir, name: str, setup: ScanSetup, head: SubjectHead, lesions: Lesions, seed: int, system: Any = None
) -> Target:
    """A target subject with lesions on the setup's grid, kept as stage `name`; `head` has none."""

    def make() -> dict[str, Any]:
        drawn = draw_lesions(head, lesions, setup.grid, seed)
        own, control = (
            head._replace(brain=add_lesions(head.brain, [one for one in drawn if one.kind in kinds]))
            for kinds in (tuple(KINDS), tuple(RECOVERED.values()))
        )
        made = subject_of(setup, partial(_on_grid, own), system)
        truth = {f"truth_{one.name}": getattr(made.truth, one.name) for one in fields(Brain)}
        t1 = _on_grid(control, setup.grid).t1
        return {"trues": made.trues, "volume": np.asarray(made.emission_volume_mm3), "control_t1": t1, **truth}

    kept = stage(work, name, make)
    truth = Brain(**{one.name: np.asarray(kept[f"truth_{one.name}"]) for one in fields(Brain)})
    rings = {kind: _ring(truth, number) for kind, number in KINDS.items()}
    subject = Subject(truth, kept["trues"], float(kept["volume"]))
    mr, control_mr = (t1 * truth.brain_mask for t1 in (truth.t1, kept["control_t1"]))
    return Target(subject, mr, control_mr, rings, lesions.contrast)


def draw_lesions(head: SubjectHead, lesions: Lesions, grid: Grid, seed: int) -> list[Lesion]:
    """Random lesions in the head's white matter, one of each kind after the other, inside the grid's planes."""
    brain, half = head.brain, grid.shape[2] * grid.voxel_mm[2] / 2 - SLAB_MARGIN_MM
    heights = brain.affine[2, 2] * np.arange(brain.white.shape[2]) + brain.affine[2, 3]
    inside = brain.brain_mask & (np.abs(heights - CENTER_MM[2]) < max(half, 2 * brain.affine[2, 2]))
    places = replace(brain, gray=np.zeros_like(brain.gray), brain_mask=inside)
    drawn = random_lesions(
        seed, places, len(KINDS) * lesions.each, radius_mm=lesions.radius_mm, contrast=lesions.contrast,
        mr_contrast=lesions.mr_contrast,
    )  # fmt: skip
    kinds: tuple[LesionKind, ...] = ("pet", "mr", "both")
    return [one._replace(kind=kinds[k % len(kinds)]) for k, one in enumerate(drawn)]


def as_people(targets: Sequence[Target], control: bool = False) -> People:
    """Targets as the people that a cohort is registered to, whose PET nobody knows, or with their control MR."""
    truths = [target.subject.truth for target in targets]
    labels, masks = ([f(one) for one in truths] for f in (tissue_labels, lambda one: one.brain_mask))
    mr = np.stack([one.control_mr if control else one.mr for one in targets])
    return People(None, None, None, mr, np.stack(labels), np.stack(masks))


def measure(image: np.ndarray, target: Target) -> dict[str, float]:
    """NRMSE and SSIM in the brain, and the contrast recovery coefficient of lesions that PET shows: 1 is perfect."""
    truth, mask = np.maximum(target.subject.truth.activity, 0), target.subject.truth.brain_mask
    out = {"nrmse": float(nrmse(image, truth, mask)), "ssim": float(ssim(image, truth, mask))}
    for name, kind in RECOVERED.items():
        lesions, ring = target.lesions(kind), target.rings[kind]
        known = bool(lesions.any() and ring.any())
        out[name] = float(contrast_recovery(image, truth, lesions, ring)) if known else np.nan
    return out


def leakage(image: np.ndarray, control: np.ndarray, target: Target) -> float:
    """Contrast where the MR alone shows lesions, above that of an image whose method was told the control MR.

    In units of the contrast of lesions that PET shows: 0 is perfect, 1 are lesions as hot as those. Of the same counts,
    so that neither noise nor the activity of the surroundings is taken for a leak.
    """
    lesions, ring = target.lesions("mr"), target.rings["mr"]
    if not (lesions.any() and ring.any()):
        return np.nan
    shown, without = (one[lesions].mean() / one[ring].mean() for one in (image, control))
    return float((shown - without) / (target.contrast - 1))


def _ring(truth: Brain, kind: int) -> np.ndarray:
    """White matter around lesions of a kind, away from all lesions."""
    near = ndimage.binary_dilation(truth.lesion_ids > 0)
    return ndimage.binary_dilation(truth.lesions == kind, iterations=4) & ~near & (truth.white > 0.8)


def _on_grid(head: SubjectHead, grid: Grid) -> Brain:
    return on_grid(head, grid.voxel_mm, grid.shape, CENTER_MM)

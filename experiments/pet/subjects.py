"""Subjects of the PET experiments: heads that the priors learn from, held-out heads with lesions, another brain."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from experiments.pet.scans import FINE_MM, RESOLUTION_MM, ScanSetup, Subject
from medjax.io.nifti import Volume, resample
from medjax.pet.grid import Grid
from medjax.pet.simulate import emission_volume_mm3, expected_trues, middle_planes
from medjax.phantoms.brain import Brain, brain
from medjax.phantoms.freesurfer import read_head, resample_head
from medjax.phantoms.heads import (
    TRAINING_ACTIVITY_RANGES,
    Deformation,
    deform,
    deformation,
    generator,
    white_matter_lesions,
)
from medjax.phantoms.mni import Tissues, mix, tissue_fractions
from medjax.running.progress import track

HELD_OUT_SEED = 20_000  # the first seed of a head shape that is tested on; training ends below 10 000
OTHER_BRAIN_SLICES_MM = (10.0, 30.0)  # above the other brain's middle


def held_out_subjects(
    setup: ScanSetup, first: int, number: int, lesions: int = 0, tracer: str = "fdg", z_mm: float | None = None
) -> list[Subject]:
    """Held-out deformations of the MNI head around `z_mm`, with hot lesions in their white matter.

    Args:
        setup: scanner and grid of their scans.
        first: number of the first head; its seed is `HELD_OUT_SEED` + first.
        number: number of heads.
        lesions: number of lesions in each head.
        tracer: tracer of the activity, fdg or dpa714.
        z_mm: middle of the planes, MNI; None: random.
    """
    plain_head, subjects = brain(FINE_MM, tracer), list[Subject]()
    for seed in track(range(first, first + number), f"{tracer} heads"):
        change, draw = deformation(HELD_OUT_SEED + seed), generator(HELD_OUT_SEED + seed)
        z, head = draw.uniform(8, 38) if z_mm is None else z_mm, plain_head
        if lesions:
            plain = _deformed(head, change, z, setup.grid)
            head = brain(FINE_MM, tracer, lesions=white_matter_lesions(draw, plain, change, head.affine, lesions))
        subjects.append(_subject(setup, partial(_deformed, head, change, z)))
    return subjects


def training_subjects(setup: ScanSetup, number: int) -> list[Subject]:
    """Slices of heads of the family that priors learn: shape and activities vary, no lesions; `number` below 10 000."""
    (tissues, affine), head = tissue_fractions(), brain(FINE_MM)
    low, high = (np.asarray(ends) for ends in TRAINING_ACTIVITY_RANGES)
    subjects = []
    for seed in track(number, "training heads"):
        draw, change = generator(seed), deformation(seed)
        activity = mix(tissues, Tissues(*draw.uniform(low, high).tolist())._asdict())
        own = replace(head, activity=resample(Volume(activity, affine), head.t1.shape, head.affine).array)
        subjects.append(_subject(setup, partial(_deformed, own, change, draw.uniform(0, 45))))
    return subjects


def other_brain_subjects(setup: ScanSetup, folder: Path) -> list[Subject]:
    """Two slices of the brain in `folder`, which is no deformation of MNI152: see `phantoms.freesurfer`.

    Raises:
        DataError: the T1 and FreeSurfer's labels are not there as they should be.
    """
    head = read_head(folder)
    x, y, z = head.center_of_mass_mm
    return [
        _subject(setup, lambda grid, up=up: resample_head(head, grid.voxel_mm, grid.shape, (x, y, z + up)))
        for up in OTHER_BRAIN_SLICES_MM
    ]


def _deformed(head: Brain, change: Deformation, z_mm: float, grid: Grid) -> Brain:
    x, y, _ = change.center_mm.tolist()
    return deform(head, change, grid.voxel_mm, grid.shape, (x, y, float(z_mm)))


def _subject(setup: ScanSetup, on_grid: Callable[[Grid], Brain]) -> Subject:
    """A subject from its images on the reconstruction's grid and on the simulation's."""
    fine = on_grid(setup.fine_grid)
    activity, mu = np.maximum(fine.activity, 0), np.clip(fine.mu, 0, None)
    trues = expected_trues(setup.scanner, activity, setup.fine_grid, mu, RESOLUTION_MM)
    seen = activity[..., middle_planes(setup.fine_grid, setup.grid.shape[2])]
    return Subject(on_grid(setup.grid), np.asarray(trues), emission_volume_mm3(seen, setup.fine_grid))

"""Subjects of the PET experiments: heads of the family that networks learn, held-out heads, another brain."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from experiments.pet.scans import FINE_MM, RESOLUTION_MM, ScanSetup, Subject
from medjax.pet.grid import Grid
from medjax.pet.projection import AnySystem
from medjax.pet.simulate import emission_volume_mm3, expected_trues, middle_planes, system_of_rays
from medjax.phantoms.brain import Brain, brain
from medjax.phantoms.freesurfer import read_head, resample_head
from medjax.phantoms.heads import (
    Deformation,
    deform,
    deformation,
    generator,
    smooth_images,
    voxel_smoothing,
    white_matter_lesions,
)
from medjax.phantoms.mni import tissue_fractions
from medjax.phantoms.uptake import random_head
from medjax.running.progress import track

FIRST_VALIDATION_SEED = 10_000  # of the heads that networks in training are validated on; they learn from those below
HELD_OUT_SEED = 20_000  # first seed of the heads that are tested on
SLICES_PER_HEAD = 4  # of training
VOLUME_CENTER_MM = 10.0  # z of a volume's middle, MNI
FAMILY_HEIGHTS_MM = (-30.0, 60.0)  # lowest and highest slice of a head of the family, MNI
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
        z_mm: middle of the planes, MNI; None: random of a slice, the head's middle of a volume, whose lesions lie in
            its middle slice.
    """
    z_mm = VOLUME_CENTER_MM if z_mm is None and setup.grid.shape[2] > 1 else z_mm
    slice_grid = Grid((*setup.grid.shape[:2], 1), setup.grid.voxel_mm)
    plain_head, subjects = brain(FINE_MM, tracer), list[Subject]()
    for seed in track(range(first, first + number), f"{tracer} heads"):
        change, draw = deformation(HELD_OUT_SEED + seed), generator(HELD_OUT_SEED + seed)
        z, head = draw.uniform(8, 38) if z_mm is None else z_mm, plain_head
        if lesions:
            plain = _deformed(head, change, z, slice_grid)
            head = brain(FINE_MM, tracer, lesions=white_matter_lesions(draw, plain, change, head.affine, lesions))
        subjects.append(subject_of(setup, partial(_deformed, head, change, z)))
    return subjects


def training_subjects(setup: ScanSetup, number: int, first: int = 0) -> list[Subject]:
    """Slices of random heads of `uptake.FAMILY`: both tracers, lesions hot and cold, shapes that vary in strength.

    `SLICES_PER_HEAD` slices of each head, at random heights over the brain, since a head costs more than a slice.

    Args:
        setup: scanner and grid of their scans.
        number: number of slices.
        first: seed of the first head; below 10 000 for training, from there on for validation.
    """
    heads = -(-number // SLICES_PER_HEAD)
    return _family_slices(setup, range(first, first + heads), SLICES_PER_HEAD)[:number]


def family_subjects(setup: ScanSetup, first: int, number: int) -> list[Subject]:
    """A slice of each of `number` held-out heads of `uptake.FAMILY`; the seed of the first is `HELD_OUT_SEED` + first.

    Lesions are part of the activity and not labelled.
    """
    return _family_slices(setup, range(HELD_OUT_SEED + first, HELD_OUT_SEED + first + number), 1)


def other_brain_subjects(setup: ScanSetup, folder: Path) -> list[Subject]:
    """Two slices of the brain in `folder`, which is no deformation of MNI152: see `phantoms.freesurfer`.

    Raises:
        DataError: the T1 and FreeSurfer's labels are not there as they should be.
    """
    head = read_head(folder)
    x, y, z = head.center_of_mass_mm
    return [
        subject_of(setup, lambda grid, up=up: resample_head(head, grid.voxel_mm, grid.shape, (x, y, z + up)))
        for up in OTHER_BRAIN_SLICES_MM
    ]


def _family_slices(setup: ScanSetup, seeds: range, each: int) -> list[Subject]:
    """`each` slices of the heads of these seeds, which are those that `uptake.random_activity` makes of them.

    What heads share is smoothed once, before they are deformed.
    """
    tissues, affine = tissue_fractions()
    middle = affine[:3, :3] @ ((np.array(tissues["gray"].shape) - 1) / 2) + affine[:3, 3]
    plain = brain(FINE_MM, shape=tissues["gray"].shape, center_mm=tuple(middle.tolist()))
    system = system_of_rays(setup.scanner, setup.fine_grid)
    shared = {grid: smooth_images(plain, grid.voxel_mm) for grid in (setup.fine_grid, setup.grid)}
    subjects = []
    for seed in track(seeds, "heads of the family"):
        draw = generator(seed)
        activity, change = random_head(draw, tissues, affine)
        own = {
            grid: replace(head, activity=gaussian_filter(activity, voxel_smoothing(affine, grid.voxel_mm)))
            for grid, head in shared.items()
        }
        for z in draw.uniform(*FAMILY_HEIGHTS_MM, each).tolist():
            subjects.append(subject_of(setup, partial(_deformed_smooth, own, change, z), system))
    return subjects


def _deformed_smooth(heads: dict[Grid, Brain], change: Deformation, z_mm: float, grid: Grid) -> Brain:
    return _deformed(heads[grid], change, z_mm, grid, smooth=False)


def _deformed(head: Brain, change: Deformation, z_mm: float, grid: Grid, smooth: bool = True) -> Brain:
    x, y, _ = change.center_mm.tolist()
    return deform(head, change, grid.voxel_mm, grid.shape, (x, y, float(z_mm)), smooth)


def subject_of(setup: ScanSetup, on_grid: Callable[[Grid], Brain], system: AnySystem | None = None) -> Subject:
    """A subject from its images on the reconstruction's grid and on the simulation's, of which this is the system."""
    fine = on_grid(setup.fine_grid)
    activity, mu = np.maximum(fine.activity, 0), np.clip(fine.mu, 0, None)
    trues = expected_trues(
        setup.scanner, activity, setup.fine_grid, mu, RESOLUTION_MM, system=system, michelogram=setup.michelogram
    )
    seen = activity[..., middle_planes(setup.fine_grid, setup.grid.shape[2])]
    return Subject(on_grid(setup.grid), np.asarray(trues), emission_volume_mm3(seen, setup.fine_grid))

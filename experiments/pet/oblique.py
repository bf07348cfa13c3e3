"""Oblique planes: the config's `geometry`, a ring scanner with a Michelogram, full-count scans, a prior of its voxels.

    config = of_geometry(config)          what `oblique` holds replaces what has the same name
    setup = setup_of(config)              direct planes of a slice, or oblique planes of a volume

A full-count scan of every head is simulated once. What is reconstructed are realisations that are thinned from it, and
they are judged against the truth and against OSEM of the full-count scan, as real scans are that have no truth.
"""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Array
from ml_collections import ConfigDict

from experiments.pet.fine_tuning import fine_tune
from experiments.pet.scans import ScanSetup, setup
from medjax import iterate
from medjax.diffusion.prior import Prior
from medjax.diffusion.prior_file import load_prior
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, ordered_subsets
from medjax.pet.michelogram import michelogram
from medjax.pet.scanner import Scanner, preset
from medjax.running.workdir import WorkDir
from medjax.tools.pet_prior_images import phantom_volumes

SUBSETS = 14  # of OSEM, and of the updates of DDS and DDS-δ
FULL_COUNT_ITERATIONS = 3  # of OSEM
ORIENTATIONS = (0, 1, 2)  # axes that the prior's slices are perpendicular to
RING_16 = Scanner(  # crystals as wide as its rings are apart, and bins for a head
    "ring_16", crystals=280, rings=16, radius_mm=328.0, depth_mm=9.6, ring_spacing_mm=7.5, bins=72, voxel_mm=3.75
)


def of_geometry(config: ConfigDict) -> ConfigDict:
    """The config of its geometry: itself, or for oblique planes with the values of `oblique` in place of its own."""
    if config.geometry == "direct":
        return config
    changed = ConfigDict(config.to_dict())
    for name, value in config.oblique.to_dict().items():
        if isinstance(value, dict) and name in changed:
            changed[name].unlock().update(value)
        else:
            changed[name] = value
    return changed


def setup_of(config: ConfigDict) -> ScanSetup:
    """Scanner, grid and system of a config's geometry."""
    scan, grid = config.scan, config.grid
    if config.geometry == "direct":
        return setup(preset(scan.scanner), grid.size, grid.voxel_mm, scan.background)
    scanner = RING_16 if scan.scanner == RING_16.name else preset(scan.scanner)
    scanner = replace(scanner, rings=scan.rings, ring_spacing_mm=scan.ring_spacing_mm)
    planes = michelogram(scan.rings, scan.span, scan.max_ring_difference)
    made = setup(scanner, grid.size, grid.voxel_mm, scan.background, scanner.planes, planes)
    return made._replace(full_count=full_count_image, full_trues_per_mm3=scan.full_trues_per_mm3)


def full_count_image(full: Acquisition) -> Array:
    """OSEM image of a full-count scan."""
    return _osem(ordered_subsets(full, SUBSETS))


@jax.jit
def _osem(stacked: Acquisition) -> Array:
    return iterate.repeat(em.osem(stacked), em.init(stacked), em.updates(stacked, FULL_COUNT_ITERATIONS)).image


def fine_tuned_prior(config: ConfigDict, work: WorkDir) -> Prior:
    """The prior that the config names, fine-tuned on phantoms of the grid's voxels, kept as stage `prior`."""
    tuning, grid, start = config.fine_tuning, config.grid, load_prior(config.sampling.prior or None)
    settings = start.settings._replace(size=grid.size, voxel_mm=float(grid.voxel_mm), orientations=ORIENTATIONS)

    def images() -> list[Any]:
        return [np.asarray(one[..., 0]) for one in phantom_volumes(range(tuning.phantoms), settings)]

    return fine_tune(
        replace(start, settings=settings), images, tuning.steps, tuning.rate, config.seed, work, "prior",
        batch=tuning.batch, orientations=ORIENTATIONS,
    )  # fmt: skip

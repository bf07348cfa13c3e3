"""A multi-subject PET–MR cohort as a study has it: each PET is the OSEM image of a simulated full-count scan.

Every transverse plane is scanned as the ring sees it. Two scans of each subject differ in their noise alone, so that
noise can be told from anatomy: the second is for measures only.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from experiments.pet.scans import ScanSetup, Subject, simulate_scan
from experiments.pet.subjects import subject_of
from medjax import iterate
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, ordered_subsets
from medjax.pet.grid import Grid
from medjax.pet.simulate import system_of_rays
from medjax.phantoms.brain import Brain
from medjax.phantoms.head_anatomies import CENTER_MM, HeadAnatomy, mni152, read_anatomy
from medjax.phantoms.multi_subject import SubjectHead, multi_subject, on_grid, tissue_labels
from medjax.running.progress import track
from medjax.running.workdir import WorkDir, stage

SUBSETS = 14  # of OSEM


class People(NamedTuple):
    """Images of several people on one grid, along a leading axis."""

    pet: Any  # OSEM image at full counts, relative to white matter at about 1
    pet_again: Any  # of a second scan
    activity: Any  # what both are scans of
    mr: Any  # T1, 0 outside the brain
    labels: Any  # 1 fluid and deep structures, 2 grey, 3 white matter
    mask: Any  # brain

    @property
    def number(self) -> int:
        """Number of people."""
        return len(self.mask)

    def first(self, number: int) -> "People":
        """The first of them."""
        return People(*(images[:number] for images in self))


def read_anatomies(paths: Sequence[str], voxel_mm: float) -> list[HeadAnatomy]:
    """MNI152, and the anatomies at these paths."""
    return [mni152(voxel_mm), *(read_anatomy(Path(path), voxel_mm) for path in paths)]


def heads_of(
    anatomies: Sequence[HeadAnatomy], seed: int, first: int, number: int, tracer: str, strength: float
) -> list[SubjectHead]:
    """Heads of so many subjects, as a list: for a few."""
    return list(multi_subject(seed, number, anatomies, tracer, strength, first))


def scan_people(
    work: WorkDir,
    setup: ScanSetup,
    anatomies: Sequence[HeadAnatomy],
    name: str,
    numbers: range,
    level: float,
    seed: int,
    tracer: str,
    strength: float,
    iterations: int,
) -> People:
    """Images of the subjects with these numbers on the setup's grid; each is kept as stage `name_NUMBER`.

    `level` is in true coincidences per mm³ of emission volume, `iterations` of OSEM: more show more detail and noise.
    """
    system, rows = None, list[People]()
    for n in track(list(numbers), name):

        def make(n: int = n) -> dict[str, np.ndarray]:
            nonlocal system
            system = system_of_rays(setup.scanner, setup.fine_grid) if system is None else system
            [head] = multi_subject(seed, 1, anatomies, tracer, strength, n)
            scanned = subject_of(setup, partial(_on_grid, head, CENTER_MM[2]), system)
            truth = scanned.truth
            key = jax.random.fold_in(jax.random.key(seed), n)
            pets = [_osem_image(jax.random.fold_in(key, k), setup, scanned, level, iterations) for k in range(2)]
            mask = truth.brain_mask
            images = (*pets, np.maximum(truth.activity, 0), truth.t1 * mask, tissue_labels(truth), mask)
            return People(*images)._asdict()

        rows.append(People(**stage(work, f"{name}_{n}", make)))
    return People(*(np.stack(arrays) for arrays in zip(*rows, strict=True)))


def planes_of(setup: ScanSetup, head: SubjectHead, heights_mm: Sequence[float]) -> list[Subject]:
    """Direct planes of a head at these heights, MNI, each a subject of `scans.simulate`."""
    return [subject_of(setup, partial(_on_grid, head, z)) for z in heights_mm]


def plane_heights(setup: ScanSetup, number: int, lowest_mm: float = -5.0, highest_mm: float = 45.0) -> list[float]:
    """Heights, mm, of so many planes of a volume's grid, evenly spread between two."""
    planes, voxel = setup.grid.shape[2], setup.grid.voxel_mm[2]
    index = np.rint((np.linspace(lowest_mm, highest_mm, number) - CENTER_MM[2]) / voxel + (planes - 1) / 2)
    index = np.clip(index, 0, planes - 1)
    return ((index - (planes - 1) / 2) * voxel + CENTER_MM[2]).tolist()


def plane_index(setup: ScanSetup, height_mm: float) -> int:
    """Number of the plane of a volume's grid at this height."""
    return round((height_mm - CENTER_MM[2]) / setup.grid.voxel_mm[2] + (setup.grid.shape[2] - 1) / 2)


def _on_grid(head: SubjectHead, z_mm: float, grid: Grid) -> Brain:
    return on_grid(head, grid.voxel_mm, grid.shape, (CENTER_MM[0], CENTER_MM[1], float(z_mm)))


def _osem_image(
    key: Array, setup: ScanSetup, scanned: Subject, level: float, iterations: int
) -> Float[np.ndarray, "x y z"]:
    scan = simulate_scan(key, setup, scanned, level)
    return np.asarray(_osem(ordered_subsets(scan, SUBSETS), iterations)) * scanned.truth.head_mask


@partial(jax.jit, static_argnums=1)
def _osem(stacked: Acquisition, iterations: int) -> Array:
    return iterate.repeat(em.osem(stacked), em.init(stacked), em.updates(stacked, iterations)).image

"""Memory of a reconstruction as it is planned, against XLA's own analysis, and a refusal before it starts."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.io.counts import Counts
from medjax.pet import em
from medjax.pet.acquisition import acquire, ordered_subsets
from medjax.pet.grid import Grid
from medjax.pet.michelogram import michelogram
from medjax.pet.scanner import PRESETS, lors
from medjax.pet.system import System, build_system
from medjax.pet.system3d import System3D, build_system3d
from medjax.pet.tof import Tof
from medjax.tools import pet_memory
from medjax.tools.pet_memory import sinogram_plan
from medjax.tools.pet_reconstruct import reconstruct

RING = replace(PRESETS["mmr"], crystals=120, radius_mm=120.0, bins=60, block=5, rings=16)


def oblique(side: int, tof: Tof | None) -> tuple[System3D, Grid]:
    spacing = RING.ring_spacing_mm
    grid = Grid((side, side, 31), (144 / side, 144 / side, spacing / 2))
    return build_system3d(lors(RING), michelogram(16, 5, 12), spacing, grid, tof), grid


def direct() -> tuple[System, Grid]:
    """The mMR's planes, whose sinogram is most of what the projectors work with."""
    grid = Grid((64, 64, 127), (6.0, 6.0, 2.03125))
    return build_system(lors(PRESETS["mmr"]), grid), grid


CASES = {
    "oblique": (partial(oblique, 24, None), 1),
    "subsets": (partial(oblique, 48, None), 5),
    "tof": (partial(oblique, 24, Tof(5, 400.0, 500.0)), 5),
    "direct": (direct, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_a_projection_works_with_what_the_plan_says(name: str):
    build, subsets = CASES[name]
    system, grid = build()
    shape = system.sinogram_shape if isinstance(system, System3D) else (252, 344, 127)
    acquisition = acquire(system, jnp.ones(shape, jnp.float32), 1.0, 0.1)
    stacked = ordered_subsets(acquisition, subsets)
    state = em.init(stacked)
    step = (
        jax.jit(lambda image: em.osem(stacked).step(state._replace(image=image))[0].image).lower(state.image).compile()
    )
    whole = jax.jit(acquisition.adjoint).lower(acquisition.counts).compile()
    used = max(one.memory_analysis().temp_size_in_bytes for one in (step, whole))
    plan = sinogram_plan(int(np.prod(shape)), grid, subsets, "osem")
    assert (plan.projection - pet_memory._BLOCKS) / 4 < used < plan.projection
    held = sum(
        a.nbytes for a in jax.tree.leaves((acquisition.counts, acquisition.multiplicative, acquisition.additive))
    )
    assert plan.data == 2 * held and plan.images >= 2 * stacked.sensitivity.nbytes


def test_what_does_not_fit_is_refused_before_it_starts(monkeypatch, tmp_path, capsys):
    scanner = PRESETS["ring_2d"]
    shape = (*lors(scanner).shape[:2], 1)
    ones = np.ones(shape, np.float32)
    counts = Counts(ones, 0.1 * ones, ones, "ring_2d", {})
    monkeypatch.setattr(pet_memory, "WORTH_A_LINE", 0)
    reconstruct(counts, size=32, voxel_mm=18.0)
    assert "memory: about 0.6 GiB (data 0.0" in capsys.readouterr().out.replace("\n", " ")
    monkeypatch.setattr("medjax.memory.available_memory", lambda: 0.5 * 2**30)
    with pytest.raises(DataError, match=r"reconstruction: needs 0.6 GiB of memory, 0.5 GiB are free; use a smaller"):
        reconstruct(counts, output=tmp_path / "image.nii.gz", size=32, voxel_mm=18.0)
    assert not list(tmp_path.iterdir())

"""The PET experiments' supervised networks: members of a population are those trained alone; a user's takes part.

Scans that they learn from have the noise of their number; heads of the family are those of their seed.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.pet_likelihood_schedule import get_config
from experiments.pet import supervised
from experiments.pet.comparison import study_inputs
from experiments.pet.scans import simulate
from experiments.pet.subjects import (
    HELD_OUT_SEED,
    SLICES_PER_HEAD,
    family_subjects,
    other_brain_subjects,
    training_subjects,
)
from experiments.pet.training_scans import draw_scans
from medjax.diffusion.sde import vp
from medjax.errors import ConfigError
from medjax.metrics.image import nrmse
from medjax.models.model import Model
from medjax.models.residual import residual_cnn
from medjax.running.workdir import WorkDir, open_workdir
from tests.phantoms.test_freesurfer import GREY, VENTRICLE, WHITE, written

SIDE = 24
SMALL = residual_cnn(4, 2)
SEEDS, RATES = (0, 1, 1), (1e-3, 1e-3, 1e-2)


class Constant(NamedTuple):
    value: float = 1.0
    sde = vp()

    def __call__(self, x, t):
        return jnp.full_like(x, self.value)


def config(seed: int):
    c = get_config("tiny")
    c.seed, c.scan.scanner, c.grid.size, c.grid.voxel_mm = seed, "ring_2d", SIDE, 10.0
    return c


def init(key, images, level):
    return SMALL.init(key, images[..., :1]), jnp.zeros(())  # any pytree is good enough


def apply(params, images, level, key=None):
    mlem = images[..., :1]
    return SMALL.apply(params[0], mlem) - mlem + params[1] * level.reshape(-1, 1, 1, 1)


def test_count_levels_are_those_of_the_scans():
    c = config(0)
    c.scan.trues_per_mm3 = (0.7, 10.0)
    [inputs] = study_inputs([c], [None], Constant())
    assert inputs.levels == tuple(np.float32([0.7, 10.0]).tolist())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A ball of tissues with FreeSurfer's labels: no atlas is needed."""
    made = tmp_path_factory.mktemp("ball")
    radius = 3 * np.linalg.norm(np.indices((50, 50, 50)) - 24.5, axis=0)
    written(made, np.select([radius < 20, radius < 50, radius < 60], [VENTRICLE, WHITE, GREY], 0))
    return made


@pytest.fixture(scope="module")
def shared():
    """The scanner and what is compiled."""
    return study_inputs([config(0)], [WorkDir(Path())], Constant())[0]


@pytest.fixture(scope="module")
def learner():
    return supervised.unet_behind_osem(Model(init, apply), SIDE)


@pytest.fixture(scope="module")
def data(shared, folder):
    """Two slices of the ball, to learn from and to validate on."""
    heads = other_brain_subjects(shared.setup, folder)
    return supervised.training_set(shared.setup, lambda: (heads, heads), shared.levels, 2, 2)


def trained(shared, learner, data, path, seeds, rates):
    """Reconstruction by the network of each member, and the learning curve of the first."""
    with ExitStack() as held:
        works = [held.enter_context(open_workdir(path / str(k), {"seed": seed})) for k, seed in enumerate(seeds)]
        members = [shared._replace(work=work, seed=seed) for work, seed in zip(works, seeds, strict=True)]
        [runs] = supervised.train([learner], members, data, rates, [6], batch=2, strategy="vmap")
        return runs, supervised.learning_curve(works[0], "unet")


def test_a_population_is_its_members_alone(shared, learner, data, tmp_path):
    cases = draw_scans(7, data.scans()[0], shared.levels, [0, 1])
    runs, _ = trained(shared, learner, data, tmp_path / "together", SEEDS, RATES)
    together = [run(jax.random.key(0), cases, {}).image for run in runs]
    for member in (0, 2):
        own = slice(member, member + 1)
        [run], curve = trained(shared, learner, data, tmp_path / f"alone{member}", SEEDS[own], RATES[own])
        alone = run(jax.random.key(0), cases, {}).image
        scale = np.abs(alone).max()
        np.testing.assert_allclose(together[member] / scale, alone / scale, atol=1e-3)
        assert np.abs(alone - data.start(cases)[..., :1]).max() > 5e-3 * scale  # it learnt something
        validated = draw_scans(SEEDS[member], data.scans()[1], shared.levels, [0, 1])
        images = run(jax.random.key(0), validated, {}).image
        errors = [nrmse(image, *pair) for image, *pair in zip(images, validated.truth, validated.mask, strict=True)]
        assert curve["step"].tolist() == [6]
        np.testing.assert_allclose(curve["validation"], np.mean(errors), rtol=1e-5)
        np.testing.assert_array_equal(curve["validation/10"], curve["validation"])  # the only count level
    assert not np.allclose(together[0], together[1])  # another seed
    assert not np.allclose(together[1], together[2])  # another learning rate


def test_a_network_of_two_channels_is_refused():
    with pytest.raises(ConfigError, match=r"gives \(1, 24, 24, 2\) for .* \(1, 24, 24, 2\); expected \(1, 24, 24, 1\)"):
        supervised.unet_behind_osem(Model(init, lambda params, images, level, key=None: images), SIDE)


def test_a_scan_has_the_noise_of_its_number(data):
    """Slices innermost, then levels, then realisations; all of a scan is in proportion to its level."""
    clean, levels = data.scans()[0], (2.0, 50.0)
    scans = draw_scans(3, clean, levels, range(8))
    np.testing.assert_array_equal(scans.level, [2, 2, 50, 50] * 2)
    for number in (1, 6):
        again = draw_scans(3, clean, levels, [number])
        for array, whole in zip(jax.tree.leaves(again), jax.tree.leaves(scans), strict=True):
            np.testing.assert_array_equal(array[0], whole[number])
        np.testing.assert_array_equal(again.truth[0], clean.truth[number % 2])
    assert (scans.counts[0] != scans.counts[4]).any()  # another realisation
    assert (draw_scans(4, clean, levels, [0]).counts[0] != scans.counts[0]).any()  # another seed
    expected = draw_scans(3, clean, levels, range(8), noise=False).counts
    deviations = (scans.counts - expected)[expected > 0] / np.sqrt(expected[expected > 0])
    assert abs(deviations.mean()) < 0.02 and abs(deviations.var() - 1) < 0.03  # Poisson
    for name in ("multiplicative", "additive", "sensitivity"):
        known = getattr(scans, name)
        np.testing.assert_allclose(known[2], 25 * known[0], rtol=1e-5)


@pytest.mark.slow
def test_heads_of_the_family_are_those_of_their_seed(shared):
    pytest.importorskip("nilearn")
    several = training_subjects(shared.setup, SLICES_PER_HEAD + 1, HELD_OUT_SEED)
    [held_out] = family_subjects(shared.setup, 1, 1)
    np.testing.assert_array_equal(several[-1].trues, held_out.trues)
    assert (several[0].trues != several[1].trues).any()  # another height
    assert held_out.truth.brain_mask.any()
    assert all(np.isfinite(one.trues).all() and one.trues.sum() > 0 for one in several)


def test_scans_of_another_brain(shared, folder):
    """Two slices, each twice; the lower one is larger; no lesions, so no lesion contrast."""
    first, second = other_brain_subjects(shared.setup, folder)
    assert first.truth.brain_mask.sum() > second.truth.brain_mask.sum()
    cases = simulate(shared.setup, [first, second], (10.0,), 2, seed=0)
    assert cases.number == 4 and np.isfinite(cases.counts).all() and not cases.lesions.any()
    trues = (cases.counts - cases.additive).sum(axis=(1, 2, 3))
    expected = 10.0 * np.array(
        [first.emission_volume_mm3, first.emission_volume_mm3, second.emission_volume_mm3, second.emission_volume_mm3]
    )
    np.testing.assert_allclose(trues, expected, rtol=0.05)

"""The pieces of the pseudo-PET study: slices and fine-tuning, sets of pseudo-PETs, measures of curves, its config."""

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.pet_pseudo_prior import check, get_config
from experiments.pet import contrast_noise
from experiments.pet.cohort_registration import Fields, bounding_box_of, folds_fraction, label_dice, register_cohort
from experiments.pet.contrast_noise import TargetScans
from experiments.pet.fine_tuning import fine_tune, slices_of
from experiments.pet.multi_subject import People
from experiments.pet.pseudo_report import noise_at_contrast
from experiments.pet.pseudo_sets import carry_cohort, pseudo_pets, set_measures
from experiments.pet.scans import Scans
from medjax.diffusion.prior import Prior, PriorSettings, slice_denoiser
from medjax.diffusion.sde import vp
from medjax.errors import ConfigError, DataError
from medjax.models.model import Model
from medjax.pet.grid import Grid
from medjax.running.workdir import open_workdir

SHAPE = (20, 22, 6)


def scaled_images(key, *inputs):
    return {"w": jnp.zeros((len(inputs), 1))}  # a kernel: a row an input


def apply(params, y, level, orientation, *mr, key=None):
    return params["w"][0, 0] * y + (params["w"][-1, 0] * mr[0] if mr else 0)


@pytest.fixture(scope="module")
def prior():
    settings = PriorSettings(widths=(4,), patch=1, size=20)
    model = Model(scaled_images, apply)
    return Prior({"w": jnp.zeros((3, 1))}, 0.8, vp(0.1, 10.0), model, settings)


def people(number: int, noise: float, seed: int = 0) -> People:
    """Balls of white matter in a shell of grey matter, scanned with independent noise."""
    draw = np.random.default_rng(seed)
    radius = np.linalg.norm(np.indices(SHAPE) - np.reshape((9.5, 10.5, 2.5), (3, 1, 1, 1)), axis=0)
    labels = np.select([radius < 6, radius < 9], [3, 2], 0)
    activity = np.select([radius < 6, radius < 9], [1.0, 4.0], 0.0).astype(np.float32)
    pets = [activity + noise * draw.standard_normal((number, *SHAPE)).astype(np.float32) for _ in range(2)]
    every = [np.stack([image] * number) for image in (activity, activity, labels, labels > 0)]
    return People(*pets, *every)


def test_slices_are_padded_and_of_mean_emission_one():
    images = np.random.default_rng(0).uniform(1, 2, (2, *SHAPE)).astype(np.float32) * 7
    found = slices_of(images, None, 4)
    assert found["slices"].shape == (12, 20, 24, 1) and set(found["axes"]) == {2}
    kept = found["slices"][..., 1:23, 0].astype(np.float32)
    assert kept.mean() == pytest.approx(1, rel=1e-3) and not found["slices"][:, :, 0].any()
    cubes = slices_of(images, 3 * images, 4, (0, 1, 2))
    assert cubes["slices"].shape[1:] == (24, 24, 2)
    np.testing.assert_allclose(cubes["slices"][..., 0], cubes["slices"][..., 1], rtol=2e-3)
    with pytest.raises(DataError, match="equal volumes"):
        slices_of(images, images[:1], 4)
    with pytest.raises(DataError, match="no voxel"):
        slices_of(np.zeros((1, *SHAPE), np.float32), None, 4)


def test_fine_tuning_lowers_the_loss_and_is_kept(prior, tmp_path):
    images = people(2, 0.1).pet
    with open_workdir(tmp_path / "work", {"a": 1}) as work:
        tuned = fine_tune(prior, images, 40, 0.05, 0, work, "tuned", batch=4, one_anatomy=True)
    assert float(jnp.abs(tuned.params["w"] - prior.params["w"]).max()) > 0.05
    losses = np.load(tmp_path / "work" / "checkpoints" / "tuned.npz")["loss"]
    assert losses[-1] < losses[0]

    def never():
        raise AssertionError("made again")

    with open_workdir(tmp_path / "work", {"a": 1}) as work:
        again = fine_tune(prior, never, 40, 0.05, 0, work, "tuned", batch=4, one_anatomy=True)
        guided = fine_tune(prior, images, 2, 0.05, 0, work, "guided", images, batch=4)
    np.testing.assert_array_equal(tuned.params["w"], again.params["w"])
    assert guided.settings.mr_guided and guided.params["w"].shape == (4, 1)
    slices = jnp.ones((1, 20, 24))
    assert slice_denoiser(guided)(slices, jnp.full(1, 0.3), slices).shape == slices.shape


def test_sets_of_pseudo_pets():
    cohort, target = people(8, 0.4), people(1, 0.0, 1)
    fields = Fields(np.zeros((8, 3, *SHAPE), np.float32), None, None, None)
    carried = carry_cohort(cohort, fields, target, 0)
    one, four, every = (set_measures(carried, size, 0) for size in (1, 4, 8))
    assert one["noise"] / four["noise"] == pytest.approx(2, rel=0.25)
    assert one["noise"] / every["noise"] == pytest.approx(np.sqrt(8), rel=0.3)
    assert one["nrmse"] > 1.7 * four["nrmse"] > 0 and one["diversity"] > 1.5 * four["diversity"] > every["diversity"]
    for row in (one, four, every):
        assert row["gradient_energy"] == pytest.approx(1, abs=0.1)  # free of noise
    assert pseudo_pets(carried, 4, 5, 0)().shape == (5, *SHAPE) and len(pseudo_pets(carried, 8, 5, 0)()) == 1
    np.testing.assert_allclose(pseudo_pets(carried, 8, 5, 0)()[0], carried.pets.mean(axis=0), rtol=1e-4, atol=1e-5)


def test_registration_is_of_the_box_around_the_brain(tmp_path):
    cohort = people(2, 0.1)
    mask = cohort.mask[0]
    box = bounding_box_of(mask)
    assert box[0] == slice(0, 20) and mask[box].sum() == mask.sum()
    seen = []

    def registrar(fixed, moving, grid):
        seen.append((fixed.shape, grid.shape))
        assert float(fixed.max()) == 1
        return jnp.zeros((3, *fixed.shape)).at[0].set(1.0)

    with open_workdir(tmp_path / "work", {"a": 1}) as work:
        found = register_cohort(work, "field", cohort, cohort, 0, Grid(SHAPE, (2.0, 2.0, 2.0)), registrar)
    assert found.displacements.shape == (2, 3, *SHAPE) and (found.displacements[:, 0] == 1).all()
    assert seen == [(mask[box].shape,) * 2] * 2
    assert (found.dice < found.dice_before)[:, 1:].all() and not found.folds.any()
    np.testing.assert_allclose(label_dice(cohort.labels[0], cohort.labels[0])[1:], 1)
    folded = np.zeros((3, *SHAPE), np.float32)
    folded[0] = -2 * np.arange(20)[:, None, None]
    assert folds_fraction(folded, mask) == 1


def test_measures_of_planes():
    draw, case = np.random.default_rng(0), people(1, 0.0)
    truth = np.stack([case.activity[0][..., 2:3]] * 6)
    white, gray = (np.stack([case.labels[0][..., 2:3] == value] * 6) for value in (3, 2))
    none = np.zeros_like(white)
    fields = dict.fromkeys(Scans._fields, np.zeros((6, 1), np.float32))
    known = {"truth": truth, "mask": white | gray, "white": white, "lesions": none, "ring": none, "full_count": None}
    scans = TargetScans(Scans(**fields | known), gray, 3)
    noise = 0.2 * draw.standard_normal(truth.shape).astype(np.float32)
    found = contrast_noise.plane_measures(truth + noise, scans)
    assert found["contrast"].shape == (2,)
    np.testing.assert_allclose(found["contrast"], 4, rtol=0.03)
    np.testing.assert_allclose(found["background_sd"], 0.2, rtol=0.1)
    np.testing.assert_allclose(found["realization_sd"], 0.2 * 0.886, rtol=0.15)  # mean SD of three normal values
    rows = {"contrast": np.array([[1.0], [2.0], [3.0]]), "background_sd": np.array([[0.1], [0.2], [0.4]])}
    assert noise_at_contrast({"osem": rows}, 2.5, "a")["background_sd_at_equal_contrast/osem/a"] == pytest.approx(0.3)
    assert np.isnan(noise_at_contrast({"osem": rows}, 4.0, "a")["background_sd_at_equal_contrast/osem/a"])


def test_config_is_checked():
    for preset in ("tiny", "small", "paper"):
        check(get_config(preset))
    for changed in (("pseudo", "sizes", (1, 20)), ("registration", "factors", (1,)), ("test", "scanners", ("mmr",))):
        config: ConfigDict = get_config("small")
        config[changed[0]][changed[1]] = changed[2]
        with pytest.raises(ConfigError):
            check(config)
    with pytest.raises(KeyError):
        get_config("large")

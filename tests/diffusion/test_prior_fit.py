"""Names of shipped priors, whether a prior fits the data, and its validation by noise level."""

import warnings
from importlib.resources import files

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.diffusion.prior import Prior, PriorSettings, check_fit
from medjax.diffusion.prior_file import SHIPPED_PRIORS, load_prior
from medjax.diffusion.prior_validation import SIGMAS, select_evenly, validation_errors
from medjax.diffusion.sde import vp
from medjax.errors import ConfigError, DataError
from medjax.models.model import Model

FDG = PriorSettings(orientations=(2,), tracers=("fdg",))


@pytest.mark.parametrize("name", SHIPPED_PRIORS)
def test_a_shipped_prior_is_read_by_its_name_and_says_what_it_is_of(name):
    settings = load_prior(name).settings
    assert settings.kind == name and settings.tracers == ("fdg", "dpa714")
    assert settings.voxel_mm == 2.5 and settings.orientations == (0, 1, 2)


def test_the_first_one_is_the_default_and_all_are_small():
    assert load_prior().settings.kind == load_prior(None).settings.kind == SHIPPED_PRIORS[0]
    weights = files("medjax.diffusion").joinpath("weights")
    assert sum(len(file.read_bytes()) for file in weights.iterdir() if file.name.endswith(".npz")) < 12e6


def test_another_name_is_refused_with_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = r"prior without_lesion: no such name; expected noise_free.*mean 'without_lesions'"
    with pytest.raises(ConfigError, match=message):
        load_prior("without_lesion")
    with pytest.raises(DataError, match="no such file"):
        load_prior("absent.npz")


def test_a_prior_fits_its_own_voxels_orientation_and_tracer():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_fit(FDG, (2.0, 3.0, 40.0), (2,), "fdg")
        check_fit(FDG, (2.5, 2.5, 2.5), (2,))  # a tracer that is not known
        check_fit(PriorSettings(), (2.5, 2.5, 2.0), (0, 1, 2), "fdg")  # a prior of unknown tracers


@pytest.mark.parametrize(
    ("message", "voxel_mm", "axes"),
    [
        (r"voxels of 4 mm; the prior has 2\.5 mm: --voxel-mm 2\.5", (4.0, 4.0, 2.5), (2,)),
        (r"voxels of 2\.5 × 1 mm; the prior has 2\.5 mm", (2.5, 1.0, 2.5), (2,)),
        (r"sagittal slices; the prior was trained on transverse ones", (2.5, 2.5, 2.5), (2, 1, 0)[2:]),
        (r"coronal slices; the prior was trained on transverse ones", (2.5, 2.5, 2.5), (2, 1, 0)),
    ],
)
def test_other_voxels_and_orientations_are_refused(message, voxel_mm, axes):
    with pytest.raises(ConfigError, match=message):
        check_fit(FDG, voxel_mm, axes)


def test_another_tracer_is_warned_of_in_one_line():
    with pytest.warns(UserWarning, match="tracer dpa714; the prior was trained on fdg") as found:
        check_fit(FDG, (2.5, 2.5, 2.5), tracer="dpa714")
    assert len(found) == 1 and "\n" not in str(found[0].message)


def zeros_init(key, x, level, orientation):
    return {}


def zeros_apply(params, x, level, orientation, key=None):
    return jnp.zeros_like(x)


def test_a_network_of_zeros_has_the_error_of_the_gaussian_answer():
    """EDM's skip connection alone is the best denoiser of white images, whatever the orientations of the slices."""
    draw, sigma_data = np.random.default_rng(0), 0.7
    slices = {
        "slices": sigma_data * draw.standard_normal((60, 16, 16, 1)).astype(np.float32),
        "axes": np.repeat([0, 2], [20, 40]).astype(np.int32),
    }
    prior = Prior({}, sigma_data, vp(), Model(zeros_init, zeros_apply), PriorSettings(orientations=(0, 2)))
    found = validation_errors(prior, slices)
    assert list(found) == [f"error/{sigma:g}" for sigma in SIGMAS]
    np.testing.assert_allclose(list(found.values()), 1, atol=0.05)
    other = validation_errors(prior, slices | {"slices": 0.5 * slices["slices"]})
    assert jax.tree.all(jax.tree.map(lambda a, b: a < b, other, found))


def test_slices_are_selected_evenly():
    slices = {"slices": np.arange(30.0), "axes": np.repeat([0, 1, 2], [3, 9, 18])}
    chosen = select_evenly(slices, 12)
    np.testing.assert_array_equal(chosen["slices"], [0, 1, 2, 3, 5, 8, 11, 12, 17, 23, 29])
    np.testing.assert_array_equal(chosen["axes"], np.repeat([0, 1, 2], [3, 4, 4]))

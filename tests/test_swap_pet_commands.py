"""Parts given to `medjax pet` as FILE.py:NAME: a prior, a penalty and a network, written outside the library."""

import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from medjax.io.nifti import read_nifti, write_nifti
from medjax.pet.grid import Grid
from medjax.running.parts import load_part
from medjax.tools.pet_sample import SamplingOptions, denoiser_for_grid, prepare_prior
from tests.test_pet_command import done, medjax_command, refused

MINE = """
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from medjax.diffusion.sde import vp
from medjax.models.model import Model


class Sure:  # of the subject's MR, where there is one
    sde, multiple = vp(), 5

    def __call__(self, x, t, mr=None):
        assert x.shape[1] % 5 == 0 and x.shape[2] % 5 == 0
        return jnp.full_like(x, 1.0) if mr is None else mr


class Mean:
    sde = vp()

    def __call__(self, x, t):
        return jnp.broadcast_to(x.mean(axis=(1, 2), keepdims=True), x.shape)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Ridge:
    level: jax.Array | float

    def value(self, image):
        return jnp.sum((image - self.level) ** 2) / 2

    def gradient(self, image):
        return image - self.level

    def surrogate(self, image):
        return jnp.broadcast_to(self.level, image.shape), jnp.ones_like(image)


class Rough:
    def value(self, image):
        return jnp.sum(image)

    def gradient(self, image):
        return jnp.ones_like(image)


class Plain(Rough):
    def surrogate(self, image):
        return image, image


def along_x(shape, voxel_mm):
    return Ridge(jnp.broadcast_to(voxel_mm[0] * jnp.arange(1.0, shape[0] + 1)[:, None, None], shape))


def broken(shape, voxel_mm):
    raise KeyError("nothing\\nhere")


def init(key, slices, *inputs):
    return {"gain": jnp.ones(())}


def apply(params, slices, level, *inputs, key=None):
    return params["gain"] * slices


def net(settings):
    assert settings.size == 16
    return Model(init, apply)


prior, mean, ridge, rough, plain, three = Sure(), Mean(), Ridge(3.0), Rough(), Plain(), 3
flat = Model(init, lambda params, slices, *inputs: slices[0])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small scan of a blob, its truth and mine.py."""
    folder = tmp_path_factory.mktemp("parts")
    blob = np.exp(-((np.indices((24, 24, 1)) - np.array([14, 10, 0]).reshape(3, 1, 1, 1)) ** 2).sum(axis=0) / 20)
    write_nifti(folder / "blob.nii.gz", blob.astype(np.float32), np.diag([5.0, 5.0, 2.0, 1.0]))
    scan = ("--scanner", "ring_2d", "--trues", "1e6", "--size", "24", "--voxel-mm", "5", "--truth-dir", folder)
    done("simulate", "--activity", folder / "blob.nii.gz", *scan, "-o", folder / "counts.npz")
    return folder


@pytest.fixture
def here(folder, tmp_path, monkeypatch) -> Path:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    Path(tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def error(*options):
    said = done("reconstruct", "counts.npz", *options, "-o", "image.nii.gz")
    return float(re.search(r"NRMSE ([\d.]+) against", said.stdout)[1])


def test_a_prior_of_ones_own_is_sampled_by_the_command(here):
    """One that believes the MR: with the truth as MR the image is right, without one it knows nothing."""
    sampled = ("--method", "dds", "--iterations", "1", "--steps", "3", "--prior", "mine.py:prior")
    guided = error(*sampled, "--mr", "truth.nii.gz")
    assert guided < 0.1 and error(*sampled) > 3 * guided
    refused(here, "--prior mine.py:mean: TypeError: .*argument", "reconstruct", "counts.npz", "--method", "dds",
            "--prior", "mine.py:mean", "--mr", "truth.nii.gz", "-o", "image.nii.gz")  # fmt: skip


def test_a_prior_of_ones_own_serves_all_orientations_in_turn(here):
    part, grid = load_part("mine.py:mean", "--prior"), Grid((8, 8, 8), (2.0, 2.0, 2.0))
    sampling = SamplingOptions(part, perpendicular=True)
    denoiser = denoiser_for_grid(prepare_prior(sampling, grid), grid, perpendicular=True)
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 8)).astype(np.float32)
    for step, within in ((0, (1, 2)), (1, (1, 3)), (2, (2, 3)), (3, (1, 2))):  # across z, y, x, z
        expected = np.broadcast_to(x.mean(axis=within, keepdims=True), x.shape)
        found = denoiser.at_step(jnp.asarray(step), jnp.asarray(x), jnp.ones(1))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_penalty_of_ones_own_in_map_em(here):
    """So strong a one that the data do not matter: β is its weight as it is."""
    strong = ("--method", "map-em", "--beta", "1e8", "--iterations", "2")
    said = done("reconstruct", "counts.npz", *strong, "--penalty", "mine.py:ridge", "-o", "ridge.nii")
    assert "MAP-EM, 2 iterations × 7 subsets, mine.py:ridge, β = 1e+08: " in said.stdout
    np.testing.assert_allclose(read_nifti("ridge.nii").array, 3.0, rtol=1e-3)
    done("reconstruct", "counts.npz", *strong, "--penalty", "mine.py:along_x", "-o", "x.nii")
    np.testing.assert_allclose(read_nifti("x.nii").array[:, 7, 0], 5.0 * np.arange(1, 25), rtol=1e-3)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("--penalty mine.py:rough: MAP-EM needs a penalty with surrogate, value; Rough has no surrogate",
         ["--method", "map-em", "--penalty", "mine.py:rough"]),
        ("mine.py:plain: Plain is not a pytree; expected", ["--method", "map-em", "--penalty", "mine.py:plain"]),
        ("--penalty mine.py:broken: KeyError: 'nothing.*; expected value, gradi",
         ["--method", "map-em", "--penalty", "mine.py:broken"]),
        ("--penalty mine.py:three: TypeError: 'int' object", ["--method", "map-em", "--penalty", "mine.py:three"]),
        ("--penalty goes with --method map-em, svrg or bsrem, not with osem", ["--penalty", "mine.py:ridge"]),
        ("--penalty replaces the MR-guided penalty of --mr",
         ["--method", "map-em", "--penalty", "mine.py:ridge", "--mr", "truth.nii.gz"]),
        ("--penalty mine.py:rigde: mine.py has no rigde; did you mean 'ridge'",
         ["--method", "map-em", "--penalty", "mine.py:rigde"]),
        ("--prior mine.py:three: denoiser: int; expected a callable", ["--method", "dds", "--prior", "mine.py:three"]),
        ("--network goes with the file of a prior",
         ["--method", "dds", "--prior", "mine.py:prior", "--network", "mine.py:net"]),
        ("--prior, --network, .* go with split-gibbs, dds-cg, dds or ", ["--prior", "mine.py:prior"]),
    ],
)  # fmt: skip
def test_parts_that_cannot_be_used(here, message, options):
    refused(here, message, "reconstruct", "counts.npz", *options, "-o", "image.nii.gz")


TRAIN = ("blob.nii.gz", "--size", "16", "--voxel-mm", "5", "--batch", "2", "--steps", "2")


def test_a_network_of_ones_own_is_remembered_by_name_and_content(here):
    train = ("train-prior", "-o", "own", *TRAIN, "--network", "mine.py:net")
    done(*train)
    kept = json.loads(Path("own/config.json").read_text())["network"]
    assert kept == load_part("mine.py:net").identity
    sampled = ("reconstruct", "counts.npz", "--method", "dds", "--steps", "2", "--prior", "own/prior.npz")
    again = (*sampled, "--network", "mine.py:net", "-o", "image.nii.gz")
    done(*again)
    assert np.isfinite(read_nifti("image.nii.gz").array).all()
    refused(here, r"prior.npz: its network is 'mine.py:net', not one of medjax; pass", *sampled, "-o", "image.nii.gz")
    Path("mine.py").write_text(MINE.replace('params["gain"] * slices', '2 * params["gain"] * slices'))
    edited = load_part("mine.py:net").sha256
    refused(here, rf"trained with mine.py:net of SHA-256 {kept['sha256'][:8]}…; .* {edited[:8]}…", *again)
    result = medjax_command(*train)
    assert result.exit_code == 2 and "own belongs to another config: network.sha256" in result.stderr


@pytest.mark.parametrize(
    ("message", "network"),
    [
        ("--network mine.py:net: AssertionError", "net"),
        ("--network mine.py:three: TypeError: .*; expected a Model", "three"),
        ("--network mine.py:flat: .* from slices of .* expected their shape", "flat"),
    ],
)
def test_networks_that_cannot_be_trained(here, message, network):
    size = ("--size", "24") if network == "net" else ()
    refused(here, message, "train-prior", "-o", "own", *TRAIN, *size, "--network", f"mine.py:{network}")

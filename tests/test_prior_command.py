"""`medjax pet train-prior`, and `reconstruct` with a prior: real commands on small files; bad input is one line."""

import json
import warnings
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from medjax.diffusion.prior import PriorSettings
from medjax.diffusion.prior_file import load_prior
from medjax.diffusion.score_matching import normalize_intensity
from medjax.diffusion.sde import vp
from medjax.errors import ConfigError, DataError
from medjax.io.nifti import read_nifti, write_nifti
from medjax.metrics.image import nrmse
from medjax.running.workdir import append_jsonl
from medjax.tools import pet_prior, pet_sample
from medjax.tools.pet_reconstruct import reconstruct
from medjax.tools.pet_sample import SamplingOptions
from medjax.tools.pet_settings import ReconstructionSettings as How
from tests.test_pet_command import done, medjax_command

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    pytest.importorskip("nilearn")
    folder = tmp_path_factory.mktemp("scan")
    done(
        "simulate", "--scanner", "ring_2d", "--planes", "1", "--slice-mm", "20", "--trues-per-mm3", "50",
        "--size", "96", "--voxel-mm", "2.5", "--truth-dir", folder, "-o", folder / "counts.npz",
    )  # fmt: skip
    return folder


def error_of(folder):
    truth = read_nifti(folder / "truth.nii.gz").array
    return float(nrmse(read_nifti(folder / "image.nii.gz").array, truth, truth > 0.3))


@pytest.mark.optimized
@pytest.mark.parametrize(
    ("method", "most"), [("likelihood-schedule", 0.4), ("dds", 0.45), ("dds-cg", 0.3), ("split-gibbs", 0.3)]
)
def test_reconstruct_samples_the_shipped_prior(method, most, scan, tmp_path):
    iterations, steps = {"likelihood-schedule": ("40", "8"), "dds": ("4", "8")}.get(method, ("2", "4"))
    files = ("--method", method, "--iterations", iterations, "--steps", steps, "--samples", "2")
    said = done("reconstruct", scan / "counts.npz", *files, "-o", scan / "image.nii.gz")
    assert "2 samples" in said.stdout
    assert error_of(scan) < most
    spread = read_nifti(scan / "image_sd.nii.gz").array
    assert np.isfinite(spread).all() and spread.max() > 0
    first = (scan / "image.nii.gz").read_bytes()
    done("reconstruct", scan / "counts.npz", *files, "-o", scan / "image.nii.gz")
    assert (scan / "image.nii.gz").read_bytes() == first


class Sure:
    """The denoiser of a prior that is sure of one image, N(mean, 0): of no class of the library."""

    sde = vp()

    def __init__(self, mean):
        self.mean = mean

    def __call__(self, x, t):
        return jnp.broadcast_to(self.mean, x.shape)


def test_a_denoiser_of_ones_own_takes_the_priors_place(scan):
    """One that is sure of the truth gives the truth, whatever voxels; other numbers are no other program."""
    truth = read_nifti(scan / "truth.nii.gz").array
    denoiser = Sure(normalize_intensity(jnp.asarray(truth))[..., 0])

    def error(method, updates, seed, prior=denoiser, **options):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*expected trues")  # of denoisers that know another image
            made = reconstruct(
                scan / "counts.npz", How(method, updates, sampling=SamplingOptions(prior, 3, 1, seed, **options))
            )
        assert made.files == () and made.sd is None and made.counts > 1e4
        return float(nrmse(made.image, truth, truth > 0.3))

    before = pet_sample._one._cache_size()
    assert error("dds", 1, 0) < 0.15 and error("dds", 2, 1) < 0.2
    assert pet_sample._one._cache_size() == before + 1
    assert error("dds", 1, 0, Sure(1.0)) > 0.3
    with pytest.raises(ConfigError, match="go with split-gibbs, dds-cg, dds or likelihood-schedule"):
        error("osem", 1, 0)
    with pytest.raises(ConfigError, match="--network goes with the file of a prior"):
        error("dds", 1, 0, network=denoiser)
    with pytest.raises(ConfigError, match="expected a callable"):
        error("dds", 1, 0, 3)
    with pytest.raises(ConfigError, match="--prior Sure: ValueError: Incompatible"):
        error("dds", 1, 0, Sure(jnp.ones((5, 5))))


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("the prior has 2.5 mm", ["--method", "dds", "--voxel-mm", "5"]),
        ("expected 8 or more", ["--method", "dds", "--perpendicular"]),
        ("go with split-gibbs, dds-cg, dds or likelihood-schedule", ["--method", "osem", "--samples", "3"]),
        ("uses all data in every update", ["--method", "dds", "--subsets", "7"]),
        ("--samples 0; expected 1 or more", ["--method", "dds", "--samples", "0"]),
        ("absent.npz", ["--method", "dds", "--prior", "absent.npz"]),
        ("the prior was trained without MR", ["--method", "dds", "--mr", "SCAN/truth.nii.gz"]),
    ],
)
def test_what_does_not_fit_is_refused(message, arguments, scan, tmp_path):
    arguments = [one.replace("SCAN", str(scan)) for one in arguments]
    result = medjax_command("reconstruct", scan / "counts.npz", *arguments, "-o", tmp_path / "image.nii.gz")
    assert result.exit_code == 2 and message in result.stderr, result.output
    assert not list(tmp_path.iterdir())


def images(folder, number=3):
    for k in range(number):
        array = np.zeros((20, 24, 18), np.float32)
        array[4 + k : 16, 5:18, 3:15] = 2.0 + k
        write_nifti(folder / f"subject_{k}.nii.gz", array, AFFINE)
    return sorted(folder.glob("subject_*.nii.gz"))


SMALL = ((8,), 1, (), 1)  # widths, blocks, levels that attend, patch
TRAIN = ("--size", "16", "--voxel-mm", "4", "--batch", "2", "--rate", "0.001")


@pytest.fixture
def small_network(monkeypatch):
    """`train-prior` with a small network: the only thing of its settings that no option says."""
    monkeypatch.setattr("medjax.diffusion.prior.PriorSettings", partial(PriorSettings, *SMALL))


def test_train_prior_on_images_of_ones_own(tmp_path, small_network):
    train = (*TRAIN, "--steps", "7", "--tracer", "amyloid")
    said = done("train-prior", "-o", tmp_path / "prior", *images(tmp_path), *train)
    assert "prior.npz" in said.stdout
    settings = load_prior(tmp_path / "prior" / "prior.npz").settings
    assert settings.size == 16 and settings.voxel_mm == 4
    assert settings.tracers == ("amyloid",) and settings.kind == ""
    (line,) = (tmp_path / "prior" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 7
    again = done("train-prior", "-o", tmp_path / "prior", *images(tmp_path), *train)
    assert "continuing after step 7" in again.stdout


def test_a_killed_training_goes_on_bit_for_bit(tmp_path, monkeypatch):
    """Killed between two checkpoints, then between the last checkpoint and the prior's file."""
    files, settings = images(tmp_path), PriorSettings(*SMALL, 16, 4.0)

    def train(folder):
        trained = pet_prior.train(tmp_path / folder, files, 0, settings=settings, steps=7, batch=2, every=1)
        return trained.file.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    def append(work, row):
        append_jsonl(work, row)
        if row["step"] == 6:
            killed()

    def steps():
        return [json.loads(line)["step"] for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()]

    whole = train("whole")
    with monkeypatch.context() as patch:
        patch.setattr(pet_prior, "append_jsonl", append)
        with pytest.raises(KeyboardInterrupt):
            train("killed")
    early = (tmp_path / "killed" / "prior.npz").read_bytes()  # of the checkpoint of step 5
    assert steps() == [1, 2, 3, 4, 5, 6] and early != whole
    with monkeypatch.context() as patch:
        patch.setattr(pet_prior, "save_prior", killed)
        with pytest.raises(KeyboardInterrupt):
            train("killed")
    assert (tmp_path / "killed" / "prior.npz").read_bytes() == early
    assert train("killed") == whole
    assert steps() == [1, 2, 3, 4, 5, 6]  # each once; of step 7 the kill came first
    (tmp_path / "killed" / "prior.npz").unlink()
    assert train("killed") == whole, "what is reported as written is written, also if no step was left"


def test_a_training_that_diverges_says_what_to_try(tmp_path):
    with pytest.raises(DataError, match=r"the .* is not finite by step \d; try a smaller learning rate"):
        settings = PriorSettings(*SMALL, 16, 4.0)
        pet_prior.train(tmp_path / "p", images(tmp_path), settings=settings, steps=7, batch=2, rate=1000.0, every=1)


def test_train_prior_beside_mr_images_and_sample_with_one(scan, tmp_path, small_network):
    files = images(tmp_path)
    (tmp_path / "mr").mkdir()
    for file in files:
        write_nifti(tmp_path / "mr" / file.name, 7 * read_nifti(file).array, AFFINE)
    train = (*TRAIN, "--steps", "2", "--mr", tmp_path / "mr")
    done("train-prior", "-o", tmp_path / "prior", *files, *train)
    assert load_prior(tmp_path / "prior" / "prior.npz").settings.mr_guided
    prior = ("--prior", tmp_path / "prior" / "prior.npz", "--mr", scan / "truth.nii.gz")
    size = ("--voxel-mm", "4", "--size", "32", "--steps", "3")
    done("reconstruct", scan / "counts.npz", "--method", "dds", *prior, *size, "-o", tmp_path / "image.nii.gz")
    assert np.isfinite(read_nifti(tmp_path / "image.nii.gz").array).all()


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("--mr goes with your own images", ["--phantoms", "3", "--mr", "."]),
        ("expected either NIfTI images or --phantoms N", []),
        ("expected either NIfTI images or --phantoms N", ["subject_0.nii.gz", "--phantoms", "3"]),
        ("need a multiple of 8", ["subject_0.nii.gz", "--size", "30"]),
        ("--kind osm; expected noise_free, osem, without_lesions", ["--phantoms", "3", "--kind", "osm"]),
        ("--kind osem goes with --phantoms", ["subject_0.nii.gz", "--kind", "osem"]),
        ("--tracer goes with your own images", ["--phantoms", "3", "--tracer", "fdg"]),
        ("prior noise_fre: no such name", ["subject_0.nii.gz", "--start", "noise_fre"]),
        ("no voxel is above 0", ["empty.nii.gz", "--size", "24"]),
        ("absent.nii.gz", ["absent.nii.gz"]),
    ],
)
def test_images_that_cannot_be_learnt_from_are_refused(message, arguments, tmp_path, monkeypatch):
    images(tmp_path, 1)
    write_nifti(tmp_path / "empty.nii.gz", np.zeros((9, 9, 9), np.float32), AFFINE)
    monkeypatch.chdir(tmp_path)
    result = medjax_command("train-prior", "-o", "prior", *arguments)
    assert result.exit_code == 2 and message in result.stderr, result.output

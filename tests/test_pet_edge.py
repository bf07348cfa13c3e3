"""`medjax pet`: an output is never an input, an image is one that its counts allow, maps cover the emission."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.diffusion.denoiser import as_denoiser
from medjax.diffusion.sde import vp
from medjax.errors import ConfigError, DataError
from medjax.io.counts import Counts, read_counts, write_counts
from medjax.io.interfile import write_sinogram
from medjax.io.nifti import read_nifti, write_nifti
from medjax.pet import em
from medjax.pet.acquisition import acquire, ordered_subsets
from medjax.pet.grid import Grid
from medjax.pet.psf import gaussian_psf
from medjax.pet.scanner import lors, parallel_lors, preset
from medjax.pet.system import build_system
from medjax.tools import pet_sample
from medjax.tools.checks import check_position
from medjax.tools.pet_checks import check_image, early_emission
from medjax.tools.pet_simulate import simulate
from tests.test_pet_command import done, medjax_command, refused

SIZE = ["--size", "48", "--voxel-mm", "5"]
AFFINE = np.diag([5.0, 5.0, 4.0625, 1.0])
AFFINE[:3, 3] = -117.5, -117.5, 0
X, Y = np.meshgrid(*[np.arange(48) * 5.0 - 117.5] * 2, indexing="ij")
DISC = (np.hypot(X, Y) < 80).astype(np.float32)[..., None]


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    """A folder with counts of a disc: few.npz of 300, c.npz of 300,000, bare.npz without attenuation in its factors."""
    folder = tmp_path_factory.mktemp("disc")
    write_nifti(folder / "a.nii.gz", DISC, AFFINE)
    write_nifti(folder / "mu.nii.gz", 0.0096 * DISC, AFFINE)
    files = ["--activity", folder / "a.nii.gz", "--mu", folder / "mu.nii.gz", "--scanner", "ring_2d", *SIZE]
    for name, trues in {"few": "300", "c": "3e5"}.items():
        done("simulate", *files, "--background", "0", "--trues", trues, "-o", folder / f"{name}.npz")
    full = read_counts(folder / "c.npz")
    factors = np.full_like(full.multiplicative, full.multiplicative.max())
    metadata = full.metadata | {"corrections": []}
    write_counts(folder / "bare.npz", Counts(full.counts, full.additive, factors, "ring_2d", metadata))
    return folder


@pytest.fixture
def here(scan, tmp_path, monkeypatch) -> Path:
    for file in scan.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ── an output is never an input ──


@pytest.mark.parametrize(
    ("output", "arguments"),
    [
        ("mu.nii.gz", ["reconstruct", "bare.npz", "--mu", "mu.nii.gz", *SIZE]),
        ("link.nii.gz", ["reconstruct", "bare.npz", "--mu", "mu.nii.gz", *SIZE]),
        ("t1.nii.gz", ["reconstruct", "bare.npz", "--method", "map-em", "--mr", "t1.nii.gz", *SIZE]),
        ("a.nii.gz", ["reconstruct", "bare.npz", "--method", "map-em", "--mr", "a_sd.nii.gz", *SIZE]),
        ("c.npz", ["simulate", "--activity", "c.npz"]),
        ("new.npz", ["simulate", "--activity", "truth.nii.gz", "--truth-dir", "."]),
        ("new.npz", ["simulate", "--activity", "a.nii.gz", "--mu", "mu.nii.gz", "--truth-dir", "."]),
        ("p", ["train-prior", "a.nii.gz", "--start", "p/prior.npz"]),
    ],
)
def test_an_output_that_is_an_input_is_refused(here, output, arguments):
    (here / "link.nii.gz").symlink_to("mu.nii.gz")
    for name in ("t1", "a_sd", "truth"):
        (here / f"{name}.nii.gz").write_bytes((here / "a.nii.gz").read_bytes())
    (here / "p").mkdir()
    (here / "p" / "prior.npz").write_bytes(b"")
    refused(here, "is the input .*; expected another name for the output", *arguments, "-o", output)


def test_raw_data_of_a_header_are_inputs_too(here):
    """The data file may have any name: here that of the figure beside the image."""
    write_sinogram("c.hs", np.moveaxis(read_counts("c.npz").counts, 2, 0), max_ring_difference=0)
    Path("c.s").rename("out.png")
    Path("c.hs").write_text(Path("c.hs").read_text().replace("c.s", "out.png"))
    refused(here, "out.png: is the input out.png", "reconstruct", "c.hs", "--scanner", "ring_2d", "-o", "out.nii")


# ── what the counts allow ──


def test_few_counts_take_fewer_subsets_by_default_and_too_many_are_refused(here):
    said = done("reconstruct", "few.npz", "-o", "few.nii")
    assert said.stdout.count("OSEM, 30 iterations: ") == 1 and said.stderr == ""
    counts = read_counts("few.npz")
    image = read_nifti("few.nii").array
    assert image.sum() == pytest.approx(counts.truth.sum(), rel=4 / 300**0.5)  # the scale makes the truth expected
    write_counts("less.npz", Counts(np.minimum(counts.counts, np.indices(counts.counts.shape)[0] % 6 == 0),
                                    counts.additive, counts.multiplicative, "ring_2d", counts.metadata))  # fmt: skip
    message = (
        "osem: the image's expected trues are .*, its counts beyond the background .*; nothing is written: use fewer"
    )
    result = medjax_command("reconstruct", "less.npz", "--subsets", "21", "-o", "less.nii")
    assert result.exit_code == 2 and re.search(message, result.stderr) and not Path("less.nii").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"multiplicative": 1e30}, "expected trues are 0, .* look at the scale of the factors"),
        ({"multiplicative": 1e36}, "sensitivity is 0 in the whole image or infinite"),
        (
            {"additive": 100.0},
            r"c2\.npz: expected background .* if it is divided by the multiplicative factors, as in STIR",
        ),
    ],
)
def test_factors_that_leave_nothing_are_refused(here, change, message):
    counts = read_counts("c.npz")
    arrays = {"multiplicative": counts.multiplicative * np.float32(change.get("multiplicative", 1))}
    arrays["additive"] = np.full_like(counts.additive, change.get("additive", 0))
    write_counts("c2.npz", Counts(counts.counts, scanner="ring_2d", metadata=counts.metadata, **arrays))
    result = medjax_command("reconstruct", "c2.npz", "--subsets", "7", *SIZE, "-o", "x.nii")
    assert result.exit_code == 2 and re.search(message, result.stderr), result.stderr
    assert not Path("x.nii").exists()


@pytest.fixture(scope="module")
def acquisition():
    grid = Grid((24, 24, 1), (5.0, 5.0, 5.0))
    return acquire(
        build_system(parallel_lors(24, 31, 5.0), grid), jnp.full((24, 31, 1), 4.0), 1.0, 1.0, gaussian_psf(grid, 6.0)
    )


def test_an_image_is_checked_against_its_counts(acquisition):
    image = np.ones((24, 24, 1), np.float32)
    net = 3.0 * int((acquisition.forward(jnp.asarray(image)) > 0).sum())  # those on other lines are none of its
    assert 2000 < net < 24 * 31 * 3.0
    image *= net / float(acquisition.forward(jnp.asarray(image)).sum())
    for fraction in (1.0, 0.9, 1.1):  # 4 standard deviations are a tenth
        check_image(acquisition, image * np.float32(fraction), "osem")
    for penalized, remedy in ((False, "fewer --subsets or more"), (True, "a smaller --beta")):
        with pytest.warns(UserWarning, match=f"expected trues are {0.8 * net:,.0f}, .* {net:,.0f}: use {remedy}"):
            check_image(acquisition, image * np.float32(0.8), "osem", penalized=penalized)
    with pytest.warns(UserWarning, match=f"expected trues are {0.8 * net:,.0f}, .* {net:,.0f}: use fewer"):
        check_image(ordered_subsets(acquisition, 3), image * np.float32(0.8), "osem")
    for factor in (0.5, 1.6, 0.0):
        with pytest.raises(DataError, match="nothing is written"):
            check_image(acquisition, image * np.float32(factor), "osem")
    with pytest.raises(DataError, match="map-em: the image's expected trues are 0"):
        check_image(acquisition, 0 * image, "map-em", penalized=True)


def test_noise_of_much_background_may_stay_in_an_image(acquisition):
    """Of 97 % background MLEM keeps 26 % more trues than net counts where these are 100,000, and 140 % at 1,000."""
    data = acquire(acquisition.system, 100 + 0 * acquisition.counts, 1.0, 97.0, acquisition.psf)
    image = np.ones((24, 24, 1), np.float32)
    net = 3.0 * int((data.forward(jnp.asarray(image)) > 0).sum())
    image *= net / float(data.forward(jnp.asarray(image)).sum())
    check_image(data, image * np.float32(1.5), "osem")
    with pytest.warns(UserWarning, match="osem: .*: noise of a background of 97%, as no voxel is below 0"):
        check_image(data, image * np.float32(2.5), "osem")
    for factor in (0.0, 0.05):  # noise explains neither
        with pytest.raises(DataError, match="nothing is written"):
            check_image(data, image * np.float32(factor), "osem")


def test_samples_are_checked_too(here, monkeypatch):
    monkeypatch.setattr(pet_sample, "_one", lambda *_: pet_sample.reconstruct.Sample(jnp.zeros((96, 96, 1)), 0, None))
    own = "class S:\n    sde = vp()\n    def __call__(self, x, t):\n        return x"
    Path("mine.py").write_text(f"from medjax.diffusion.sde import vp\n{own}\ns = S()\n")
    options = ["--method", "dds", "--prior", "mine.py:s", "--size", "96", "--voxel-mm", "2.5"]
    result = medjax_command("reconstruct", "c.npz", *options, "-o", "x.nii")
    assert result.exit_code == 2 and "dds: the image's expected trues are 0" in result.stderr


def test_likelihood_schedule_takes_its_target_from_the_iteration_that_is_asked_for(acquisition):
    """More than 200 iterations: the deviance of that iterate of MLEM, made here one by one."""

    class Same:
        sde = vp()

        def __call__(self, x, t):
            return x

    first = em.init(acquisition).image
    counts = acquisition.counts * (1 + jnp.arange(24.0)[:, None, None] % 3)
    noisy = acquire(acquisition.system, counts, 1.0, 1.0, acquisition.psf)
    problem = pet_sample._problem(noisy, as_denoiser(Same()), first)
    guided = pet_sample._guided("likelihood-schedule", problem, jnp.asarray(230), 2, 230)
    state = first
    update = jax.jit(noisy.update)
    for _ in range(230):
        state = update(state)
    target = guided.guided_denoiser.args[2][-1]
    assert float(target) == pytest.approx(float(noisy.deviance(noisy.expected(state))), rel=1e-4)


# ── maps ──


@pytest.mark.parametrize(
    ("factor", "voxels", "covered"),
    [(0.001, slice(None), "0%"), (0.1, slice(None), r"\d%"), (1, slice(24), "[45]\\d%")],
)
def test_maps_in_other_units_or_of_half_the_object_are_refused(here, factor, voxels, covered):
    affine = np.diag([factor, factor, factor, 1]) @ AFFINE
    write_nifti("m.nii.gz", 0.0096 * DISC[voxels], affine)
    message = f"m.nii.gz: (covers {covered} of the emission|0 in the whole image grid)"
    before = {*here.iterdir()}
    result = medjax_command("reconstruct", "bare.npz", "--mu", "m.nii.gz", "--subsets", "7", *SIZE, "-o", "x.nii")
    assert result.exit_code == 2 and re.search(message, result.stderr), result.stderr
    assert {*here.iterdir()} == before


def test_a_map_of_the_whole_object_covers_its_emission(here):
    said = done("reconstruct", "bare.npz", "--mu", "mu.nii.gz", "--subsets", "7", *SIZE, "-o", "x.nii")
    assert re.search(r"mu.nii.gz: covers (9\d|100)% of the emission", said.stdout) and said.stderr == ""
    assert "no attenuation" not in said.stdout
    assert read_nifti("x.nii").array[14:34, 14:34].mean() == pytest.approx(1, rel=0.03)


def test_a_simulation_needs_a_map_of_its_object(here):
    write_nifti("m.nii.gz", 0.0096 * DISC[:20], AFFINE)
    refused(here, "covers 3[0-9]% of the emission", "simulate", "--activity", "a.nii.gz", "--mu", "m.nii.gz",
            "--scanner", "ring_2d", *SIZE, "-o", "new.npz")  # fmt: skip


# ── what is written ──


def test_metadata_say_which_corrections_the_factors_hold(here):
    assert read_counts("c.npz").metadata["corrections"] == ["attenuation"]
    done("simulate", "--activity", "a.nii.gz", "--scanner", "ring_2d", *SIZE, "-o", "plain.npz")
    assert read_counts("plain.npz").metadata["corrections"] == []
    refused(here, "the metadata of plain.npz say that its counts are not attenuated",
            "reconstruct", "plain.npz", "--mu", "mu.nii.gz", "-o", "x.nii")  # fmt: skip


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("total trues: .*, up to .* counts a bin", ["--trues", "1e30"]),
        ("total trues: .*, up to .* counts a bin", ["--trues-per-mm3", "1e38"]),
        ("--centre or --slice-mm 1e\\+39,0,0; expected mm, finite numbers within", ["--centre", "1e39,0,0"]),
        ("--centre or --slice-mm 0,0,1e\\+39; expected mm", ["--slice-mm", "1e39", "--centre", "0,0,0"]),
    ],
)
def test_simulations_beyond_numbers_are_refused(here, message, options):
    refused(here, message, "simulate", "--activity", "a.nii.gz", "--scanner", "ring_2d", *SIZE, *options, "-o", "n.npz")


def test_positions_beyond_numbers_are_refused(here):
    refused(here, "--centre 1e\\+39,0,0; expected mm", "reconstruct", "c.npz", "--centre", "1e39,0,0", "-o", "x.nii")
    with pytest.raises(ConfigError, match="--centre nan,0,0"):
        check_position((float("nan"), 0.0, 0.0), "--centre")


def test_a_simulation_writes_all_its_files_or_none(here, monkeypatch):
    (here / "truth").mkdir()
    (here / "truth" / "t1.nii.gz").write_bytes(b"of another")
    before = {file: file.read_bytes() for file in here.rglob("*") if file.is_file()}
    options = {"activity": "a.nii.gz", "scanner": "ring_2d", "size": 48, "voxel_mm": 5.0, "truth_dir": "truth"}

    def fail(*_):
        raise DataError("truth cannot be written")

    with monkeypatch.context() as context, pytest.raises(DataError, match="truth cannot"):
        context.setattr("medjax.tools.pet_counts_output.write_nifti", fail)
        simulate("new.npz", **options)
    assert {file: file.read_bytes() for file in here.rglob("*") if file.is_file()} == before
    with pytest.warns(UserWarning, match=r"truth/t1\.nii\.gz: was there before, not of this simulation; it stays"):
        files = simulate("new.npz", **options).files
    assert [str(file) for file in files] == ["new.npz", "truth/truth.nii.gz"]
    assert {file.name for file in (here / "truth").iterdir()} == {"truth.nii.gz", "t1.nii.gz"}
    assert (here / "truth" / "t1.nii.gz").read_bytes() == b"of another"  # what is not written is not deleted


def test_the_early_emission_is_where_the_object_is(scan):
    counts = read_counts(scan / "bare.npz")
    grid = Grid((48, 48, 1), (5.0, 5.0, 4.0625))
    data = acquire(
        build_system(lors(preset("ring_2d")), grid), *map(jnp.asarray, (counts.counts, counts.multiplicative))
    )
    emission = early_emission(ordered_subsets(data, 7), em.init(data), grid)
    assert ((emission > 0) == (DISC > 0)).mean() > 0.93

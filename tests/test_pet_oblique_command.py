"""`medjax pet` in 3-D: oblique planes with time of flight there and back, its methods, units, and what is refused."""

import re

import numpy as np
import pytest

from medjax.errors import ConfigError
from medjax.io.counts import read_counts
from medjax.io.nifti import read_nifti, write_nifti
from medjax.pet.scanner import PRESETS, Scanner
from medjax.tools.pet_quantify import Units, unit_factor
from tests.test_pet_command import done, medjax_command

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
SMALL = Scanner(
    "small", crystals=144, rings=8, radius_mm=160.0, depth_mm=5.0, ring_spacing_mm=4.0, bins=96, voxel_mm=4.0, block=9
)


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "small", SMALL)
        yield


@pytest.fixture(scope="module")
def ball(tmp_path_factory, small):
    """A folder with the counts of a ball with a hot spot, in oblique planes with time of flight, and its truth."""
    folder = tmp_path_factory.mktemp("ball")
    x, y, z = np.meshgrid(*[np.arange(-20, 21) * 4.0] * 2, np.arange(-4, 5) * 2.0, indexing="ij", sparse=True)
    image = (np.hypot(x, y) < 60) + 2.0 * (np.hypot(x - 30, y) < 15) + 0 * z
    affine = np.diag([4.0, 4.0, 2.0, 1.0])
    affine[:3, 3] = -80, -80, -8
    write_nifti(folder / "activity.nii.gz", image.astype(np.float32), affine)
    write_nifti(folder / "guide.nii.gz", (image + 1).astype(np.float32), affine)
    made = done(
        "simulate", "--activity", folder / "activity.nii.gz", "--scanner", "small", "--planes", 5, "--span", 3, "--tof",
        "3,900,600", "--size", 24, "--voxel-mm", 6, "--trues", 400_000, "-o", folder / "counts.npz",
    )  # fmt: skip
    assert "in small, 7 planes about 0, 0, 0 mm" in made.stdout
    return folder


def test_time_of_flight_there_and_back(ball, tmp_path):
    counts = read_counts(ball / "counts.npz")
    assert counts.counts.shape == (72, 96, 7, 3) and counts.multiplicative.shape == (72, 96, 7)
    assert counts.metadata["segments"] == [[-1, 1], [2, 2], [-2, -2]] and counts.metadata["tof"]["bin_ps"] == 900
    middle, ends = counts.counts[..., 1].sum(), counts.counts[..., [0, 2]].sum()
    assert middle > 0.8 * ends / 2  # ±67 mm of the middle hold most of it
    errors = {}
    for name, options in {
        "osem": ["--subsets", "9", "--iterations", "2"],
        "svrg": ["--method", "svrg", "--penalty", "relative-difference", "--subsets", "9", "--iterations", "4"],
        "kernel-em": ["--method", "kernel-em", "--mr", ball / "guide.nii.gz", "--subsets", "9", "--iterations", "2"],
    }.items():
        said = done("reconstruct", ball / "counts.npz", *options, "-o", tmp_path / f"{name}.nii.gz")
        errors[name] = float(re.search(r"NRMSE ([\d.]+)", said.stdout)[1])
        assert read_nifti(tmp_path / f"{name}.nii.gz").array.shape == (24, 24, 5)
    assert max(errors.values()) < 0.25, errors


def test_units_are_the_closed_form():
    """1 image unit in 100 s at 2000 (Bq/ml)/(1/s): 20 Bq/ml, more by positron fraction and decay; SUV by the dose."""
    factor, unit = unit_factor(Units(2000.0, 100.0))
    assert unit == "kBq/ml" and factor == pytest.approx(0.02 / 0.967, rel=0.01)
    suv, unit = unit_factor(Units(2000.0, 100.0, dose_mbq=100.0, weight_kg=50.0))
    assert unit == "SUV, g/ml" and suv == pytest.approx(factor * 1000 / (100e6 / 50e3), rel=1e-6)
    later = unit_factor(Units(2000.0, 100.0, dose_mbq=100.0, weight_kg=50.0, delay_s=109.77 * 60))[0]
    assert later == pytest.approx(2 * suv, rel=1e-3)
    frame = unit_factor(Units(2000.0, 100.0, per_second=True))[0]
    assert frame == pytest.approx(100 * factor)
    with pytest.raises(ConfigError, match="expected both or neither"):
        unit_factor(Units(2000.0, 100.0, dose_mbq=100.0))


def test_an_image_in_suv(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", np.arange(64, dtype=np.float32).reshape(4, 4, 4), AFFINE)
    options = ("--calibration", 2000, "--duration-s", 100, "--dose-mbq", 100, "--weight-kg", 50)
    said = done("quantify", tmp_path / "a.nii.gz", *options, "-o", tmp_path / "suv.nii.gz")
    factor = unit_factor(Units(2000.0, 100.0, dose_mbq=100.0, weight_kg=50.0))[0]
    np.testing.assert_allclose(read_nifti(tmp_path / "suv.nii.gz").array.max(), 63 * factor, rtol=1e-5)
    assert said.stdout.startswith(f"up to {63 * factor:.3g} SUV, g/ml; wrote ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kvp", "120"], "--kvp 120 goes with --ct"),
        (["--ct", "guide.nii.gz", "--mu", "guide.nii.gz"], "--ct and --mu; expected one"),
        (["--scatter", "430,610"], "--scatter 430,610; expected LOWER,UPPER,RESOLUTION"),
        (["--scatter", "610,430,15"], "expected the lower level first"),
        (["--scatter", "430,610,15"], "--scatter needs --mu or --ct"),
        (["--list-mode"], "--list-mode goes with list mode"),
        (["--frames", "60"], "--frames goes with list mode"),
        (["--span", "11"], "--span 11; the planes of .* have span 3"),
        (["--sum-planes", "2"], "--sum-planes 2 goes with direct planes"),
        (["--subsets", "11"], "--subsets 11; expected one of"),
        (["--subsets", "504"], "--subsets 504; expected one of"),
        (["--method", "kernel-em"], "--method kernel-em needs --mr"),
        (["--method", "map-em", "--penalty", "relative-difference"], "has no surrogate for map-em"),
        (["--method", "svrg", "--penalty", "relativ"], "did you mean 'relative-difference'"),
        (["--method", "osem", "--beta", "1"], "--beta goes with --method map-em, svrg or bsrem"),
    ],
)
def test_reconstructions_that_are_refused(ball, tmp_path, monkeypatch, options: list[str], message: str):
    monkeypatch.chdir(ball)
    result = medjax_command("reconstruct", "counts.npz", *options, "-o", tmp_path / "a.nii.gz")
    assert result.exit_code == 2 and re.search(rf"^medjax: .*{message}", result.stderr, re.M), result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tof", "13,0.3125,580", "--span", "3"], r"bin width of 0\.3125 ps; .*312\.5 ps if it was meant in ns"),
        (["--tof", "13,312.5", "--span", "3"], "expected BINS,WIDTH,RESOLUTION in ps"),
        (["--tof", "13,312.5,580"], "--tof goes with --span"),
        (["--max-ring-difference", "3"], "--max-ring-difference goes with --span"),
        (["--span", "4"], "span 4; expected an odd number"),
        (["--span", "1", "--max-ring-difference", "70"], "maximum ring difference 70; expected 0 to"),
    ],
)
def test_simulations_that_are_refused(ball, tmp_path, options: list[str], message: str):
    shape = ("--scanner", "mmr", "--planes", 5, "--size", 24, "--voxel-mm", 6)
    result = medjax_command(
        "simulate", "--activity", ball / "activity.nii.gz", *shape, *options, "-o", tmp_path / "a.npz"
    )
    assert result.exit_code == 2 and re.search(rf"^medjax: .*{message}", result.stderr, re.M), result.stderr
    assert not list(tmp_path.iterdir())

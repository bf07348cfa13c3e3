"""What `medjax ivim fit` does: a diffusion scan in, maps, statistics of regions and frames out; files if asked.

found = fit_scan(Path("dwi.nii.gz"), Path("dwi.bval"), Path("maps"), mask=Path("lungs.nii.gz"))
found = fit_scan(frames, bvalues, labels=labels)           arrays (x, y, z, frame), (frame,) and (x, y, z)
found.maps["D"]                                            (x, y, z), mm²/s
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Shaped

from medjax.atomic import write_csv
from medjax.errors import ConfigError, DataError
from medjax.io.bvalues import read_bvalues
from medjax.io.nifti import SUFFIXES, Series, read_nifti, read_nifti_series, write_nifti
from medjax.ivim import averaging
from medjax.ivim.adc import adc
from medjax.ivim.fit import check
from medjax.ivim.maps import Maps, Method, maps, named_maps, volume
from medjax.ivim.noise import Kind, sigma_of_background
from medjax.ivim.signal import Convention
from medjax.metrics.regions import Region, region_statistics
from medjax.report.figures import Scale, montage, write_png
from medjax.tools import defaults
from medjax.tools.checks import choice

NAMES = ("S0", "f", "D", "Dstar")  # files and columns, in the order of Ivim
SCALES = {
    "S0": Scale("signal", "gray"), "f": Scale("f", "inferno"), "D": Scale("D, mm²/s", "magma"),
    "D*": Scale("D*, mm²/s", "inferno"),
}  # fmt: skip

OnGrid = Path | Shaped[np.ndarray, "x y z"]  # a NIfTI, or an array on the scan's grid


class Scan(NamedTuple):
    """Frames, and the voxels that can be fitted."""

    series: Series
    bvalues: Float[np.ndarray, " frame"]
    usable: Bool[np.ndarray, "x y z"]
    remark: str  # what was left out


class Fit(NamedTuple):
    """Maps on the scan's grid, 0 where nothing was fitted, and what they rest on."""

    maps: dict[str, Float[np.ndarray, "x y z"]]  # S0, f, D, Dstar, ADC, residual, crlb_…, identifiable
    voxels: Maps  # the same of the fitted voxels alone, with noise and frames
    bvalues: Float[np.ndarray, " b"]  # that were fitted: of frames, or of averages
    regions: dict[str, Region]  # all, and each label; f, d, d_star and f_d_star
    scan: Scan
    dropped: bool  # whether outlier frames were left out
    folder: Path | None


def fit_scan(
    scan: Path | Float[np.ndarray, "x y z frame"],
    bvals: Path | Float[np.ndarray, " frame"],
    output: Path | None = None,
    *,
    mask: OnGrid | None = None,
    labels: OnGrid | None = None,
    method: str = defaults.METHOD,
    noise: str = defaults.NOISE,
    sigma: str | float = defaults.SIGMA,
    convention: str = defaults.CONVENTION,
    average: str = defaults.AVERAGE,
    threshold: float = defaults.PERFUSION_OVER,
    drop: bool = False,
) -> Fit:
    """Fit every usable voxel; with `output`, write maps, a picture and tables to that folder.

    Args:
        mask: where to fit; default: all signal.
        labels: regions to give statistics of.
        sigma: noise of a measurement: "residual" of each voxel, a number, or the name of a NIfTI mask of air.
        average: of frames of one b-value: none, mean or geometric.
        threshold: s/mm², from which on a segmented fit takes perfusion to be over.
        drop: leave out outlier frames.

    Raises:
        ConfigError, DataError: something given cannot be used.
    """
    choice("--method", method, get_args(Method))
    choice("--noise", noise, get_args(Kind))
    choice("--convention", convention, get_args(Convention))
    choice("--average", average, ("none", *get_args(averaging.Mean)))
    read = read_scan(scan, bvals, mask)
    inside = read_regions(labels, read)
    level = _sigma(sigma, read)
    options: dict[str, Any] = {"method": method, "noise": noise, "convention": convention, "threshold": threshold}
    signals, bvalues, weights = read.series.array[read.usable].T, read.bvalues, None
    if average != "none":
        signals, bvalues, weights = averaging.average(signals, bvalues, "geometric" if average[0] == "g" else "mean")
    found = maps(signals, bvalues, sigma=level, weights=weights, drop=drop, **options)
    times = np.ones(len(bvalues), np.float32) if weights is None else weights
    counted = jnp.asarray(np.where(found.spoilt & drop, 0.0, times), jnp.float32)
    columns = _columns(found, np.asarray(adc(jnp.asarray(signals), bvalues, weights=counted).adc))
    named = named_maps(found.parameters)
    regions = {name: region_statistics(named, part) for name, part in inside.items() if part.any()}
    on_grid = {name: volume(values, read.usable) for name, values in columns.items()}
    result = Fit(on_grid, found, bvalues, regions, read, drop, output)
    if output is not None:
        _write(output, result, inside, f"{method} fit, {noise} noise, D* {convention}")
    return result


def read_scan(
    scan: Path | Float[np.ndarray, "x y z frame"],
    bvals: Path | Float[np.ndarray, " frame"],
    mask: OnGrid | None = None,
) -> Scan:
    """A scan, its b-values, and the voxels in the mask that are finite in all frames and above 0 in one.

    Raises:
        DataError: b-values do not fit the frames, the mask lies on another grid, or no voxel is left.
    """
    series = read_nifti_series(scan) if isinstance(scan, Path) else Series(scan, np.eye(4))
    bvalues = read_bvalues(bvals) if isinstance(bvals, Path) else bvals
    what, where = (str(it) if isinstance(it, Path) else name for it, name in ((scan, "the scan"), (bvals, "b-values")))
    frames = series.array.shape[3]
    if len(bvalues) != frames:
        raise DataError(f"{where}: {len(bvalues)} b-values; {what} has {frames} frames, expected one for each")
    try:
        check(series.array.reshape(-1, frames).T, bvalues)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    inside = np.ones(series.array.shape[:3], bool) if mask is None else _on_grid(mask, series, what) > 0
    finite = np.isfinite(series.array).all(-1)
    above = np.nan_to_num(series.array).max(-1) > 0
    usable = inside & finite & above
    if not usable.any():
        raise DataError(f"{what}: {inside.sum()} voxels to fit, none of them finite with signal above 0")
    counts = {
        "with NaN or infinite values left out": (inside & ~finite).sum(),
        "without signal above 0 left out": (inside & finite & ~above).sum() if mask is not None else 0,
        "with values of 0 or below in some frame, fitted": (usable & (series.array <= 0).any(-1)).sum(),
    }
    remark = "; ".join(f"{count} voxels {outcome}" for outcome, count in counts.items() if count)
    return Scan(series, bvalues, usable, remark)


def read_regions(labels: OnGrid | None, scan: Scan) -> dict[str, Bool[np.ndarray, " voxel"]]:
    """Name → which of the fitted voxels; `all`, and one for each label above 0.

    Raises:
        DataError: labels on another grid, or that are no whole numbers.
    """
    regions = {"all": np.ones(int(scan.usable.sum()), bool)}
    if labels is None:
        return regions
    values = _on_grid(labels, scan.series, "the scan")
    if not np.array_equal(values, np.round(values)):
        raise DataError(f"{_called(labels)}: values between whole numbers; expected labels")
    inside = values[scan.usable].astype(int)
    return regions | {str(int(label)): inside == label for label in np.unique(values[values > 0])}


def _called(given: OnGrid) -> str:
    return str(given) if isinstance(given, Path) else "array"


def _on_grid(given: OnGrid, series: Series, scan: str) -> np.ndarray:
    other = read_nifti(given) if isinstance(given, Path) else Series(given, series.affine)
    shape = series.array.shape[:3]
    if other.array.shape != shape:
        raise DataError(f"{_called(given)}: grid of {other.array.shape}; {scan} has {shape}, expected the same grid")
    if not np.allclose(other.affine, series.affine, atol=1e-2):
        raise DataError(f"{_called(given)}: another affine than {scan}; expected the same grid, resample it first")
    return other.array


def _sigma(given: str | float, scan: Scan) -> float | None:
    if given == "residual":
        return None
    if isinstance(given, str) and given.endswith(SUFFIXES):
        air = _on_grid(Path(given), scan.series, "the scan") > 0
        try:
            return sigma_of_background(scan.series.array[air])
        except ConfigError as error:
            raise ConfigError(f"{given}: {error}") from error
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"--sigma {given}; expected residual, a number above 0 or a mask of air (.nii.gz)")
    return value


def _columns(found: Maps, apparent: np.ndarray) -> dict[str, np.ndarray]:
    """What is written of each fitted voxel."""
    least = {f"crlb_{name}": bound for name, bound in zip(NAMES, found.bounds, strict=True)}
    columns = {
        **dict(zip(NAMES, found.parameters, strict=True)), "ADC": apparent, "residual": found.residual, **least,
        "identifiable": found.identifiable,
    }  # fmt: skip
    return {name: np.asarray(values, np.float32) for name, values in columns.items()}


def _write(output: Path, found: Fit, inside: Mapping[str, np.ndarray], note: str) -> None:
    output.mkdir(parents=True, exist_ok=True)
    affine, usable = found.scan.series.affine, found.scan.usable
    for name, values in found.maps.items():
        write_nifti(output / f"{name}.nii.gz", values, affine)
    named = {"D*" if name == "Dstar" else name: found.maps[name] for name in NAMES}
    s0, *rest = (
        (name, scale._replace(high=float(np.quantile(named[name][usable], 0.98)) or 1.0))
        for name, scale in SCALES.items()
    )
    write_png(output / "maps.png", montage(named, affine, scale=s0[1], other_scales=dict(rest), note=note))
    _write_regions(output / "regions.csv", found, inside)
    columns = (*found.voxels.frames, found.voxels.spoilt.astype(float))
    frames = zip(found.bvalues.tolist(), *(values.tolist() for values in columns), strict=True)
    table = [[frame, f"{b:g}", *map(_number, rest)] for frame, (b, *rest) in enumerate(frames)]
    write_csv(output / "frames.csv", ["frame", "b", "misfit", "weight", "share_beyond_3_sigma", "spoilt"], table)


def _write_regions(path: Path, found: Fit, inside: Mapping[str, np.ndarray]) -> None:
    rows: list[list[Any]] = []
    parameters = (*NAMES[1:], "f_Dstar")
    for name, voxels in inside.items():
        if name not in found.regions:
            rows += [[name, 0, "", parameter, "", "", "", ""] for parameter in parameters]
            continue
        fraction = float(np.asarray(found.voxels.identifiable)[voxels].mean())
        for parameter, summary in zip(parameters, found.regions[name].maps.values(), strict=True):
            rows.append([name, int(voxels.sum()), f"{fraction:.4f}", parameter, *map(_number, summary)])
    write_csv(path, ["region", "voxels", "identifiable", "parameter", "median", "mean", "sd", "iqr"], rows)


def _number(value: float) -> str:
    return f"{value:.6g}"

"""`medjax ivim fit`: a diffusion scan in, maps, a picture and tables out."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import typer
from jaxtyping import Bool, Float, Int

from medjax.atomic import write_csv
from medjax.errors import ConfigError, DataError
from medjax.io.bvalues import read_bvalues
from medjax.io.nifti import SUFFIXES, Series, read_nifti, read_nifti_series, write_nifti
from medjax.ivim.adc import adc
from medjax.ivim.averaging import average
from medjax.ivim.fit import check
from medjax.ivim.maps import Maps, maps, named_maps
from medjax.ivim.noise import sigma_of_background
from medjax.metrics.regions import region_statistics
from medjax.report.figures import Scale, montage, write_png

NAMES = ("S0", "f", "D", "Dstar")  # files and columns, in the order of Ivim
SCALES = {
    "S0": Scale("signal", "gray"), "f": Scale("f", "inferno"), "D": Scale("D, mm²/s", "magma"),
    "D*": Scale("D*, mm²/s", "inferno"),
}  # fmt: skip


class Scan(NamedTuple):
    """Frames, and the voxels that can be fitted."""

    series: Series
    bvalues: Float[np.ndarray, " frame"]
    usable: Bool[np.ndarray, "x y z"]
    said: str  # what was left out


def fit_scan(
    scan: Path,
    bvals: Path,
    output: Path,
    mask: Path | None,
    labels: Path | None,
    method: str,
    noise: str,
    sigma: str,
    convention: str,
    mean: str,
    threshold: float,
    drop: bool,
) -> None:
    """Read, fit, write, and say what came of it.

    Raises:
        ConfigError, DataError: something given cannot be used.
    """
    chosen(method=method, noise=noise, convention=convention, average=mean)
    read = read_scan(scan, bvals, mask)
    regions = read_regions(labels, read)
    level = _sigma(sigma, read)
    signals, bvalues, weights = read.series.array[read.usable].T, read.bvalues, None
    if mean != "none":
        signals, bvalues, weights = average(signals, bvalues, "geometric" if mean == "geometric" else "mean")
    options: dict[str, Any] = {
        "method": method,
        "noise": noise,
        "convention": convention,
        "threshold": threshold,
        "drop": drop,
    }
    found = maps(signals, bvalues, sigma=level, weights=weights, **options)
    output.mkdir(parents=True, exist_ok=True)
    times = np.ones(len(bvalues), np.float32) if weights is None else weights
    counted = jnp.asarray(np.where(found.spoilt & drop, 0.0, times), jnp.float32)
    files = _files(found, np.asarray(adc(jnp.asarray(signals), bvalues, weights=counted).adc))
    for name, values in files.items():
        write_nifti(output / f"{name}.nii.gz", volume(values, read.usable), read.series.affine)
    _picture(output, files, read, f"{method} fit, {noise} noise, D* {convention}")
    _write_regions(output / "regions.csv", found, regions, read.usable)
    _write_frames(output / "frames.csv", found, bvalues)
    _tell(found, bvalues, read, output, drop)


def chosen(**given: str) -> None:
    """Pass options that exist.

    Raises:
        ConfigError: one does not.
    """
    known = {
        "method": ("full", "segmented", "shrunk"), "noise": ("gaussian", "rician", "student"),
        "convention": ("absolute", "excess"), "average": ("none", "mean", "geometric"),
    }  # fmt: skip
    for name, value in given.items():
        if value not in known[name]:
            raise ConfigError(f"--{name} {value}; expected {', '.join(known[name][:-1])} or {known[name][-1]}")


def read_scan(scan: Path, bvals: Path, mask: Path | None) -> Scan:
    """A scan, its b-values, and the voxels in the mask that are finite in all frames and above 0 in one.

    Raises:
        DataError: b-values do not fit the frames, the mask lies on another grid, or no voxel is left.
    """
    series, bvalues = read_nifti_series(scan), read_bvalues(bvals)
    frames = series.array.shape[3]
    if len(bvalues) != frames:
        raise DataError(f"{bvals}: {len(bvalues)} b-values; {scan} has {frames} frames, expected one for each")
    try:
        check(series.array.reshape(-1, frames).T, bvalues)
    except DataError as error:
        raise DataError(f"{bvals}: {error}") from error
    inside = np.ones(series.array.shape[:3], bool) if mask is None else _on_grid(mask, series, scan) > 0
    finite = np.isfinite(series.array).all(-1)
    above = np.nan_to_num(series.array).max(-1) > 0
    usable = inside & finite & above
    if not usable.any():
        raise DataError(f"{scan}: {inside.sum()} voxels to fit, none of them finite with signal above 0")
    counts = {
        "with NaN or infinite values left out": (inside & ~finite).sum(),
        "without signal above 0 left out": (inside & finite & ~above).sum() if mask is not None else 0,
        "with values of 0 or below in some frame, fitted": (usable & (series.array <= 0).any(-1)).sum(),
    }
    return Scan(series, bvalues, usable, "; ".join(f"{count} voxels {what}" for what, count in counts.items() if count))


def read_regions(labels: Path | None, scan: Scan) -> dict[str, Bool[np.ndarray, " voxel"]]:
    """Name → which of the fitted voxels; `all`, and one for each label above 0.

    Raises:
        DataError: labels on another grid, or that are no whole numbers.
    """
    regions = {"all": np.ones(int(scan.usable.sum()), bool)}
    if labels is None:
        return regions
    values = _on_grid(labels, scan.series, Path("the scan"))
    if not np.array_equal(values, np.round(values)):
        raise DataError(f"{labels}: values between whole numbers; expected labels")
    inside = values[scan.usable].astype(int)
    return regions | {str(int(label)): inside == label for label in np.unique(values[values > 0])}


def volume(
    values: Float[np.ndarray, " voxel"] | Int[np.ndarray, " voxel"], usable: Bool[np.ndarray, "x y z"]
) -> Float[np.ndarray, "x y z"]:
    """Voxels back in their places, 0 elsewhere."""
    out = np.zeros(usable.shape, np.float32)
    out[usable] = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    return out


def _on_grid(path: Path, series: Series, scan: Path) -> np.ndarray:
    other = read_nifti(path)
    shape = series.array.shape[:3]
    if other.array.shape != shape:
        raise DataError(f"{path}: grid of {other.array.shape}; {scan} has {shape}, expected the same grid")
    if not np.allclose(other.affine, series.affine, atol=1e-2):
        raise DataError(f"{path}: another affine than {scan}; expected the same grid, resample it first")
    return other.array


def _sigma(given: str, scan: Scan) -> float | None:
    if given == "residual":
        return None
    if given.endswith(SUFFIXES):
        air = _on_grid(Path(given), scan.series, Path("the scan")) > 0
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


def _files(found: Maps, apparent: np.ndarray) -> dict[str, np.ndarray]:
    maps = dict(zip(NAMES, map(np.asarray, found.parameters), strict=True))
    least = {f"crlb_{name}": np.asarray(bound) for name, bound in zip(NAMES, found.bounds, strict=True)}
    return {
        **maps, "ADC": apparent, "residual": np.asarray(found.residual), **least,
        "identifiable": np.asarray(found.identifiable, np.float32),
    }  # fmt: skip


def _picture(output: Path, files: Mapping[str, np.ndarray], scan: Scan, note: str) -> None:
    named = {"D*" if name == "Dstar" else name: volume(files[name], scan.usable) for name in NAMES}
    scales = {
        name: scale._replace(high=float(np.quantile(named[name][scan.usable], 0.98)) or 1.0)
        for name, scale in SCALES.items()
    }
    rest = {name: scales[name] for name in named if name != "S0"}
    write_png(output / "maps.png", montage(named, scan.series.affine, scale=scales["S0"], other_scales=rest, note=note))


def _write_regions(path: Path, found: Maps, regions: Mapping[str, np.ndarray], usable: np.ndarray) -> None:
    rows: list[list[Any]] = []
    for name, inside in regions.items():
        if not inside.any():
            rows += [[name, 0, "", parameter, "", "", "", ""] for parameter in (*NAMES[1:], "f_Dstar")]
            continue
        part = region_statistics(named_maps(found.parameters), inside)
        fraction = float(np.asarray(found.identifiable)[inside].mean())
        for parameter, summary in zip((*NAMES[1:], "f_Dstar"), part.maps.values(), strict=True):
            rows.append([name, part.voxels, f"{fraction:.4f}", parameter, *map(_number, summary)])
    write_csv(path, ["region", "voxels", "identifiable", "parameter", "median", "mean", "sd", "iqr"], rows)


def _write_frames(path: Path, found: Maps, bvalues: np.ndarray) -> None:
    columns = (*found.frames, found.spoilt.astype(float))
    rows = zip(bvalues.tolist(), *(values.tolist() for values in columns), strict=True)
    table = [[frame, f"{b:g}", *map(_number, rest)] for frame, (b, *rest) in enumerate(rows)]
    write_csv(path, ["frame", "b", "misfit", "weight", "share_beyond_3_sigma", "spoilt"], table)


def _number(value: float) -> str:
    return f"{value:.6g}"


def _tell(found: Maps, bvalues: np.ndarray, scan: Scan, output: Path, dropped: bool) -> None:
    f, d, fast = (float(np.median(p)) for p in found.parameters[1:])
    number, seen = int(scan.usable.sum()), float(np.mean(found.identifiable))
    typer.echo(f"{number} voxels, {len(bvalues)} b-values: median f {f:.3f}, D {d:.3g}, D* {fast:.3g} mm²/s")
    typer.echo(f"{seen:.0%} of the voxels tell f, D and D* to half their value or better")
    if scan.said:
        typer.echo(scan.said)
    for frame in np.flatnonzero(found.spoilt):
        advice = "left out" if dropped else "--drop-spoilt leaves it out, --noise student counts it less"
        typer.echo(f"frame {frame} (b = {bvalues[frame]:g}) does not go with the others: {advice}")
    typer.echo(f"maps, maps.png, regions.csv, frames.csv: {output}")

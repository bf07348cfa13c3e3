"""What `medjax ivim fit` does: a diffusion scan in, maps, statistics of regions and frames out; files if asked.

found = fit_scan(Path("dwi.nii.gz"), Path("dwi.bval"), Path("maps"), mask=Path("lungs.nii.gz"))
found = fit_scan(frames, bvalues, labels=labels)           arrays (x, y, z, frame), (frame,) and (x, y, z)
found.maps["D"]                                            (x, y, z), mm²/s
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from medjax.atomic import write_csv
from medjax.io.nifti import write_nifti
from medjax.ivim import averaging
from medjax.ivim.adc import adc
from medjax.ivim.io import OnGrid, Scan, read_regions, read_scan, read_sigma
from medjax.ivim.maps import Maps, Method, maps, named_maps, volume
from medjax.ivim.noise import Kind
from medjax.ivim.signal import Convention
from medjax.metrics.regions import Region, region_statistics
from medjax.report.figures import Scale, montage, write_png
from medjax.tools import defaults
from medjax.tools.checks import as_paths, choice

NAMES = ("S0", "f", "D", "Dstar")  # files and columns, in the order of Ivim
SCALES = {
    "S0": Scale("signal", "gray"), "f": Scale("f", "inferno"), "D": Scale("D, mm²/s", "magma"),
    "D*": Scale("D*, mm²/s", "inferno"),
}  # fmt: skip


class Fit(NamedTuple):
    """Maps on the scan's grid, 0 where nothing was fitted, and what they rest on."""

    maps: dict[str, Float[np.ndarray, "x y z"]]  # S0, f, D, Dstar, ADC, residual, crlb_…, identifiable
    voxels: Maps  # the same of the fitted voxels alone, with noise and frames
    bvalues: Float[np.ndarray, " b"]  # that were fitted: of frames, or of averages
    regions: dict[str, Region]  # all, and each label; f, d, d_star and f_d_star
    scan: Scan
    folder: Path | None


def fit_scan(
    scan: Path | str | Float[np.ndarray, "x y z frame"],
    bvals: Path | str | Float[np.ndarray, " _"] | Sequence[float],
    output: Path | str | None = None,
    *,
    mask: OnGrid | str | None = None,
    labels: OnGrid | str | None = None,
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
        bvals: of the frames, s/mm².
        mask: where to fit; default: all signal.
        labels: regions to give statistics of.
        sigma: noise of a measurement: "residual" of each voxel, a number, or the name of a NIfTI mask of air.
        average: of frames of one b-value: none, mean or geometric.
        threshold: s/mm², from which on a segmented fit takes perfusion to be over.
        drop: leave out outlier frames.

    Raises:
        ConfigError, DataError: something given cannot be used.
    """
    scan, bvals, output, mask, labels = as_paths(scan, bvals, output, mask, labels)
    bvals = bvals if isinstance(bvals, Path) else np.asarray(bvals, np.float32)  # as files are read
    choice("--method", method, get_args(Method))
    choice("--noise", noise, get_args(Kind))
    choice("--convention", convention, get_args(Convention))
    choice("--average", average, ("none", *get_args(averaging.Mean)))
    read = read_scan(scan, bvals, mask)
    inside = read_regions(labels, read)
    level = read_sigma(sigma, read)
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
    result = Fit(on_grid, found, bvalues, regions, read, output)
    if output is not None:
        _write(output, result, inside, f"{method} fit, {noise} noise, D* {convention}")
    return result


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

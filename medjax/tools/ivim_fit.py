"""`medjax ivim fit` as a function: IVIM maps, statistics of regions and misfits of frames of a diffusion scan.

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

from medjax import defaults
from medjax.atomic import write_csv
from medjax.io.nifti import write_nifti
from medjax.ivim import averaging
from medjax.ivim.adc import adc
from medjax.ivim.io import DiffusionScan, ImageOnGrid, read_regions, read_scan, read_sigma
from medjax.ivim.maps import IvimMaps, Method, maps, named_maps, volume
from medjax.ivim.noise import NoiseModel
from medjax.ivim.signal import Convention
from medjax.metrics.regions import RegionStatistics, region_statistics
from medjax.report.figures import Scale, montage, write_png
from medjax.tools.checks import as_paths, check_choice

NAMES = ("S0", "f", "D", "Dstar")  # files and columns, in the order of Ivim
SCALES = {
    "S0": Scale("signal", "gray"), "f": Scale("f", "inferno"), "D": Scale("D, mm²/s", "magma"),
    "D*": Scale("D*, mm²/s", "inferno"),
}  # fmt: skip


class ScanFit(NamedTuple):
    """IVIM maps on the scan's grid (0 where nothing was fitted), the fit of its voxels, and statistics of regions."""

    maps: dict[str, Float[np.ndarray, "x y z"]]  # S0, f, D, Dstar, ADC, residual, crlb_…, identifiable
    voxels: IvimMaps  # maps of the fitted voxels alone, with noise, bounds and frames
    bvalues: Float[np.ndarray, " b"]  # b-values of the frames that were fitted, or of their averages; s/mm²
    regions: dict[str, RegionStatistics]  # statistics of f, d, d_star and f_d_star, by name: all, and each label
    scan: DiffusionScan
    folder: Path | None


def fit_scan(
    scan: Path | str | Float[np.ndarray, "x y z frame"],
    bvals: Path | str | Float[np.ndarray, " _"] | Sequence[float],
    output: Path | str | None = None,
    *,
    mask: ImageOnGrid | str | None = None,
    labels: ImageOnGrid | str | None = None,
    method: str = defaults.IVIM_METHOD,
    noise: str = defaults.IVIM_NOISE,
    sigma: str | float = defaults.IVIM_SIGMA,
    convention: str = defaults.IVIM_CONVENTION,
    average: str = defaults.IVIM_AVERAGE,
    threshold: float = defaults.IVIM_THRESHOLD,
    drop_outliers: bool = False,
) -> ScanFit:
    """IVIM fit of every usable voxel of a scan; with `output`, write maps, a figure and tables to that folder.

    Args:
        scan: frames (x, y, z, frame), or a NIfTI of them.
        bvals: b-values of the frames, s/mm², or a file of them.
        output: folder to write to; None writes nothing.
        mask: voxels to fit; default: all with signal.
        labels: labels of the regions of interest.
        method: full, segmented or hierarchical.
        noise: noise model: gaussian, rician or student.
        sigma: noise of a measurement: "residual" of each voxel, a number, or the name of a NIfTI mask of air.
        convention: convention of D*: absolute or excess.
        average: average over frames of one b-value: none, mean or geometric.
        threshold: b-value from which a segmented fit neglects perfusion, s/mm².
        drop_outliers: leave outlier frames out of the fit.

    Raises:
        ConfigError, DataError: an option or an input cannot be used.
    """
    scan, bvals, output, mask, labels = as_paths(scan, bvals, output, mask, labels)
    bvals = bvals if isinstance(bvals, Path) else np.asarray(bvals, np.float32)  # as files are read
    check_choice("--method", method, get_args(Method))
    check_choice("--noise", noise, get_args(NoiseModel))
    check_choice("--convention", convention, get_args(Convention))
    check_choice("--average", average, ("none", *get_args(averaging.Mean)))
    read = read_scan(scan, bvals, mask)
    inside = read_regions(labels, read)
    level = read_sigma(sigma, read)
    options: dict[str, Any] = {"method": method, "noise": noise, "convention": convention, "threshold": threshold}
    signals, bvalues, weights = read.series.array[read.usable].T, read.bvalues, None
    if average != "none":
        signals, bvalues, weights = averaging.average(signals, bvalues, "geometric" if average[0] == "g" else "mean")
    found = maps(signals, bvalues, sigma=level, weights=weights, drop_outliers=drop_outliers, **options)
    times = np.ones(len(bvalues), np.float32) if weights is None else weights
    kept = jnp.asarray(np.where(found.outliers & drop_outliers, 0.0, times), jnp.float32)
    columns = _columns(found, np.asarray(adc(jnp.asarray(signals), bvalues, weights=kept).adc))
    named = named_maps(found.parameters)
    regions = {name: region_statistics(named, part) for name, part in inside.items() if part.any()}
    on_grid = {name: volume(values, read.usable) for name, values in columns.items()}
    result = ScanFit(on_grid, found, bvalues, regions, read, output)
    if output is not None:
        _write(output, result, inside, f"{method} fit, {noise} noise, D* {convention}")
    return result


def _columns(found: IvimMaps, apparent: np.ndarray) -> dict[str, np.ndarray]:
    """Values of each fitted voxel, by the name of the map."""
    crlb = {f"crlb_{name}": bound for name, bound in zip(NAMES, found.crlb, strict=True)}
    columns = {
        **dict(zip(NAMES, found.parameters, strict=True)), "ADC": apparent, "residual": found.residual, **crlb,
        "identifiable": found.identifiable,
    }  # fmt: skip
    return {name: np.asarray(values, np.float32) for name, values in columns.items()}


def _write(output: Path, found: ScanFit, inside: Mapping[str, np.ndarray], note: str) -> None:
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
    columns = (*found.voxels.frame_misfit, found.voxels.outliers.astype(float))
    frames = zip(found.bvalues.tolist(), *(values.tolist() for values in columns), strict=True)
    table = [[frame, f"{b:g}", *map(_number, rest)] for frame, (b, *rest) in enumerate(frames)]
    write_csv(
        output / "frames.csv", ["frame", "b_value", "misfit", "weight", "fraction_beyond_3_sigma", "outlier"], table
    )


def _write_regions(path: Path, found: ScanFit, inside: Mapping[str, np.ndarray]) -> None:
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

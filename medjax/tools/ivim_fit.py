"""`medjax ivim fit` as a function: IVIM maps, statistics of regions and misfits of frames of a diffusion scan.

found = fit_scan(Path("dwi.nii.gz"), Path("dwi.bval"), Path("maps"), mask=Path("lungs.nii.gz"))
found = fit_scan(frames, bvalues, labels=labels)           arrays (x, y, z, frame), (frame,) and (x, y, z)
fit_scan("dwi.nii.gz", "dwi.bval", "maps", segment="model")    mask and regions by a trained network
found.maps["D"]                                            (x, y, z), mm²/s
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from medjax import defaults
from medjax.atomic import replacing_together, write_csv
from medjax.errors import ConfigError, DataError
from medjax.io.nifti import Series, write_nifti
from medjax.io.nnunet_raw import write_label_nifti
from medjax.ivim import averaging
from medjax.ivim.adc import adc
from medjax.ivim.bounds import AtBound, parse_bounds
from medjax.ivim.information import identifiable_each
from medjax.ivim.io import DiffusionScan, ImageOnGrid, read_regions, read_scan, read_sigma, select_voxels
from medjax.ivim.maps import IvimMaps, Method, maps, named_maps, volume
from medjax.ivim.noise import NoiseModel
from medjax.ivim.signal import Convention
from medjax.metrics.regions import MapStatistics, RegionStatistics, region_statistics
from medjax.report.figures import Scale, montage, write_png
from medjax.tools.checks import (
    as_paths,
    check_choice,
    check_no_overwrite,
    check_output_files,
    check_output_folder,
    check_range,
)
from medjax.tools.ivim_segment import ScanSegmentation, region_masks, segment_scan
from medjax.tools.segment_model import NetworkSource

NAMES = ("S0", "f", "D", "Dstar")  # files and columns, in the order of Ivim
MAX_BVALUE = 1e5  # s/mm²
MAPS = (*NAMES, "ADC", "residual", *(f"crlb_{name}" for name in NAMES), "identifiable", "at_bound")
TABLES = ("maps.png", "regions.csv", "frames.csv")
LABELS = "labels.nii.gz"  # of a network
PERCENTILES = 0.02, 0.98  # ends of the colour scales, as fractions
PERCENTILES_DSTAR = 0.02, 0.9  # its few large values would leave the others one colour
SCALES = {
    "S0": Scale("signal", "gray"), "f": Scale("f", "viridis"), "D": Scale("D, mm²/s", "plasma"),
    "D*": Scale("D*, mm²/s", "viridis"),
}  # fmt: skip


class ScanFit(NamedTuple):
    """IVIM maps on the scan's grid (0 where nothing was fitted), the fit of its voxels, and statistics of regions."""

    maps: dict[str, Float[np.ndarray, "x y z"]]  # S0, f, D, Dstar, ADC, residual, crlb_…, identifiable, at_bound
    voxels: IvimMaps  # maps of the fitted voxels alone, with noise, bounds and frames
    bvalues: Float[np.ndarray, " b"]  # b-values of the frames that were fitted, or of their averages; s/mm²
    regions: dict[str, RegionStatistics]  # statistics of f, d, d_star and f_d_star, by name: all, and each label
    within: dict[str, dict[str, RegionStatistics]]  # of each parameter in the voxels where it is at no bound, if any
    scan: DiffusionScan
    folder: Path | None
    segmentation: ScanSegmentation | None = None  # labels of a network, with `segment`


def fit_scan(
    scan: Path | str | Series | Float[np.ndarray, "x y z frame"],
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
    bounds: str = defaults.IVIM_BOUNDS,
    segment: Path | str | None = None,
    network: NetworkSource | None = None,
) -> ScanFit:
    """IVIM fit of every usable voxel of a scan; with `output`, write maps, a figure and tables to that folder.

    Args:
        scan: frames (x, y, z, frame), with their affine or without; or a NIfTI of them.
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
        bounds: bounds of f, D and absolute D*: default, osipi, or such as "f=0:0.7,D=0:0.005,Dstar=0.005:0.2".
        segment: folder of a segmentation model, which finds regions, and the mask if there is none, at b = 0.
        network: the user's network that this model was trained with, if it was.

    Raises:
        ConfigError, DataError: an option or an input cannot be used, an output would replace an input, or the fit of
            these signals is not finite.
    """
    scan, bvals, output, mask, labels, segment = as_paths(scan, bvals, output, mask, labels, segment)
    if output is not None:
        check_output_folder(output)
        check_output_files(_files(output, segment))
        air = Path(sigma) if isinstance(sigma, str) else None
        check_no_overwrite(_files(output, segment), (scan, bvals, mask, labels, air))
    limits = parse_bounds(bounds)
    bvals = bvals if isinstance(bvals, Path) else np.asarray(bvals, np.float32)  # as files are read
    check_choice("--method", method, get_args(Method))
    check_choice("--noise", noise, get_args(NoiseModel))
    check_choice("--convention", convention, get_args(Convention))
    check_range("--threshold", threshold, 0, MAX_BVALUE)
    check_choice("--average", average, ("none", *get_args(averaging.Mean)))
    _check_segment(segment, labels, network, scan)
    read = read_scan(scan, bvals, mask)
    name = str(scan) if isinstance(scan, Path) else "the scan"
    segmented = None if segment is None else segment_scan(read, segment, name, network)
    if segmented is not None and mask is None:
        read = select_voxels(read.series, read.bvalues, segmented.labels > 0, name)
    inside = read_regions(labels, read)
    if segmented is not None:
        inside |= {region: where[read.usable] for region, where in region_masks(segmented).items()}
    level = read_sigma(sigma, read)
    options: dict[str, Any] = {"method": method, "noise": noise, "convention": convention, "threshold": threshold}
    signals, bvalues, weights = read.series.array[read.usable].T, read.bvalues, None
    if average != "none":
        signals, bvalues, weights = averaging.average(signals, bvalues, "geometric" if average[0] == "g" else "mean")
    options |= {"bounds": limits, "slices": np.nonzero(read.usable)[2]}
    found = maps(signals, bvalues, sigma=level, weights=weights, drop_outliers=drop_outliers, **options)
    times = np.ones(len(bvalues), np.float32) if weights is None else weights
    kept = jnp.asarray(np.where(found.outliers & drop_outliers, 0.0, times), jnp.float32)
    columns = _columns(found, np.asarray(adc(jnp.asarray(signals), bvalues, weights=kept).adc))
    on_grid = {name: volume(values, read.usable) for name, values in columns.items()}
    named, parts = named_maps(found.parameters), {name: part for name, part in inside.items() if part.any()}
    regions = {name: region_statistics(named, part) for name, part in parts.items()}
    within = {name: _within(named, part, found.at_bound) for name, part in parts.items()}
    result = ScanFit(on_grid, found, bvalues, regions, within, read, output, segmented)
    if output is not None:
        _write(output, result, inside, f"{method} fit, {noise} noise, D* {convention}")
    return result


def _check_segment(segment: Path | None, labels: Any, network: Any, scan: Any) -> None:
    """Check that a model can give the regions of a scan.

    Raises:
        ConfigError: labels are given too, there is a network without a model, or an array without its affine.
    """
    if segment is None:
        if network is not None:
            raise ConfigError("--network without --segment MODEL; expected the model that was trained with it")
        return
    if labels is not None:
        raise ConfigError("--labels with --segment: both give the regions; expected one of them")
    if not isinstance(scan, Path | Series):
        raise ConfigError("--segment: frames without an affine; expected a NIfTI or a Series, whose voxels have a size")


def _columns(found: IvimMaps, apparent: np.ndarray) -> dict[str, np.ndarray]:
    """Values of each fitted voxel, by the name of the map.

    Raises:
        DataError: some are not finite.
    """
    values = (*found.parameters, apparent, found.residual, *found.crlb, found.identifiable, found.at_bound.code)
    columns = {name: np.asarray(one, np.float32) for name, one in zip(MAPS, values, strict=True)}
    for name, one in columns.items():
        if wrong := int(np.sum(~np.isfinite(one))):
            raise DataError(f"{name}: not finite in {wrong} of {len(one)} voxels; expected signals of ordinary size")
    return columns


def _within(named: Mapping[str, np.ndarray], part: np.ndarray, held: AtBound) -> dict[str, RegionStatistics]:
    """Statistics of each parameter in the voxels of a region where it is at no bound; parameters without one lack."""
    out, at = dict[str, RegionStatistics](), {**held._asdict(), "f_d_star": held.f | held.d_star}
    for name, values in named.items():
        inside = part & ~at[name]
        if inside.any():
            out[name] = region_statistics({name: values}, inside)
    return out


def _files(output: Path, segmented: Any) -> list[Path]:
    """Files of a fit; the labels are one of them where a network has found them."""
    names = (*(f"{name}.nii.gz" for name in MAPS), *TABLES, *([] if segmented is None else [LABELS]))
    return [output / name for name in names]


def _write(output: Path, found: ScanFit, inside: Mapping[str, np.ndarray], note: str) -> None:
    """Write all files of a fit together: an interrupted one leaves those of a former fit as they were."""
    output.mkdir(parents=True, exist_ok=True)
    with replacing_together(*_files(output, found.segmentation)) as parts:
        _write_files(parts[0].parent, found, inside, note)


def _write_files(output: Path, found: ScanFit, inside: Mapping[str, np.ndarray], note: str) -> None:
    affine = found.scan.series.affine
    for name, values in found.maps.items():
        write_nifti(output / f"{name}.nii.gz", values, affine)
    if found.segmentation is not None:
        write_label_nifti(output / LABELS, found.segmentation.labels, affine, found.segmentation.classes)
    _write_picture(output / "maps.png", found, note)
    _write_regions(output / "regions.csv", found, inside)
    columns = (*found.voxels.frame_misfit, found.voxels.outliers.astype(float))
    frames = zip(found.bvalues.tolist(), *(values.tolist() for values in columns), strict=True)
    table = [[frame, f"{b:g}", *map(_number, rest)] for frame, (b, *rest) in enumerate(frames)]
    write_csv(
        output / "frames.csv", ["frame", "b_value", "misfit", "weight", "fraction_beyond_3_sigma", "outlier"], table
    )


def _write_picture(path: Path, found: ScanFit, note: str) -> None:
    """Picture of the maps; voxels in which a parameter is at a bound are grey.

    A parameter's scale is that of the voxels that tell it, or where none does, of those at no bound.
    """
    usable, affine = found.scan.usable, found.scan.series.affine
    named = {"D*" if name == "Dstar" else name: found.maps[name] for name in NAMES}
    held = {name: volume(one, usable) > 0 for name, one in zip(("f", "D", "D*"), found.voxels.at_bound, strict=True)}
    told = identifiable_each(found.voxels.parameters, found.voxels.crlb)
    told = {name: volume(one, usable) > 0 for name, one in zip(held, told, strict=True)}
    aside = {name: one | ~told[name] if (told[name] & ~one).any() else one for name, one in held.items()}
    scales = map_scales(named, usable, aside)
    mark = "grey: the parameter is at a bound of the fit, and no estimate"
    write_png(path, montage(named, affine, other_scales=scales, mask=usable, marked=held, mark=mark, note=note))


def map_scales(
    named: Mapping[str, np.ndarray], usable: np.ndarray, aside: Mapping[str, np.ndarray]
) -> dict[str, Scale]:
    """Intensity scale of each map, from percentiles of its values in the usable voxels but for those set aside."""
    scales = dict[str, Scale]()
    for name, values in named.items():
        free = usable & ~aside[name] if name in aside else usable
        ends = PERCENTILES_DSTAR if name == "D*" else PERCENTILES
        low, high = np.quantile(values[free if free.any() else usable], ends).tolist()
        unit = f"{SCALES[name].unit}, {100 * ends[0]:g} to {100 * ends[1]:g} %"
        scales[name] = SCALES[name]._replace(unit=unit, low=low, high=high if high > low else low + 1.0, clipped=True)
    return scales


def _write_regions(path: Path, found: ScanFit, inside: Mapping[str, np.ndarray]) -> None:
    """A row for each region and parameter: all voxels, and those in which the parameter is at no bound (`within`)."""
    rows: list[list[Any]] = []
    parameters = (*NAMES[1:], "f_Dstar")
    for name, voxels in inside.items():
        if name not in found.regions:
            rows += [[name, 0, "", parameter, *[""] * 4, 0, *[""] * 4] for parameter in parameters]
            continue
        fraction = float(found.voxels.identifiable[voxels].mean())
        for parameter, (key, summary) in zip(parameters, found.regions[name].maps.items(), strict=True):
            free = found.within[name].get(key)
            cells = [free.voxels, *map(_number, free.maps[key])] if free else [0, *[""] * 4]
            rows.append([name, int(voxels.sum()), f"{fraction:.4f}", parameter, *map(_number, summary), *cells])
    statistics = MapStatistics._fields
    within = [f"{one}_within" for one in ("voxels", *statistics)]
    write_csv(path, ["region", "voxels", "identifiable", "parameter", *statistics, *within], rows)


def _number(value: float) -> str:
    return f"{value:.6g}"

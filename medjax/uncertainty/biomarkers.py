"""Cardiac biomarkers of short-axis label maps: volumes, ejection fraction, stroke volume, left-ventricular mass.

    curve = volumes(labels, ACDC, spacing)                                labels (x, y, z, frame): ml of each frame
    found = biomarkers(Volumes(*(v[ed] for v in curve)), Volumes(*(v[es] for v in curve)))
    found["LVEF"]                                                          in UNITS["LVEF"], "%"

    volumes_from_counts(counts, ACDC, voxel_ml(spacing))    of a network's samples: counts (sample, slice, class)

Biomarkers are taken of every sample, then summarized: the ejection fraction of the mean mask is not the mean ejection
fraction. End-diastole (ED) and end-systole (ES) of a sample come from one member, mask or transform: they are paired.

A volume is the sum over slices (Simpson's rule of the field, a midpoint rule): for an ellipsoid cut at the base, of
height c, by slices at distance h it is too large by the fraction h²/(8c²), if c is a multiple of h.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Real

from medjax.errors import ConfigError, DataError

Number = float | int
AnyArray = Array | np.ndarray

MYOCARDIAL_DENSITY = 1.05  # g/ml


class LabelCodes(NamedTuple):
    """Label values of the left ventricle's cavity, its myocardium and the right ventricle's cavity; 0: background."""

    lv: int
    myocardium: int
    rv: int


ACDC = LabelCodes(lv=3, myocardium=2, rv=1)
MNMS = LabelCodes(lv=1, myocardium=2, rv=3)
LAYOUTS = {"acdc": ACDC, "mnms": MNMS}


class Volumes(NamedTuple):
    """Volumes in ml, each with the same leading axes, of a frame or of frames and samples."""

    lv: Any  # Float[AnyArray, "*batch"]
    myocardium: Any
    rv: Any


VENTRICULAR = {"EDV": "ml", "ESV": "ml", "SV": "ml", "EF": "%"}  # end-diastolic, end-systolic, stroke volume; fraction
UNITS: Mapping[str, str] = {
    **{f"LV{name}": unit for name, unit in VENTRICULAR.items()},
    "LVM": "g",
    **{f"RV{name}": unit for name, unit in VENTRICULAR.items()},
}
INDEXED_UNITS: Mapping[str, str] = {f"{name}i": f"{unit}/m²" for name, unit in UNITS.items() if unit != "%"}


def check_codes(codes: LabelCodes) -> LabelCodes:
    """Check label codes.

    Raises:
        ConfigError: two are equal, or one is below 1 (0 is the background).
    """
    if len({*codes}) < 3 or min(codes) < 1:
        raise ConfigError(
            f"label codes: LV {codes.lv}, myocardium {codes.myocardium}, RV {codes.rv}; expected three different "
            "numbers from 1"
        )
    return codes


def check_labels(
    labels: Real[AnyArray, "*space"], codes: LabelCodes, name: object = "labels"
) -> Int[np.ndarray, "*space"]:
    """Labels as integers, each of which is 0 or one of the codes; `name` is theirs in messages.

    Raises:
        ConfigError: as `check_codes`.
        DataError: NaN, values that are no whole numbers, or a code that is unknown.
    """
    check_codes(codes)
    values = np.asarray(labels)
    whole = np.isfinite(values) & (values == np.rint(values)) if values.dtype.kind == "f" else np.True_
    if not np.all(whole):
        found = f"{values[~whole][0]:g} in {np.sum(~whole)} of {values.size} voxels"
        raise DataError(f"{name}: values that are no labels, such as {found}; expected whole numbers")
    present = np.unique(values)
    if odd := sorted({int(value) for value in present} - {0, *codes}):
        raise DataError(
            f"{name}: label {odd[0]}; expected 0, {codes.lv} (LV), {codes.myocardium} (myocardium), {codes.rv} (RV)"
        )
    return values.astype(np.int32)


def voxel_ml(spacing: Sequence[Number] | Real[AnyArray, "3"], gap: Number = 0.0) -> float:
    """Volume dx · dy · (dz + gap) of a voxel in ml.

    Args:
        spacing: mm along x, y and z. NIfTI's z spacing is normally the distance of slice centres, that is thickness +
            gap; leave `gap` at 0 for it.
        gap: mm between slices that the z spacing leaves out, where it is the slice thickness.

    Raises:
        DataError: not three spacings, one that is not positive and finite, or a gap that is negative or not finite.
    """
    mm = np.asarray(spacing, np.float64)
    if mm.shape != (3,) or not (np.isfinite(mm).all() and (mm > 0).all()):
        raise DataError(f"spacing: {mm.tolist()} mm; expected three positive numbers")
    if not (np.isfinite(gap) and gap >= 0):
        raise DataError(f"gap: {gap:g} mm; expected 0 or more")
    return float(mm[0] * mm[1] * (mm[2] + gap) / 1000)


def volumes(
    labels: Real[AnyArray, "x y z *frame"],
    codes: LabelCodes,
    spacing: Sequence[Number] | Real[AnyArray, "3"],
    gap: Number = 0.0,
    name: object = "labels",
) -> Volumes:
    """Volumes of label maps, in ml: number of voxels × dx · dy · (dz + gap) / 1000, of each frame.

    A frame without a label has volume 0; see `label_plausibility` for slices and frames that are missing.

    Args:
        labels: label maps (x, y, z), frames after them.
        codes: label values of the structures.
        spacing: mm along x, y and z, see `voxel_ml`.
        gap: mm between slices that the z spacing leaves out.
        name: name of the labels in messages.

    Raises:
        ConfigError: as `check_codes`.
        DataError: as `check_labels` and `voxel_ml`.
    """
    known, size = check_labels(labels, codes, name), voxel_ml(spacing, gap)
    return Volumes(*(np.sum(known == code, axis=(0, 1, 2)) * size for code in codes))


def volumes_from_counts(
    counts: Real[AnyArray, "*batch slice class"], codes: LabelCodes, voxel_ml: Number | Float[AnyArray, "..."]
) -> Volumes:
    """Volumes of the numbers of voxels of each class in each slice, in ml; class k has label value k.

    NumPy arrays, or JAX arrays also under `jit`. `voxel_ml` is one number, or one for each of the batch.

    Raises:
        ConfigError: as `check_codes`.
        DataError: a code without a class.
    """
    if max(check_codes(codes)) >= counts.shape[-1]:
        raise DataError(f"counts: classes 0 to {counts.shape[-1] - 1}; expected codes {tuple(codes)} among them")
    return Volumes(*(counts[..., code].sum(axis=-1) * voxel_ml for code in codes))


def biomarkers(ed: Volumes, es: Volumes, bsa: Any = None) -> dict[str, Any]:
    """Biomarkers of volumes at end-diastole and end-systole, by name, in `UNITS`.

    SV = EDV − ESV, EF = 100 SV / EDV of each ventricle, LVM = 1.05 g/ml × myocardium at ED. With the body surface
    area, also each but EF divided by it, in `INDEXED_UNITS`: LVEDVi and so on.

    A ventricle that has no voxel at ED or at ES was not segmented there: its SV and EF are NaN, its volumes are as
    counted. ESV > EDV gives a negative SV and EF. NumPy arrays, or JAX arrays also under `jit`.

    Args:
        ed: volumes at end-diastole.
        es: volumes at end-systole, of the same samples in the same order.
        bsa: body surface area in m², a number or one for each of the leading axis; NaN: not known.

    Raises:
        DataError: ED and ES have different shapes, so that their samples are not paired, or an area that is
            infinite or not above 0.

    Source: Schulz-Menger et al., Journal of Cardiovascular Magnetic Resonance 15, 2013 (conventions).
    """
    shapes = {np.shape(value) for value in (*ed, *es)}
    if len(shapes) > 1:
        raise DataError(f"volumes at ED, ES: shapes {sorted(shapes)}; expected one: their samples are paired")
    left, right = (
        _ventricle(side, diastole, systole) for side, diastole, systole in (("LV", ed.lv, es.lv), ("RV", ed.rv, es.rv))
    )
    found = {**left, "LVM": MYOCARDIAL_DENSITY * ed.myocardium, **right}
    if bsa is None:
        return found
    if not isinstance(bsa, jax.Array):
        areas = np.asarray(bsa, np.float64)
        if odd := areas[~(np.isnan(areas) | (np.isfinite(areas) & (areas > 0)))].tolist():
            raise DataError(f"bsa: {odd[0]:g} m²; expected above 0")
        bsa = areas if areas.ndim else bsa
    by = bsa if np.ndim(bsa) == 0 else bsa.reshape(bsa.shape + (1,) * (np.ndim(ed.lv) - np.ndim(bsa)))
    return found | {name: found[name[:-1]] / by for name in INDEXED_UNITS}


def _ventricle(side: str, edv: Any, esv: Any) -> dict[str, Any]:
    numpy = jnp if isinstance(edv, jax.Array) else np
    segmented = (edv > 0) & (esv > 0)
    sv = numpy.where(segmented, edv - esv, numpy.nan)
    ef = 100 * sv / numpy.where(segmented, edv, 1)
    return {f"{side}EDV": edv, f"{side}ESV": esv, f"{side}SV": sv, f"{side}EF": ef}

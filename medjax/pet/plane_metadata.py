"""Oblique planes and time-of-flight bins as the metadata of a counts file tell them: {rings, segments, tof}."""

from collections.abc import Mapping
from typing import Any

from medjax.errors import ConfigError, DataError
from medjax.io.siemens_listmode import MAX_RINGS
from medjax.pet.michelogram import Michelogram, Segment
from medjax.pet.tof import Tof

TOF_KEYS = ("bins", "bin_ps", "resolution_ps")


def plane_metadata(michelogram: Michelogram | None, tof: Tof | None = None) -> dict[str, Any]:
    """Metadata of planes and bins, which `read_michelogram` and `read_tof` take back; nothing of direct planes."""
    found = dict[str, Any]()
    if michelogram is not None:
        segments = [[one.lowest, one.highest] for one in michelogram.segments]
        found |= {"rings": michelogram.rings, "segments": segments}
    if tof is not None:
        found["tof"] = {key: getattr(tof, key) for key in (*TOF_KEYS, "open_ends")}
    return found


def read_michelogram(name: str, metadata: Mapping[str, Any], planes: int) -> Michelogram | None:
    """Michelogram in the metadata of counts called `name`; None without `segments`: direct planes.

    Raises:
        DataError: segments that no rings have, or that have another number of planes than the counts.
    """
    segments, rings = metadata.get("segments"), metadata.get("rings")
    if segments is None:
        return None
    if not (isinstance(rings, int) and 1 <= rings <= MAX_RINGS):
        raise DataError(f"{name}: rings {rings!r} in its metadata; expected a number of rings beside the segments")
    if not isinstance(segments, list) or not all(_is_band(one) for one in segments):
        raise DataError(f"{name}: segments in its metadata are no [smallest, largest ring difference] each")
    try:
        found = Michelogram(rings, tuple(Segment(low, high) for low, high in segments))
        numbers = found.planes_per_segment
        _ = found.mirrored
    except ConfigError as error:
        raise DataError(f"{name}: {error}") from None
    if sum(numbers) != planes:
        held = " + ".join(map(str, numbers))
        raise DataError(f"{name}: {planes} planes; the segments of its metadata have {held} = {sum(numbers)}")
    return found


def read_tof(name: str, metadata: Mapping[str, Any], bins: int | None) -> Tof | None:
    """Time-of-flight bins in the metadata of counts with so many; `bins` None: counts without.

    Raises:
        DataError: they are missing, or not those of the counts.
    """
    told = metadata.get("tof")
    if bins is None and told is None:
        return None
    if not isinstance(told, Mapping) or not all(_is_number(told.get(key)) for key in TOF_KEYS):
        raise DataError(
            f"{name}: no tof in its metadata with numbers {', '.join(TOF_KEYS)}; expected those of its bins"
        )
    if bins is None or told["bins"] != bins:
        found = "no time-of-flight axis" if bins is None else f"{bins} time-of-flight bins"
        raise DataError(f"{name}: {found}; its metadata say {told['bins']} bins")
    try:
        return Tof(bins, float(told["bin_ps"]), float(told["resolution_ps"]), bool(told.get("open_ends", False)))
    except ConfigError as error:
        raise DataError(f"{name}: {error}") from None


def _is_band(band: Any) -> bool:
    ends = isinstance(band, list) and len(band) == 2
    return ends and all(isinstance(end, int) and abs(end) <= MAX_RINGS for end in band)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9

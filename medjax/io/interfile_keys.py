"""The keys of Interfile headers, of STIR's and Siemens' dialects: which are used, which must have a value, which do not
matter for the counts.

Names are lower case, without ! and %, and without index. A key in none of the tables is named in a warning, for it may
change the meaning of the data.

Source: STIR, src/IO/InterfileHeader.cxx and InterfileHeaderSiemens.cxx, and headers that its recon_test_pack holds.
"""

from typing import Literal, NamedTuple

Role = Literal["counts", "additive", "multiplicative", "list mode"]  # what a file is read as
NO_CORRECTION = ("none", "off", "no", "false", "0")


class Check(NamedTuple):
    """Values of a key that are accepted, and what to do about others."""

    accepted: tuple[str, ...]
    remedy: str = ""


# Where the counts lie in the file, and which they are
_STORAGE = frozenset({
    "name of data file", "number format", "number of bytes per pixel", "imagedata byte order", "image data byte order",
    "data offset in bytes", "number of dimensions", "matrix axis label", "matrix size", "image scaling factor",
    "quantification units", "minimum ring difference per segment", "maximum ring difference per segment",
    "segment table", "axial compression", "maximum ring difference",
    "maximum number of (unmashed) tof time bins", "size of unmashed tof time bins (ps)", "tof mashing factor",
    "tof bin order", "tof timing resolution (ps)", "timing resolution (ps)",
})  # fmt: skip
# Compared with the scanner, or used in its place
GEOMETRY = frozenset({
    "number of rings", "number of detectors per ring", "inner ring diameter (cm)", "gantry crystal radius (cm)",
    "distance between rings (cm)", "average depth of interaction (cm)",
})  # fmt: skip
_EVENTS = frozenset({
    "name of data file", "data offset in bytes", "data format", "total listmode word counts", "image duration (sec)",
    "lm event and tag words format (bits)", "axial compression", "maximum ring difference", "number of projections",
    "number of views", "image data byte order", "imagedata byte order",
})  # fmt: skip
USED: dict[str, frozenset[str]] = {
    "counts": _STORAGE | GEOMETRY,
    "additive": _STORAGE,
    "multiplicative": _STORAGE | {"applied corrections", "pet data type"},
    "list mode": _EVENTS | GEOMETRY,
}

_POSITION = "set the key so and turn the image afterwards, for x, y, z are those of a patient head first, supine"
CHECKED = {
    "patient orientation": Check(("head_in", "hfs"), _POSITION),
    "patient rotation": Check(("supine",), _POSITION),
    "applied corrections": Check(NO_CORRECTION, "expected counts are modelled, measured ones are not corrected"),
    "pet data type": Check(("emission",)),
    "imaging modality": Check(("pt", "pet")),
    "type of data": Check(("pet",)),
    "pet scanner type": Check(("cylindrical",)),
    "scanner geometry (blocksoncylindrical/cylindrical/generic)": Check(("cylindrical",)),
    "view offset (degrees)": Check(("0",), "views are counted from the vertical"),
    "gantry tilt angle (degrees)": Check(("0",)),
    "radial arc-correction": Check(NO_CORRECTION),
    "decay correction": Check(NO_CORRECTION),
    "number of detector layers": Check(("1",)),
    "number of tof time bins": Check(("1",), "no time of flight"),
    "number of time frames": Check(("1",)),
    "number of scan data types": Check(("1",), "prompts alone"),
    "compression": Check(("off",)),
    "rescale slope": Check(("1",)),
    "rescale intercept": Check(("0",)),
    "data rescale slope": Check(("1",)),
    "data rescale offset": Check(("0",)),
}
# Keys that are checked for counts, but used of a file of factors
SPARED_BY_ROLE: dict[str, frozenset[str]] = {
    "counts": frozenset(),
    "list mode": frozenset(),
    "additive": frozenset({"applied corrections"}),
    "multiplicative": USED["multiplicative"] & frozenset(CHECKED),
}

HARMLESS = (  # patterns of whole names
    # the study, the injection and the clock
    "originating system|version of keys|sms-mi .*|study .*|patient (id|name|dob|sex|weight|height).*|institution.*",
    "isotope .*|radiopharmaceutical|tracer .*|injected volume.*|relative time of tracer injection.*|calibration factor",
    "image duration.*|image relative start time.*|image start time|time_sync|preset .*|acquisition .*|process status",
    "comment|data (set )?description|contact|number of studies|index nesting level|gantry system .*|gate .*",
    # the scanner, beyond what the geometry needs
    "scanner type|septa state|transaxial fov diameter.*|energy resolution|reference energy.*|number of energy windows",
    "energy window .*|(default|effective central|) ?bin size.*|number of (blocks|crystals) per .*",
    "(maximum|default) number of .*bins.*|scanner orientation.*|scanner direction.*|coincidence window.*",
    "(horizontal|vertical) bed .*|(start|end) (horizontal|vertical) bed .*|bed zero offset.*",
    "maximum number of \\(unmashed\\) tof time bins|size of .*tof time bins?.*|tof mashing factor|tof bin order",
    "(tof )?timing resolution.*",
    # what follows from other keys, and statistics
    "(scaling|scale) factor \\((mm|degree)/pixel\\)|number of segments|total number of sinograms",
    "(maximum|minimum) pixel count|total (prompts|delayed|randoms|net trues|number of singles blocks).*|data format",
    "(total uncorrected|bucket) singles rate.*|number of buckets|singles .*|timing tagwords .*|scan data type .*",
    "number of (slices|planes)|compressor version|image (weighted )?.*rates?.*",
    "maximum ring difference|segment table|sinogram .*|delayed events .*|prompts? .*",
    "number of (rings|detectors per ring|views|projections)",
    "(inner ring|distance between|average depth|gantry crystal) .*",
)
"""Keys that change neither the counts nor where they lie."""

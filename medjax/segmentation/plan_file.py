"""A plan as JSON, checked when it is read: types and ranges, and that its parts fit each other.

from_json(to_json(plan)) == plan
"""

import json
from dataclasses import asdict
from dataclasses import fields as fields_of
from typing import Any

from medjax.errors import DataError
from medjax.io.files import parse_json
from medjax.models.saved_settings import LARGEST, Range, read_settings, short_repr
from medjax.segmentation.plan import Plan
from medjax.segmentation.regions import check_regions
from medjax.segmentation.resample import IntensityProperties

FORMER_KEYS = {"greys": "intensities", "masked": "use_mask_for_norm"}  # former keys of plan.json
EXPECTED = "the JSON of a plan"
RANGES: dict[str, Range] = {
    "spacing": (1e-6, 1e6),
    "median_shape": (1, 2**24),
    "patch": (1, 4096),
    "batch": (1, LARGEST),
    "widths": (1, LARGEST),
    "kernels": (1, 64),
    "strides": (1, 64),
    "classes": (2, LARGEST),
    "flat_axis": (0, 2),
    "mirror": (0, 2),
    "slice_axis": (0, 2),
}


def to_json(plan: Plan) -> str:
    """Plan as JSON text."""
    return json.dumps(asdict(plan), indent=2) + "\n"


def from_json(text: str) -> Plan:
    """Plan from the JSON text of `to_json`; unknown entries are ignored.

    Raises:
        DataError: the text is not the JSON of a plan, or a value is of another type, out of range or does not fit.
    """
    content = parse_json(text, "plan", EXPECTED)
    if not isinstance(content, dict):
        raise DataError(f"plan: a JSON {type(content).__name__}; expected {EXPECTED}")
    known = {field.name for field in fields_of(Plan)}
    renamed = {FORMER_KEYS.get(name, name): value for name, value in content.items()}
    values: dict[str, Any] = {name: value for name, value in renamed.items() if name in known}
    if (intensities := values.get("intensities")) is not None:
        values["intensities"] = _intensities(intensities)
    try:
        plan = read_settings("plan", Plan, values, RANGES)
        check_regions(plan.regions, plan.region_order, plan.classes)
    except DataError as error:
        raise DataError(f"{error}; expected {EXPECTED}") from error
    sides = {name: len(getattr(plan, name)) for name in ("widths", "kernels", "strides")}
    if not plan.widths or len({*sides.values()}) > 1:
        raise DataError(f"plan: {sides}; expected as many of each, one or more levels")
    if not plan.channels or len(plan.channels) != len(plan.intensities):
        raise DataError(
            f"plan: {len(plan.channels)} channels, {len(plan.intensities)} intensities; expected equal ones"
        )
    if plan.ignore not in (None, plan.classes):
        raise DataError(f"plan: ignore {plan.ignore}; expected {plan.classes}, one above the classes, or null")
    return plan


def _intensities(values: Any) -> tuple[IntensityProperties, ...]:
    """Statistics of each channel from lists of numbers."""
    names = IntensityProperties._fields
    lists = isinstance(values, list) and all(isinstance(one, list) and len(one) == len(names) for one in values)
    if not lists:
        raise DataError(
            f"plan: intensities {short_repr(values)}; expected a list of {', '.join(names)} for each channel"
        )
    return tuple(
        read_settings("plan: intensities", IntensityProperties, dict(zip(names, one, strict=True)), {})
        for one in values
    )

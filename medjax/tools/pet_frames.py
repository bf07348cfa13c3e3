"""Reconstruction of the time frames of list mode: an image of each, and a table of their times and counts."""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from medjax.atomic import write_csv
from medjax.io.nifti import SUFFIXES
from medjax.pet.event_scan import EventScan
from medjax.pet.scan import Scan
from medjax.tools.checks import check_output
from medjax.tools.pet_reconstruct import reconstruct
from medjax.tools.pet_result import Reconstruction
from medjax.tools.pet_settings import ReconstructionSettings, complete_settings


def frame_file(output: Path, number: int) -> Path:
    """Name of the image of a frame, from 1: image.nii.gz → image_frame01.nii.gz."""
    suffix = next(one for one in SUFFIXES if output.name.endswith(one))
    return output.with_name(f"{output.name.removesuffix(suffix)}_frame{number:02d}{suffix}")


def reconstruct_frames(
    load: Callable[[], Iterator[Scan | EventScan]],
    settings: ReconstructionSettings,
    output: Path,
    *,
    dynamic: bool,
    **options: Any,
) -> Reconstruction:
    """Reconstruct a scan, or each of its time frames as soon as it is read; the last image.

    Images of time frames are in activity a second: image_frame01.nii.gz, …; image_frames.csv holds start, end and
    counts of each.

    Args:
        load: function that gives the scan of each frame, such as `medjax.pet.io.load_frames` of a file.
        settings: method and its parameters.
        output: NIfTI file of the image, or with whose name the frames' names begin.
        dynamic: whether there are time frames.
        options: further arguments of `reconstruct`.

    Raises:
        ConfigError, DataError, OSError: as of `reconstruct`; images of earlier frames stay.
    """
    if not dynamic:
        return reconstruct(lambda: next(load()), settings, output, **options)
    check_output(output, SUFFIXES)
    complete_settings(settings._replace(mr_guided=options.get("mr") is not None))  # before a file is read
    scans = load()
    first = next(scans)
    table = output.with_name(f"{output.name.split('.nii')[0]}_frames.csv")
    rows = list[list[Any]]()
    for number, scan in enumerate(chain([first], scans), start=1):
        made = reconstruct(scan, settings, frame_file(output, number), **options)
        rows.append([number, *(scan.frame_s or ()), round(made.counts), made.files[0].name])
        write_csv(table, ("frame", "start_s", "end_s", "counts", "file"), rows)
    return made

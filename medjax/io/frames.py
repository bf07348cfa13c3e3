"""Time frames of a scan: intervals in seconds from its start, one after the other."""

import math
from collections.abc import Sequence

from medjax.errors import ConfigError

MAX_FRAMES = 1000

Frames = Sequence[tuple[float, float]]


def check_frames(frames: Frames, duration_s: float) -> None:
    """Check that frames follow each other without overlap and lie within a scan of `duration_s` seconds.

    Raises:
        ConfigError: no frame or more than 1000, one of no duration or before the scan's start, an overlap, or an end
            after the scan's.
    """
    if not 1 <= len(frames) <= MAX_FRAMES:
        raise ConfigError(f"frames: {len(frames)}; expected 1 to {MAX_FRAMES}")
    before = 0.0
    for number, (start, end) in enumerate(frames, 1):
        own = f"frames: frame {number}, {start:g} to {end:g} s,"
        if not 0 <= start < end < math.inf:
            raise ConfigError(f"{own} lasts {end - start:g} s; expected a start of 0 s or more and a later end")
        if start < before:
            raise ConfigError(f"{own} begins before the end of the one before it, {before:g} s; expected no overlap")
        if end > duration_s + 1e-6:
            raise ConfigError(f"{own} ends after the scan, which lasts {duration_s:g} s")
        before = end


def frame_edges_ms(frames: Frames, duration_s: float) -> list[tuple[float, float]]:
    """First time tag of each frame and first one after it, in whole ms; infinite at the end of the scan.

    A tag at the scan's end so belongs to the frame that ends there.

    Raises:
        ConfigError: see `check_frames`.
    """
    check_frames(frames, duration_s)
    edges = [[float(math.ceil(1000 * second - 1e-6)) for second in frame] for frame in frames]
    ends = [math.inf if end > duration_s - 1e-6 else edge for (_, end), (_, edge) in zip(frames, edges, strict=True)]
    return [(edge, end) for (edge, _), end in zip(edges, ends, strict=True)]

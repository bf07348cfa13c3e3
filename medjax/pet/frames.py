"""Time frames of a dynamic scan as text: durations in the order of the frames, such as `5x60,3x120` in seconds."""

import re

from medjax.errors import ConfigError
from medjax.io.frames import MAX_FRAMES, check_frames

_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_DURATION = re.compile(rf"(?:(\d+)\s*[x*]\s*)?({_NUMBER})", re.IGNORECASE)
_INTERVAL = re.compile(rf"({_NUMBER})\s*-\s*({_NUMBER})")


def parse_frames(text: str, duration_s: float) -> tuple[tuple[float, float], ...]:
    """Intervals (start, end) in seconds from the start of the scan.

    Args:
        text: parts separated by commas: a duration in seconds (`60`), a number of equal frames (`5x60`), or the start
            and the end of a frame (`30-90`). The first duration begins at 0 s, each other one where the frame before
            it ends.
        duration_s: duration of the scan in seconds.

    Raises:
        ConfigError: a part is none of these, a duration is zero or negative, frames overlap, there are more than 1000,
            or one ends after the scan.
    """
    frames: list[tuple[float, float]] = []
    for part in text.split(","):
        part, end = part.strip(), frames[-1][1] if frames else 0.0
        if interval := _INTERVAL.fullmatch(part):
            frames.append((float(interval[1]), float(interval[2])))
        elif duration := _DURATION.fullmatch(part):
            number, length = int(duration[1] or 1), float(duration[2])
            if not number or not length:
                raise ConfigError(
                    f"frames {text!r}: {part!r} lasts 0 s; expected a number of frames and seconds above 0"
                )
            if len(frames) + number > MAX_FRAMES:
                raise ConfigError(f"frames {text!r}: {len(frames) + number} frames; expected {MAX_FRAMES} at most")
            frames += [(end + k * length, end + (k + 1) * length) for k in range(number)]
        else:
            raise ConfigError(
                f"frames {text!r}: {part!r}; expected seconds (60), a number of frames times seconds (5x60) or a start "
                "and an end (30-90), separated by commas"
            )
    check_frames(frames, duration_s)
    return tuple(frames)

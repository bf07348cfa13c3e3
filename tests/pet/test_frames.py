"""Time frames as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medjax.errors import ConfigError
from medjax.io.frames import check_frames
from medjax.pet.frames import parse_frames


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("60,60,120", ((0, 60), (60, 120), (120, 240))),
        ("2x60,3x120", ((0, 60), (60, 120), (120, 240), (240, 360), (360, 480))),
        (" 2 X 1.5 , .5", ((0, 1.5), (1.5, 3), (3, 3.5))),
        ("30-90, 10, 200-500", ((30, 90), (90, 100), (200, 500))),
        ("500", ((0, 500),)),
    ],
)
def test_text_becomes_intervals(text, expected):
    assert parse_frames(text, 500.0) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("60,0", "'0' lasts 0 s"),
        ("0x60", "'0x60' lasts 0 s"),
        ("60,-5", "'-5'; expected seconds"),
        ("", "''; expected seconds"),
        ("60,,60", "''; expected seconds"),
        ("5x", "'5x'; expected seconds"),
        ("nan", "'nan'; expected seconds"),
        ("1e3", "'1e3'; expected seconds"),
        ("90-30", "frame 1, 90 to 30 s, lasts -60 s"),
        ("60,30-90", "frame 2, 30 to 90 s, begins before the end of the one before it, 60 s"),
        ("5x60,201", "frame 6, 300 to 501 s, ends after the scan, which lasts 500 s"),
        ("1000000000x1", "1000000000 frames; expected 1000 at most"),
        ("9" * 400, "lasts"),
    ],
)
def test_text_that_is_refused(text, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")) as caught:
        parse_frames(text, 500.0)
    assert str(caught.value).startswith("frames") and "\n" not in str(caught.value)


@given(st.text("0123456789x*.,- \n", max_size=30))
def test_any_text_gives_frames_of_the_scan_or_one_line(text):
    try:
        check_frames(parse_frames(text, 500.0), 500.0)
    except ConfigError as error:
        assert "\n" not in str(error)

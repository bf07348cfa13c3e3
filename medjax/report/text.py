"""Text from outside, such as a file's name, in a page or a picture: shown as it is, never read as markup."""

import textwrap
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FONT = "DejaVu Sans"  # comes with Matplotlib, so that every machine draws the same
MAX_NAMES = 12  # in a description


def printable(text: str) -> str:
    """Text in which what has no picture stands as an escape, so that it can be encoded and drawn.

    That is control characters but line feeds and tabs, and the surrogates by which Python keeps bytes of a file name
    that are no UTF-8, such as `\\xff`.
    """
    return "".join(letter if letter in "\n\t" or not _unprintable(letter) else _escape(letter) for letter in text)


def finish(figure: "Figure", description: str) -> "Figure":
    """The figure with every text drawn letter by letter, and its description as its label.

    So `$x$` in a name is no formula, and a byte that is no text no error. Ticks of logarithmic axes keep their powers.
    The description goes into the PNG, of which a report makes its alternative text.
    """
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatter

    powers = [
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        if isinstance(axis.get_major_formatter(), LogFormatter)
        for label in axis.get_ticklabels(which="both")
    ]
    for text in figure.findobj(Text):
        if isinstance(text, Text) and not any(text is power for power in powers):
            text.set_parse_math(False)
            text.set_text(printable(text.get_text()))
    figure.set_label(printable(description))
    return figure


def enumerate_names(names: Iterable[str]) -> str:
    """Names with commas, each once, and how many are left out."""
    once = list(dict.fromkeys(name for name in names if name))
    more = len(once) - MAX_NAMES
    return ", ".join(once[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def wrap(text: str, width: float, size: float, max_rows: int = 3) -> tuple[str, float]:
    """Text in lines that are at most `width` inches wide, and its font size in points: `size`, or less if need be.

    Words go to another line where there is room for it, up to that number of rows; then letters become smaller.
    """
    text, room = printable(text), 72 * width / size  # room in units of the font size
    if _width(text) <= room:
        return text, size
    foldings = list[tuple[float, list[str]]]()
    for letters in range(len(text), 0, -1):
        folded = textwrap.wrap(text, letters, break_long_words=False)
        if len(folded) > max_rows:
            break
        foldings.append((max(map(_width, folded), default=0.0), folded))
        if foldings[-1][0] <= room:
            return "\n".join(folded), size
    widest, folded = min(foldings)
    return "\n".join(folded), size * room / widest


def _width(text: str) -> float:
    """Width of a line, in units of the font size."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        return text_to_path.get_text_width_height_descent(text, FontProperties(family=FONT, size=1), False)[0]


def _unprintable(letter: str) -> bool:
    return letter < " " or "\x7f" <= letter <= "\x9f" or "\ud800" <= letter <= "\udfff" or letter in "\ufffe\uffff"


def _escape(letter: str) -> str:
    code = ord(letter)
    byte = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code  # os.fsdecode keeps byte 0x80 + n as U+DC80 + n
    return f"\\x{byte:02x}" if byte < 0x100 else f"\\u{byte:04x}"

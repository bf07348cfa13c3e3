"""Colours and sizes that the figures share; a dark theme."""

BACKGROUND_COLOR, TEXT_COLOR, MUTED_COLOR, LINE_COLOR = "#0d1014", "#eceef0", "#98a2ab", "#333b43"
MARK_COLOR = "#8a949d"  # voxels whose values are not to be read
COLORS = (
    "#7fb6db", "#f2a65a", "#8fd19e", "#e58fb1", "#c9b6f2", "#e3d26f", "#9aa5ae", "#e0695c", "#4fc3bb", "#b58b63"
)  # fmt: skip
BAR, EDGE = 0.62, 0.16  # inches: height of the row of colour bars, and margin of a figure

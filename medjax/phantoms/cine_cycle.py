"""Contraction of a heart over the cardiac cycle, from 0 at end-diastole (ED) to 1 at end-systole (ES).

The time is a fraction of the cycle from the R wave: isovolumic contraction, ejection, isovolumic relaxation (a plateau
at 1, 6 % of the cycle: with 18 frames or more one frame shows exactly ES), rapid filling, diastasis, atrial kick.
"""

import numpy as np
from jaxtyping import Float
from scipy import interpolate

from medjax.phantoms.cine_anatomy import Heart

ISOVOLUMIC = 0.06


def contraction(heart: Heart, time: Float[np.ndarray, " frame"]) -> Float[np.ndarray, " frame"]:
    """Contraction at times 0 … 1; the LV's volume is EDV − contraction · (EDV − ESV)."""
    es, kick = heart.systole, heart.atrial_kick
    knots = [
        (0.0, 0.0),
        (0.03, 0.0),
        (0.03 + 0.5 * (es - 0.03), 0.6),
        (es, 1.0),
        (es + ISOVOLUMIC, 1.0),
        (es + ISOVOLUMIC + 0.08, 0.5 * (1 + kick)),
        (es + ISOVOLUMIC + 0.18, kick + 0.04),
        (0.82, kick),
        (0.96, 0.0),
        (1.0, 0.0),
    ]
    x, y = np.transpose(knots)
    return np.clip(interpolate.PchipInterpolator(x, y)(np.mod(time, 1.0)), 0.0, 1.0)

"""Outlier frames of a diffusion scan (motion, signal dropout): frames that contradict every sum of decays.

Whatever the tissue, S(b) = ∫ exp(−b D) dμ(D) with μ ≥ 0: it falls, is convex, and so on (Bernstein: a completely
monotone function). Bi-exponential, tri-exponential and all other sums of decays are such functions, so data that
contradict all of them are wrong, while data that only contradict a bi-exponential fit may be right. Means over some
voxels are completely monotone too, and have little noise.

The voxels make GROUPS means of neighbours, to each of which a sum of many decays with amplitudes ≥ 0 is fitted. A
frame is an outlier where the fits with it are worse than those without it by DEVIATION standard deviations, of the
noise and of MOTION of the signal that any scan has, or of the misfit of the other frames where that is more. No frame
is named where another one may as well be the bad one: at the lowest b, too low cannot be told from the next one too
high, and too high not from a fast decay; at the highest b, too low not from a slow decay. Repeats at that b can tell.

Source: complete monotonicity, Widder, The Laplace Transform, 1941, ch. IV; fit, Lawson & Hanson, Solving Least Squares
Problems, 1974.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import nnls
from scipy.stats import chi2

from medjax.ivim.fit import check_bvalues

MIN_FRAMES = 6  # frames that are always kept: two more than parameters
MIN_VOXELS = GROUPS = 8  # means that are fitted, and voxels below which no frame is called an outlier
DEVIATION = 3.0  # standard deviations from which on a frame is an outlier
MOTION = 0.03  # deviation of a good frame's mean signal, as a fraction of it: motion, drift, receive gain
AMBIGUOUS = 0.25  # excess of another frame's explanation, as a fraction of that of an outlier, up to which both may be
MAX_FRACTION = 0.25  # of the frames
SAMPLED_VOXELS = 256  # voxels from whose residuals the noise is taken
PARAMETERS = 4  # that a curve uses up, as a bi-exponential one does
DECAYS = np.concatenate([[0.0], np.geomspace(5e-5, 0.5, 28)])  # mm²/s


def outlier_frames(
    signals: Float[np.ndarray, "b voxel"],
    bvalues: Float[np.ndarray, " b"],
    weights: Float[np.ndarray, " b"] | None = None,
    min_frames: int = MIN_FRAMES,
    slices: Int[np.ndarray, " voxel"] | None = None,
) -> Bool[np.ndarray, " b"]:
    """Mask of the outlier frames of these voxels, to be left out of a fit; none where voxels are fewer than MIN_VOXELS.

    Args:
        weights: number of measurements averaged for each frame.
        min_frames: number of frames that are always kept.
        slices: slice of each voxel: where these are known dropout in some of them is looked for first.

    Raises:
        DataError: these b-values cannot determine the parameters.
    """
    check_bvalues(signals, bvalues)
    y, count = np.asarray(signals, np.float64), np.ones(len(bvalues)) if weights is None else weights
    finite = np.isfinite(y).all(0)
    y, most = y[:, finite], min(int(MAX_FRACTION * len(bvalues)), len(bvalues) - min_frames)
    kept = np.arange(len(bvalues))
    if y.shape[1] < MIN_VOXELS or most < 1 or not y.max() > 0:
        return np.zeros(len(bvalues), bool)
    by_slice = [] if slices is None else [y[:, np.argsort(slices[finite], kind="stable")]]
    for voxels in (*by_slice, y):  # in order of slices, and as they are
        means = _Means(voxels[kept] / y.max(), bvalues[kept], count[kept])
        kept = np.delete(kept, _outliers(means, most - (len(bvalues) - len(kept))))
    return ~np.isin(np.arange(len(bvalues)), kept)


class _Means:
    """Means of groups of voxels, whitened, and the misfit of sums of decays to a part of their frames."""

    def __init__(self, y: np.ndarray, bvalues: np.ndarray, weights: np.ndarray) -> None:
        self.bvalues = bvalues
        decays, one = np.exp(-np.outer(bvalues, DECAYS)), 1 / np.sqrt(weights)
        some = y[:, np.linspace(0, y.shape[1] - 1, min(SAMPLED_VOXELS, y.shape[1])).astype(int)]
        squares = [nnls(decays / one[:, None], voxel / one)[1] ** 2 for voxel in some.T]
        freedom = len(bvalues) - PARAMETERS
        variance = np.median(squares) / chi2.median(freedom)
        self.curves = list[tuple[np.ndarray, np.ndarray]]()
        for part in np.array_split(y, GROUPS, axis=1):
            mean = part.mean(1)
            fitted = decays @ nnls(decays / one[:, None], mean / one)[0]
            sd = np.sqrt(variance / part.shape[1] * one**2 + (MOTION * fitted) ** 2 + 1e-12)
            self.curves.append((decays / sd[:, None], mean / sd))

    def misfit(self, keep: np.ndarray) -> float:
        """Σ ((mean − fit) / sd)² over these frames, a group; inf where they do not have four b-values."""
        if len(np.unique(self.bvalues[keep])) < PARAMETERS:
            return np.inf
        return sum(nnls(decays[keep], mean[keep])[1] ** 2 for decays, mean in self.curves) / GROUPS

    def without(self, *frames: int) -> np.ndarray:
        """Mask of the other frames."""
        keep = np.ones(len(self.bvalues), bool)
        keep[list(frames)] = False
        return keep


def _outliers(means: _Means, most: int) -> list[int]:
    """The most outliers, at most `most`, that all contradict the other frames."""
    order = _candidates(means, most)
    for number in range(len(order), 0, -1):
        if all(_is_outlier(means, k, order[:number]) for k in order[:number]):
            return order[:number]
    return []


def _candidates(means: _Means, most: int) -> list[int]:
    """Frames in the order in which leaving them out, one after the other, lowers the misfit most."""
    out, now = list[int](), means.misfit(means.without())
    while len(out) < most:
        rest = [k for k in range(len(means.bvalues)) if k not in out]
        misfits = [means.misfit(means.without(*out, k)) for k in rest]
        best = int(np.argmin(misfits))
        if now - misfits[best] < DEVIATION**2:
            break
        out, now = [*out, rest[best]], misfits[best]
    return out


def _is_outlier(means: _Means, frame: int, out: list[int]) -> bool:
    """Whether `frame` contradicts the frames that are not `out`, and none of these explains that as well."""
    others = [k for k in out if k != frame]
    good = means.without(*out)
    base = means.misfit(good)
    scale = max(1.0, base / max(int(good.sum()) - PARAMETERS, 1))
    if means.misfit(means.without(*others)) - base < DEVIATION**2 * scale:
        return False
    instead = min(means.misfit(means.without(*others, k)) for k in np.flatnonzero(good).tolist())
    return instead - base >= AMBIGUOUS * DEVIATION**2 * scale

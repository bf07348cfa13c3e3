"""Samples of `cmr_precision`: what each method says of each session, as numbers of voxels; no mask is kept.

A cohort's samples of one method are a stage of the work directory. All methods draw from networks of one training: the
ensemble from all of them, the others from the first.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree
from ml_collections import FrozenConfigDict

from experiments.cmr.scans import BIOMARKERS, CLASSES, Session, Stack, prepare_stack
from medjax.metrics.overlap import overlap
from medjax.models.model import Network
from medjax.running.progress import track
from medjax.running.workdir import WorkDir, stage
from medjax.segmentation.plan import Plan
from medjax.uncertainty import pixel_calibration
from medjax.uncertainty.biomarkers import ACDC, biomarkers, volumes_from_counts
from medjax.uncertainty.predictive import augmented_ensemble, monte_carlo_dropout, stack_members, test_time_augmentation
from medjax.uncertainty.sampling import fold_samples
from medjax.uncertainty.swag import Posterior, swag
from medjax.uncertainty.transforms import Transform, compose, contrast, flips, gamma, noise, quarter_turns

METHODS = {
    "ensemble": "deep ensemble",
    "tta": "test-time augmentation",
    "dropout": "Monte-Carlo dropout",
    "swag": "SWAG",
}
CONTOUR = 3  # pixels: calibration is measured so near the contours
PIXELS = ("ece", "brier", "nll")


class Method(NamedTuple):
    """A method of a seed: its draw, what it draws from, and its random key."""

    draw: Any
    params: PyTree
    key: PRNGKeyArray


class Known(NamedTuple):
    """What is known of a cohort without a network: truth, and biomarkers of perfect labels on each scan's slices."""

    truth: Float[np.ndarray, "subject session biomarker"]
    labels: Float[np.ndarray, "subject session biomarker"]
    voxel_ml: Float[np.ndarray, "subject session"]


class _Sums(NamedTuple):
    """Running sums over samples."""

    number: Int[Array, ""]  # samples so far
    counts: Int[Array, "sample image class"]  # voxels of each class
    probabilities: Float[Array, "number image x y z class"]  # of the first N samples, for each N


def make_methods(
    config: FrozenConfigDict, seed: int, members: Sequence[PyTree], posterior: Callable[[], Posterior]
) -> dict[str, Method]:
    """Methods of a seed by name: those of the config."""
    a = config.augmentation
    transform: Transform = compose(
        flips((0, 1)), quarter_turns((0, 1)), gamma(a.gamma), contrast(a.contrast), noise(a.noise)
    )
    every: dict[str, Callable[[], tuple[Any, PyTree]]] = {
        "ensemble": lambda: (augmented_ensemble(transform, len(members)), stack_members(members)),
        "tta": lambda: (test_time_augmentation(transform), members[0]),
        "dropout": lambda: (monte_carlo_dropout, members[0]),
        "swag": lambda: (swag, posterior()),
    }
    key = jax.random.key(config.seed + seed)
    return {
        name: Method(*every[name](), jax.random.fold_in(key, number))
        for number, name in enumerate(METHODS)
        if name in config.methods
    }


def sample_cohort(
    work: WorkDir,
    name: str,
    sessions: Callable[[], Sequence[Sequence[Session]]],
    design: Plan,
    model: Network,
    methods: dict[str, Method],
    numbers: Sequence[int],
) -> tuple[Known, dict[str, dict[str, np.ndarray]]]:
    """What is known of a cohort, and every method's samples of it; stages `known_NAME` and `samples_NAME_METHOD`.

    Samples: `counts` (subject, session, sample, phase, class), numbers of voxels; `dice` (subject, session, number,
    phase, structure) of the mean probabilities of the first N samples; `pixels` (number, figure) of `PIXELS`, near the
    contours of the first session's labels; `image`, `label`, `predicted` (image x y) of the first session of all.
    """
    cohort = functools.cache(lambda: [[(one, prepare_stack(one, design)) for one in subject] for subject in sessions()])
    known = stage(work, f"known_{name}", lambda: _known(cohort())._asdict())

    def sample(method: str) -> dict[str, np.ndarray]:
        found, states = list[list[dict[str, np.ndarray]]](), [pixel_calibration.init(CLASSES)] * len(numbers)
        example = dict[str, np.ndarray]()
        for subject in track(cohort(), f"{name}, {METHODS[method]}"):
            rows = list[dict[str, np.ndarray]]()
            for _, stack in subject:
                row, probabilities = sample_stack(model, methods[method], stack, numbers)
                example = example or _example(stack, probabilities[-1])
                if not rows:
                    states = [_calibrate(*each, stack) for each in zip(states, probabilities, strict=True)]
                rows.append(row)
            found.append(rows)
        pixels = [[pixel_calibration.summary(state)[figure] for figure in PIXELS] for state in states]
        return {**_stack(found), "pixels": np.array(pixels), **example}

    return Known(**known), {
        method: stage(work, f"samples_{name}_{method}", functools.partial(sample, method)) for method in methods
    }


def sample_stack(
    model: Network, method: Method, stack: Stack, numbers: Sequence[int]
) -> tuple[dict[str, np.ndarray], Float[np.ndarray, "number image x y z class"]]:
    """Counts and Dice of a session, and mean probabilities of the first N samples, for each N."""
    images, n = len(stack.images), max(numbers)
    shape = (len(numbers), *stack.labels.shape, CLASSES)
    start = _Sums(jnp.int32(0), jnp.zeros((n, images, CLASSES), jnp.int32), jnp.zeros(shape))
    sums = fold_samples(
        method.draw, method.key, model, method.params, stack.images, n,
        update=functools.partial(_update, jnp.asarray(numbers)), state=start, strategy="loop",
    )  # fmt: skip
    counts = np.asarray(sums.counts).reshape(n, 2, images // 2, CLASSES).sum(2)
    probabilities = np.asarray(sums.probabilities) / np.reshape(numbers, (-1, 1, 1, 1, 1, 1))
    dice = [_dice(one.argmax(-1), stack.labels) for one in probabilities]
    return {"counts": counts, "dice": np.array(dice)}, probabilities


def biomarker_samples(
    counts: Int[np.ndarray, "subject session sample phase class"], voxel_ml: Float[np.ndarray, "subject session"]
) -> Float[np.ndarray, "biomarker subject session sample"]:
    """Biomarkers of every sample: ED and ES of one sample belong together."""
    every = volumes_from_counts(counts[..., None, :], ACDC, voxel_ml[:, :, None, None])
    ed, es = (type(every)(*(one[..., phase] for one in every)) for phase in range(2))
    found = biomarkers(ed, es)
    return np.stack([found[name] for name in BIOMARKERS])


@jax.jit
def _update(numbers: Int[Array, " number"], sums: _Sums, logits: Float[Array, "image x y z class"]) -> _Sums:
    labels, space = jnp.argmax(logits, -1), tuple(range(1, logits.ndim - 1))
    counts = jnp.stack([jnp.sum(labels == kind, space, dtype=jnp.int32) for kind in range(CLASSES)], -1)
    counted = (sums.number < numbers).reshape(-1, *[1] * logits.ndim)
    return _Sums(
        sums.number + 1,
        sums.counts.at[sums.number].set(counts),
        sums.probabilities + jnp.where(counted, jax.nn.softmax(logits), 0),
    )


def _example(stack: Stack, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    images = {"image": stack.images[..., 0, 0], "label": stack.labels[..., 0]}
    return images | {"predicted": probabilities.argmax(-1)[..., 0].astype(np.int32)}


def _calibrate(
    state: pixel_calibration.PixelCalibration, probabilities: np.ndarray, stack: Stack
) -> pixel_calibration.PixelCalibration:
    mask = pixel_calibration.near_contour(stack.labels[..., 0], CONTOUR)[..., None]
    return pixel_calibration.update(state, probabilities, stack.labels, mask)


def _dice(found: np.ndarray, labels: np.ndarray) -> Float[np.ndarray, "phase structure"]:
    phases = zip(np.split(found, 2), np.split(labels, 2), strict=True)
    return np.array([np.asarray(overlap(one, true, CLASSES).dice)[1:] for one, true in phases])


def _known(cohort: Sequence[Sequence[tuple[Session, Stack]]]) -> Known:
    truth = [[[session.truth[name] for name in BIOMARKERS] for session, _ in subject] for subject in cohort]
    voxel_ml = np.array([[stack.voxel_ml for _, stack in subject] for subject in cohort])
    counts = np.array([[[_count(stack.labels)] for _, stack in subject] for subject in cohort])
    labels = biomarker_samples(counts, voxel_ml)[..., 0]
    return Known(np.array(truth), np.moveaxis(labels, 0, -1), voxel_ml)


def _count(labels: np.ndarray) -> Int[np.ndarray, "phase class"]:
    return np.array([[np.sum(phase == kind) for kind in range(CLASSES)] for phase in np.split(labels, 2)])


def _stack(rows: Sequence[Sequence[dict[str, np.ndarray]]]) -> dict[str, np.ndarray]:
    return {name: np.array([[one[name] for one in subject] for subject in rows]) for name in rows[0][0]}

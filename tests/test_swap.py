"""Swap a part: each is written here in a few lines of plain JAX and runs in the library's pipelines, which know nothing
of it. A page to read and to copy from; DESIGN's seams in the order network, algorithm, likelihood, penalty, denoiser,
score of a label, threshold.
"""

import csv
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from medjax import iterate, likelihood
from medjax.diffusion import guidance, planes, sampler
from medjax.diffusion.likelihood_schedule import likelihood_schedule
from medjax.diffusion.sde import Sde, vp
from medjax.io.nifti import write_nifti
from medjax.iterate import Algorithm
from medjax.labels.scores import LabelScore, built_in
from medjax.models.model import Model
from medjax.penalty import from_function
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, acquire, ordered_subsets
from medjax.pet.bsrem import bsrem
from medjax.pet.grid import Grid
from medjax.pet.scanner import parallel_lors
from medjax.pet.system import build_system
from medjax.phantoms.echo import echo
from medjax.segmentation.nnunet import train_fold
from medjax.segmentation.nnunet_predict import predict_case
from medjax.segmentation.patches import prepare
from medjax.segmentation.plan import fingerprint, plan
from medjax.tools.labels_audit import audit
from medjax.training.augment_nnunet import NO_AUGMENTATION
from tests.segmentation.blobs import blobs

# ── network: two functions; any number of axes of space ──

CLASSES = 3


def init(key: jax.Array, images: jax.Array) -> dict[str, jax.Array]:
    side, inputs = (3,) * (images.ndim - 2), images.shape[-1]
    first, second = jax.random.split(key)
    return {
        "first": 0.2 * jax.random.normal(first, (3 ** len(side) * inputs * 8,)).reshape(*side, inputs, 8),
        "second": 0.2 * jax.random.normal(second, (8 * CLASSES,)).reshape(*(1 for _ in side), 8, CLASSES),
    }


def apply(params: dict[str, jax.Array], images: jax.Array, key: jax.Array | None = None) -> jax.Array:
    return convolve(jax.nn.relu(convolve(images, params["first"])), params["second"])


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    space = "XYZ"[: x.ndim - 2]
    numbers = (f"N{space}C", f"{space}IO", f"N{space}C")
    return jax.lax.conv_general_dilated(x, kernel, (1,) * len(space), "SAME", dimension_numbers=numbers)


def test_a_network_in_nnunets_recipe():
    cases = [blobs(seed) for seed in range(3)]
    planned = plan(fingerprint(cases, CLASSES), base_width=4, patch=(12, 12, 12), batch=2)
    ready, model = [prepare(case, planned) for case in cases], Model(init, apply)
    losses: list[float] = []
    fold = train_fold(
        model, ready[:2], ready[2:], planned, epochs=2, iterations=20, rate=0.1, augmentation=NO_AUGMENTATION,
        report=lambda fold, values: losses.append(float(values["loss"])),
    )  # fmt: skip
    assert losses[1] < losses[0]
    said = predict_case(model, [fold.state.params], cases[2].image, cases[2].spacing, planned)
    assert said.labels.shape == cases[2].labels.shape and said.probabilities.shape[-1] == CLASSES


# ── algorithm: State, init and step; here Landweber's iteration with a step that a sweep may vary ──


class Landweber(NamedTuple):
    image: Any
    step: Any


def landweber(scan: Acquisition, size: float | jax.Array) -> Algorithm:
    return Algorithm(Partial(landweber_init, scan), Partial(landweber_step, scan, size))


def landweber_init(scan: Acquisition) -> Landweber:
    return Landweber(jnp.zeros_like(scan.sensitivity), jnp.zeros((), jnp.int32))


def landweber_step(scan: Acquisition, size: float | jax.Array, state: Landweber) -> tuple[Landweber, jax.Array]:
    residual = scan.counts - scan.expected(state.image)
    image = jnp.maximum(state.image + size * scan.adjoint(residual), 0)
    return Landweber(image, state.step + 1), jnp.sum(residual**2)


GRID = Grid((16, 16, 1), (4.0, 4.0, 4.0))


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    x, y = np.meshgrid(*2 * (np.arange(16) - 7.5,), indexing="ij")
    return (1.0 * (np.hypot(x, y) < 6) + 2.0 * (np.hypot(x - 2, y) < 2))[..., None].astype(np.float32)


@pytest.fixture(scope="module")
def scan(truth: np.ndarray) -> Acquisition:
    system = build_system(parallel_lors(24, 24, 4.0), GRID)
    empty = acquire(system, jnp.zeros((24, 24, 1)), 0.5, 2.0)
    counts = np.random.default_rng(0).poisson(empty.expected(jnp.asarray(truth))).astype(np.float32)
    return acquire(system, jnp.asarray(counts), 0.5, 2.0)


def test_an_algorithm_by_every_driver_and_as_a_sweep(scan: Acquisition):
    sizes = jnp.array([1e-5, 1e-4])
    method = landweber(scan, 1e-4)
    state, residuals = iterate.scan(method, method.init(), 12)
    assert np.all(np.diff(residuals) < 0)
    looped = iterate.last(iterate.loop(method, method.init(), 12, every=5), method.init())
    repeated = jax.jit(iterate.repeat)(method, method.init(), 12)
    for other in (looped, repeated):
        np.testing.assert_allclose(other.image, state.image, rtol=1e-4, atol=1e-5)
    swept = jax.vmap(lambda size: iterate.scan(landweber(scan, size), method.init(), 12)[0].image)(sizes)
    np.testing.assert_allclose(swept[1], state.image, rtol=1e-4, atol=1e-5)


# ── likelihood: three methods; here data with a few wild values, which Huber's loss bears ──


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Huber:
    data: jax.Array

    def expected(self, image: jax.Array) -> jax.Array:
        return image

    def deviance(self, expected: jax.Array) -> jax.Array:
        r = jnp.abs(expected - self.data)
        return jnp.sum(jnp.where(r < 1, r**2 / 2, r - 0.5)) / 0.05

    def gradient(self, image: jax.Array) -> jax.Array:
        return jnp.clip(self.data - image, -1, 1) / 0.05


# ── denoiser: (x, t) → x0 with its Sde; here the exact one of independent voxels N(1, 0.5²) ──


@dataclass(frozen=True)
class Exact:
    sde: Sde

    def __call__(self, x: jax.Array, t: jax.Array) -> jax.Array:
        gamma, nu = (value.reshape(-1, *(1,) * (x.ndim - 1)) for value in jax.vmap(self.sde.marginal)(t))
        return 1.0 + 0.25 * gamma * (x - gamma) / (0.25 * gamma**2 + nu**2)


def drawn(guided: Any, shape: tuple[int, ...], seed: int = 0) -> jax.Array:
    method = sampler.sampler(guided, vp(), sampler.uniform_times(60), sampler.ddim(1.0))
    return iterate.scan(method, method.init(jax.random.key(seed), shape), 60)[0].x0


def test_a_denoiser_alone_lifted_to_volumes_and_given_data(scan: Acquisition):
    x = drawn(guidance.prior_only(Exact(vp())), (40, 40))
    np.testing.assert_allclose([x.mean(), x.std()], [1.0, 0.5], atol=0.05)
    volume = drawn(guidance.prior_only(planes.slice_wise(Exact(vp()), 2)), (12, 12, 6))
    np.testing.assert_allclose([volume.mean(), volume.std()], [1.0, 0.5], atol=0.08)
    given = drawn(guidance.dds(Exact(vp()), scan, proximal_weight=jnp.mean(scan.sensitivity)), GRID.shape)
    one = em.init(scan).image
    assert scan.deviance(scan.expected(given)) < scan.deviance(scan.expected(one))


def test_a_likelihood_of_three_methods_in_guidance():
    data = jnp.ones((12, 12)).at[0, 0].set(50.0).at[3:6, 3:6].set(2.0)
    huber = Huber(data)
    one = likelihood.update(huber, jnp.zeros((12, 12)))
    assert huber.deviance(one) < huber.deviance(jnp.zeros((12, 12)))
    alone = drawn(guidance.prior_only(Exact(vp())), data.shape)
    targets = jnp.full(60, huber.deviance(huber.expected(data.at[0, 0].set(2.0))) * 1.02)
    for guided in (
        guidance.dds(Exact(vp()), huber, proximal_weight=4.0, nonnegative=False),
        guidance.dps(Exact(vp()), huber, weight=1.0, nonnegative=False),
        likelihood_schedule(Exact(vp()), huber, targets, floor=None),
    ):
        x = drawn(guided, data.shape)
        assert huber.deviance(x) < huber.deviance(alone) and np.isfinite(x).all()


# ── penalty: any function is one; with a surrogate of its own it suits MAP-EM too ──


def roughness(image: jax.Array) -> jax.Array:
    return sum(jnp.sum(jnp.sqrt(jnp.diff(image, axis=axis) ** 2 + 0.01)) for axis in (0, 1))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Ridge:
    level: float

    def value(self, image: jax.Array) -> jax.Array:
        return jnp.sum((image - self.level) ** 2) / 2

    def gradient(self, image: jax.Array) -> jax.Array:
        return image - self.level

    def surrogate(self, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.full_like(image, self.level), jnp.ones_like(image)


def test_a_penalty_in_map_em_bsrem_and_guidance(scan: Acquisition):
    stacked, smooth = ordered_subsets(scan, 3), from_function(roughness)
    start = iterate.scan(em.osem(stacked), em.init(scan), 9)[0].image
    method = bsrem(stacked, smooth, 100.0)
    assert roughness(iterate.scan(method, method.init(start), 30)[0].image) < 0.9 * roughness(start)
    pulled = iterate.scan(em.map_em(stacked, Ridge(1.0), 1e6), em.init(scan), 9)[0].image
    seen = scan.sensitivity > 0
    np.testing.assert_allclose(pulled[seen], 1.0, atol=0.05)
    anchor = 0.1 * jnp.mean(scan.sensitivity)
    images = [
        drawn(guidance.dds(Exact(vp()), scan, anchor, penalty=smooth, penalty_weight=w), GRID.shape)
        for w in (0.0, 40.0)
    ]
    assert roughness(images[1]) < 0.9 * roughness(images[0])


# ── score of a label and threshold: init, update, score; and scores → flags; here with the network above ──

worst = LabelScore(
    lambda images, space: jnp.zeros(images),
    lambda state, index, probe: state.at[index].max(probe.losses["cross_entropy"]),
    lambda state, labels: state,
)


def three_highest(scores: np.ndarray) -> np.ndarray:
    return scores >= np.sort(scores)[-3]


def test_a_score_a_threshold_and_a_network_in_the_audit(tmp_path):
    data = echo(seed=0, number=16, size=16)
    for name, arrays in (("images", data.images[..., 0]), ("masks", np.minimum(data.labels, 2).astype(np.uint8))):
        (tmp_path / name).mkdir()
        for k, array in enumerate(arrays):
            write_nifti(tmp_path / name / f"{k:02d}.nii.gz", array[..., None], np.eye(4))
    audit(
        tmp_path / "images", tmp_path / "masks", tmp_path / "audit", score="worst", threshold=three_highest,
        size=16, epochs=4, network=lambda classes: Model(init, apply),
        label_scores={"loss": built_in()["loss"], "worst": worst},
    )  # fmt: skip
    with (tmp_path / "audit" / "ranked.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["flagged"] for row in rows] == ["1"] * 3 + ["0"] * 13
    values = [float(row["worst"]) for row in rows]
    assert values == sorted(values, reverse=True) and values[0] > values[-1] > 0 and "loss" in rows[0]

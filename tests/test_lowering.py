"""The main programs lower for CPU, CUDA and TPU, which needs no such device, and say how precisely they multiply.

Accelerators multiply float32 matrices in TF32 or bfloat16 unless told otherwise; networks may, nothing else does. Only
what is traced and lowered is looked at: nothing is compiled, nothing runs.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from medjax import iterate
from medjax.diffusion import guidance
from medjax.diffusion.denoiser import Denoiser
from medjax.diffusion.likelihood_schedule import likelihood_schedule
from medjax.diffusion.sampler import heun, sampler, uniform_times
from medjax.diffusion.sde import vp
from medjax.ivim.fit import fit
from medjax.ivim.hierarchical import hierarchical_fit
from medjax.ivim.signal import Ivim
from medjax.labels import dynamics, scores
from medjax.labels.probe import probe
from medjax.metrics.image import ssim
from medjax.models.plain_unet import plain_unet
from medjax.models.residual import residual_cnn
from medjax.models.resnet import resnet
from medjax.models.score_unet import score_unet
from medjax.models.swin import swin
from medjax.models.unet import group_norm, unet
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, ordered_subsets
from medjax.pet.grid import Grid
from medjax.pet.projector import backproject, project
from medjax.pet.psf import gaussian_psf
from medjax.pet.scanner import Scanner, lors
from medjax.pet.system import build_system
from medjax.registration import grid as registration_grid
from medjax.registration.greedy import register
from medjax.registration.similarity import lncc, mutual_information
from medjax.registration.transforms import AffineTransform, resample, transform_world_points
from medjax.segmentation import nnunet
from medjax.training import augment_nnunet
from medjax.training.augment import Augmentation, augment
from medjax.training.losses import deep_supervision, dice_cross_entropy
from medjax.training.state import trainer

PLATFORMS = ("cpu", "cuda", "tpu")
PRODUCT = re.compile(r"stablehlo\.(?:dot_general|dot|convolution)\b")
GRID = Grid((12, 12, 2), (6.0, 6.0, 4.0))
KEY = jax.random.key(0)


def lowered(function: Callable[..., Any], *arguments: Any) -> str:
    """The program for all platforms in StableHLO's text; arguments may be shapes and types only.

    Where platforms differ the text has a branch for each, so that one product may stand in it three times.
    """
    leaves, tree = jax.tree.flatten(arguments)  # for jit fills trees with what typed dataclasses refuse

    def flat(*leaves: Any) -> Any:
        return jax.tree.leaves(function(*jax.tree.unflatten(tree, leaves)))

    exported = jax.export.export(jax.jit(flat), platforms=PLATFORMS)(*leaves)
    assert exported.platforms == PLATFORMS
    return exported.mlir_module()


def products(text: str) -> tuple[int, list[str]]:
    """How many matrix products and convolutions there are, and those that a device may make in a lower precision."""
    lines = [line.strip() for line in text.splitlines() if PRODUCT.search(line)]
    return len(lines), [line for line in lines if line.count("HIGHEST") < 2]


def floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.fixture(scope="module")
def system():
    return build_system(lors(Scanner("small", 72, 2, 80.0, 8.0, 49, 4.0, depth_mm=9.6, block=9, gaps=True)), GRID)


# ── what is computed in full precision ──


def test_the_projector_and_its_transpose_multiply_no_matrices(system):
    both = {project: floats(12, 12, 2), backproject: floats(*system.row_index.shape, 2)}
    for function, argument in both.items():
        assert products(lowered(function, system, argument)) == (0, [])
    slope = jax.grad(lambda image: jnp.sum(project(system, image) ** 2))
    assert products(lowered(jax.vmap(slope), floats(3, 12, 12, 2))) == (0, [])


def test_osem_with_a_point_spread_function(system):
    def reconstruct(counts: jax.Array, sensitivity: jax.Array) -> Any:
        whole = Acquisition(counts, counts, counts, sensitivity, system, gaussian_psf(GRID, 12.0))
        algorithm = em.osem(ordered_subsets(whole, 3))
        return iterate.scan(algorithm, algorithm.init(), 6)

    count, imprecise = products(lowered(reconstruct, floats(*system.row_index.shape, 2), floats(12, 12, 2)))
    assert count >= 9 and imprecise == []  # three axes, in the sensitivity, forwards and backwards


def given_counts(guided: Any, system: Any) -> Callable[..., Any]:
    """A Heun step of a sampler given counts, with a Gaussian in the place of a network, which may be imprecise."""

    def step(counts: jax.Array, sensitivity: jax.Array, sample: jax.Array) -> Any:
        prior = Denoiser(Partial(lambda x, t: 0.5 * x), vp())
        whole = Acquisition(counts, counts, counts, sensitivity, system, gaussian_psf(GRID, 12.0))
        method = sampler(guided(prior, whole), vp(), uniform_times(4), heun)
        state = method.init(KEY, GRID.shape, sample)
        return method.step(state)[0].sample

    return step


@pytest.mark.parametrize(
    "guided",
    [
        lambda prior, scan: guidance.dds(prior, scan, 1.0),
        lambda prior, scan: guidance.dps(prior, scan, 1.0),
        lambda prior, scan: likelihood_schedule(prior, scan, jnp.ones(4)),
    ],
    ids=["dds", "dps", "likelihood_schedule"],
)
def test_a_step_of_a_sampler_given_counts(guided, system):
    step = given_counts(guided, system)
    count, imprecise = products(lowered(step, floats(*system.row_index.shape, 2), floats(12, 12, 2), floats(12, 12, 2)))
    assert count >= 6 and imprecise == []


@pytest.mark.parametrize("noise", ["gaussian", "rician", "student"])
def test_ivim_fit(noise):
    count, imprecise = products(lowered(partial(fit, noise=noise, chunk=16), floats(8, 40), floats(8)))
    assert count >= 3 and imprecise == []


def test_ivim_fit_of_a_region():
    found = Ivim(*(floats(40) for _ in range(4)))
    count, imprecise = products(lowered(hierarchical_fit, floats(8, 40), floats(8), found, 1.0))
    assert count >= 2 and imprecise == []


def test_structural_similarity():
    count, imprecise = products(lowered(ssim, floats(16, 16), floats(16, 16)))
    assert count > 0 and imprecise == []


def test_coordinates_of_an_augmented_image():
    text = lowered(partial(augment, settings=Augmentation()), KEY, floats(8, 8, 1), floats(8, 8, 2))
    count, imprecise = products(text)
    assert count > 0 and imprecise == []


@pytest.mark.parametrize("similarity", [lncc(), mutual_information()])
def test_registration_of_a_batch(similarity):
    pairs = jax.vmap(partial(register, similarity=similarity, factors=(1,), iterations=(2,)))
    assert products(lowered(pairs, floats(2, 8, 8), floats(2, 8, 8)))[1] == []


def test_transforms_in_mm():
    grid = registration_grid.Grid((8, 8, 8), np.diag([2.0, 2.0, 2.0, 1.0]))

    def carried(matrix: jax.Array, image: jax.Array, points: jax.Array) -> Any:
        chain = (AffineTransform(matrix),)
        return resample(image, grid, grid, chain), transform_world_points(chain, points)

    count, imprecise = products(lowered(carried, floats(4, 4), floats(8, 8, 8), floats(5, 3)))
    assert count > 3 and imprecise == []


# ── networks: that they lower ──


def classes(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def of_logits(model: Any) -> Callable[..., Any]:
    return lambda params, batch, key: jnp.mean(dice_cross_entropy(model.apply(params, batch[0]), batch[1]))


def of_levels(model: Any) -> Callable[..., Any]:
    return lambda params, batch, key: jnp.mean(deep_supervision(model.apply(params, batch[0]), batch[1]))


def of_residual(model: Any) -> Callable[..., Any]:
    return lambda params, batch, key: jnp.mean(model.apply(params, *batch) ** 2)


UNET = unet(3, (4, 8), group_norm(4))
TRIPLES = ((3, 3, 3), (3, 3, 3))
NETWORKS = {
    "unet": (UNET, of_logits, (floats(2, 8, 8, 1), classes(2, 8, 8))),
    "plain_unet": (
        plain_unet(2, (4, 8), TRIPLES, ((1, 1, 1), (2, 2, 2))),
        of_levels,
        (floats(1, 8, 8, 8, 1), classes(1, 8, 8, 8)),
    ),
    "score_unet": (score_unet((8, 16), attention=(1,)), of_residual, (floats(2, 8, 8, 1), floats(2))),
    "residual_cnn": (residual_cnn(4, 2), of_residual, (floats(2, 8, 8, 1),)),
    "resnet": (resnet(2, 10, (4, 4, 4, 4)), of_residual, (floats(2, 8, 8, 8, 1),)),
    "swin": (swin(2, 2, 4, (2,), (2,), 3), of_residual, (floats(2, 8, 8, 8, 1),)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step_of_every_network(name):
    model, loss_of, batch = NETWORKS[name]
    inputs = batch if loss_of is of_residual else batch[:1]
    algorithm = trainer(loss_of(model), optax.adam(1e-3))
    params = jax.eval_shape(model.init, KEY, *inputs)
    state = jax.eval_shape(algorithm.init, params, KEY)
    assert products(lowered(algorithm.step, state, batch))[0] > 3


def test_the_steps_of_an_audit():
    settings, built_in = dynamics.TrainingSettings(3), scores.built_in(gradients=("loss",))
    method = dynamics.algorithm(UNET, settings)
    train = jax.eval_shape(method.init, KEY, floats(2, 8, 8, 1))
    batch = dynamics.Batch(floats(2, 8, 8, 1), classes(2, 8, 8), floats(2), classes(2))
    plain, _ = products(lowered(method.step, train, batch))
    riding = dynamics.tracking_algorithm(UNET, settings, scores.trackers(built_in))
    states = jax.eval_shape(partial(scores.init, built_in, 5, (8, 8)))
    assert products(lowered(riding.step, riding.init(train, states), batch))[0] > plain > 3


def test_the_step_of_nnunets_trainer():
    model, patch = NETWORKS["plain_unet"][0], (8, 8, 8)
    augmentation = augment_nnunet.augmentation_for_plan(patch, None)
    method = nnunet.trainer(model, nnunet.StepSettings(2, 3, augmentation, True), 0.01)
    params = jax.eval_shape(model.init, KEY, floats(1, *patch, 1))
    source = augment_nnunet.source_patch(augmentation, patch)
    batch = (floats(2, *source, 1), classes(2, *source))
    assert products(lowered(method.step, jax.eval_shape(method.init, params, KEY), batch))[0] > 3


def test_gradient_maps_of_a_segmentation_network():
    image = floats(2, 8, 8, 1)
    params = jax.eval_shape(UNET.init, KEY, image)
    assert products(lowered(partial(probe, UNET.apply), params, image, classes(2, 8, 8)))[0] > 3


# ── the check can fail ──


def test_products_of_unnamed_precision_are_seen():
    a, b = floats(4, 4), floats(1, 8, 1)
    high = jax.lax.Precision.HIGHEST
    assert len(products(lowered(jnp.matmul, a, a))[1]) > 0
    assert products(lowered(partial(jnp.matmul, precision=high), a, a))[1] == []
    convolve = partial(jax.lax.conv_general_dilated, window_strides=(1,), padding="SAME")
    one_way, other_way = (partial(convolve, dimension_numbers=("NHC", "HIO", "NHC"), precision=p) for p in (None, high))
    assert len(products(lowered(one_way, b, floats(3, 1, 1)))[1]) > 0
    assert products(lowered(other_way, b, floats(3, 1, 1)))[1] == []

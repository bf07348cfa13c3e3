"""Methods lower for CPU, CUDA and TPU; what they multiply beside the network, they multiply in full precision."""

import re

import jax
import jax.numpy as jnp
import pytest

from medjax.shortcuts.attribution.grad_cam import grad_cam, grad_cam_plus_plus
from medjax.shortcuts.attribution.integrated_gradients import integrated_gradients
from medjax.shortcuts.attribution.occlusion import occlusion, region_occlusion
from medjax.shortcuts.attribution.perturbation_curves import deletion, region_insertion
from medjax.shortcuts.attribution.rise import rise
from medjax.shortcuts.attribution.smoothgrad import var_grad

PLATFORMS = ("cpu", "cuda", "tpu")
LABELS = jnp.arange(24).reshape(4, 3, 2) % 5


def halves(x):
    return x.reshape(2, 2, 3, 2, 1).sum(1)


METHODS = {
    "integrated": lambda key, x: integrated_gradients(jnp.sum, 4)(x),
    "variance": lambda key, x: var_grad(key, jnp.sum, 4, chunk=2)(x),
    "grad_cam": lambda key, x: grad_cam(halves, jnp.sum)(x) + grad_cam_plus_plus(halves, jnp.sum)(x),
    "occlusion": lambda key, x: occlusion(jnp.sum, 2, 1, upsample=True)(x) + region_occlusion(jnp.sum, LABELS, 5)(x),
    "rise": lambda key, x: rise(key, jnp.sum, 4, 2, chunk=2)(x),
    "curves": lambda key, x: (deletion(jnp.sum, 4)(x, x), region_insertion(jnp.sum, LABELS, 5)(x, x)),
}


@pytest.mark.parametrize("method", METHODS)
def test_lowers_in_full_precision(method):
    batch = jax.ShapeDtypeStruct((2, 4, 3, 2, 1), jnp.float32)

    def maps(seed, images):
        return jax.tree.leaves(jax.vmap(lambda x: METHODS[method](jax.random.key(seed), x))(images))

    exported = jax.export.export(jax.jit(maps), platforms=PLATFORMS)(jax.ShapeDtypeStruct((), jnp.int32), batch)
    assert exported.platforms == PLATFORMS
    lines = exported.mlir_module().splitlines()
    products = [line for line in lines if re.search(r"stablehlo\.(?:dot_general|dot|convolution)\b", line)]
    assert all(line.count("HIGHEST") >= 2 for line in products)
    assert bool(products) == (method in ("grad_cam", "occlusion", "rise"))

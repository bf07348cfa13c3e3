"""3-D convolutions: both forms against SciPy and each other, gradients too; up-sampling against JAX's own."""

import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from medjax.errors import ConfigError, DataError
from medjax.models.layers import conv3d, conv_transpose3d


def drawn(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("form", ["native", "folded"])
def test_one_channel_is_scipys_correlation_and_a_stride_takes_every_other_place(form):
    x, kernel = drawn(0, 7, 6, 5), drawn(1, 3, 5, 1)
    expected = ndimage.correlate(np.asarray(x, np.float64), np.asarray(kernel, np.float64), mode="constant")
    found = conv3d(x[None, ..., None], kernel[..., None, None], (2, 1, 3), form)[0, ..., 0]
    np.testing.assert_allclose(found, expected[::2, :, ::3], atol=1e-5)


@pytest.mark.parametrize("strides", [(1, 1, 1), (2, 2, 2), (1, 2, 3)])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3), (5, 1, 3), (3, 3, 1)])
def test_folded_is_native_and_so_are_its_gradients(kernel, strides):
    x, w = drawn(0, 2, 7, 8, 5, 3), drawn(1, *kernel, 3, 4)

    @jax.jit
    def both(x, w):
        native, back = jax.vjp(lambda x, w: conv3d(x, w, strides, "native"), x, w)
        folded, fold_back = jax.vjp(lambda x, w: conv3d(x, w, strides, "folded"), x, w)
        return (native, *back(jnp.cos(native))), (folded, *fold_back(jnp.cos(native)))

    for expected, found in zip(*both(x, w), strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def of_two_sums(form):
    """A loss with a convolution in each of two places, as a network has, by x and kernel."""

    def loss(x, w):
        return jnp.sum(jnp.cos(conv3d(jnp.tanh(conv3d(x, w, form=form)), w, (2, 1, 2), form)))

    return loss


def convolution_ranks(f, arguments, platform):
    """The number of spatial axes of each convolution in the program for a platform, which need not be here."""
    text = jax.export.export(jax.jit(f), platforms=[platform])(*arguments).mlir_module()
    inputs = re.findall(r"stablehlo.convolution.*?dim_numbers = \[([^\]]*)\]x", text)  # as in [b, 0, 1, f]
    return [len(axes.split(",")) - 2 for axes in inputs]


@pytest.mark.parametrize(("platform", "axes"), [("cpu", 2), ("cuda", 3), ("tpu", 3)])
def test_auto_is_folded_in_programs_for_cpus_and_native_in_others(platform, axes):
    arguments = drawn(0, 1, 6, 4, 4, 2), drawn(1, 3, 3, 3, 2, 2)
    loss = of_two_sums("auto")
    both = jax.grad(loss, (0, 1))
    assert convolution_ranks(loss, arguments, platform) == [axes] * 2
    assert convolution_ranks(both, arguments, platform) == [axes] * 6  # forward, of x and of the kernel, of two layers
    many = jax.vmap(both, (None, 0))
    assert set(convolution_ranks(many, (arguments[0], arguments[1][None]), platform)) == {axes}


def test_auto_is_the_same_numbers_as_the_form_it_takes_and_so_are_its_derivatives():
    """Gradients by x, kernel and both; forward mode; forward over reverse, as for products with Hessians."""
    x, w = drawn(0, 1, 6, 4, 4, 2), drawn(1, 3, 3, 3, 2, 2)
    dx, dw = drawn(2, *x.shape), drawn(3, *w.shape)

    def derivatives(form):
        loss = of_two_sums(form)
        both = jax.grad(loss, (0, 1))
        return jax.jit(
            lambda x, w: [
                (loss(x, w), jax.grad(loss)(x, w), jax.grad(loss, 1)(x, w), *both(x, w)),
                (
                    jax.jvp(loss, (x, w), (dx, dw)),
                    jax.jvp(lambda w: loss(x, w), (w,), (dw,)),
                    jax.jvp(both, (x, w), (dx, dw)),
                ),
            ]
        )(x, w)

    (same, near), (auto_same, auto_near) = derivatives("folded"), derivatives("auto")
    jax.tree.map(np.testing.assert_array_equal, auto_same, same)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4), auto_near, near)


def test_vmap_over_images_and_kernels_is_a_loop():
    x, w = drawn(0, 3, 1, 4, 4, 4, 2), drawn(1, 3, 3, 3, 3, 2, 2)
    gradient = jax.jit(jax.grad(of_two_sums("auto"), (0, 1)))
    together = jax.jit(jax.vmap(gradient))(x, w)
    each = [gradient(one, kernel) for one, kernel in zip(x, w, strict=True)]
    for one, other in zip(together, map(jnp.stack, zip(*each, strict=True)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_gradient_keeps_nothing_but_what_it_was_given():
    """Neither the folded planes nor a branch for another platform."""
    x, w = drawn(0, 1, 6, 4, 4, 2), drawn(1, 3, 3, 3, 2, 2)
    kept = jax.tree.leaves(jax.eval_shape(lambda x, w: jax.vjp(conv3d, x, w)[1], x, w))
    assert sorted(leaf.shape for leaf in kept) == sorted([x.shape, w.shape])


@pytest.mark.parametrize("strides", [(2, 2, 2), (1, 2, 3)])
def test_up_sampling_is_jaxs_transposed_convolution(strides):
    x, w = drawn(0, 2, 3, 4, 2, 5), drawn(1, *strides, 5, 4)
    numbers = ("NXYZC", "XYZIO", "NXYZC")
    expected = jax.lax.conv_transpose(x, w[::-1, ::-1, ::-1], strides, "VALID", dimension_numbers=numbers)
    np.testing.assert_allclose(conv_transpose3d(x, w), expected, atol=1e-5)


def test_what_cannot_be_is_refused():
    x = jnp.ones((1, 4, 4, 4, 1))
    with pytest.raises(ConfigError, match="form: 'fast'; expected one of auto, native, folded"):
        conv3d(x, jnp.ones((3, 3, 3, 1, 1)), form="fast")
    with pytest.raises(ConfigError, match=r"strides: \(1, 0, 1\); expected"):
        conv3d(x, jnp.ones((3, 3, 3, 1, 1)), (1, 0, 1))
    with pytest.raises(DataError, match=r"kernel: sides \(3, 2, 3\); expected odd"):
        conv3d(x, jnp.ones((3, 2, 3, 1, 1)))

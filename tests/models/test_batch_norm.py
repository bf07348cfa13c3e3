"""Folding of BatchNorm: the numbers of Flax's BatchNorm, by a convolution with bias and by a frozen norm."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from medjax.models.batch_norm import FrozenBatchNorm, fold_batch_norm, freeze_batch_norm


def test_a_folded_and_a_frozen_norm_give_what_the_convolution_and_its_norm_give():
    rng = np.random.default_rng(0)
    x, kernel, bias = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 6, 5, 3), (3, 3, 3, 4), 4))
    norm = {name: jnp.asarray(rng.normal(size=4), jnp.float32) for name in ("scale", "bias")}
    statistics = {"mean": jnp.asarray(rng.normal(size=4)), "var": jnp.asarray(rng.gamma(2.0, size=4), jnp.float32)}

    convolution = nn.Conv(4, (3, 3)).apply({"params": {"kernel": kernel, "bias": bias}}, x)
    expected = nn.BatchNorm(use_running_average=True, epsilon=1e-3).apply(
        {"params": norm, "batch_stats": statistics}, convolution
    )
    folded = fold_batch_norm({"kernel": kernel, "bias": bias}, norm, statistics, epsilon=1e-3)
    np.testing.assert_allclose(nn.Conv(4, (3, 3)).apply({"params": folded}, x), expected, atol=1e-5)
    frozen = freeze_batch_norm(norm, statistics, epsilon=1e-3)
    np.testing.assert_allclose(FrozenBatchNorm().apply({"params": frozen}, convolution), expected, atol=1e-5)

    without = fold_batch_norm({"kernel": kernel}, norm, statistics, epsilon=1e-3)
    np.testing.assert_allclose(without["bias"], frozen["bias"])

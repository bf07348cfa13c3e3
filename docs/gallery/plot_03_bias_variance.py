"""
Bias and variance over noise realisations
=========================================

How wrong is a reconstruction on average, and how much does it vary? ``bias_variance`` reconstructs many noise
realisations at once by ``vmap``. The scan is simulated, on MNI152 anatomy with a hot lesion.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

from medjax.penalty import Quadratic, neighbors
from medjax.pet import acquisition, em, grid, projector, scanner, system
from medjax.pet.bias_variance import bias_variance, from_algorithm
from medjax.phantoms.brain import Lesion, brain

# %%
# The expected counts come from the projector of the reconstruction, so all bias here is that of the method.
lesion = Lesion((26, -24, 28), 9, contrast=3)
voxels = grid.Grid((48, 48, 1), (5.0, 5.0, 5.0))
head = brain(voxels.voxel_mm, "fdg", voxels.shape, [lesion], center_mm=(0, -18, 28))
lors = system.build_system(scanner.parallel_lors(64, 48, 5.0), voxels)
truth, pairs = jnp.asarray(head.activity), neighbors(voxels.shape, voxels.voxel_mm)
expected = 0.2 * projector.project(lors, truth) + 20.0
data = acquisition.ordered_subsets(acquisition.acquire(lors, expected, multiplicative=0.2, additive=20.0), 8)

# %%
# A method is an algorithm, its first state and what is swept: the iterations of OSEM, the weight β of MAP-EM. Its
# function takes the data with the counts of each realisation.


def osem(data, _):
    return em.osem(data), em.init(data)


def map_em(data, beta):
    return em.map_em(data, Quadratic(pairs), em.penalty_weight(data, beta)), em.init(data)


methods = {"OSEM, iterations 1 to 10": from_algorithm(data, osem, points=10)}
methods["MAP-EM, β = 64, 16, 4, 1"] = from_algorithm(data, map_em, 1, settings=[64.0, 16.0, 4.0, 1.0], iterations=10)
masks = {"lesion": head.lesion_ids == 1, "white matter": (head.white > 0.9) & (head.lesion_ids == 0)}
study = bias_variance(jax.random.key(0), data.counts, truth, methods, masks, realizations=40, chunk=20)

# %%
# Both curves go from smooth (left) to sharp (right): less bias costs more noise. Bands are 95 % bootstrap intervals of
# the bias over 40 realisations; between methods, the lower curve at the same bias is the better one.
level = truth[masks["lesion"]].mean() / 100  # so that values are in % of the lesion
figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharex=True)
for name, found in study.items():
    bias, low, high = (x[..., 0].ravel() / level for x in (found.bias, *found.bias_interval))
    for panel, sd in zip(axes, (found.sd[..., 0].ravel() / level, 100 * found.voxel_sd[..., 1].ravel()), strict=True):
        panel.plot(bias, sd, "o-", ms=4, label=name)
        panel.fill_betweenx(sd, low, high, alpha=0.3)
axes[0].set(title="Mean of the lesion", xlabel="bias (%)", ylabel="standard deviation (%)")
axes[1].set(title="Noise beside it", xlabel="bias of the lesion (%)", ylabel="SD of a voxel of white matter (%)")
axes[0].legend()
plt.show()

"""
Pseudo-PET: other people's scans in one person's anatomy
========================================================

PET images of a cohort are carried to one person by registration of their MR images, and averaged. The mean of more
people has less noise. Target and cohort are simulated, on MNI152 anatomy.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from medjax import iterate
from medjax.metrics.image import nrmse
from medjax.pet import acquisition, em, grid, projector, scanner, system
from medjax.phantoms.head_anatomies import mni152
from medjax.phantoms.multi_subject import multi_subject, on_grid
from medjax.registration.greedy import register
from medjax.registration.pseudo_pet import carry, normalize_uptake, subset_means

# %%
# Target and cohort, 5 mm voxels.
people = multi_subject(0, 7, [mni152(2.5)], strength=0.6)
target, *cohort = [on_grid(one, 5.0, (40, 48, 28)) for one in people]
mr = jnp.stack([jnp.asarray(head.t1 * head.brain_mask) for head in (target, *cohort)])
mask, white = jnp.asarray(target.brain_mask), jnp.asarray(target.white > 0.9)

# %%
# Two OSEM images of each, of scans that differ in noise alone. Planes do not see each other: they are one long stack.
lors = system.build_system(scanner.parallel_lors(40, 48, 5.0), grid.Grid((40, 48, 1), (5.0, 5.0, 5.0)))
stack = jnp.concatenate([np.maximum(head.activity, 0) for head in cohort] * 2, axis=2)
counts = np.random.default_rng(0).poisson(0.3 * projector.project(lors, stack) + 5).astype(np.float32)
data = acquisition.ordered_subsets(acquisition.acquire(lors, jnp.asarray(counts), 0.3, 5.0), 5)
images = jnp.split(iterate.scan(em.osem(data), em.init(data), n=3 * 5)[0].image, 12, axis=2)

# %%
# ``vmap`` registers the six pairs at once. Carried images are divided by their mean in the brain.
settings = {"factors": (2, 1), "iterations": (40, 15), "inverse_iterations": 0}
fields = jax.vmap(lambda moving: register(mr[0], moving, **settings).displacement)(mr[1:])
first, again = (normalize_uptake(carry(pets, fields), mask) for pets in (images[:6], images[6:]))

# %%
# Noise, told from anatomy by the second scans, falls as 1 / √size. The error does not: uptake differs between people.
truth, sizes = normalize_uptake(target.activity[None], mask)[0], np.array([1, 2, 4, 6])
means = {n: [subset_means(jax.random.key(n), pets, n, 8) for pets in (first, again)] for n in sizes.tolist()}
noise = [jnp.std((one - two)[:, white]) / jnp.sqrt(2) / one[:, white].mean() for one, two in means.values()]
error = [np.mean([nrmse(image, truth, mask) for image in one]) for one, _ in means.values()]
pictures = {"target: true activity": truth} | {f"pseudo-PET of {n}": means[n][0][0] for n in (1, 4, 6)}
figure, axes = plt.subplots(1, 5, figsize=(15, 3.6), layout="constrained", width_ratios=[1, 1, 1, 1, 1.4])
for panel, (name, image) in zip(axes, pictures.items(), strict=False):
    shown = panel.imshow(image[..., 17].T, origin="lower", cmap="gray_r", vmin=0, vmax=2.2)
    panel.set(title=name, xticks=[], yticks=[])
figure.colorbar(shown, ax=axes[3], label="uptake / mean of the brain", shrink=0.8)
axes[4].plot(sizes, np.transpose([error, noise]), "o-", label=["NRMSE to the target", "noise (SD / mean)"])
axes[4].plot(sizes, noise[0] / np.sqrt(sizes), "k--", lw=1, label="1 / √size")
axes[4].set(title="Mean of more people", xlabel="people in the mean", ylim=(0, 0.4), xticks=sizes)
axes[4].legend()
plt.show()

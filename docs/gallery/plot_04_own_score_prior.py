"""
A score prior of one's own
==========================

The prior of a sampler is a denoiser, and any score makes one. Here the score of a Gaussian random field, four lines
long, takes the place of the network that comes with medjax. All data are simulated, on MNI152 anatomy.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from medjax.diffusion import denoiser, prior, prior_file, reconstruct, sde
from medjax.metrics.image import nrmse
from medjax.pet import acquisition, em, psf, scanner, system
from medjax.phantoms import brain, heads

# %%
# One plane with few counts, a million trues and as many randoms and scatter. They are drawn from the very model of
# the reconstruction, for brevity; the first two examples simulate with finer voxels.
ring, voxels = scanner.preset("ring_2d"), scanner.grid(scanner.preset("ring_2d"), size=96, voxel_mm=2.5)
truth = jnp.asarray(brain.brain(voxels.voxel_mm, "fdg", voxels.shape, center_mm=(0, -18, 20)).activity)
model, resolution = system.build_system(scanner.lors(ring), voxels), psf.gaussian_psf(voxels, 4.5)
trues = acquisition.acquire(model, jnp.zeros(ring.sinogram_shape), psf=resolution).forward(truth)
scale, background = 1e6 / float(trues.sum()), 1e6 / trues.size
counts = jnp.asarray(np.random.default_rng(0).poisson(scale * trues + background), float)
scan = acquisition.acquire(model, counts, scale, background, resolution)

# %%
# The prior has the mean and the power spectrum of eight heads, deformed at random; images have a mean emission of 1.
plain, center_mm = brain.brain(2.5, "fdg"), (0, -18, 20)
others = [heads.deform(plain, heads.deformation(k), 2.5, voxels.shape, center_mm).activity for k in range(8)]
others = np.stack(others) / np.mean([image[image > 0.05].mean() for image in others])
mean = others.mean(axis=0, keepdims=True)
power = np.mean(np.abs(np.fft.fft2(others - mean, axes=(1, 2))) ** 2, axis=0, keepdims=True) / mean.size


def score(x, t):  # ∇ log p(x, t): with noise the field is Gaussian too, of spectrum γ² power + ν²
    gamma, nu = denoiser.marginals(sde.vp(), x, t)
    waves = jnp.fft.fft2(x - gamma * mean, axes=(1, 2))
    return -jnp.fft.ifft2(waves / (gamma**2 * power + nu**2), axes=(1, 2)).real


# %%
# The swap is one field of the inverse problem. The field knows how rough a head is and where it lies; the network has
# learnt anatomy, and tells noise from signal better. Both begin with the same early MLEM image.
network = prior.denoiser(prior_file.load_prior())
problem = reconstruct.inverse_problem(scan, network, em.init(scan).image, scan.sensitivity)
own = problem._replace(denoiser=denoiser.from_score(score, sde.vp()))
sample = jax.jit(lambda problem: reconstruct.sample(jax.random.key(1), problem, reconstruct.dds_cg(problem)).image)
images = {"truth": truth, "start: early MLEM": problem.early_image}
images |= {"own prior: Gaussian field": sample(own), "shipped prior: network": sample(problem)}
figure, axes = plt.subplots(1, 4, figsize=(13, 3.7), layout="constrained")
for panel, (name, image) in zip(axes, images.items(), strict=True):
    shown = panel.imshow(image[..., 0].T, origin="lower", cmap="gray_r", vmin=0, vmax=5)
    panel.set(title=name, xlabel=f"NRMSE {nrmse(image, truth):.2f}", xticks=[], yticks=[])
figure.colorbar(shown, ax=axes[3], label="activity (white matter: 1)", shrink=0.8)
plt.show()

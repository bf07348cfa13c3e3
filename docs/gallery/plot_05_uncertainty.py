"""
Likelihood schedule and its uncertainty
=======================================

A likelihood schedule samples a score prior and holds each step to the fit that MLEM reaches. Several samples of one
scan give a mean and a standard deviation; is that as large as the error? All data are simulated, on MNI152 anatomy.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from medjax.diffusion import posterior, prior, prior_file, reconstruct
from medjax.pet import acquisition, em, psf, scanner, system
from medjax.phantoms import brain

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
# The prior that comes with medjax has learnt deformations of this head. Six steps, six seeds at once by ``vmap``.
denoiser = prior.denoiser(prior_file.load_prior())


@jax.jit
def draw(keys, scan):
    problem = reconstruct.inverse_problem(scan, denoiser, em.init(scan).image, scan.sensitivity)
    method = reconstruct.likelihood_schedule_cg(problem, steps=6)
    return jax.vmap(lambda key: reconstruct.sample(key, problem, method))(keys)


samples = draw(jax.random.split(jax.random.key(1), 6), scan).image
summary = posterior.summarize(samples)

# %%
# Where samples differ most the error is largest, yet they are too sure: in the last panel, with voxels sorted by the
# predicted deviation, errors lie above the dashed line. ``medjax.diffusion.split_gibbs`` draws from the posterior.
maps = {"truth": truth, "one sample": samples[0], "mean of 6 samples": summary.mean}
spreads = {"standard deviation": summary.standard_deviation, "|mean − truth|": jnp.abs(summary.mean - truth)}
figure, axes = plt.subplots(2, 3, figsize=(11, 7), layout="constrained")
for panel, (name, image) in zip(axes.flat, (maps | spreads).items(), strict=False):
    limits = {"cmap": "gray_r", "vmax": 5} if name in maps else {"cmap": "magma", "vmax": 1}
    shown = panel.imshow(image[..., 0].T, origin="lower", vmin=0, **limits)
    panel.set(title=name, xticks=[], yticks=[])
    figure.colorbar(shown, ax=panel, label="activity (white matter: 1)", shrink=0.8)
axes[1, 2].plot(*posterior.error_bins(samples, truth, truth > 0.01), "o-", label="a tenth of the voxels each")
axes[1, 2].plot([0, 0.8], [0, 0.8], "k--", lw=1, label="calibrated")
axes[1, 2].set(title="Error against its prediction", xlabel="predicted deviation", ylabel="RMS error", aspect="equal")
axes[1, 2].legend(loc="lower right")
plt.show()

"""
First reconstruction: MLEM
==========================

One plane of a PET scan is simulated and reconstructed by maximum-likelihood expectation maximisation (MLEM).
The anatomy is that of the MNI152 atlas; tracer, scanner and noise are simulated.
"""

import jax.numpy as jnp
import matplotlib.pyplot as plt

from medjax import iterate
from medjax.metrics.image import nrmse
from medjax.pet import acquisition, em, psf, scanner, system
from medjax.tools.pet_planes import PlaneSettings
from medjax.tools.pet_simulate import CountSettings, simulate

# %%
# The simulation has finer voxels and rays than the reconstruction, so that the two never share a matrix.
# A file of counts from your own scanner holds the same three arrays: counts, factors, background.
levels, plane = CountSettings(trues_per_mm3=8.0), PlaneSettings(planes=1)
place = {"slice_mm": 20.0, "size": 96, "voxel_mm": 2.5}
data = simulate(phantom="fdg", scanner="ring_2d", count_settings=levels, plane_settings=plane, **place).counts

# %%
# The model of the counts is :math:`y \sim \mathrm{Poisson}(m \cdot P\,G\,x + b)` with projector :math:`P`,
# resolution :math:`G`, factors :math:`m` and background :math:`b`.
ring = scanner.with_rings(scanner.preset("ring_2d"), 1)
voxels = scanner.grid(ring, size=96, voxel_mm=2.5)
lors = system.build_system(scanner.lors(ring), voxels)
resolution = psf.gaussian_psf(voxels, 4.5)
arrays = [jnp.asarray(values) for values in (data.counts, data.multiplicative, data.additive)]
scan = acquisition.acquire(lors, *arrays, resolution)

# %%
# ``iterate.scan`` runs any algorithm on the device. A state is all that the next step needs, so each call goes on where
# the one before stopped.
state, images, deviance = em.init(scan), {"truth": jnp.asarray(data.truth)}, []
for iterations in (12, 28, 80):
    state, info = iterate.scan(em.mlem(scan), state, n=iterations)
    images[f"{state.step} iterations"] = state.image
    deviance += info.deviance.tolist()

# %%
# Each iteration fits the counts better. Soon the fit is closer than that of the true image (dashed): from there on
# MLEM fits more and more noise, and the error rises again.
truth = images["truth"]
figure, axes = plt.subplots(1, 5, figsize=(15, 3.4), layout="constrained", width_ratios=[1, 1, 1, 1, 1.3])
for panel, (name, image) in zip(axes, images.items(), strict=False):
    shown = panel.imshow(image[..., 0].T, origin="lower", cmap="gray_r", vmin=0, vmax=5)
    panel.set(title=name, xlabel=f"NRMSE {nrmse(image, truth):.2f}", xticks=[], yticks=[])
figure.colorbar(shown, ax=axes[3], label="activity (white matter: 1)", shrink=0.8)
axes[4].plot(deviance, label="MLEM")
axes[4].axhline(acquisition.expected_deviance(scan.expected(truth)), color="k", ls="--", label="true image")
axes[4].set(title="Fit to the counts", xlabel="iteration", ylabel="Poisson deviance")
axes[4].set_ylim(0.95 * deviance[-1], 1.2 * deviance[-1])
axes[4].legend()
plt.show()

"""
IVIM fit with its Cramér–Rao bound
==================================

Diffusion MRI of a simulated fetus is fitted with S(b) = S0 [(1 − f) exp(−b D) + f exp(−b D*)]. The Cramér–Rao bound is
the least standard deviation that these b-values and this noise allow an unbiased fit; repeated noise shows the fit's.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

from medjax.ivim.fit import fit
from medjax.ivim.information import cramer_rao
from medjax.ivim.maps import maps, volume
from medjax.ivim.signal import Ivim, signal
from medjax.phantoms.fetal import TEN_B, fetal
from medjax.phantoms.fetal_anatomy import LUNGS
from medjax.phantoms.fetal_motion import Motion

# %%
# A scan without motion, and the maps of all voxels of the lungs in one call. ``medjax.tools.ivim_fit.fit_scan`` does
# the same with your NIfTI files.
scan = fetal(seed=3, bvalues=TEN_B, snr=40, motion=Motion(0, 0, 0))
lungs = scan.labels == LUNGS
fitted = maps(scan.signals[:, lungs], scan.bvalues).parameters

# %%
# Noise repeated: the true tissue of every voxel is measured and fitted a hundred times. All fits are one call, since a
# fit does not care which repetition a voxel belongs to.
true = Ivim(*(jax.numpy.asarray(values[lungs]) for values in scan.parameters))
clean = signal(true, scan.bvalues)[:, None]  # (b, repetition, voxel)
noisy = clean + scan.sigma * jax.random.normal(jax.random.key(0), (len(TEN_B), 100, lungs.sum()))
repeated = fit(noisy.reshape(len(TEN_B), -1), jax.numpy.asarray(scan.bvalues), steps=40).parameters
sd = Ivim(*(values.reshape(100, -1).std(0) for values in repeated))
bound = cramer_rao(true, scan.bvalues, scan.sigma)

plt.style.use("tableau-colorblind10")
figure, axes = plt.subplots(3, 3, figsize=(10, 10.5), layout="constrained")
z = lungs.sum((0, 1)).argmax()  # the slice with most of the lungs
names = {"f": ("f", 1, ""), "d": ("D", 1e3, ", µm²/ms"), "d_star": ("D*", 1e3, ", µm²/ms")}
for column, (key, (name, scale, unit)) in zip(axes.T, names.items(), strict=True):
    for axis, title, found in ((column[0], "true", true), (column[1], "fitted", fitted)):
        axis.imshow(scan.signals[0, ..., z].T, cmap="gray", origin="lower")
        values = np.where(lungs, volume(getattr(found, key) * scale, lungs), np.nan)[..., z]  # NaN is transparent
        image = axis.imshow(values.T, vmin=0, vmax=1.6 * scale * getattr(true, key).max(), origin="lower")
        axis.set(title=f"{name}, {title}", xlim=(5, 43), ylim=(5, 43), xticks=[], yticks=[])
    figure.colorbar(image, ax=list(column[:2]), label=f"{name}{unit}", location="bottom", shrink=0.8)
    x, y = (100 * np.asarray(getattr(one, key) / getattr(true, key)) for one in (bound, sd))
    column[2].scatter(x, y, s=6, alpha=0.4)
    column[2].axline((x.mean(), x.mean()), slope=1, color="C1", label="SD = bound")
    column[2].set(xlabel=f"Cramér–Rao bound, % of {name}", ylabel=f"SD over repetitions, % of {name}")
    column[2].set(title=f"precision of {name}", ylim=(0, np.quantile(y, 0.98)))  # a few voxels lie above
    column[2].legend(loc="upper left")
plt.show()

# %%
# *Above: maps of the lungs, voxels of 3 mm, over the frame of b = 0. Below: the fit reaches the bound where that is
# small; where it is beyond a third of D\* the fit does worse, and only more b-values or averages help.*

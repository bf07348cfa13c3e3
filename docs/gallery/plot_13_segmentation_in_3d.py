"""
A 3-D segmentation
==================

A small nnU-Net learns ventricles and myocardium from simulated cardiac volumes with thick slices, and segments hearts
that it has not seen by sliding window. Kernels and strides follow from the data by nnU-Net's planning.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

from medjax import iterate
from medjax.metrics.overlap import overlap
from medjax.models.plain_unet import plain_unet
from medjax.phantoms.cine import PROTOCOLS, cine, random_heart
from medjax.segmentation.components import keep_largest
from medjax.segmentation.nnunet_predict import predict_case
from medjax.segmentation.patches import patches, prepare
from medjax.segmentation.plan import Case, fingerprint, plan
from medjax.training.losses import dice_cross_entropy
from medjax.training.state import trainer

# %%
# Voxels of 4 × 4 × 10 mm, so that a CPU trains in seconds. A mirrored right ventricle is a left one: no mirroring.
coarse = PROTOCOLS["B"]._replace(pixels=40, pixel_mm=4.0)
scans = [cine(np.random.default_rng(k), random_heart(np.random.default_rng(k)), coarse, "ed_es") for k in range(22)]
cases = [Case(scan.image[..., scan.ed, None], scan.labels[..., scan.ed], scan.spacing) for scan in scans]
cases, unseen = cases[:16], cases[16:]
own = plan(fingerprint(cases, classes=4), base_width=6, patch=(24, 24, 8), batch=2, mirror=())
model = plain_unet(own.classes, own.widths, own.kernels, own.strides, deep=False)
batches = patches([prepare(one, own) for one in cases], own.patch, own.patch, own.batch, seed=0)

# %%
# A short training by Adam; ``medjax.segmentation.nnunet.train_fold`` has nnU-Net's schedule and augmentation. Colours
# below: right ventricle (dark), myocardium (green) and left ventricle (yellow), near base and apex.
algorithm = trainer(
    lambda params, batch, key: dice_cross_entropy(model.apply(params, batch[0]), batch[1]).mean(), optax.adam(5e-3)
)
state = algorithm.init(model.init(jax.random.key(0), batches(0)[0]), jax.random.key(1))
state = iterate.last(iterate.loop(algorithm, state, 200, inputs=batches), state)
labels = [predict_case(model, [state.ema_params], one.image, one.spacing, own, batch=4).labels for one in unseen]
results = {"network": labels, "largest components": [keep_largest(one) for one in labels]}

figure, axes = plt.subplot_mosaic("012d;345d", figsize=(11, 5.5), layout="constrained")
for column, (name, some) in enumerate(({"truth": [unseen[0].labels]} | results).items()):
    for row, z in enumerate((3, 8)):
        axis = axes[str(column + 3 * row)]
        axis.imshow(unseen[0].image[..., z, 0].T, cmap="gray")
        axis.imshow(np.ma.masked_equal(some[0][..., z].T, 0), cmap="viridis", vmin=1, vmax=3, alpha=0.6)
        axis.set(title=f"{name}, slice {z}", xticks=[], yticks=[])
for k, (name, some) in enumerate(results.items()):
    dice = np.array([overlap(one, true.labels, 4).dice[1:] for one, true in zip(some, unseen, strict=True)])
    axes["d"].plot(np.arange(3) + k / 4, dice.T, "os"[k], color=f"C{k}", label=[name, *["_"] * 5])
axes["d"].set(xticks=np.arange(3) + 0.12, xticklabels=("right\nventricle", "myocardium", "left\nventricle"))
axes["d"].set(title="six unseen hearts", ylabel="Dice", ylim=(0, 1))
axes["d"].legend(loc="lower right")
plt.show()

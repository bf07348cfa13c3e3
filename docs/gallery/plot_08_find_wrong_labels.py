"""
Find wrong labels
=================

A quarter of the labels of simulated echocardiograms is corrupted. A network is trained on all of them, and while it
still learns what most labels have in common, the loss of each image says how much its own label contradicts the others.
"""

import matplotlib.pyplot as plt
import numpy as np

from medjax.labels.errors import corrupt
from medjax.labels.scores import built_in
from medjax.metrics.detection import auroc, roc_curve
from medjax.models.unet import unet
from medjax.phantoms.echo import CLASSES, echo
from medjax.tools.labels_audit import audit

# %%
# A fifth of the images is of poor quality but correctly labelled, and should not be flagged.
hearts = echo(seed=0, number=64, size=32, hard=0.2)
wrong = corrupt(0, hearts.labels, "random", fraction=0.25, target_dice=0.75)  # Dice with the true ones

# %%
# The audit trains, follows the scores and ranks. Here two scores, and a network that is small enough for a laptop; your
# own images and masks go in as arrays, or as folders, which ``medjax labels audit`` takes too.
scores = {name: built_in()[name] for name in ("dice_mean", "vog")}
network = unet(len(CLASSES), widths=(8, 16, 32))
result = audit(hearts.images, wrong.labels, score="dice_mean", label_scores=scores, network=network, epochs=24)

# %%
# Here it is known which labels are wrong, so the ranking can be judged.
plt.style.use("tableau-colorblind10")
figure, axes = plt.subplot_mosaic(
    [[*"123456"], [*"lllrrr"]], figsize=(11, 6), height_ratios=(2, 3), layout="constrained"
)
for rank, image in enumerate(result.order[:6], start=1):
    axis = axes[str(rank)]
    axis.imshow(hearts.images[image, ..., 0], cmap="gray")
    axis.contour(wrong.clean[image], levels=(0.5,), colors="C0")
    axis.contour(wrong.labels[image], levels=(0.5,), colors="C1", linestyles="--")
    axis.set(title=f"suspect {rank}: {'wrong' if wrong.corrupted[image] else 'correct'}", xticks=[], yticks=[])
left, right = axes["l"], axes["r"]
names = {"dice_mean": "mean Dice loss", "vog": "variance of gradients (VOG)"}
checked = np.arange(1, len(hearts.images) + 1)
for name, label in names.items():
    rates = roc_curve(result.scores[name], wrong.corrupted)
    left.step(*rates[:2], where="post", label=f"{label}, AUROC {auroc(result.scores[name], wrong.corrupted):.2f}")
    right.plot(checked, wrong.corrupted[np.argsort(-result.scores[name])].cumsum() / checked, label=label)
left.plot((0, 1), (0, 1), ":", color="gray", label="chance")
left.set(xlabel="correct labels flagged, fraction", ylabel="wrong labels flagged, fraction", title="ROC curves")
right.axvline(result.flags.sum(), color="gray", ls=":", label="flagged by Dice loss (Otsu)")
right.set(xlabel="k, labels checked", ylabel="wrong among them, fraction", title="precision at k", ylim=(0, 1.05))
left.legend()
right.legend()
plt.show()

# %%
# *Above: outlines of the labels as trained on (orange, dashed) and true (blue). Below: either score against the truth.*

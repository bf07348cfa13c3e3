"""
Semantic label flips
====================

A segmentation can draw the right region and give it the wrong class, where in training the class goes with the scene.
Simulated shapes with three or four lobes lie on fine or coarse textures, 95 % of each class on a texture of its own.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

from medjax import iterate
from medjax.models.unet import unet
from medjax.phantoms.scenes import draw, groups
from medjax.shortcuts.flip_measures import assess, is_common
from medjax.shortcuts.flips import deciles, decompose
from medjax.training.batches import from_arrays
from medjax.training.losses import dice_cross_entropy
from medjax.training.state import trainer

# %%
# The network is trained on batches as they come, and on batches with equally many of every pair of class and scene.
scenes, model = jax.jit(draw, static_argnums=2), unet(3, widths=(8, 16))
train = jax.tree.map(np.asarray, scenes(jax.random.key(0), groups(400, correlation=0.95), 24))
test = jax.tree.map(np.asarray, scenes(jax.random.key(1), groups(400, correlation=0.5), 24))
algorithm = trainer(
    lambda params, batch, key: dice_cross_entropy(model.apply(params, batch[0]), batch[1]).mean(), optax.adam(1e-2)
)
logits = {}
for name, balance in {"plain batches": None, "balanced batches": train.group}.items():
    state = algorithm.init(model.init(jax.random.key(0), train.image[:1]), jax.random.key(1))
    state = iterate.last(iterate.loop(algorithm, state, 300, inputs=from_arrays(train, 8, 0, balance)), state)
    logits[name] = jax.jit(model.apply)(state.ema_params, test.image)

# %%
# A flip is true foreground that is given to another class. The flip-risk needs no truth: it is the entropy of the
# foreground classes. With balanced batches the few flips are all in its last decile, where the network is uncertain;
# with plain ones half of the images are flipped with confidence, and no uncertainty finds them. Grey: class 0.
found = {name: assess(one, test.label) for name, one in logits.items()}
flip = {name: np.asarray(decompose(one.confusion).flip) for name, one in found.items()}
common, example = is_common(test.group), np.argmax(flip["plain batches"] - flip["balanced batches"])

figure, axes = plt.subplot_mosaic([[*"aabbcc"], [*"eeefff"]], figsize=(9, 6.5), layout="constrained")
axes["a"].imshow(test.image[example, ..., 0], cmap="gray")
axes["a"].set(title=f"image of class {test.group[example] // 2}", xticks=[], yticks=[])
for axis, (name, one) in zip("bc", logits.items(), strict=True):
    axes[axis].imshow(one[example].argmax(-1), vmin=0, vmax=2, cmap="cividis")
    axes[axis].set(title=f"predicted: {name}", xticks=[], yticks=[])
for k, (name, one) in enumerate(flip.items()):
    axes["e"].bar_label(axes["e"].bar((k, k + 3), (one[common].mean(), one[~common].mean()), label=name), fmt="%.2f")
    axes["f"].plot(range(1, 11), deciles(np.asarray(found[name].flip_risk), one).flip, "o-", label=name)
axes["e"].set(xticks=(0.5, 3.5), xticklabels=("class on its own texture", "class on the other one"), ylim=(0, 1.1))
axes["e"].set(title="flips by scene", ylabel="mean flip, fraction")
axes["f"].set(title="flips by flip-risk", xlabel="decile of flip-risk", ylabel="mean flip, fraction", ylim=(0, 1.1))
axes["f"].legend()
plt.show()

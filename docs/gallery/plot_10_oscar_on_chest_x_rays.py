"""
OSCAR on chest X-rays
=====================

Does a classifier look at a mark in the corner instead of the lungs? Simulated chests carry a dark or a bright mark, and
in one training set the mark goes with the disease. OSCAR compares where networks look: BA has learned the disease from
balanced data, SA the mark, and TS is under audit, once trained with the tie and once without.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

from medjax import iterate
from medjax.models.vgg import vgg
from medjax.phantoms import chests, cues
from medjax.shortcuts.attribution.batches import attribution_maps
from medjax.shortcuts.attribution.methods import build
from medjax.shortcuts.oscar import standardized_residuals
from medjax.shortcuts.oscar_audit import audit
from medjax.shortcuts.oscar_verdict import verdict
from medjax.shortcuts.regions import grid_regions
from medjax.training.batches import from_arrays
from medjax.training.state import trainer

dark, bright = (lambda x, h=h: cues.add_mark(x, center=(4, 4), radius=1.5, height=h) for h in (-0.3, 0.3))
data, maps, grid = [], {}, grid_regions((24, 24), (6, 6))
for seed, fraction in enumerate((0.5, 0.5, 0.02, 0.5)):  # of the images, with the mark of the other class; 0.5: no tie
    chest = chests.draw(jax.random.key(seed), np.arange(800) % 2, (24, 24), contrast=0.4)
    mark = cues.draw_attribute(np.random.default_rng(seed), chest.labels, fraction)
    data.append((4 * cues.plant(chest.images, mark, (dark, bright)) - 2, chest.labels, mark))
(images, *_), balanced, tied, other = data
tasks = {"BA": balanced[:2], "SA": balanced[::2], "TS, tied": tied[:2], "TS, not tied": other[:2]}  # images, classes
model, loss = vgg(2, (8, 16, 32), (1, 1, 1)), optax.softmax_cross_entropy_with_integer_labels
algorithm = trainer(lambda params, batch, key: loss(model.apply(params, batch[0]), batch[1]).mean(), optax.adam(3e-3))
for seed, (name, task) in enumerate(tasks.items()):
    state = algorithm.init(model.init(jax.random.key(seed), images[:1]), jax.random.key(seed))
    state = iterate.last(iterate.loop(algorithm, state, 200, inputs=from_arrays(task, 32, seed)), state)
    maps[name] = attribution_maps(build("grad_cam", model), state.params, images[:200], batch=200)

# %%
# ρ(TS, SA | BA) correlates the regions' ranks in TS and in SA, without what BA, the task, explains of both. Above: mean
# Grad-CAM of 200 unseen images. Below: each of 36 regions, and the correlations with 95 % bootstrap intervals.
figure, axes = plt.subplot_mosaic([[*"0011223344"], [*"pppppccccc"]], figsize=(11, 5.5), layout="constrained")
for axis, (name, panel) in zip("01234", ({"image": images[1:2, ..., 0]} | maps).items(), strict=True):
    axes[axis].imshow(panel.mean(0), cmap="gray" if name == "image" else "cividis")
    axes[axis].set(title=name, xticks=[], yticks=[])
for k, name in enumerate([*tasks][2:]):
    one = audit(jax.random.key(0), maps[name], maps["BA"], maps["SA"], grid)
    v, u = (-residual for residual in standardized_residuals(*one.profiles)[::-1])
    axes["p"].plot(v, u, "os"[k], label=f"{name}: {verdict(one).decision}")
    value, low, high = (np.array(which[:2]) for which in (one.correlations, one.low, one.high))
    axes["c"].errorbar(np.arange(2) + k / 9, value, abs([low, high] - value), fmt="os"[k], capsize=4)
axes["p"].set(xlabel="importance to SA beyond BA's, SD", ylabel="importance to TS beyond BA's, SD", title="regions")
axes["c"].set(xticks=(0, 1), xticklabels=("ρ(TS, SA | BA)", "ρ(TS, BA | SA)"), xlim=(-0.5, 1.5))
axes["c"].set(title="where networks look: partial correlations", ylabel="correlation of ranks", ylim=(-1.1, 1.1))
axes["c"].legend(*axes["p"].get_legend_handles_labels(), title="verdict", loc="lower right")
plt.show()

"""
A population swept over learning rates
======================================

Eight networks that differ in their learning rate alone train as one program: settings are arrays with a first axis of
members, and ``vmap`` does the rest. The sweep is one compilation and one training loop.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from medjax.metrics.overlap import overlap
from medjax.models.unet import unet
from medjax.phantoms.echo import CLASSES, echo
from medjax.training import population
from medjax.training.batches import from_arrays
from medjax.training.losses import dice_cross_entropy
from medjax.training.state import trainer

# %%
# Simulated echocardiograms to segment. Whatever ``make`` takes from a member's settings can be swept.
train, test = echo(seed=0, number=64, size=16), echo(seed=1, number=64, size=16)
model = unet(len(CLASSES), widths=(8, 16))


def make(settings):
    def loss(params, batch, key):
        return jnp.mean(dice_cross_entropy(model.apply(params, batch[0]), batch[1]))

    return trainer(loss, optax.sgd(settings["rate"], momentum=0.9))


settings = population.grid(rate=np.geomspace(1e-3, 30, 8).tolist())
params = jax.vmap(lambda rate: model.init(jax.random.key(0), train.images[:1]))(settings["rate"])  # all start alike
state = population.init(make, settings, params, jax.random.split(jax.random.key(1), 8))

# %%
# ``vmap`` is the default on an accelerator; without ``strategy`` one CPU trains the members one after the other. A
# member whose loss is not finite stops by itself, and the others go on.
batches = from_arrays((train.images, train.labels), batch=8, seed=0)
states, infos = zip(*population.loop(make, settings, state, 120, inputs=batches, strategy="vmap"), strict=True)
loss = np.concatenate([info.loss for info in infos]).reshape(12, 10, 8).mean(1)  # (ten steps, member)
predictions = jax.vmap(lambda params: model.apply(params, test.images).argmax(-1))(states[-1].members.params)
dice = np.array([overlap(one, test.labels, len(CLASSES)).dice[1:].mean() for one in np.asarray(predictions)])
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
for member, rate in enumerate(settings["rate"]):
    color, marker = plt.get_cmap("viridis")(member / 8), "X" if np.isnan(loss[-1, member]) else "o"
    left.plot(np.arange(10, 121, 10), loss[:, member], ".-", color=color, label=f"{rate:.2g}")
    right.semilogx(rate, dice[member], marker, ms=9, color=color)
left.set(xlabel="training step", ylabel="Dice loss + cross-entropy", ylim=(0, 3), title="learning curves")
left.legend(title="learning rate", ncols=2)
right.set(xlabel="learning rate", ylabel="Dice", title=f"unseen images, best: {settings['rate'][dice.argmax()]:.2g}")
plt.show()

# %%
# *Mean loss of ten steps, and Dice of 64 unseen images, by learning rate. Cross: its loss was not finite.*

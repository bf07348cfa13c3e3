"""Which labels are suspect: scores of images, from what was seen of them while a network trained on their labels.

    log = init(images, space)
    log = record(log, index, probe(apply, params, images[index], labels[index]))    once per probe and batch
    scores(log, labels)["vog"]                                                   high: suspect

A log holds VOG's streaming state and the scores of every probe. `DEFAULT` is the form of VOG that is called "vog".

Source: small loss as in Han et al., NeurIPS 2018 and, with a cyclic learning rate, O2U-Net, Huang et al., ICCV 2019;
AUM, Pleiss et al., NeurIPS 2020; EL2N, Paul et al., NeurIPS 2021; softmin, Lad & Mueller, 2023.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from medjax.labels import vog
from medjax.labels.probe import READINGS, Probe

SCORES = ("cross_entropy", "dice_loss", "margin", "el2n", "softmin", "gradient")
FORMS = {  # of VOG: reading, region, about
    "vog_published": ("gt_logit", "image", "mean"),
    "vog_foreground": ("gt_logit", "foreground", "mean"),
    "vog_class": ("gt_logit", "class", "mean"),
    "vog_probability": ("gt_prob", "image", "mean"),
    "vog_loss": ("loss", "image", "mean"),
    "vog_difference": ("gt_minus_own", "image", "mean"),
    "vog_logit_over_own": ("logit_over_own", "image", "mean"),
    "vog_loss_over_own": ("loss_over_own", "image", "mean"),
    "vog_difference_over_own": ("difference_over_own", "image", "mean"),
    "vog_peak": ("difference_over_own", "peak", "mean"),
    "moment_peak": ("difference_over_own", "peak", "zero"),  # no variance: the gradients' second moment
}
DEFAULT = "vog_peak"
NAMES = ("loss", "dice", "loss_mean", "dice_mean", "aum", "el2n", "softmin", "gradient", *FORMS)


class Log(NamedTuple):
    """VOG's state, and for every score the sum over probes and the latest value, of every image."""

    vog: vog.State
    total: dict[str, Float[Array, " image"]]
    last: dict[str, Float[Array, " image"]]


def init(images: int, space: tuple[int, ...], pool: int = 1, dtype: Any = jnp.float32) -> Log:
    """Nothing seen yet. `pool` and `dtype` make VOG's state smaller."""
    maps = (*READINGS, "gt_minus_own")
    total, last = ({name: jnp.zeros(images) for name in SCORES} for _ in range(2))  # two, so that both can be donated
    return Log(vog.init(images, space, maps, pool, dtype), total, last)


def record(log: Log, index: Int[Array, " batch"], seen: Probe) -> Log:
    """With one more probe of the images `index`; every image is to be probed as often as any other."""
    return Log(
        vog.update(log.vog, index, vog.with_difference(seen.maps)),
        {name: total.at[index].add(seen.scores[name]) for name, total in log.total.items()},
        {name: last.at[index].set(seen.scores[name]) for name, last in log.last.items()},
    )


def scores(log: Log, labels: Int[Array, "image *space"]) -> dict[str, Float[np.ndarray, " image"]]:
    """Every detector's score of every image.

    loss, dice          cross-entropy and Dice loss at the last probe
    loss_mean, dice_mean    their means over probes; with a cyclic learning rate this is O2U-Net's ranking
    aum                 mean over probes of the largest other logit minus the given one's: the negative of AUM
    el2n, softmin       at the last probe              gradient    mean |∂ loss / ∂ image| over probes
    vog_…               see `FORMS`                    vog         the default form
    """
    count = jnp.maximum(log.vog.count, 1)
    mean = {name: total / count for name, total in log.total.items()}
    out = {
        "loss": log.last["cross_entropy"],
        "dice": log.last["dice_loss"],
        "loss_mean": mean["cross_entropy"],
        "dice_mean": mean["dice_loss"],
        "aum": mean["margin"],
        "el2n": log.last["el2n"],
        "softmin": log.last["softmin"],
        "gradient": mean["gradient"],
    }
    out |= {
        name: vog.score(log.vog, reading, labels, region, about) for name, (reading, region, about) in FORMS.items()
    }
    out["vog"] = out[DEFAULT]
    return {name: np.asarray(value) for name, value in out.items()}

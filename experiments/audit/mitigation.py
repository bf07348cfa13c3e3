"""Mitigation in `shortcut_audit`: attenuation at test time against a rolled control, and against other methods.

The hold-out set is split into folds, stratified by group. Scores and strengths come from the images outside a fold, and
accuracy is that of the images in it: every image is tested once, by an attenuation that has not seen it. So is the
projection of the attribute out of the features.
"""

from collections.abc import Mapping
from functools import partial
from itertools import product

import jax
import numpy as np
from jaxtyping import Float, Int

from experiments.audit.measures import Networks
from experiments.audit.networks import BALANCED, Cell, Setup, TrainedNetwork, features
from medjax.metrics.summary import summarize_runs
from medjax.models.model import require
from medjax.running.progress import track
from medjax.shortcuts.attenuation import (
    attenuated_logits,
    attenuation_weights,
    group_accuracy,
    pool_to_grid,
    rolled_maps,
    select_attenuation,
)
from medjax.shortcuts.attribute_projection import attribute_projection, project
from medjax.shortcuts.oscar import contribution_scores, quadrants
from medjax.shortcuts.oscar_figures import paint
from medjax.shortcuts.rank_profile import rank_profile, rank_regions

NAMES = {
    "none": "no mitigation",
    "attenuated": "attenuation by RCS",
    "attenuated_both": "attenuation, both more",
    "control": "rolled control",
    "projected": "attribute projection",
    "reweighted": "reweighting",
    "balanced": "balanced batches",
    "group_dro": "GroupDRO",
    "ba": "balanced data (BA)",
}
Predictions = dict[str, Int[np.ndarray, "*several image"]]


def measure(setup: Setup, networks: Networks) -> dict[str, float]:
    """Worst-group and balanced accuracy, mean ± sd over seeds: NAME/MITIGATION/CUE/ARCHITECTURE/FRACTION."""
    config = setup.config
    metrics: dict[str, float] = {}
    every = list(product(config.cues, setup.models, config.fractions))
    for cue, architecture, fraction in track(every, "attenuation"):
        rows = [
            _one_seed(setup, networks, Cell(setup, architecture, cue, seed, "ts", fraction))
            for seed in range(config.seeds)
        ]
        metrics |= summarize_runs(rows)
    return metrics | _accuracies(setup, networks)


def _one_seed(setup: Setup, networks: Networks, cell: Cell) -> dict[str, float]:
    """Accuracies of a network with and without attenuation, and of those trained otherwise at its tie."""
    holdout, network = setup.holdouts[cell.cue], networks[cell.key]
    predictions = mitigate_in_folds(setup, networks, cell) | {"none": network.logits.argmax(-1)}
    for method in setup.config.mitigation.methods:
        if other := networks.get(cell._replace(method=method).key):
            predictions[method] = other.logits.argmax(-1)
    predictions["ba"] = networks[cell._replace(role="ba", fraction=BALANCED).key].logits.argmax(-1)
    row = dict[str, float]()
    for name, predicted in predictions.items():
        accuracy = group_accuracy(predicted == holdout.label, holdout.group)
        where = f"{name}/{cell.cue}/{cell.architecture}/{cell.fraction:g}"
        row[f"worst_group/{where}"] = float(accuracy.min(-1).mean())  # the control's: mean over its places
        row[f"balanced_accuracy/{where}"] = float(accuracy.mean())
    return row


def mitigate_in_folds(setup: Setup, networks: Networks, cell: Cell) -> Predictions:
    """Predicted classes of the hold-out images, attenuated, or projected, by what the other folds say."""
    options, model, holdout = setup.config.mitigation, setup.models[cell.architecture], setup.holdouts[cell.cue]
    network = networks[cell.key]
    z = features(model, network.params, holdout.image, setup.config.attribution.batch)
    fold, images = stratified_folds(setup.config.seed, holdout.group, options.folds), len(holdout.label)
    names = ("attenuated", "attenuated_both", "projected")
    predictions: Predictions = {name: np.zeros(images, int) for name in names}
    predictions["control"] = np.zeros((options.controls, images), int)
    for number in range(options.folds):
        inside, outside = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        projection = attribute_projection(z[outside].mean(tuple(range(1, z.ndim - 1))), holdout.attribute[outside])
        logits = require(model, "head", "attribute projection")(network.params, project(projection, z[inside]))
        predictions["projected"][inside] = np.asarray(logits).argmax(-1)
        predict = partial(attenuated_logits, model, network.params, z[outside])
        for name, scores in _scores(setup, networks, cell, outside, z.shape[1:-1]).items():
            chosen = select_attenuation(predict, scores, holdout.label[outside], holdout.group[outside])
            weights = [attenuation_weights(scores, chosen.down, chosen.up)]
            predictions[name][inside] = attenuated_logits(model, network.params, z[inside], weights)[0]
            if name == "attenuated":
                key = jax.random.fold_in(jax.random.key(setup.config.seed), number)
                moved = rolled_maps(key, scores, options.controls)
                weights = [attenuation_weights(one, chosen.down, chosen.up) for one in moved]
                predictions["control"][:, inside] = attenuated_logits(model, network.params, z[inside], weights)
    return predictions


def stratified_folds(seed: int, group: Int[np.ndarray, " image"], folds: int) -> Int[np.ndarray, " image"]:
    """Fold of each image, equally many of each group in every fold (but for one)."""
    rng, fold = np.random.default_rng((seed, 2)), np.zeros(len(group), int)
    for one in np.unique(group):
        own = rng.permutation(np.flatnonzero(group == one))
        fold[own] = np.arange(len(own)) % folds
    return fold


def _scores(
    setup: Setup, networks: Networks, cell: Cell, images: Int[np.ndarray, " some"], grid: tuple[int, ...]
) -> Mapping[str, Float[np.ndarray, "*grid"]]:
    """Scores of the first method and partition on the feature map's grid, from these images: RCS, and both more."""
    method, partition = setup.config.attribution.methods[0], setup.config.regions[0]
    ties = (("ts", cell.fraction), ("ba", BALANCED), ("sa", BALANCED))
    several: list[TrainedNetwork] = [
        networks[cell._replace(role=role, fraction=f, method="erm").key] for role, f in ties
    ]
    profiles = [rank_profile(rank_regions(one.means[method][partition][images])) for one in several]
    found = {"attenuated": contribution_scores(*profiles), "attenuated_both": quadrants(*profiles).both_more}
    regions = setup.regions[partition]
    return {name: pool_to_grid(paint(np.asarray(one), regions), grid) for name, one in found.items()}


def _accuracies(setup: Setup, networks: Networks) -> dict[str, float]:
    """Accuracy of BA and SA networks in their own task: accuracy_ROLE/CUE/ARCHITECTURE."""
    rows = []
    for seed in range(setup.config.seeds):
        row = dict[str, float]()
        for cue, architecture, role in product(setup.config.cues, setup.models, ("ba", "sa")):
            network, holdout = networks[architecture, cue, seed, role, BALANCED, "erm"], setup.holdouts[cue]
            target = holdout.attribute if role == "sa" else holdout.label
            row[f"accuracy_{role}/{cue}/{architecture}"] = float((network.logits.argmax(-1) == target).mean())
        rows.append(row)
    return summarize_runs(rows)

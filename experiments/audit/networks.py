"""Networks of `shortcut_audit`: BA, SA and TS of each seed, cue, architecture and tie, and their attribution maps.

BA learns the class from balanced data, SA the attribute from the same images, and TS the class where an exact fraction
of each class is anti-correlated. All are one study of `experiments.classifiers.training`.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree
from ml_collections import FrozenConfigDict

from experiments.audit.images import CueImages, Source, make_regions, planted_images
from experiments.audit.listed import listed_images
from experiments.classifiers import training
from experiments.classifiers.training import Classifier, Examples, Settings
from medjax.errors import MedjaxError
from medjax.models.model import Network
from medjax.running.arrays import from_numbered_leaves, to_numbered_leaves
from medjax.running.cells import cell_name
from medjax.running.config import flatten
from medjax.running.plan import Stage
from medjax.running.workdir import WorkDir
from medjax.shortcuts.attribution.batches import attribution_maps
from medjax.shortcuts.attribution.methods import build, importance, sign_of
from medjax.shortcuts.regions import Regions, region_means
from medjax.shortcuts.reweighting import reweighting

ROLES = ("ba", "sa", "ts")
BALANCED = 0.5
METHODS = {
    "grad_cam": "Grad-CAM",
    "gradient": "|gradient|",
    "input_times_gradient": "input × gradient",
    "integrated_gradients": "integrated gradients",
    "lrp": "LRP (EpsilonPlusFlat)",
}
TRACED = ("seed", "training.rate", "training.weight_decay", "training.group_step_size")


class Setup(NamedTuple):
    """What all networks of a config share: images, hold-out set of each cue, partitions, architectures."""

    config: FrozenConfigDict
    work: WorkDir
    models: dict[str, Network]  # architectures by name
    source: Source
    holdouts: dict[str, CueImages]  # by cue
    regions: dict[str, Regions]  # partitions by name


class Cell(NamedTuple):
    """Network of the study."""

    setup: Setup
    architecture: str
    cue: str
    seed: int
    role: str  # one of `ROLES`
    fraction: float  # of anti-correlated training images
    method: str = "erm"  # key of `training.METHODS`

    @property
    def key(self) -> tuple:
        """Key of the network among those of its setup."""
        return self[1:]


class TrainedNetwork(NamedTuple):
    """Parameters, logits of the hold-out images, and mean attribution in each region, by method and partition."""

    params: PyTree
    logits: np.ndarray  # (image, class)
    means: dict[str, dict[str, np.ndarray]]  # (image, region); none for networks that are compared by accuracy only


def prepare(config: FrozenConfigDict, work: WorkDir, models: dict[str, Network]) -> Setup:
    """Read or draw the images of a config.

    Raises:
        MedjaxError: as `planted_images` and `listed_images`; or regions that do not fit the images.
    """
    source = planted_images(config) if config.layout == "medmnist" else listed_images(config)
    holdouts = {cue: source.holdout(cue) for cue in config.cues}
    return Setup(config, work, models, source, holdouts, make_regions(config, source.plain))


def cells(setup: Setup) -> list[Cell]:
    """Networks of a study; the baselines of mitigation are trained for the first architecture, at one tie."""
    config = setup.config
    ties = [("ba", BALANCED), ("sa", BALANCED), *(("ts", fraction) for fraction in config.fractions)]
    every = [
        Cell(setup, architecture, cue, seed, *tie)
        for seed, cue, architecture, tie in product(range(config.seeds), config.cues, setup.models, ties)
    ]
    first, tie = next(iter(setup.models)), config.mitigation.fraction
    return every + [
        Cell(setup, first, cue, seed, "ts", tie, method)
        for seed, cue, method in product(range(config.seeds), config.cues, config.mitigation.methods)
    ]


def plan_networks(config: FrozenConfigDict, work: WorkDir, models: dict[str, Network]) -> list[Stage]:
    """Stages of all networks, of each architecture: training, and logits and attribution maps of the hold-out images.

    No image is read: those of a MedMNIST file are as large as `phantoms.space`.
    """
    c, a, stages = config.listed, config.attribution, list[Stage]()
    shape = (*config.phantoms.space, 1)
    if config.layout != "medmnist":
        shape = (c.side, c.side, 1 if config.layout == "chexpert" else 3)
    none = Source(_no_images, _no_images, np.zeros((0, *shape)), "")
    every = cells(Setup(config, work, models, none, {}, {}))
    for name, model in models.items():
        own = [one for one in every if one.architecture == name]
        maps = dict.fromkeys(a.methods, sum(one.method == "erm" for one in own) * config.holdout)
        logits = len(own) * config.holdout
        stages.append(training.plan_training(f"training, {name}", _classifier(own[0]), shape, len(own)))
        stages += training.plan_assessment(name, model, shape, a.batch, logits, maps, a.steps)
    return stages


def train(several: Sequence[Cell]) -> list[TrainedNetwork | MedjaxError]:
    """Trained networks of all cells, as populations; an error in place of one that diverged."""
    networks = [_classifier(cell) for cell in several]
    own = {(network.work.path, network.name): cell for network, cell in zip(networks, several, strict=True)}

    def load(network: Classifier) -> Examples:
        return _examples(own[network.work.path, network.name])

    def finish(network: Classifier, params: PyTree) -> dict[str, Any]:
        return _evaluate(own[network.work.path, network.name], params)

    options = several[0].setup.config.population
    kept = training.train(networks, load, finish, options.strategy or None, options.width or None)
    return [
        one if isinstance(one, MedjaxError) else _restored(cell, one) for cell, one in zip(several, kept, strict=True)
    ]


def _classifier(cell: Cell) -> Classifier:
    """TS networks of one seed begin with the same weights, BA and SA with others."""
    config, t = cell.setup.config, cell.setup.config.training
    settings = Settings(t.rate, t.weight_decay, t.steps, t.batch, t.every, t.group_step_size)
    number = len(ROLES) * (config.seed + cell.seed) + ROLES.index(cell.role)
    kind = tuple((key, value) for key, value in flatten(config).items() if key not in TRACED)
    model = cell.setup.models[cell.architecture]
    return Classifier(cell.setup.work, cell_name(cell.key), model, number, settings, cell.method, kind)


def _examples(cell: Cell) -> Examples:
    data = cell.setup.source.training(cell.cue, cell.seed, cell.fraction)
    target = data.attribute if cell.role == "sa" else data.label
    weight = np.ones(len(target), np.float32)
    if cell.method == "reweighted":
        weight = reweighting(data.label, data.attribute)
    return Examples(data.image, target.astype(np.int32), data.group.astype(np.int32), weight)


def _evaluate(cell: Cell, params: PyTree) -> dict[str, Any]:
    setup, model = cell.setup, cell.setup.models[cell.architecture]
    images, batch = setup.holdouts[cell.cue].image, setup.config.attribution.batch
    result = {"params": to_numbered_leaves(params), "logits": training.predict(model, params, images, batch)}
    if cell.method != "erm":
        return result
    means = dict[str, dict[str, np.ndarray]]()
    for method in setup.config.attribution.methods:
        maps = attribution_maps(build(method, model, setup.config.attribution.steps), params, images, batch)
        maps = importance(maps, sign_of(method))
        means[method] = {name: np.asarray(region_means(maps, one)) for name, one in setup.regions.items()}
    return result | {"means": means}


def features(model: Network, params: PyTree, images: np.ndarray, batch: int) -> np.ndarray:
    """Last feature map of each image, in batches of one size."""
    padded = [images[np.minimum(np.arange(k, k + batch), len(images) - 1)] for k in range(0, len(images), batch)]
    return np.concatenate([np.asarray(_features(model, params, some)) for some in padded])[: len(images)]


def _restored(cell: Cell, kept: dict[str, Any]) -> TrainedNetwork:
    images = jnp.asarray(cell.setup.holdouts[cell.cue].image[:1])
    like = jax.eval_shape(cell.setup.models[cell.architecture].init, jax.random.key(0), images)
    return TrainedNetwork(from_numbered_leaves(kept["params"], like), kept["logits"], kept.get("means", {}))


def _no_images(*_: Any) -> CueImages:
    raise AssertionError("a plan reads no image")


def _last_map(model: Network, params: PyTree, images: Array) -> Array:
    return model.features(params, images)  # type: ignore[attr-defined]


_features = jax.jit(_last_map, static_argnums=0)

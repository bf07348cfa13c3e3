"""Networks of `brain_mri_bias`: their roles, architectures and training sets, and what is kept of each."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, PyTree
from ml_collections import FrozenConfigDict

from experiments.brain.source import source
from experiments.brain.subjects import Subjects, training_subset
from experiments.classifiers.training import (
    Classifier,
    Examples,
    Settings,
    plan_assessment,
    plan_training,
    predict,
    train,
)
from medjax.errors import MedjaxError
from medjax.models.model import Network
from medjax.models.resnet import resnet
from medjax.models.swin import swin
from medjax.running.cells import cell_name
from medjax.running.plan import Stage
from medjax.running.workdir import WorkDir
from medjax.shortcuts.attribution.batches import attribution_maps
from medjax.shortcuts.attribution.methods import build, importance, sign_of

CLASSES = 2
INTENSITIES = ("brain", "volume")  # within which intensities are z-scored; regions are read off the first
TRACED = ("seed", "anti_fraction", "resnet.rate", "resnet.weight_decay", "swin.rate", "swin.weight_decay")


class Cell(NamedTuple):
    """Cell of the study: a network and what it is trained for."""

    config: FrozenConfigDict
    work: WorkDir
    model: Network
    architecture: str  # resnet, swin, or custom
    intensities: str  # of `INTENSITIES`
    learns: str  # diagnosis, or the name of an attribute
    tied: str | None  # attribute that is tied to the diagnosis in training; None: balanced
    seed: int  # number of the seed, from 0

    @property
    def training(self) -> str:
        """Name of what the network learns and from which set: baseline, biased_anatomy, attribute_contrast, …"""
        if self.learns != "diagnosis":
            return f"attribute_{self.learns}"
        return "baseline" if self.tied is None else f"biased_{self.tied}"


class TrainedNetwork(NamedTuple):
    """What is kept of a network: logits on all test sets, and its attribution on that of site A.

    Where there is no attribution, its arrays are empty.
    """

    logits: dict[str, Float[np.ndarray, "subject 2"]]  # by site
    region_means: Float[np.ndarray, "subject region"]
    mean_map: Float[np.ndarray, "x y z"]


def cells(config: FrozenConfigDict, work: WorkDir, network: Network | None = None) -> list[Cell]:
    """Cells of the study; with `network` that is the only architecture, trained as the ResNet.

    Raises:
        DataError: the data set cannot be read, or has too few subjects of a group.
    """
    kinds = {"custom": network} if network is not None else {name: _built(config, name) for name in ("resnet", "swin")}
    subjects = source(config.data)
    diagnosis = [("diagnosis", tied) for tied in (None, *subjects.attributes)] if subjects.diagnoses > 1 else []
    roles = [*diagnosis, *((one, None) for one in subjects.attributes)]
    out = list[Cell]()
    for name, model in kinds.items():
        seeds = (config.swin.seeds, 0) if name == "swin" else (config.seeds, config.volume_seeds)
        for (learns, tied), (intensities, number) in product(roles, zip(INTENSITIES, seeds, strict=True)):
            out += [Cell(config, work, model, name, intensities, learns, tied, seed) for seed in range(number)]
    return out


def training_sets(config: FrozenConfigDict) -> dict[str | None, Int[np.ndarray, " train"]]:
    """Training sets of the first seed by the attribute that is tied to the diagnosis; None: balanced.

    Raises:
        DataError: a group has too few subjects.
    """
    subjects, d = source(config.data), config.data
    ties = (None, *subjects.attributes) if subjects.diagnoses > 1 else (None,)
    labels, options = subjects.labels(), (config.anti_fraction, config.seed, subjects.diagnoses)
    return {tied: training_subset(labels, d.train, tied, *options) for tied in ties}


def train_all(networks: Sequence[Cell]) -> list[TrainedNetwork | MedjaxError]:
    """Trained networks of all cells, one population an architecture."""
    by_name = {(id(one.work), _name(one)): one for one in networks}

    def cell(classifier: Classifier) -> Cell:
        return by_name[id(classifier.work), classifier.name]

    options = networks[0].config.population
    kept = train(
        [_classifier(one) for one in networks],
        lambda network: examples(cell(network)),
        lambda network, params: assess(cell(network), params),
        options.strategy or None,
        options.width or None,
    )
    return [one if isinstance(one, MedjaxError) else TrainedNetwork(**one) for one in kept]


def examples(cell: Cell) -> Examples:
    """Training set of a network."""
    config, subjects = cell.config, source(cell.config.data)
    pool, options = _pool(config.data, cell.intensities), (config.anti_fraction, _seed(cell), subjects.diagnoses)
    chosen = training_subset(pool, config.data.train, cell.tied, *options)
    group = 2 * pool.diagnosis + pool.attributes[cell.tied or subjects.attributes[0]]
    target = pool.label(cell.learns)[chosen].astype(np.int32)
    return Examples(pool.image[chosen], target, group[chosen], np.ones(len(chosen), np.float32))


def assess(cell: Cell, params: PyTree) -> PyTree:
    """Logits of a trained network on all test sets, and its attribution in template space."""
    tests, config = _tests(cell.config.data, cell.intensities), cell.config
    a = config.attribution
    logits = {site: predict(cell.model, params, test.image, a.batch) for site, test in tests.items()}
    means, mean = np.zeros((0, 0), np.float32), np.zeros((0, 0, 0), np.float32)
    if cell.intensities == INTENSITIES[0]:
        maps = attribution_maps(build(a.method, cell.model, a.steps), params, tests["A"].image, a.batch)
        means, mean = source(config.data).in_template(importance(maps, sign_of(a.method)))
    return {"logits": logits, "region_means": means, "mean_map": mean}


def plan_networks(networks: Sequence[Cell]) -> list[Stage]:
    """Stages of all networks, of each architecture: training, and logits and attribution of test subjects."""
    config, stages = networks[0].config, list[Stage]()
    shape, a = (*config.data.shape, 1), config.attribution
    for name in dict.fromkeys(one.architecture for one in networks):
        own = [one for one in networks if one.architecture == name]
        explained = [one for one in own if one.intensities == INTENSITIES[0]]
        train = plan_training(f"training, {name}", _classifier(own[0]), shape, len(own))
        stages += [train, *plan_assessment(
            name, own[0].model, shape, a.batch, len(own) * 2 * config.data.test,
            {a.method: len(explained) * config.data.test}, a.steps,
        )]  # fmt: skip
    return stages


def _classifier(cell: Cell) -> Classifier:
    t = cell.config.swin if cell.architecture == "swin" else cell.config.resnet
    settings = Settings(t.rate, t.weight_decay, t.steps, t.batch, max(t.steps // 10, 1))
    kind = (cell.config.data.shape, cell.architecture)
    return Classifier(cell.work, _name(cell), cell.model, _seed(cell), settings, kind=kind)


def _name(cell: Cell) -> str:
    return cell_name((cell.architecture, cell.intensities, cell.training, cell.seed))


def _seed(cell: Cell) -> int:
    return cell.config.seed + cell.seed


def _built(config: FrozenConfigDict, name: str) -> Network:
    if name == "resnet":
        r = config.resnet
        return resnet(CLASSES, r.depth, r.widths, r.strides, stem_pool=False, dropout=r.dropout)
    s = config.swin
    return swin(CLASSES, s.patch, s.width, s.depths, s.heads, s.window)


@lru_cache(maxsize=1)  # networks of one population come one after another
def _pool(data: FrozenConfigDict, intensities: str) -> Subjects:
    return source(data).pool(intensities)


@lru_cache(maxsize=1)
def _tests(data: FrozenConfigDict, intensities: str) -> dict[str, Subjects]:
    return source(data).tests(intensities)

"""Networks of `cmr_precision`: nnU-Net's 2-D recipe, the members of all seeds' ensembles as one population; SWAG."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree, Scalar
from ml_collections import FrozenConfigDict

from experiments.cmr.scans import CLASSES, Session
from medjax import iterate
from medjax.errors import MedjaxError
from medjax.iterate import Algorithm, static_partial
from medjax.models.model import Network, check_network
from medjax.models.plain_unet import plain_unet
from medjax.running.arrays import to_numbered_leaves
from medjax.running.config import flatten
from medjax.running.network_part import network_part
from medjax.running.workdir import WorkDir, stage
from medjax.segmentation import nnunet
from medjax.segmentation.patches import PreparedCase, patches, prepare
from medjax.segmentation.plan import Case, Plan, fingerprint, plan
from medjax.training import study
from medjax.training.augment_nnunet import augmentation_for_plan, source_patch
from medjax.uncertainty import swag

ENDLESS = 10**6  # epochs: nnU-Net's learning rate hardly falls
TRACED = ("seed", "training.rate")
PlannedNetwork = Callable[[Plan], Network]


class Cell(NamedTuple):
    """A network of the study: its seed, and its number in the seed's ensemble."""

    config: FrozenConfigDict
    work: WorkDir
    design: Plan
    model: Network
    seed: int  # from 0
    member: int

    @property
    def name(self) -> str:
        """Name of the network's stage."""
        return f"network_{self.seed}_{self.member}"

    @property
    def entropy(self) -> int:
        """Random seed of weights, batches and augmentation: no two networks of a run share it.

        Runs whose `seed`s are closer than `seeds` train some of the same networks.
        """
        return (self.config.seed + self.seed) * 1000 + self.member


def design_network(
    config: FrozenConfigDict, training: Sequence[Session], network: Network | PlannedNetwork | None
) -> tuple[Plan, Network]:
    """2-D plan for the training set, and its network, plain U-Net with dropout; `network` replaces it.

    Raises:
        ConfigError, DataError: `network` is none, or its logits do not fit.
    """
    t = config.training
    sides = (t.crop, t.crop, 1)
    design = plan(
        fingerprint(training_cases(training), CLASSES), configuration="2d", base_width=t.base_width,
        max_width=t.max_width, patch=sides, batch=t.batch,
    )  # fmt: skip
    unet = plain_unet(CLASSES, design.widths, design.kernels, design.strides, dropout=t.dropout)
    model = network_part(unet if network is None else network, design, "--part network").value
    check_network(model, (*design.patch, 1), CLASSES)
    return design, model


def training_cases(sessions: Sequence[Session]) -> list[Case]:
    """Cases of a training set: both phases of each session, cropped to the heart."""
    return [Case(one.image[..., k, None], one.labels[..., k], one.spacing) for one in sessions for k in range(2)]


def train_all(cells: Sequence[Cell], training: Callable[[Cell], Sequence[Session]]) -> list[PyTree | MedjaxError]:
    """Final parameters of every network; `training` gives the sessions that one learns from, read when it trains."""

    def load(numbers: list[int]) -> list[study.MemberTraining]:
        sets = [(cells[i].config.seed, cells[i].seed) for i in numbers]  # studies of a sweep train together
        prepared = dict[tuple[int, int], list[PreparedCase]]()
        for i, own in zip(numbers, sets, strict=True):
            if own not in prepared:
                prepared[own] = [prepare(case, cells[i].design) for case in training_cases(training(cells[i]))]
        return [_training(cells[i], prepared[own]) for i, own in zip(numbers, sets, strict=True)]

    options = cells[0].config.population
    found = study.train([_member(cell) for cell in cells], load, options.strategy or None, options.width or None)
    return [
        one if isinstance(one, MedjaxError) else as_params(cell.model, cell.design, one)
        for cell, one in zip(cells, found, strict=True)
    ]


def as_params(model: Network, design: Plan, leaves: Mapping[str, PyTree]) -> PyTree:
    """Parameters of a network from their numbered leaves."""
    example = jax.ShapeDtypeStruct((1, *design.patch, 1), jnp.float32)
    return jax.tree.unflatten(
        jax.tree.structure(jax.eval_shape(model.init, jax.random.key(0), example)), list(leaves.values())
    )


def swag_posterior(cell: Cell, params: PyTree, training: Callable[[Cell], Sequence[Session]]) -> swag.Posterior:
    """SWAG of a trained network: it trains on at a constant learning rate, with a snapshot every `swag.every` steps.

    In `small` these are 20 snapshots within 200 steps, from zero momentum (0.99 remembers some 100 steps), at a tenth
    of the first learning rate: little room to explore, so the posterior is narrow. Maddox et al. (NeurIPS 2019) take
    one snapshot an epoch for tens of epochs, at a rate high enough to leave the optimum. Batches are drawn anew; the
    random keys of augmentation and dropout are again those of the training's first steps.
    """
    s = cell.config.swag

    def compute() -> swag.Swag:
        prepared = [prepare(case, cell.design) for case in training_cases(training(cell))]
        state = nnunet.init(cell.model, cell.design, cell.entropy, params).state
        moments = swag.init(params, s.rank)
        trainer = nnunet.trainer(cell.model, _settings(cell, ENDLESS), s.rate)
        for now, _ in iterate.loop(
            trainer, state, s.snapshots * s.every, inputs=_batches(cell, prepared, 1), every=s.every, donate=True,
        ):  # fmt: skip
            moments = swag.update(moments, now.params)
        return moments

    like = jax.eval_shape(lambda: swag.init(params, s.rank))
    return swag.posterior(stage(cell.work, f"swag_{cell.seed}", compute, like))


def _make_trainer(model: Network, settings: nnunet.StepSettings, traced: Mapping[str, float | Scalar]) -> Algorithm:
    return nnunet.trainer(model, settings, traced["rate"])


def _settings(cell: Cell, epochs: int) -> nnunet.StepSettings:
    p = cell.design
    augmentation = augmentation_for_plan(p.patch, p.flat_axis, p.mirror)._replace(patch=p.patch)
    return nnunet.StepSettings(epochs, cell.config.training.iterations, augmentation, p.batch_dice)


def _member(cell: Cell) -> study.StudyMember:
    t = cell.config.training
    make = static_partial(_make_trainer, cell.model, _settings(cell, t.epochs))
    kind = tuple((key, value) for key, value in flatten(cell.config).items() if key not in TRACED)
    steps = t.epochs * t.iterations
    return study.StudyMember(cell.work, cell.name, make, {"rate": t.rate}, steps, t.iterations, None, kind)


def _training(cell: Cell, prepared: Sequence[PreparedCase]) -> study.MemberTraining:
    state = nnunet.init(cell.model, cell.design, cell.entropy).state
    return study.MemberTraining(state, _batches(cell, prepared, 0), to_numbered_leaves)


def _batches(cell: Cell, prepared: Sequence[PreparedCase], part: int) -> Callable[[int], PyTree]:
    p = cell.design
    source = source_patch(_settings(cell, 1).augmentation, p.patch)
    return patches(prepared, source, p.patch, p.batch, (cell.entropy, part))

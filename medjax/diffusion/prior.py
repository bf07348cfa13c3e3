"""A trained 2-D score prior: network, parameters, and what images it knows. One file holds it.

load_prior()                the brain prior that comes with medjax (its card: `weights/brain.md`)
load_prior(path)            one's own, from `medjax pet train-prior`
score(prior, x, t, axis)    ∇ log p of slices perpendicular to the axis, (batch, a, b), in units of the scale
estimator(prior, mode)      the prior on volumes, for `sampler` and `conditioning`
"""

import io
import json
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Scalar

from medjax.atomic import replacing
from medjax.diffusion import planes, sampler
from medjax.diffusion.score_matching import classifier_free, denoising_loss, dropped, even_weight, preconditioned
from medjax.diffusion.sde import Sde, vp
from medjax.errors import ConfigError, DataError
from medjax.models.model import Model
from medjax.models.score_unet import score_unet
from medjax.training.old_state import TrainState, init, make_train_step

SHIPPED = "weights/brain.npz"


class Settings(NamedTuple):
    """What a prior is, besides its parameters. Hashable."""

    widths: tuple[int, ...] = (16, 32, 64, 96)
    blocks: int = 1
    attention: tuple[int, ...] = (3,)
    size: int = 96  # voxels of a training slice, each way
    voxel_mm: float = 2.5
    orientations: tuple[int, ...] = (0, 1, 2)  # axes that training slices are perpendicular to
    beta_min: float = 0.1
    beta_max: float = 10.0
    about: str = ""
    guided: bool = False  # it also knows an MR image, of mean 1 as the PET

    @property
    def multiple(self) -> int:
        """Sides of slices must be multiples of this."""
        return 2 ** (len(self.widths) - 1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prior:
    """Parameters and `spread`, the standard deviation of training images, are traced; settings are static."""

    params: PyTree
    spread: Scalar | float
    settings: Settings = field(metadata={"static": True})

    @property
    def sde(self) -> Sde:
        """The diffusion that the network was trained for."""
        return vp(self.settings.beta_min, self.settings.beta_max)


def score(
    prior: Prior,
    x: Float[Array, "batch a b"],
    t: Scalar | float,
    guide: Float[Array, "batch a b"] | None = None,
    *,
    axis: int = 2,
    weight: Scalar | float = 0.0,
) -> Float[Array, "batch a b"]:
    """∇ log p(x, t) of slices whose mean emission is about 1; sides must be multiples of `settings.multiple`.

    Slices are perpendicular to `axis` of a volume in RAS+ (2: transverse) and keep the order of the other two axes.
    A guided prior takes slices of an MR image of mean 1 (∇ log p(x, t | MR), sharpened by `weight`, see
    `classifier_free`), or none.

    Raises:
        DataError: a side is no such multiple.
    """
    s = prior.settings
    if x.shape[1] % s.multiple or x.shape[2] % s.multiple:
        raise DataError(f"prior: slices of {x.shape[1:]} voxels; expected multiples of {s.multiple}")
    apply = _network(s).apply

    orientation = jnp.tile(jax.nn.one_hot(axis, 3, dtype=x.dtype), (len(x), 1))

    def given(y: Array, times: Array, condition: Array) -> Array:
        inputs = (orientation, condition) if s.guided else (orientation,)
        return preconditioned(lambda z, level: apply(prior.params, z, level, *inputs), prior.sde, prior.spread)(
            y, times
        )

    inputs = x[..., None], jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])
    if guide is None:
        return given(*inputs, jnp.zeros_like(inputs[0]))[..., 0]
    return classifier_free(given, guide[..., None], weight)(*inputs)[..., 0]


def estimator(
    prior: Prior,
    mode: str = "transverse",
    guide: Float[Array, "x y z"] | None = None,
    weight: Scalar | float = 0.0,
) -> sampler.Estimator:
    """The prior on volumes `(x, y, z)`, any sides: of transverse slices, or of three orientations joined.

    Perpendicular modes ("alternated", "averaged") need isotropic voxels and a prior trained on all orientations. A
    `guide` is an MR image on the same voxels, of mean 1 (`score_matching.scaled`), for a prior that was trained with.

    Raises:
        ConfigError: no such mode, or a guide for a prior that knows none.
    """
    if guide is not None and not prior.settings.guided:
        raise ConfigError("prior: it was trained without MR images; expected no guide")

    def one(axis: int) -> sampler.Estimator:
        slices = partial(score, prior, axis=axis, weight=weight)
        volume = planes.across(slices, axis, prior.settings.multiple, lambda t: prior.sde.marginal(t)[1], guide=guide)
        return sampler.unconditional(prior.sde, volume)

    if mode == "transverse":
        return one(2)
    joined = {"alternated": planes.alternate, "averaged": planes.average}
    if mode not in joined:
        raise ConfigError(f"planes: mode {mode}; expected transverse, alternated or averaged")
    return joined[mode]([one(2), one(1), one(0)])


def make_trainer(
    key: PRNGKeyArray, settings: Settings, spread: float, steps: int, rate: float = 1e-3, start: PyTree | None = None
) -> tuple[TrainState, Any]:
    """(state, step) for `training.loop.fit`: Adam with a warm-up of 5 % and a cosine to 0, gradients clipped at 1.

    A batch is slices `(batch, a, b, 1)` of mean emission 1 and the axes they are perpendicular to; of a guided prior
    `(batch, a, b, 2)`, the second channel the MR. On the device they are mirrored (left and right), moved by up to 3
    voxels and the PET is scaled by U(0.5, 1.5); one MR in ten is taken away. `start` holds parameters to begin with;
    what it lacks begins as usual.
    """
    model = _network(settings)
    sde = vp(settings.beta_min, settings.beta_max)
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, max(steps // 20, 1), steps)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    weight = even_weight(sde, spread)

    def loss(params: PyTree, batch: tuple[Array, Array], key: PRNGKeyArray) -> Scalar:
        key, own = jax.random.split(key)
        slices, axes = batch
        images = _augmented(own, slices, axes)
        inputs = [jax.nn.one_hot(axes, 3)]
        if settings.guided:
            inputs.append(dropped(jax.random.fold_in(own, 1), images[..., 1:]))
        one = preconditioned(lambda y, level: model.apply(params, y, level, *inputs), sde, spread)
        return denoising_loss(key, sde, one, images[..., :1], weight)

    small = jnp.zeros((1, 2 * settings.multiple, 2 * settings.multiple, 1))
    inputs = [small, jnp.zeros(1), jnp.zeros((1, 3)), *([small] if settings.guided else [])]
    params = _merged(model.init(key, *inputs), start or {})
    return init(params, optimiser), make_train_step(loss, optimiser, decay=0.999)


def _augmented(key: PRNGKeyArray, slices: Array, axes: Array) -> Array:
    """Sagittal slices (axis 0) have no left and right to mirror."""
    flip, move, scale = jax.random.split(key, 3)
    chosen = jax.random.bernoulli(flip, 0.5, axes.shape) & (axes > 0)
    mirrored = jnp.where(chosen[:, None, None, None], slices[:, ::-1], slices)
    moved = jax.vmap(lambda one, by: jnp.roll(one, by, (0, 1)))(
        mirrored, jax.random.randint(move, (len(axes), 2), -3, 4)
    )
    factor = jax.random.uniform(scale, (len(axes), 1, 1, 1), minval=0.5, maxval=1.5)
    return jnp.concatenate([moved[..., :1] * factor, moved[..., 1:]], axis=-1)


def _merged(params: PyTree, start: PyTree) -> PyTree:
    """`params`, with the leaves of `start` where it has them; inputs that `start` does not know get weights of 0."""
    if not isinstance(params, dict):
        known = tuple(slice(side) for side in np.shape(start))
        return params if isinstance(start, dict) else jnp.zeros_like(params).at[known].set(start)
    return {name: _merged(value, start.get(name, {})) for name, value in params.items()}


def _network(settings: Settings) -> Model:
    return score_unet(settings.widths, settings.blocks, settings.attention)


def save_prior(path: Path, prior: Prior) -> None:
    """Write one npz file: parameters as float16 (a rounding of 5e-4), settings as JSON.

    Raises:
        OSError: it cannot be written.
    """
    leaves = jax.tree_util.tree_leaves_with_path(prior.params)
    arrays: dict[str, Any] = {
        jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(a, np.float16) for p, a in leaves
    }
    header = json.dumps(prior.settings._asdict() | {"spread": float(prior.spread)})
    buffer = io.BytesIO()
    np.savez_compressed(buffer, settings=np.frombuffer(header.encode(), np.uint8), **arrays)
    with replacing(path) as file:
        file.write(buffer.getvalue())


def load_prior(path: Path | None = None) -> Prior:
    """The prior in `path`, or the brain prior that comes with medjax.

    Raises:
        DataError: the file is no prior.
        FileNotFoundError: there is none.
    """
    source = files("medjax.diffusion").joinpath(SHIPPED).read_bytes() if path is None else path.read_bytes()
    try:
        with np.load(io.BytesIO(source), allow_pickle=False) as archive:
            header = json.loads(archive["settings"].tobytes())
            arrays = {name: archive[name].astype(np.float32) for name in archive.files if name != "settings"}
            spread = header.pop("spread")
            given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in header.items()}
            settings = Settings(**given)
    except (KeyError, TypeError, ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: no score prior; expected a file that `medjax pet train-prior` wrote") from error
    tree: dict = {}
    for name, array in arrays.items():
        *parents, last = name.split("/")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = jnp.asarray(array)
    return Prior(tree, spread, settings)

"""`medjax pet train-prior`: a score prior from one's own PET images, or from the family of brain phantoms."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from medjax import iterate
from medjax.diffusion.prior import Prior, Settings
from medjax.diffusion.prior_file import BUILT_IN, examples, load_prior, prior_network, save_prior
from medjax.diffusion.prior_training import initial_params, trainer, training_slices
from medjax.diffusion.score_matching import normalize_intensity
from medjax.diffusion.sde import vp
from medjax.errors import ConfigError, DataError
from medjax.io.nifti import grid_affine, read_nifti, resample
from medjax.models.model import Model
from medjax.models.score_unet import score_unet
from medjax.phantoms.heads import family
from medjax.phantoms.mni import tissue_shares
from medjax.running.config import config_hash
from medjax.running.parts import Part
from medjax.running.progress import say, track
from medjax.running.workdir import WorkDir, append_jsonl, keep_jsonl, open_workdir, stage
from medjax.tools.checks import as_paths
from medjax.tools.pet_defaults import BATCH, RATE, STEPS
from medjax.training import checkpoint
from medjax.training.state import TrainState, require_finite_loss

SAVE_EVERY = 5  # reports: how often a checkpoint is kept
FILE = "prior.npz"  # in the work directory
HELD_BACK = 10_000  # seeds of phantoms from here on are never trained on


class Trained(NamedTuple):
    """A trained prior, and the file that keeps it."""

    prior: Prior
    file: Path


def default_network(settings: Settings) -> Model:
    """The network that is trained unless another one is given."""
    return score_unet(settings.widths, settings.blocks, settings.attention)


def train(
    folder: Path | str,
    images: Sequence[Path | str] = (),
    phantoms: int = 0,
    settings: Settings | None = None,
    steps: int = STEPS,
    batch: int = BATCH,
    rate: float = RATE,
    seed: int = 0,
    *,
    start: Path | str | None = None,
    mr: Path | str | None = None,
    network: Any = None,
    every: int = 100,
) -> Trained:
    """Train in `folder`, or continue there. The average of the parameters is what is kept.

    `mr` is a folder with an MR image of each subject, of the PET's file name, for settings that are guided. `network`,
    a Model or a function of the settings that gives one, is kept by its name and digest, which enter the identity of
    the folder.

    Raises:
        ConfigError, DataError: something given cannot be used, or training failed.
        WorkdirError: the folder belongs to another training, or to another network.
    """
    folder, start, mr, *images = as_paths(folder, start, mr, *images)
    settings = Settings() if settings is None else settings
    if bool(images) == bool(phantoms):
        raise ConfigError("train-prior: give NIfTI images, or --phantoms N and none")
    if mr is not None and not images:
        raise ConfigError("--mr goes with images of your own, not with --phantoms")
    if settings.size % settings.multiple:
        raise ConfigError(
            f"--size {settings.size}; {len(settings.widths)} levels need a multiple of {settings.multiple}"
        )
    own = network is not None
    part = prior_network(network, settings) if own else Part(BUILT_IN, "", default_network(settings))
    config: dict[str, Any] = settings._asdict() | {
        "images": tuple(map(str, images)), "phantoms": phantoms, "steps": steps, "batch": batch, "rate": rate,
        "seed": seed, "start": str(start or ""), "mr": str(mr or ""),
    }  # fmt: skip
    named = {"network": part.identity} if own else {}
    with open_workdir(folder, {"train-prior": config_hash(config), **config, **named}) as work:
        volumes = (read(path, settings, mr) for path in images) if images else phantom_volumes(phantoms, settings)
        data = stage(work, "slices", lambda: training_slices(volumes, settings.orientations))
        say(f"{len(data['axes'])} slices of {settings.size}² voxels of {settings.voxel_mm:g} mm")
        first = None if start is None else load_prior(start, part if own else None).params
        prior = _train(work, data, settings, part, steps, batch, rate, seed, first, every)
    return Trained(prior, folder / FILE)


def _train(
    work: WorkDir,
    data: dict[str, np.ndarray],
    settings: Settings,
    part: Part,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    first: PyTree | None,
    every: int,
) -> Prior:
    """Train from the last checkpoint on; write the prior at every checkpoint, and even if no step is left."""
    slices, axes = data["slices"], data["axes"]
    sigma_data = float(np.sqrt(np.mean([np.mean(one[..., 0].astype(np.float32) ** 2) for one in slices])))
    key, sde, model = jax.random.key(seed), vp(settings.beta_min, settings.beta_max), part.value
    algorithm = trainer(model, settings, sigma_data, steps, rate)
    params = initial_params(model, jax.random.fold_in(key, 1), examples(settings), first)
    state = algorithm.init(params, jax.random.fold_in(key, 2))
    folder = work.checkpoints / "training"
    if (kept := checkpoint.restore(folder, state)) is not None:
        state = kept[1]
        say(f"continuing after step {int(state.step)}")
    keep_jsonl(work, lambda row: row["step"] <= int(state.step))

    def batches(number: int) -> tuple[jax.Array, jax.Array]:
        chosen = np.random.default_rng((seed, number)).integers(len(slices), size=batch)
        return jnp.asarray(slices[chosen], jnp.float32), jnp.asarray(axes[chosen])

    def save(state: TrainState, made: int) -> None:
        if made % (SAVE_EVERY * every) == 0 or made == steps:
            checkpoint.save(folder, made, state)
            write(state)

    def write(state: TrainState) -> Prior:
        prior = Prior(state.ema_params, sigma_data, sde, model, settings)
        save_prior(work.path / FILE, prior, part.name, part.sha256)
        return prior

    states = iterate.loop(
        algorithm, state, steps - int(state.step), inputs=batches, every=every, check=require_finite_loss, save=save,
        donate=True, progress=lambda numbers: track(numbers, "training"),
    )  # fmt: skip
    for state, infos in states:
        append_jsonl(work, {"step": int(state.step), "loss": float(np.mean(infos.loss))})
    return write(state)  # a killed run may have ended between the checkpoint and the file


def read(path: Path, settings: Settings, mr: Path | None = None) -> Float[np.ndarray, "x y z channel"]:
    """A user's image on the prior's voxels, its own centre at the centre; the MR of the same name, if any, beside it.

    Raises:
        DataError: a file cannot be read, or has no voxel above 0 there.
    """
    volume = read_nifti(path)
    shape = (settings.size,) * 3
    affine = grid_affine(shape, settings.voxel_mm, volume.centre_mm)
    files = {path: volume} if mr is None else {path: volume, mr / path.name: read_nifti(mr / path.name)}
    arrays = [resample(one, shape, affine).array for one in files.values()]
    for file, array in zip(files, arrays, strict=True):
        if not (array > 0).any():
            raise DataError(f"{file}: no voxel is above 0 where the PET is; expected an image in the same space")
    return np.stack([np.asarray(normalize_intensity(jnp.asarray(array))) for array in arrays], axis=-1)


def phantom_volumes(number: int, settings: Settings) -> Iterable[Float[np.ndarray, "x y z 1"]]:
    """Members 0 … number − 1 of the phantom family."""
    if not 0 < number <= HELD_BACK:
        raise ConfigError(f"--phantoms {number}; expected 1 to {HELD_BACK}")
    shape = (settings.size,) * 3
    tissues, affine = tissue_shares()
    for seed in track(number, "phantoms"):
        volume = jnp.asarray(family(seed, tissues, affine, settings.voxel_mm, shape))
        yield np.asarray(normalize_intensity(volume))[..., None]

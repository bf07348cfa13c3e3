"""`medjax pet train-prior`: a score prior from one's own PET images, or from the family of brain phantoms."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import typer
from jaxtyping import Float, PyTree

from medjax import iterate
from medjax.diffusion.prior import Prior, Settings
from medjax.diffusion.prior_file import examples, load_prior, save_prior
from medjax.diffusion.prior_training import initial_params, trainer
from medjax.diffusion.score_matching import normalize_intensity
from medjax.diffusion.sde import vp
from medjax.errors import ConfigError, DataError
from medjax.io.nifti import grid_affine, read_nifti, resample
from medjax.models.model import Model
from medjax.models.score_unet import score_unet
from medjax.phantoms.heads import family
from medjax.phantoms.mni import tissue_shares
from medjax.running.config import config_hash
from medjax.running.progress import track
from medjax.running.workdir import WorkDir, append_jsonl, keep_jsonl, open_workdir, stage
from medjax.training import checkpoint
from medjax.training.state import TrainState, require_finite_loss

LEAST_EMISSION = 0.02  # fraction of a slice's voxels that must emit for it to be trained on
SAVE_EVERY = 5  # reports: how often a checkpoint is kept
HELD_BACK = 10_000  # seeds of phantoms from here on are never trained on


def network(settings: Settings) -> Model:
    """The network that is trained."""
    return score_unet(settings.widths, settings.blocks, settings.attention)


def train(
    folder: Path,
    images: Sequence[Path],
    phantoms: int,
    settings: Settings,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    start: Path | None = None,
    mr: Path | None = None,
    every: int = 100,
) -> Path:
    """Train in `folder`, or continue there; returns the prior's file. The average of the parameters is what is kept.

    `mr` is a folder with an MR image of each subject, of the PET's file name: the prior is then guided.

    Raises:
        ConfigError, DataError: something given cannot be used, or training failed.
    """
    if bool(images) == bool(phantoms):
        raise ConfigError("train-prior: give NIfTI images, or --phantoms N and none")
    if mr is not None and not images:
        raise ConfigError("--mr goes with images of your own, not with --phantoms")
    if settings.size % settings.multiple:
        raise ConfigError(
            f"--size {settings.size}; {len(settings.widths)} levels need a multiple of {settings.multiple}"
        )
    config: dict[str, Any] = settings._asdict() | {
        "images": tuple(map(str, images)), "phantoms": phantoms, "steps": steps, "batch": batch, "rate": rate,
        "seed": seed,
        "start": str(start or ""), "mr": str(mr or ""),
    }  # fmt: skip
    with open_workdir(folder, {"train-prior": config_hash(config), **config}) as work:
        volumes = (read(path, settings, mr) for path in images) if images else phantom_volumes(phantoms, settings)
        data = stage(work, "slices", lambda: training_slices(volumes, settings))
        typer.echo(f"{len(data['axes'])} slices of {settings.size}² voxels of {settings.voxel_mm:g} mm")
        first = None if start is None else load_prior(start).params
        return _train(work, data, settings, steps, batch, rate, seed, first, every)


def _train(
    work: WorkDir,
    data: dict[str, np.ndarray],
    settings: Settings,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    first: PyTree | None,
    every: int,
) -> Path:
    """Train from the last checkpoint on; write the prior at every checkpoint, and even if no step is left."""
    slices, axes = data["slices"], data["axes"]
    sigma_data = float(np.sqrt(np.mean([np.mean(one[..., 0].astype(np.float32) ** 2) for one in slices])))
    key, model = jax.random.key(seed), network(settings)
    algorithm = trainer(model, settings, sigma_data, steps, rate)
    params = initial_params(model, jax.random.fold_in(key, 1), examples(settings), first)
    state = algorithm.init(params, jax.random.fold_in(key, 2))
    folder = work.checkpoints / "training"
    if (kept := checkpoint.restore(folder, state)) is not None:
        state = kept[1]
        typer.echo(f"continuing after step {int(state.step)}")
    keep_jsonl(work, lambda row: row["step"] <= int(state.step))
    file = work.path / "prior.npz"

    def batches(number: int) -> tuple[jax.Array, jax.Array]:
        chosen = np.random.default_rng((seed, number)).integers(len(slices), size=batch)
        return jnp.asarray(slices[chosen], jnp.float32), jnp.asarray(axes[chosen])

    def save(state: TrainState, made: int) -> None:
        if made % (SAVE_EVERY * every) == 0 or made == steps:
            checkpoint.save(folder, made, state)
            write(state)

    def write(state: TrainState) -> None:
        sde = vp(settings.beta_min, settings.beta_max)
        save_prior(file, Prior(state.ema_params, sigma_data, sde, model, settings))

    states = iterate.loop(
        algorithm, state, steps - int(state.step), inputs=batches, every=every, check=require_finite_loss, save=save,
        donate=True, progress=lambda numbers: track(numbers, "training"),
    )  # fmt: skip
    for state, infos in states:
        append_jsonl(work, {"step": int(state.step), "loss": float(np.mean(infos.loss))})
    write(state)  # a killed run may have ended between the checkpoint and the file
    return file


def read(path: Path, settings: Settings, mr: Path | None = None) -> Float[np.ndarray, "x y z channel"]:
    """A user's image on the prior's voxels, its own centre at the centre; the MR of the same name, if any, beside it.

    Raises:
        DataError: a file cannot be read, or has no voxel above 0 there.
    """
    volume = read_nifti(path)
    middle = np.matmul(volume.affine[:3, :3], np.subtract(volume.array.shape, 1) / 2) + volume.affine[:3, 3]
    x, y, z = middle.tolist()
    shape = (settings.size,) * 3
    affine = grid_affine(shape, settings.voxel_mm, (x, y, z))
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
        yield np.asarray(normalize_intensity(jnp.asarray(family(seed, tissues, affine, settings.voxel_mm, shape))))[
            ..., None
        ]


def training_slices(volumes: Iterable[Float[np.ndarray, "x y z channel"]], settings: Settings) -> dict[str, np.ndarray]:
    """Slices of each volume across each of the orientations, as float16, that have emission; the axes.

    Raises:
        DataError: no slice has enough emission.
    """
    kept: list[np.ndarray] = []
    axes: list[np.ndarray] = []
    for volume in volumes:
        for axis in settings.orientations:
            stack = np.moveaxis(volume, axis, 0)
            emitting = np.mean(stack[..., 0] > 0.01 * volume[..., 0].max(), axis=(1, 2))
            kept.append(stack[emitting > LEAST_EMISSION].astype(np.float16))
            axes.append(np.full(len(kept[-1]), axis, np.int32))
    slices = np.concatenate(kept)
    if not len(slices):
        raise DataError("images: no slice has emission; expected PET images")
    return {"slices": slices, "axes": np.concatenate(axes)}

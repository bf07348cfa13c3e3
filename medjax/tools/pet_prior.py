"""Training of a score prior (`medjax pet train-prior`) on PET images of one's own, or on random brain phantoms."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from medjax import defaults, iterate
from medjax.diffusion.prior import Prior, PriorSettings
from medjax.diffusion.prior_file import BUILT_IN, example_inputs, load_prior, prior_network, save_prior
from medjax.diffusion.prior_training import initial_params, trainer, training_slices
from medjax.diffusion.score_matching import normalize_intensity
from medjax.diffusion.sde import vp
from medjax.errors import ConfigError, DataError
from medjax.io.nifti import grid_affine, read_nifti, resample
from medjax.models.model import Model
from medjax.models.score_unet import score_unet
from medjax.phantoms.heads import random_fdg_activity
from medjax.phantoms.mni import tissue_fractions
from medjax.running.config import config_hash
from medjax.running.parts import Part
from medjax.running.progress import say, track
from medjax.running.workdir import WorkDir, append_jsonl, filter_jsonl, open_workdir, stage
from medjax.tools.checks import as_paths, check_no_overwrite, check_seed
from medjax.tools.pet_checks import check_coverage
from medjax.training import checkpoint
from medjax.training.state import TrainState, require_finite_loss

SAVE_EVERY = 5  # reports, between checkpoints
FILE = "prior.npz"  # file name in the work directory
FIRST_HELD_OUT_SEED = 10_000  # phantoms of this seed and above are never trained on


class TrainedPrior(NamedTuple):
    """A trained prior, and its file."""

    prior: Prior
    file: Path


def default_network(settings: PriorSettings) -> Model:
    """Default network of a prior: a U-Net of these settings."""
    return score_unet(settings.widths, settings.blocks, settings.attention)


def train(
    folder: Path | str,
    images: Sequence[Path | str] = (),
    phantoms: int = 0,
    settings: PriorSettings | None = None,
    steps: int = defaults.PRIOR_STEPS,
    batch: int = defaults.PRIOR_BATCH,
    rate: float = defaults.PRIOR_RATE,
    seed: int = 0,
    *,
    pretrained: Path | str | None = None,
    mr: Path | str | None = None,
    network: Any = None,
    every: int = 100,
) -> TrainedPrior:
    """Train a score prior in `folder`, or resume there; the moving average (EMA) of the parameters is kept.

    Args:
        folder: work directory.
        images: NIfTI files of PET, one a subject; or none, with `phantoms`.
        phantoms: number of random brain phantoms to train on instead.
        settings: settings of the prior.
        steps: training steps.
        batch: slices in a step.
        rate: peak learning rate, after warm-up.
        seed: random seed.
        pretrained: file of a prior whose parameters are the first ones.
        mr: folder with an MR image of each subject, of the PET's file name, for settings that are `mr_guided`.
        network: a Model, or a function of the settings that returns one, kept by its name and digest, which are part of
            the folder's identity.
        every: steps between reports.

    Raises:
        ConfigError, DataError: an argument cannot be used, or training failed.
        WorkdirError: the folder belongs to another training, or to another network.
    """
    folder, pretrained, mr, *images = as_paths(folder, pretrained, mr, *images)
    settings = PriorSettings() if settings is None else settings
    if bool(images) == bool(phantoms):
        raise ConfigError("train-prior: expected either NIfTI images or --phantoms N")
    if mr is not None and not images:
        raise ConfigError("--mr goes with your own images, not with --phantoms")
    if settings.size % settings.multiple:
        raise ConfigError(
            f"--size {settings.size}; {len(settings.widths)} levels need a multiple of {settings.multiple}"
        )
    check_seed(seed)
    check_no_overwrite(
        [folder / FILE], [*images, pretrained, *([] if mr is None else [mr / path.name for path in images])]
    )
    own = network is not None
    part = prior_network(network, settings) if own else Part(BUILT_IN, "", default_network(settings))
    config: dict[str, Any] = settings._asdict() | {
        "images": tuple(map(str, images)), "phantoms": phantoms, "steps": steps, "batch": batch, "rate": rate,
        "seed": seed, "start": str(pretrained or ""), "mr": str(mr or ""),
    }  # fmt: skip
    named = {"network": part.identity} if own else {}
    with open_workdir(folder, {"train-prior": config_hash(config), **config, **named}) as work:
        volumes = (read_image(path, settings, mr) for path in images) if images else phantom_volumes(phantoms, settings)
        data = stage(work, "slices", lambda: training_slices(volumes, settings.orientations))
        say(f"{len(data['axes'])} slices of {settings.size}² voxels of {settings.voxel_mm:g} mm")
        first = None if pretrained is None else load_prior(pretrained, part if own else None).params
        prior = _train(work, data, settings, part, steps, batch, rate, seed, first, every)
    return TrainedPrior(prior, folder / FILE)


def _train(
    work: WorkDir,
    data: dict[str, np.ndarray],
    settings: PriorSettings,
    part: Part,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    first: PyTree | None,
    every: int,
) -> Prior:
    """Train from the latest checkpoint; write the prior at every checkpoint, and even if no step is left."""
    slices, axes = data["slices"], data["axes"]
    sigma_data = float(np.sqrt(np.mean([np.mean(one[..., 0].astype(np.float32) ** 2) for one in slices])))
    key, sde, model = jax.random.key(seed), vp(settings.beta_min, settings.beta_max), part.value
    algorithm = trainer(model, settings, sigma_data, steps, rate)
    params = initial_params(model, jax.random.fold_in(key, 1), example_inputs(settings), first)
    state = algorithm.init(params, jax.random.fold_in(key, 2))
    folder = work.checkpoints / "training"
    if (kept := checkpoint.restore(folder, state)) is not None:
        state = kept[1]
        say(f"continuing after step {int(state.step)}")
    filter_jsonl(work, lambda row: row["step"] <= int(state.step))

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
    return write(state)  # an interrupted run may have ended between the checkpoint and the file


def read_image(path: Path, settings: PriorSettings, mr: Path | None = None) -> Float[np.ndarray, "x y z channel"]:
    """Training image resampled to the prior's voxels around its own centre; channels: PET, and MR if any.

    Raises:
        DataError: a file cannot be read, or has no voxel above 0 there.
    """
    volume = read_nifti(path)
    shape = (settings.size,) * 3
    affine = grid_affine(shape, settings.voxel_mm, volume.center_mm)
    files = {path: volume} if mr is None else {path: volume, mr / path.name: read_nifti(mr / path.name)}
    arrays = [resample(one, shape, affine).array for one in files.values()]
    for file, array in zip(files, arrays, strict=True):
        if not (array > 0).any():
            raise DataError(f"{file}: no voxel is above 0 within the PET; expected an image in the same space")
    check_coverage(arrays[0], {str(file): array for file, array in [*zip(files, arrays, strict=True)][1:]})
    return np.stack([np.asarray(normalize_intensity(jnp.asarray(array))) for array in arrays], axis=-1)


def phantom_volumes(number: int, settings: PriorSettings) -> Iterable[Float[np.ndarray, "x y z 1"]]:
    """Training images of the brain phantoms with seeds 0 … number − 1."""
    if not 0 < number <= FIRST_HELD_OUT_SEED:
        raise ConfigError(f"--phantoms {number}; expected 1 to {FIRST_HELD_OUT_SEED}")
    shape = (settings.size,) * 3
    tissues, affine = tissue_fractions()
    for seed in track(number, "phantoms"):
        volume = jnp.asarray(random_fdg_activity(seed, tissues, affine, settings.voxel_mm, shape))
        yield np.asarray(normalize_intensity(volume))[..., None]

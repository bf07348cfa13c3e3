"""Training of a score prior (`medjax pet train-prior`) on PET images of one's own, or on random brain phantoms."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from medjax import defaults, iterate
from medjax.diffusion.prior import Prior, PriorSettings
from medjax.diffusion.prior_file import BUILT_IN, example_inputs, load_prior, prior_network, save_prior
from medjax.diffusion.prior_training import initial_params, trainer, training_slices
from medjax.diffusion.prior_validation import select_evenly, validation_errors
from medjax.diffusion.sde import vp
from medjax.errors import ConfigError
from medjax.memory import check_memory
from medjax.models.model import Model
from medjax.models.score_unet import score_unet
from medjax.phantoms.uptake import ACTIVITY_RANGES
from medjax.running.config import config_hash, did_you_mean
from medjax.running.parts import Part
from medjax.running.progress import say, track
from medjax.running.workdir import WorkDir, append_jsonl, filter_jsonl, open_workdir, stage
from medjax.tools.checks import (
    MAX_BATCH,
    MAX_RATE,
    MAX_SIDE,
    MAX_STEPS,
    as_paths,
    check_no_overwrite,
    check_output_files,
    check_output_folder,
    check_positive,
    check_range,
    check_seed,
)
from medjax.tools.pet_prior_images import FAMILIES, phantom_volumes, read_image
from medjax.training import checkpoint
from medjax.training.parallel import mesh_for_batches, on_mesh
from medjax.training.state import TrainState, require_finite_loss

SAVE_EVERY = 5  # reports, between checkpoints and validations
VALIDATION_PHANTOMS, VALIDATION_SLICES = 6, 48  # held-out heads, and slices of them, spread evenly
IMAGES_PER_VALIDATION = 10  # of ten of a user's images one is held out
VOXEL_MM = 0.2, 20.0  # smallest and largest voxels of training slices
FILE = "prior.npz"  # file name in the work directory
FIRST_HELD_OUT_SEED = 10_000  # phantoms of this seed and above are never trained on
NETWORK_SETTINGS = ("widths", "blocks", "attention", "patch")


class TrainedPrior(NamedTuple):
    """A trained prior, and its file."""

    prior: Prior
    file: Path


class Training(NamedTuple):
    """A training of a prior."""

    settings: PriorSettings
    network: Part
    steps: int
    batch: int  # slices in a step
    rate: float | int  # peak learning rate
    seed: int
    every: int  # steps between reports
    mesh: Mesh | None  # devices that each batch is divided among
    pretrained: PyTree | None = None  # parameters that it starts from


def default_network(settings: PriorSettings) -> Model:
    """Default network of a prior: a U-Net of these settings."""
    return score_unet(settings.widths, settings.blocks, settings.attention, patch=settings.patch)


def train(
    folder: Path | str,
    images: Sequence[Path | str] = (),
    phantoms: int = 0,
    kind: str = "noise_free",
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
    devices: int = 1,
) -> TrainedPrior:
    """Train a score prior in `folder`, or resume there; the moving average (EMA) of the parameters is kept.

    Args:
        folder: work directory.
        images: NIfTI files of PET, one a subject; or none, with `phantoms`.
        phantoms: number of random brain phantoms to train on instead.
        kind: kind of phantoms: noise_free, osem or without_lesions.
        settings: settings of the prior; phantoms have tracers and kind of their own.
        steps: training steps.
        batch: slices in a step.
        rate: peak learning rate, after warm-up.
        seed: random seed.
        pretrained: file or name of a prior of the same network, whose parameters are the first ones.
        mr: folder with an MR image of each subject, of the PET's file name, for settings that are `mr_guided`.
        network: a Model, or a function of the settings that returns one, kept by its name and digest, which are part of
            the folder's identity.
        every: steps between reports.
        devices: number of devices that each batch is divided among.

    Raises:
        ConfigError, DataError: an argument cannot be used, or training failed.
        WorkdirError: the folder belongs to another training, or to another network.
    """
    folder, pretrained, mr, *images = as_paths(folder, pretrained, mr, *images)
    settings = PriorSettings() if settings is None else settings
    _check(images, phantoms, kind, settings, mr)
    _check_training(settings, steps, batch, rate, seed)
    check_no_overwrite(
        [folder / FILE], [*images, pretrained, *([] if mr is None else [mr / path.name for path in images])]
    )
    if phantoms:
        settings = settings._replace(tracers=tuple(ACTIVITY_RANGES), kind=kind)
    own = network is not None
    part = prior_network(network, settings) if own else Part(BUILT_IN, "", default_network(settings))
    first = None if pretrained is None else _pretrained(pretrained, settings, part if own else None)
    training = Training(settings, part, steps, batch, rate, seed, every, mesh_for_batches(devices, batch), first)
    config: dict[str, Any] = settings._asdict() | {
        "images": tuple(map(str, images)), "phantoms": phantoms, "steps": steps, "batch": batch, "rate": rate,
        "seed": seed, "start": str(pretrained or ""), "mr": str(mr or ""),
    }  # fmt: skip
    named = {"network": part.identity} if own else {}
    check_output_folder(folder)
    check_output_files([folder / FILE])
    if not (folder / "config.json").exists():  # a wrong image leaves no folder behind; later ones have been read
        for path in images:
            read_image(path, settings, mr)
    with open_workdir(folder, {"train-prior": config_hash(config), **config, **named}) as work:
        slices, validation = _slices(work, images, phantoms, settings, mr)
        say(f"{len(slices['axes'])} slices of {settings.size}² voxels of {settings.voxel_mm:g} mm")
        prior = _train(work, slices, validation, training)
    return TrainedPrior(prior, folder / FILE)


def _check(images: Sequence[Path], phantoms: int, kind: str, settings: PriorSettings, mr: Path | None) -> None:
    """Raises: ConfigError: arguments of `train` that cannot be used, or not together."""
    if bool(images) == bool(phantoms):
        raise ConfigError("train-prior: expected either NIfTI images or --phantoms N")
    if not 0 <= phantoms <= FIRST_HELD_OUT_SEED:
        raise ConfigError(f"--phantoms {phantoms}; expected 1 to {FIRST_HELD_OUT_SEED}")
    if kind not in FAMILIES:
        raise ConfigError(f"--kind {kind}; expected {', '.join(FAMILIES)}{did_you_mean(kind, FAMILIES)}")
    if images and kind != next(iter(FAMILIES)):
        raise ConfigError(f"--kind {kind} goes with --phantoms, not with your own images")
    if mr is not None and not images:
        raise ConfigError("--mr goes with your own images, not with --phantoms")
    if settings.tracers and not images:
        raise ConfigError("--tracer goes with your own images, not with --phantoms")
    if settings.size < settings.multiple or settings.size > MAX_SIDE or settings.size % settings.multiple:
        raise ConfigError(
            f"--size {settings.size}; {len(settings.widths)} levels need a multiple of {settings.multiple}, "
            f"{MAX_SIDE} or less"
        )


def _check_training(settings: PriorSettings, steps: int, batch: int, rate: float | int, seed: int) -> None:
    """Raises: ConfigError, DataError: numbers out of range, or more slices than memory."""
    check_seed(seed)
    check_range("--steps", steps, 1, MAX_STEPS)
    check_range("--batch", batch, 1, MAX_BATCH)
    check_positive("--rate", rate, MAX_RATE)
    check_range("--voxel-mm", settings.voxel_mm, *VOXEL_MM)
    check_memory(f"--size {settings.size}", 8 * 4 * settings.size**3, "use a smaller one")
    maps = batch * (settings.size // settings.patch) ** 2 * sum(settings.widths)
    check_memory(f"--size {settings.size}, --batch {batch}", 8 * 4 * maps, "use a smaller --batch")


def _pretrained(file: Path, settings: PriorSettings, network: Part | None) -> PyTree:
    """Parameters of a prior whose network is that of these settings."""
    prior = load_prior(file, network)
    for name in NETWORK_SETTINGS if network is None else ():
        found, expected = (getattr(one, name) for one in (prior.settings, settings))
        if found != expected:
            raise ConfigError(f"--start {file}: its network has {name} {found}; expected {expected}")
    return prior.params


def _slices(
    work: WorkDir, images: Sequence[Path], phantoms: int, settings: PriorSettings, mr: Path | None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]:
    """Slices to train on, and held-out ones if there are any, each made once a work directory."""
    held_out = images[IMAGES_PER_VALIDATION - 1 :: IMAGES_PER_VALIDATION]
    first = FIRST_HELD_OUT_SEED
    seeds = range(first, first + (VALIDATION_PHANTOMS if phantoms else 0))

    def slices_of(paths: Sequence[Path], seeds: range) -> dict[str, np.ndarray]:
        volumes: Iterable[Float[np.ndarray, "x y z channel"]] = (
            (read_image(path, settings, mr) for path in paths)
            if images
            else phantom_volumes(seeds, settings, settings.kind)
        )
        return training_slices(volumes, settings.orientations)

    learnt = [path for path in images if path not in held_out]
    slices = stage(work, "slices", lambda: slices_of(learnt, range(phantoms)))
    if not (held_out or seeds):
        return slices, None
    return slices, stage(work, "validation", lambda: select_evenly(slices_of(held_out, seeds), VALIDATION_SLICES))


def _train(
    work: WorkDir, data: dict[str, np.ndarray], validation: dict[str, np.ndarray] | None, training: Training
) -> Prior:
    """Train from the latest checkpoint; write the prior at every checkpoint, and even if no step is left.

    Rows of metrics.jsonl hold the mean loss of the steps since the one before, and at checkpoints the validation loss
    at each noise level.
    """
    settings, part, steps, batch, rate, seed, every, mesh, pretrained = training
    slices, axes, model = data["slices"], data["axes"], part.value
    sigma_data = float(np.sqrt(np.mean([np.mean(one[..., 0].astype(np.float32) ** 2) for one in slices])))
    key, folder = jax.random.key(seed), work.checkpoints / "training"
    algorithm = trainer(model, settings, sigma_data, steps, rate)
    patch = settings.patch if part.name == BUILT_IN else 1
    params = initial_params(model, jax.random.fold_in(key, 1), example_inputs(settings), pretrained, patch)
    state = algorithm.init(params, jax.random.fold_in(key, 2))
    if (kept := checkpoint.restore(folder, state)) is not None:
        state = kept[1]
        say(f"continuing after step {int(state.step)}")
    filter_jsonl(work, lambda row: row["step"] <= int(state.step))
    algorithm, state = on_mesh(mesh, algorithm, state)

    def batches(number: int) -> tuple[Array, Array]:
        chosen = np.random.default_rng((seed, number)).integers(len(slices), size=batch)
        return jnp.asarray(slices[chosen], jnp.float32), jnp.asarray(axes[chosen])

    def prior_of(state: TrainState) -> Prior:
        return Prior(state.ema_params, sigma_data, vp(settings.beta_min, settings.beta_max), model, settings)

    def due(step: int) -> bool:
        return step % (SAVE_EVERY * every) == 0 or step == steps

    def save(state: TrainState, made: int) -> None:
        if due(made):
            checkpoint.save(folder, made, state)
            save_prior(work.path / FILE, prior_of(state), part.name, part.sha256)

    states = iterate.loop(
        algorithm, state, steps - int(state.step), inputs=batches, every=every, check=require_finite_loss, save=save,
        donate=True, progress=lambda numbers: track(numbers, "training"),
    )  # fmt: skip
    for state, infos in states:
        row = {"step": int(state.step), "loss": float(np.mean(infos.loss))}
        if validation is not None and due(row["step"]):
            row |= validation_errors(prior_of(state), validation)
        append_jsonl(work, row)
    prior = prior_of(state)  # an interrupted run may have ended between the checkpoint and the file
    save_prior(work.path / FILE, prior, part.name, part.sha256)
    return prior

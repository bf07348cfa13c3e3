"""The folder of a trained segmentation model, and reading it.

MODEL/plan.json  dataset.json                    what to know of the data; labels by name, cases, settings
MODEL/fold_k/params.npz  best.npz                the last parameters, and those of the best average pseudo-Dice
MODEL/fold_k/checkpoints/                        the training itself, to go on after a kill (orbax)
MODEL/fold_k/progress.csv  figures/progress.png  each epoch
MODEL/fold_k/validation.csv                      Dice of each case of the fold, on its own grid
MODEL/keep.json                                  components to keep, where all folds together say that it helps
"""

import json
import zipfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from medjax.errors import DataError, WorkdirError
from medjax.models.model import Model, Network
from medjax.models.plain_unet import plain_unet
from medjax.running.arrays import load_arrays
from medjax.segmentation.plan import Plan, from_json
from medjax.training.checkpoint import restore

DESCRIBED = {"channel_names": list, "labels": dict, "file_ending": str, "settings": dict}  # what prediction relies on


def read_model(folder: Path) -> tuple[Plan, dict[str, Any]]:
    """Its plan, and what its dataset.json says.

    Raises:
        DataError: a file is missing, cannot be read, or lacks something.
    """
    for name in ("plan.json", "dataset.json"):
        if not (folder / name).is_file():
            raise DataError(f"{folder}/{name}: no such file; expected a folder that `medjax segment train` wrote")
    with naming(folder / "plan.json"):
        design = from_json((folder / "plan.json").read_text(errors="replace"))
    description = read_json(folder / "dataset.json")
    for key, kind in DESCRIBED.items():
        if not isinstance(description.get(key), kind):
            raise DataError(f"{folder}/dataset.json: no {key} of kind {kind.__name__}; expected what `train` wrote")
    return design, description


def read_json(file: Path) -> dict[str, Any]:
    """An object in JSON.

    Raises:
        DataError: it is none.
    """
    try:
        return dict(json.loads(file.read_text(errors="replace")))
    except (ValueError, TypeError) as error:
        raise DataError(f"{file}: cannot be read as JSON ({error}); expected what `train` wrote") from error


def read_arrays(file: Path, like: PyTree) -> PyTree:
    """A pytree of the structure of `like`.

    Raises:
        WorkdirError: the file is damaged or holds another structure.
    """
    try:
        return load_arrays(file, like)
    except WorkdirError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise WorkdirError(f"{file}: damaged ({error}); delete its fold's folder to train the fold anew") from error


def read_checkpoint(folder: Path, like: PyTree) -> tuple[int, PyTree] | None:
    """(step, tree) of the last checkpoint of a fold, a tree as `like`; None if there is none.

    Raises:
        WorkdirError: it is damaged or holds another structure.
    """
    try:
        return restore(folder, like)
    except WorkdirError as error:
        raise WorkdirError(f"{error}; delete its fold's folder to train the fold anew") from error


def default_model(design: Plan) -> Model:
    """The network that nnU-Net plans for these data."""
    return plain_unet(design.classes, design.widths, design.kernels, design.strides)


def read_params(folder: Path, fold: str, model: Network, design: Plan, best: bool) -> PyTree:
    """Of a fold, the last ones or those of the best average pseudo-Dice."""
    image = jax.ShapeDtypeStruct((1, *design.patch, len(design.channels)), jnp.float32)
    like = jax.eval_shape(model.init, jax.random.key(0), image)
    return read_arrays(folder / fold / ("best.npz" if best else "params.npz"), like)


@contextmanager
def naming(file: Path) -> Generator[None, None, None]:
    """What is wrong with a file's content starts with its name."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{file}: {error}") from error

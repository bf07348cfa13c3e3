"""The folder of a trained segmentation model, and reading it.

    model = load_model(Path("model"))
    predict_case(model.network, model.params, image, spacing, model.plan, keep=model.keep).labels

MODEL/plan.json  dataset.json                    what to know of the data and the network; labels, cases, settings
MODEL/fold_k/params.npz  best.npz                the last parameters, and those of the best average pseudo-Dice
MODEL/fold_k/checkpoints/                        the training itself, to go on after a kill (orbax)
MODEL/fold_k/progress.csv  figures/progress.png  each epoch
MODEL/fold_k/validation.csv                      Dice of each case of the fold, on its own grid
MODEL/keep.json                                  components to keep, where all folds together say that it helps

A network that comes with medjax is kept by name and settings and made again from them. One of a user's own is kept by
the name and the SHA-256 of its file, which has to be given again: nothing that a folder names is run unasked.
"""

import json
import zipfile
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from medjax.atomic import write_text
from medjax.errors import ConfigError, DataError, MedjaxError, WorkdirError
from medjax.labels.audit import check_network
from medjax.models.model import Network
from medjax.models.networks import build, settings_of
from medjax.running.arrays import load_arrays
from medjax.running.network_part import network_part
from medjax.running.parts import Part
from medjax.segmentation.plan import Plan, from_json
from medjax.tools import defaults

DESCRIBED = {"channel_names": list, "labels": dict, "file_ending": str, "settings": dict}  # what prediction relies on
TRAIN_ANEW = "; delete its fold's folder to train the fold anew"

Given = str | Part | Network | Callable[[Plan], Network]  # a built-in network's name, or a user's


class Design(NamedTuple):
    """What a folder says before there are parameters."""

    plan: Plan
    network: dict[str, Any]  # name and settings, or name and sha256
    dataset: dict[str, Any]  # dataset.json


class TrainedModel(NamedTuple):
    """A folder's model, ready to predict."""

    plan: Plan
    network: Network
    params: list[PyTree]  # of each fold
    labels: dict[str, int]  # class numbers by name, background 0
    ending: str  # of files of images
    keep: dict[int, int] | None  # components to keep of each class, where the folds determined it


def choose_network(given: Given, plan: Plan) -> tuple[Network, dict[str, Any]]:
    """A network for the plan, and what plan.json remembers of it.

    `given` is the name of one that comes with medjax, whose settings are what the plan has of them; or a Model; or a
    function of the plan that makes one.

    Raises:
        ConfigError, DataError: no such network, or none that gives logits of the plan's classes for its patches.
    """
    if isinstance(given, str):
        remembered = _built_in(given, plan)
        network = build(**remembered)
    else:
        part = network_part(given, plan)
        network, remembered = part.value, part.identity
    check_network(network, np.zeros((1, *plan.patch, len(plan.channels)), np.float32), plan.classes)
    return network, remembered


def same_network(folder: Path, design: Design, given: Given | None = None) -> Network:
    """The network of a model's folder: a built-in one made again from its settings, a user's one as it is `given`.

    Raises:
        ConfigError: a user's network that is not given.
        WorkdirError: another one is given.
    """
    there = design.network
    if given is None and "sha256" in there:
        expected = f"--network FILE.py:{there['name'].rpartition(':')[2]}"
        raise ConfigError(f"{folder}: its network {_called(there)} is none of medjax's; expected {expected}")
    network, here = (None, there) if given is None else choose_network(given, design.plan)
    if any(there.get(key) != here.get(key) for key in ("name", "sha256")):
        raise WorkdirError(
            f"{folder}: its network is {_called(there)}, here {_called(here)}; expected the same, or another folder"
        )
    if network is not None and "sha256" in there:
        return network
    with naming(folder / "plan.json"):
        return build(**there)


def _built_in(name: str, plan: Plan) -> dict[str, Any]:
    return {"name": name, "settings": settings_of(name, asdict(plan))}


def _called(network: Mapping[str, Any]) -> str:
    return f"{network['name']} (SHA-256 {network['sha256'][:12]}…)" if "sha256" in network else network["name"]


def write_design(folder: Path, design: Design) -> None:
    """Write dataset.json, then plan.json."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "dataset.json", json.dumps(design.dataset, indent=2) + "\n")
    content = {**asdict(design.plan), "network": design.network}
    write_text(folder / "plan.json", json.dumps(content, indent=2) + "\n")


def read_design(folder: Path) -> Design:
    """What a folder's plan.json and dataset.json say. Plans written before they named a network have nnU-Net's.

    Raises:
        DataError: a file is missing, cannot be read, or lacks something.
    """
    for name in ("plan.json", "dataset.json"):
        if not (folder / name).is_file():
            raise DataError(f"{folder}/{name}: no such file; expected a folder that `medjax segment train` wrote")
    with naming(folder / "plan.json"):
        plan = from_json((folder / "plan.json").read_text(errors="replace"))
    network = read_json(folder / "plan.json").get("network") or _built_in(defaults.NETWORK, plan)
    if not isinstance(network, dict) or network.keys() not in ({"name", "settings"}, {"name", "sha256"}):
        raise DataError(f"{folder}/plan.json: network {network}; expected its name, and settings or sha256")
    dataset = read_json(folder / "dataset.json")
    for key, kind in DESCRIBED.items():
        if not isinstance(dataset.get(key), kind):
            raise DataError(f"{folder}/dataset.json: no {key} of kind {kind.__name__}; expected what `train` wrote")
    return Design(plan, network, dataset)


def load_model(
    folder: Path, *, folds: Sequence[int] | None = None, best: bool = False, network: Given | None = None
) -> TrainedModel:
    """The model of a folder, with the last parameters of all folds or some, or those of the best average pseudo-Dice.

    Raises:
        ConfigError: a fold that is not there, or twice; a user's network that is not given.
        DataError, WorkdirError: a file is missing or damaged, or another network is given.
    """
    design = read_design(folder)
    model = same_network(folder, design, network)
    image = jax.ShapeDtypeStruct((1, *design.plan.patch, len(design.plan.channels)), jnp.float32)
    like = jax.eval_shape(model.init, jax.random.key(0), image)
    file = "best.npz" if best else "params.npz"
    params = [read_arrays(folder / name / file, like) for name in _trained_folds(folder, folds)]
    keep = folder / "keep.json"
    pieces = {int(kind): count for kind, count in read_json(keep).items()} if keep.is_file() else None
    return TrainedModel(design.plan, model, params, design.dataset["labels"], design.dataset["file_ending"], pieces)


def _trained_folds(folder: Path, folds: Sequence[int] | None) -> list[str]:
    there = sorted(path.parent.name for path in folder.glob("fold_*/params.npz"))
    wanted = there if folds is None else [f"fold_{number}" for number in folds]
    option = f"--folds {','.join(map(str, folds or ()))}"
    if twice := [name for name in wanted if wanted.count(name) > 1]:
        raise ConfigError(f"{option}: {twice[0]} more than once; expected every fold once")
    if absent := sorted(set(wanted) - set(there)):
        raise ConfigError(f"{option}: {absent[0]} is not there; expected some of {', '.join(there) or 'none'}")
    if not wanted:
        raise DataError(f"{folder}: no fold_0/params.npz, …; expected a model that was trained to the end")
    return wanted


def read_json(file: Path) -> dict[str, Any]:
    """An object in JSON.

    Raises:
        DataError: it is none.
    """
    try:
        return dict(json.loads(file.read_text(errors="replace")))
    except (ValueError, TypeError) as error:
        raise DataError(f"{file}: cannot be read as JSON ({error}); expected what `train` wrote") from error


def read_arrays(file: Path, like: PyTree = None) -> PyTree:
    """What is kept of a fold, nested dicts or as `like`.

    Raises:
        WorkdirError: it is damaged or holds another structure; the message says what to do.
    """
    try:
        return load_arrays(file, like)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        what = str(error) if isinstance(error, WorkdirError) else f"{file}: damaged ({error})"
        raise WorkdirError(f"{what}{TRAIN_ANEW}") from error


@contextmanager
def naming(file: Path) -> Generator[None, None, None]:
    """What is wrong with a file's content starts with its name."""
    try:
        yield
    except MedjaxError as error:
        raise DataError(f"{file}: {error}") from error

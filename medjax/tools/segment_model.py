"""Model folder of `medjax segment train`: its plan, network and parameters.

    model = load_model(Path("model"))
    predict_case(model.network, model.params, image, spacing, model.plan, keep=model.keep).labels

MODEL/plan.json  dataset.json                    plan and network; labels, cases and settings of the training
MODEL/fold_k/params.npz  best.npz                final parameters, and those of the best average pseudo-Dice
MODEL/fold_k/checkpoints/                        checkpoints, from which a stopped training resumes (orbax)
MODEL/fold_k/progress.csv  figures/progress.png  loss and pseudo-Dice of each epoch
MODEL/fold_k/validation.csv                      Dice of each validation case of the fold, on its own grid
MODEL/fold_k/validation/CASE.nii.gz summary.json predictions of those cases, and nnU-Net's summary of them
MODEL/splits_final.json                          folds, as nnU-Net's
MODEL/summary.json                               nnU-Net's summary of all folds' validation cases
MODEL/keep.json                                  postprocessing: components to keep, by cross-validation

A built-in network is recorded by name and settings. A user's own is recorded by the name and the SHA-256 of its file,
which has to be given again: no file that a folder names is run on its own account.
"""

import json
import math
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from medjax import defaults
from medjax.atomic import write_text
from medjax.errors import ConfigError, DataError, MedjaxError, WorkdirError
from medjax.io.files import parse_json, read_json_object, read_text
from medjax.io.nifti_file import SUFFIXES
from medjax.io.nnunet_labels import Structure, parse_labels
from medjax.memory import check_memory
from medjax.models.model import Network, check_network
from medjax.models.networks import build, settings_of
from medjax.models.saved_settings import check_layers, short_repr
from medjax.models.weights import initial_shapes
from medjax.running.lock import lock_folder
from medjax.running.network_part import network_part
from medjax.running.parts import Part
from medjax.segmentation.plan import Plan
from medjax.segmentation.plan_file import from_json
from medjax.tools.segment_files import EXPECTED, fit_params, read_arrays, read_keep
from medjax.tools.segment_splits import OF_SEED

DATASET_KEYS = {"channel_names": list, "labels": dict, "file_ending": str, "settings": dict}  # needed for prediction

NetworkSource = str | Part | Network | Callable[[Plan], Network]  # name of a built-in network, or a user's network


class ModelDescription(NamedTuple):
    """Plan, network and data set of a model folder, without parameters."""

    plan: Plan
    network: dict[str, Any]  # name and settings, or name and sha256
    dataset: dict[str, Any]  # dataset.json


class TrainedModel(NamedTuple):
    """Trained segmentation model, ready to predict."""

    plan: Plan
    network: Network
    params: list[PyTree]  # parameters of each fold
    labels: dict[str, Structure]  # class numbers by name, background 0; of a region a tuple
    ending: str  # file name ending of images
    keep: dict[Structure, int] | None  # components to keep of each class or region; None before all folds are there


def choose_network(source: NetworkSource, plan: Plan) -> tuple[Network, dict[str, Any]]:
    """Network for the plan, and its record in plan.json.

    `source` is the name of a built-in network, which takes its settings from the plan; or a Model; or a function of the
    plan that makes one.

    Raises:
        ConfigError, DataError: no such network, or one that does not give logits of the plan's classes for its patches.
    """
    if isinstance(source, str):
        record = _built_in(source, plan)
        network = build(**record)
    else:
        part = network_part(source, plan)
        network, record = part.value, part.identity
    check_network(network, (*plan.patch, len(plan.channels)), plan.outputs)
    return network, record


def folder_network(folder: Path, description: ModelDescription, source: NetworkSource | None = None) -> Network:
    """Network of a model folder: a built-in one from its recorded settings, or the user's network `source`.

    Raises:
        ConfigError: the folder has a user's network, and no `source` is given.
        WorkdirError: the source is another network.
    """
    there = description.network
    if source is None and "sha256" in there:
        expected = f"--network FILE.py:{there['name'].rpartition(':')[2]}"
        raise ConfigError(f"{folder}: its network {_label(there)} is not built in; expected {expected}")
    network, here = (None, there) if source is None else choose_network(source, description.plan)
    if any(there.get(key) != here.get(key) for key in ("name", "sha256")):
        raise WorkdirError(
            f"{folder}: its network is {_label(there)}, here {_label(here)}; expected the same, or another folder"
        )
    if network is not None and "sha256" in there:
        return network
    with prefix_errors(folder / "plan.json"):
        return build(**there)


def _built_in(name: str, plan: Plan) -> dict[str, Any]:
    # the plan's patch is of an image, a network's a block of voxels that becomes channels
    values = {key: value for key, value in asdict(plan).items() if key != "patch"}
    return {"name": name, "settings": settings_of(name, {**values, "classes": plan.outputs})}


def _label(network: Mapping[str, Any]) -> str:
    return f"{network['name']} (SHA-256 {network['sha256'][:12]}…)" if "sha256" in network else network["name"]


def plan_and_network(
    folder: Path, dataset: dict[str, Any], source: NetworkSource, make_plan: Callable[[], Plan]
) -> tuple[Plan, Network]:
    """Plan and network of a model folder, read or, the first time, made and written: the same for all folds.

    `dataset` is the content of dataset.json; `make_plan` plans for it. Processes that start together may all plan; the
    first to finish writes, under a lock, and the others take what it wrote or find that it is of something else.

    Raises:
        ConfigError, DataError: as `choose_network`, or a file cannot be read.
        WorkdirError: the folder holds a model of other data, settings or network.
    """
    if not (folder / "plan.json").is_file():
        plan = make_plan()
        network, record = choose_network(source, plan)
        folder.mkdir(parents=True, exist_ok=True)
        with lock_folder(folder, wait=True):
            if not (folder / "plan.json").is_file():
                write_description(folder, ModelDescription(plan, record, dataset))
                return plan, network
    there = read_description(folder)
    _check_same(folder, there.dataset, dataset)
    return there.plan, folder_network(folder, there, source)


def _check_same(folder: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise a WorkdirError that names the difference between two data set descriptions.

    Folders of older versions are 3-D, mirrored all axes, drew folds from the seed, and have no digests of the cases.
    """
    cases = [set(one.get("cases", [])) for one in (there, here)]
    if odd := sorted(cases[0] ^ cases[1]):
        owner, other = ("the model", "the data set") if odd[0] in cases[0] else ("the data set", "the model")
        raise WorkdirError(
            f"{folder}: {len(odd)} cases differ, {odd[0]} is in {owner}, not in {other}; "
            "expected the data set that it was planned for, or another folder"
        )
    names = ("channel_names", "labels", "regions_class_order", "file_ending")
    pairs = [(name, there.get(name), here.get(name)) for name in names]
    known = {"mirror": "x,y,z", "configuration": "3d_fullres", "splits": OF_SEED, **there["settings"]}
    pairs += [(name, known.get(name), value) for name, value in here["settings"].items()]
    for name, old, new in pairs:
        if old != new:
            raise WorkdirError(f"{folder}: its {name} is {old}, here {new}; expected one, or another folder")
    digests = there.get("digests")
    if not isinstance(digests, dict):
        warnings.warn(
            f"{folder}: an older version planned it and kept no digests of the cases: whether images or labels have "
            "changed since is not known",
            stacklevel=3,
        )
    elif changed := [case for case, digest in here["digests"].items() if digests.get(case) != digest]:
        more = f" (and of {len(changed) - 1} more cases)" if changed[1:] else ""
        raise WorkdirError(
            f"{folder}: image or labels of {changed[0]}{more} have changed since it was planned; expected the same "
            "data, or another folder for the new ones"
        )


def write_description(folder: Path, description: ModelDescription) -> None:
    """Write dataset.json, then plan.json."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "dataset.json", json.dumps(description.dataset, indent=2) + "\n")
    content = {**asdict(description.plan), "network": description.network}
    write_text(folder / "plan.json", json.dumps(content, indent=2) + "\n")


def read_description(folder: Path) -> ModelDescription:
    """Description of a model folder, from its plan.json and dataset.json; without a network it is nnU-Net's.

    Raises:
        DataError: a file is missing, cannot be read, or is incomplete.
    """
    text = read_text(folder / "plan.json", EXPECTED)
    with prefix_errors(folder / "plan.json"):
        plan = from_json(text)
    network = parse_json(text, str(folder / "plan.json"), EXPECTED).get("network")
    network = network if network is not None else _built_in(defaults.SEGMENT_NETWORK, plan)
    if not isinstance(network, dict) or network.keys() not in ({"name", "settings"}, {"name", "sha256"}):
        raise DataError(f"{folder}/plan.json: network {short_repr(network)}; expected its name, and settings or sha256")
    if not all(isinstance(value, dict if key == "settings" else str) for key, value in network.items()):
        raise DataError(f"{folder}/plan.json: network {short_repr(network)}; expected texts, and an object of settings")
    dataset = read_json_object(folder / "dataset.json", EXPECTED)
    for key, kind in DATASET_KEYS.items():
        if not isinstance(dataset.get(key), kind):
            raise DataError(f"{folder}/dataset.json: no {key} of kind {kind.__name__}; expected what `train` wrote")
    lists = [name for name in ("channel_names", "cases") if not _are_texts(dataset.get(name, []))]
    if lists or dataset["file_ending"] not in SUFFIXES or len(dataset["channel_names"]) != len(plan.channels):
        odd = (*lists, "file_ending" if dataset["file_ending"] not in SUFFIXES else "channel_names")[0]
        raise DataError(f"{folder}/dataset.json: {odd} {short_repr(dataset[odd])}; expected what `train` wrote")
    return ModelDescription(plan, network, dataset)


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def load_model(
    folder: Path, *, folds: Sequence[int] | None = None, best: bool = False, network: NetworkSource | None = None
) -> TrainedModel:
    """Trained model of a folder, with the final parameters of all folds or some, or the `best` by average pseudo-Dice.

    Raises:
        ConfigError: a fold that is missing, or named twice; a user's network that is not given.
        DataError, WorkdirError: a file is missing or damaged, or another network is given.
    """
    description = read_description(folder)
    plan, file = description.plan, folder / "plan.json"
    model = folder_network(folder, description, network)
    labels = parse_labels(folder / "dataset.json", description.dataset)
    if (labels.classes, labels.regions) != (plan.classes, plan.regions):
        raise DataError(f"{folder}/dataset.json: {labels.classes} classes; expected {plan.classes}, as in plan.json")
    check_memory(f"{file}: patches of {plan.patch} voxels", 4.0 * math.prod(plan.patch) * plan.widths[0])
    files = [folder / name / ("best.npz" if best else "params.npz") for name in _trained_folds(folder, folds)]
    arrays = [read_arrays(one) for one in files]
    check_layers(str(file), description.network.get("settings", {}), min(len(jax.tree.leaves(one)) for one in arrays))
    shape = (1, *plan.patch, len(plan.channels))
    like = initial_shapes(file, model, lambda: (jnp.zeros(shape),))
    params = [fit_params(fold, one, like) for fold, one in zip(files, arrays, strict=True)]
    keep = read_keep(folder / "keep.json", labels)
    return TrainedModel(plan, model, params, labels.structures, description.dataset["file_ending"], keep)


def _trained_folds(folder: Path, folds: Sequence[int] | None) -> list[str]:
    there = sorted(path.parent.name for path in folder.glob("fold_*/params.npz"))
    wanted = there if folds is None else [f"fold_{number}" for number in folds]
    option = f"--folds {','.join(map(str, folds or ()))}"
    if twice := [name for name in wanted if wanted.count(name) > 1]:
        raise ConfigError(f"{option}: {twice[0]} more than once; expected every fold once")
    if absent := sorted(set(wanted) - set(there)):
        raise ConfigError(f"{option}: {absent[0]} is missing; expected some of {', '.join(there) or 'none'}")
    if not wanted:
        raise DataError(f"{folder}: no fold_0/params.npz, …; expected a model that was trained to the end")
    return wanted


@contextmanager
def prefix_errors(file: Path) -> Generator[None, None, None]:
    """Context in which errors in a file's content start with its name."""
    try:
        yield
    except MedjaxError as error:
        raise DataError(f"{file}: {error}") from error

"""Networks and hold-out images of `shortcut_audit` as files that `medjax shortcuts audit --method` reads."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.audit.networks import Setup, TrainedNetwork
from medjax.atomic import replacing
from medjax.running.cells import cell_name
from medjax.tools.classifier_file import save_classifier

FOLDER = "networks"


def save_files(setup: Setup, networks: Mapping[tuple, TrainedNetwork]) -> None:
    """Write networks/NAME.npz of every network, and networks/holdout_CUE.npz of the images that they share.

    Of a network of one's own the weights alone are kept: `--network` has to give it again.
    """
    folder: Path = setup.work.path / FOLDER
    folder.mkdir(exist_ok=True)
    for cue, images in setup.holdouts.items():
        ids = [f"image_{number:04d}" for number in range(len(images.image))]
        with replacing(folder / f"holdout_{cue}.npz") as file:
            np.savez_compressed(file, images=images.image[..., 0], ids=ids)
    for key, network in networks.items():
        name = str(key[0])
        settings = {"classes": 2, **dict(setup.config.get(name) or {})}
        save_classifier(folder / f"{cell_name(key)}.npz", network.params, name, settings)

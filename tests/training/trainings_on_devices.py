"""Program of a test: what commands train with batches divided among two devices is what they train on one.

    python -m tests.training.trainings_on_devices FOLDER

Label audit alone and as a population, score prior, registration and segmentation network; ends with an error unless
parameters or scores agree to 1e-4 of the largest one, and a training stopped on two devices goes on on one.
"""

import sys
from pathlib import Path

import jax
import numpy as np

from medjax.diffusion.prior import PriorSettings
from medjax.errors import ConfigError
from medjax.io.nnunet_raw import write_dataset
from medjax.labels import audit, population, scores
from medjax.labels.dynamics import TrainingSettings
from medjax.labels.members import TrainingRun
from medjax.phantoms.echo import echo
from medjax.tools import labels_audit, pet_prior, registration_training, segment_train
from medjax.training import parallel
from medjax.training import population as population_loop
from medjax.training.parallel import data_mesh, mesh_for_batches
from tests.labels.two_layers import TWO_LAYERS
from tests.segmentation.sides import NAMES, net, sides
from tests.test_prior_command import SMALL, images
from tests.test_registration_training import TINY, balls


def check(name, found, wanted):
    """Compare all leaves; a bias before a normalisation has a gradient of rounding only, which Adam makes 1e-5."""
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        one, other = np.asarray(one, float), np.asarray(other, float)
        difference, largest = np.abs(one - other).max(), np.abs(other).max()
        assert difference < 1e-4 * largest + 1e-5, (name, difference, largest)
    print(f"{name}: the same")


def labels(folder):
    """Scores of an audit, one of them stopped on two devices, and the training state of a population's member."""
    data = echo(0, 16, 16, hard=0.0)
    some = {name: scores.built_in()[name] for name in ("loss", "dice_mean", "vog")}
    options = {"epochs": 4, "network": lambda classes: TWO_LAYERS, "label_scores": some, "score": "loss"}
    found, wanted = (labels_audit.audit(data.images, data.labels, devices=n, **options).scores for n in (2, 1))
    check("audit", found, wanted)
    run, settings = (data.images, data.labels), TrainingSettings(4, 1e-2, 8, 4, 2, 4)
    snapshots = []
    for mesh, steps in ((data_mesh(), 2), (data_mesh(), 4), (None, 4)):
        keywords = {"checkpoints": folder / "audit" if mesh else None, "mesh": mesh}
        for now in audit.training_dynamics(0, TWO_LAYERS, *run, settings, some, **keywords):
            if int(now.state.step) == steps:
                snapshots.append(scores.evaluate(some, now.states, data.labels))
                break
    check("audit, resumed", *snapshots[1:])
    run = TrainingRun(0, data.images, data.labels, 1e-2)
    ends = [
        [now.state.params for _, now in population.training_dynamics([run], TWO_LAYERS, settings, some, mesh=mesh)][-1]
        for mesh in (data_mesh(), None)
    ]
    check("population", *ends)


def prior(folder):
    """Parameters of a score prior."""
    files, settings = images(folder), PriorSettings(*SMALL, 16, 4.0)
    train = [
        pet_prior.train(folder / f"prior_{n}", files, settings=settings, steps=4, batch=4, every=1, devices=n)
        for n in (2, 1)
    ]
    check("prior", *(one.prior.params for one in train))


def registration(folder):
    """Parameters of a registration network, of which one training is stopped on two devices and goes on on one."""
    heads, kept = balls(), registration_training.append_jsonl

    def stop(work, row):
        kept(work, row)
        if row["step"] == 10:  # after a checkpoint
            raise KeyboardInterrupt

    wanted = registration_training.train(folder / "one", heads, 12, **TINY)
    registration_training.append_jsonl = stop
    try:
        registration_training.train(folder / "two", heads, 12, devices=2, **TINY)
        raise AssertionError("not stopped")
    except KeyboardInterrupt:
        registration_training.append_jsonl = kept
    check("registration", registration_training.train(folder / "two", heads, 12, **TINY).params, wanted.params)


def segmentation(folder):
    """Parameters of nnU-Net's training of one fold."""
    write_dataset(folder / "data", [sides(seed) for seed in range(5)], ("MR",), NAMES)
    options = {"fold": 0, "patch": (16, 16, 16), "epochs": 1, "iterations": 2, "network": net, "mirror": ()}
    for n in (2, 1):
        segment_train.train(folder / "data", folder / f"model_{n}", devices=n, **options)
    check("segmentation", *(dict(np.load(folder / f"model_{n}/fold_0/params.npz")) for n in (2, 1)))


def main(folder):
    """Compare."""
    assert jax.device_count() == 2
    for devices, message in ((3, "JAX sees 2 devices here"), (2, "batches of 3 examples")):
        try:
            mesh_for_batches(devices, 3)
            raise AssertionError(message)
        except ConfigError as error:
            assert message in str(error), error
    divide, divided = parallel.data_parallel, list[int]()

    def counted(algorithm, mesh, axis=0):
        divided.append(mesh.size)
        return divide(algorithm, mesh, axis)

    parallel.data_parallel = population_loop.data_parallel = counted
    labels(folder)
    prior(folder)
    registration(folder)
    segmentation(folder)
    assert divided == [2] * 7, divided


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What a command takes from its call to the end of a short training, with nothing compiled before.

    python scripts/bench_startup.py [NAME ...] [--checkout DIR]      NAME such as "labels audit"; all three unless named

The commands are those of the checkout in DIR, else those beside this file.

Each command runs as a process of its own with an empty compilation cache, on small simulated inputs that are written
beforehand. CPU seconds are user + system of that process and what it starts; wall seconds depend on the machine's load.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medjax.io.nnunet_raw import Scan, write_dataset
from medjax.phantoms.echo import echo

IMAGES, SIZE = 16, 64
CASES, SLICES, SIDE = 5, 24, 32


class Seconds(NamedTuple):
    """Seconds of a process."""

    cpu: float
    wall: float


def write_images(folder: Path) -> None:
    """Write simulated echocardiograms and their labels as PNG."""
    from PIL import Image

    data = echo(0, IMAGES, SIZE)
    for name, arrays in (("images", 255 * data.images[..., 0]), ("masks", data.labels)):
        (folder / name).mkdir()
        for k, array in enumerate(arrays):
            Image.fromarray(np.asarray(array, np.uint8)).save(folder / name / f"heart_{k:02d}.png")


def write_volumes(folder: Path) -> None:
    """Write a data set of volumes in nnU-Net's layout: each is a stack of simulated echocardiograms."""
    scans: list[Scan] = []
    for seed in range(CASES):
        data = echo(seed, SLICES, SIDE)
        image, labels = (np.moveaxis(array, 0, 2) for array in (data.images[..., 0], data.labels))
        scans.append(Scan(f"case_{seed}", image[..., None], labels.astype(np.int32), (1.0, 1.0, 1.0), np.eye(4)))
    names = ("background", *(f"class_{kind}" for kind in range(1, 4)))
    write_dataset(folder / "volumes", scans, ("US",), names)


COMMANDS = {
    "labels audit": f"images masks -o audit --size {SIZE} --classes 4 --epochs 4",
    "pet train-prior": "-o prior --phantoms 2 --steps 2",
    "segment train": "volumes -o model --fold 0 --epochs 1 --iterations 1 "
    "--base-width 8 --memory-gb 1 --patch 32,32,16",
}


def measure(command: str, folder: Path, checkout: Path) -> Seconds:
    """Run `medjax command` of the checkout in the folder, with an empty compilation cache.

    Raises:
        SystemExit: the command fails; its output is the message.
    """
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {
            "PYTHONPATH": str(checkout),
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        }
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "medjax", *command.split()],
            cwd=folder, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"medjax {command}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return Seconds(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall)


def main() -> None:
    """Write the inputs, run each command once, print one row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parent.parent, metavar="DIR")
    parser.add_argument("names", nargs="*", metavar="NAME")
    given = parser.parse_args()
    names, checkout = given.names or list(COMMANDS), given.checkout.resolve()
    if unknown := set(names) - set(COMMANDS):
        raise SystemExit(f"{', '.join(unknown)}: no such command here; expected some of {', '.join(COMMANDS)}")
    if not (checkout / "medjax" / "__main__.py").is_file():
        raise SystemExit(f"--checkout {checkout}: no medjax/__main__.py; expected a checkout of medjax")
    print("| command | CPU s | wall s |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_images(folder)
        write_volumes(folder)
        for name in names:
            took = measure(f"{name} {COMMANDS[name]}", folder, checkout)
            print(f"| medjax {name} | {took.cpu:.1f} | {took.wall:.1f} |", flush=True)


if __name__ == "__main__":
    main()

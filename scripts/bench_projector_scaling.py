"""How the 3-D projector scales: nanoseconds a line of response with the number of rings, and with devices.

    python scripts/bench_projector_scaling.py [--figure FILE.png] [--json FILE]

Rings: the cylinder of `bench_projector3d` with all ring differences. Devices: its 16 rings, the views split over
simulated devices of this machine by `shard_map`, each number of them in a process of its own. A simulated device of a
CPU runs on a thread of its own, so that a split can be faster than what XLA runs at once on one device. Medians of
alternating calls.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from medjax.pet.grid import Grid
from medjax.pet.michelogram import michelogram
from medjax.pet.projector3d import backproject, project
from medjax.pet.scanner import lors
from medjax.pet.system3d import System3D, build_system3d, subsets3d
from medjax.report.figures import curves, write_png
from medjax.running.environment import keep_freed_memory
from scripts.bench_projector3d import CYLINDER, seconds

RINGS, DEVICES = (2, 4, 8, 16, 32), (1, 2, 4, 8)
DEVICE_RINGS = 16
REPEATS = 5


def cylinder(rings: int) -> System3D:
    """System of the cylinder with so many rings, all ring differences."""
    planes = michelogram(rings, 1)
    grid = Grid((128, 128, 2 * rings - 1), (1.0, 1.0, 1.0))
    return build_system3d(lors(replace(CYLINDER, rings=rings)), planes, CYLINDER.ring_spacing_mm, grid)


def nanoseconds(system: System3D, calls: Callable[[Any, Any], dict[str, Callable[[], Any]]]) -> tuple[float, float]:
    """Nanoseconds a line of response of the two `calls` of an image and a sinogram: forward, adjoint."""
    rng = np.random.default_rng(0)
    shapes = (system.shape, system.sinogram_shape)
    image, sinogram = (jnp.asarray(rng.random(shape, dtype=np.float32)) for shape in shapes)
    found = seconds(calls(image, sinogram), REPEATS)
    return tuple(1e9 * one / sinogram.size for one in found.values())  # pyrefly: ignore[bad-return] (two calls)


def of_rings(rings: int) -> tuple[float, float]:
    """Nanoseconds a line of response on one device."""
    system = cylinder(rings)
    forward, adjoint = jax.jit(project), jax.jit(backproject)
    return nanoseconds(
        system, lambda x, y: {"forward": lambda: forward(system, x), "adjoint": lambda: adjoint(system, y)}
    )


def of_devices() -> tuple[float, float]:
    """Nanoseconds a line of response with the views split over all devices of this process."""
    system, number = cylinder(DEVICE_RINGS), jax.device_count()
    parts, views = subsets3d(system, number)
    mesh = jax.make_mesh((number,), ("view",), axis_types=(jax.sharding.AxisType.Auto,))
    split, same = PartitionSpec("view"), PartitionSpec()
    placed = jax.device_put(parts, jax.sharding.NamedSharding(mesh, split))

    def forward(part: System3D, x: Any) -> Any:
        return project(jax.tree.map(lambda a: a[0], part), x)[None]

    def adjoint(part: System3D, y: Any) -> Any:
        return jax.lax.psum(backproject(jax.tree.map(lambda a: a[0], part), y[0]), "view")

    there = jax.jit(jax.shard_map(forward, mesh=mesh, in_specs=(split, same), out_specs=split))
    back = jax.jit(jax.shard_map(adjoint, mesh=mesh, in_specs=(split, split), out_specs=same))

    def calls(x: Any, y: Any) -> dict[str, Callable[[], Any]]:
        image = jax.device_put(x, jax.sharding.NamedSharding(mesh, same))
        sinogram = jax.device_put(y[views], jax.sharding.NamedSharding(mesh, split))
        return {"forward": lambda: there(placed, image), "adjoint": lambda: back(placed, sinogram)}

    return nanoseconds(system, calls)


def in_process(devices: int) -> tuple[float, float]:
    """`of_devices` in a process with so many simulated devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    run = subprocess.run(
        [sys.executable, "-m", "scripts.bench_projector_scaling", "--devices-here"],
        env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return tuple(json.loads(run.stdout.splitlines()[-1]))


def main() -> None:
    """Measure, print, draw and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", type=Path, help="PNG file to draw")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--devices-here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    keep_freed_memory()
    if options.devices_here:
        print(json.dumps(of_devices()))
        return
    found: dict[str, dict[int, tuple[float, float]]] = {"rings": {}, "devices": {}}
    for name, numbers, measure in (("rings", RINGS, of_rings), ("devices", DEVICES, in_process)):
        for number in numbers:
            found[name][number] = measure(number)
            forward, adjoint = found[name][number]
            print(f"{number:3d} {name}: forward {forward:.1f}, adjoint {adjoint:.1f} ns a line of response", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.figure:
        series = {
            f"{way}, {name}": [found[name].get(number, (np.nan, np.nan))[k] for number in sorted({*RINGS, *DEVICES})]
            for name in found
            for k, way in enumerate(("forward", "adjoint"))
        }
        xlabel, ylabel = "rings, or simulated devices", "ns a line of response"
        write_png(options.figure, curves(sorted({*RINGS, *DEVICES}), series, xlabel, ylabel, log_x=True, log_y=True))


if __name__ == "__main__":
    main()

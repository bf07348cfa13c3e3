"""Peak memory and time of a whole 3-D acquisition: one EM iteration, the sensitivity, and ordered subsets.

    python scripts/bench_pet_memory.py [--scanner NAME] [--span N] [--size N] [--subsets N] [--json FILE]

By default the mMR's span 11 on its own image: 837 planes × 252 views × 344 bins, 344 × 344 × 127 voxels. The peak is
that of this process, which does nothing else (`ru_maxrss`); seconds of the processor are those of all its threads.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from medjax.pet import em, projector3d
from medjax.pet.acquisition import acquire, divide, ordered_subsets
from medjax.pet.grid import Grid
from medjax.pet.michelogram import michelogram
from medjax.pet.scanner import lors, preset
from medjax.pet.system3d import System3D, build_system3d
from medjax.running.environment import keep_freed_memory

_FIELD_MM = 717.67  # side of the mMR's own image: 344 voxels of 2.08625 mm


def measure(what: str, call: Callable[[], Any]) -> tuple[dict[str, Any], Any]:
    """Wall and processor seconds of a call, its compilation included, and the process's peak memory after it."""
    before, processor = time.perf_counter(), time.process_time()
    out = jax.block_until_ready(call())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row = {"what": what, "wall_s": time.perf_counter() - before, "processor_s": time.process_time() - processor}
    return row | {"peak_gib": peak}, out


def steps(system: System3D, subsets: int) -> Iterator[dict[str, Any]]:
    """Rows of the table."""
    shape = system.sinogram_shape
    row, image = measure("image", lambda: jnp.ones(system.shape))
    row, expected = measure("forward", lambda: jax.jit(projector3d.project)(system, image))
    yield row
    counts = jnp.asarray(np.random.default_rng(0).poisson(1.0, shape).astype(np.float32))
    row, expected = measure("ratio", lambda: divide(counts, expected))  # in the place of what was expected
    yield row
    row, _ = measure("back", lambda: jax.jit(projector3d.backproject)(system, expected))
    yield row
    expected = None
    row, acquisition = measure("acquisition and its sensitivity", lambda: acquire(system, counts, 1.0, 0.1))
    yield row
    if subsets:
        row, stacked = measure(f"{subsets} ordered subsets", lambda: ordered_subsets(acquisition, subsets))
        yield row
        acquisition = None
        algorithm = em.osem(stacked)
        state = algorithm.init()
        row, _ = measure("one OSEM update", lambda: jax.jit(lambda one, state: one.step(state))(algorithm, state))
        yield row


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scanner", default="mmr")
    parser.add_argument("--span", type=int, default=11)
    parser.add_argument("--max-ring-difference", type=int, default=60)
    parser.add_argument("--size", type=int, default=344, help="voxels along x and y")
    parser.add_argument("--subsets", type=int, default=21)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    keep_freed_memory()
    scanner = preset(options.scanner)
    planes = michelogram(scanner.rings, options.span, options.max_ring_difference)
    side = _FIELD_MM / options.size
    grid = Grid((options.size, options.size, 2 * scanner.rings - 1), (side, side, scanner.ring_spacing_mm / 2))
    system = build_system3d(lors(scanner), planes, scanner.ring_spacing_mm, grid)
    console = Console()
    console.print(f"sinogram {system.sinogram_shape}, {4 * np.prod(system.sinogram_shape) / 2**20:.0f} MiB; {grid}")
    table = Table("what", "wall s", "processor s", "peak GiB so far")
    rows = []
    for row in steps(system, options.subsets):
        rows.append(row)
        table.add_row(row["what"], f"{row['wall_s']:.1f}", f"{row['processor_s']:.1f}", f"{row['peak_gib']:.2f}")
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

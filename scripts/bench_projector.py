"""The projector against SciPy's sparse product (the hard reference), ASTRA on CPU and scikit-image, in one process.

    python scripts/bench_projector.py [--json FILE] [--case NAME …] [--repeats N]

Prints a table of the median milliseconds of forward, adjoint and one MLEM iteration, and how many times faster medjax
is. SciPy multiplies with Joseph's matrix of the same lines, which takes the memory stated; medjax stores no matrix.
All run with the memory setting that `medjax` commands use (freed blocks are kept). Calls alternate between the
rivals, so that a noisy minute hits both.
"""

import argparse
import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from medjax.pet.grid import Grid
from medjax.pet.projection import backproject, project
from medjax.pet.scanner import lors, parallel_lors, preset
from medjax.pet.shear_system import ShearSystem, build_shear_system
from medjax.pet.system import System, build_system
from medjax.running.environment import keep_freed_memory
from tests.pet.oracle import joseph_matrix


class Case(NamedTuple):
    """Lines, a grid and a number of slices."""

    name: str
    end_points: np.ndarray
    grid: Grid
    parallel: bool


class Row(NamedTuple):
    """One line of the table: medians in milliseconds."""

    case: str
    operation: str
    ours_ms: float
    peer: str
    peer_ms: float


def cases() -> list[Case]:
    """The ones that issue reports and RESULTS.md compare: parallel grids and the ring of the mMR."""
    square = lambda n, voxel, slices: Grid((n, n, slices), (voxel, voxel, 2.03125))  # noqa: E731
    small, large, ring = parallel_lors(180, 128, 1.0), parallel_lors(360, 367, 1.0), lors(preset("mmr"))
    return [
        Case("128² 180×128, 1 slice", small, square(128, 1.0, 1), True),
        Case("128² 180×128, 64 slices", small, square(128, 1.0, 64), True),
        Case("256² 360×367, 1 slice", large, square(256, 1.0, 1), True),
        Case("mMR 252×344 on 128², 1 slice", ring, square(128, 2.08625, 1), False),
        Case("mMR 252×344 on 128², 64 slices", ring, square(128, 2.08625, 64), False),
    ]


def ours(system: System | ShearSystem, image: np.ndarray, sinogram: np.ndarray) -> dict[str, Callable[[], Any]]:
    """medjax' three operations, compiled."""
    x, y = jnp.asarray(image), jnp.asarray(sinogram)
    forward, adjoint = jax.jit(project), jax.jit(backproject)
    mlem = jax.jit(lambda s, x, y: x * backproject(s, y / (project(s, x) + 1)))
    calls = {
        "forward": lambda: forward(system, x),
        "adjoint": lambda: adjoint(system, y),
        "mlem": lambda: mlem(system, x, y),
    }
    return {name: (lambda call=call: jax.block_until_ready(call())) for name, call in calls.items()}


def scipy_csr(matrix: Any, image: np.ndarray, sinogram: np.ndarray) -> dict[str, Callable[[], Any]]:
    """The same by sparse products, with the transpose stored as well."""
    transpose = matrix.T.tocsr()
    x, y = image.reshape(-1, image.shape[-1]), sinogram.reshape(-1, image.shape[-1])
    return {
        "forward": lambda: matrix @ x,
        "adjoint": lambda: transpose @ y,
        "mlem": lambda: x * (transpose @ (y / (matrix @ x + 1))),
    }


def astra_cpu(case: Case, image: np.ndarray, sinogram: np.ndarray) -> dict[str, Callable[[], Any]]:
    """ASTRA's linear (Joseph) CPU projector, slice by slice; empty where not installed or the beam is not parallel."""
    if not case.parallel:
        return {}
    try:
        astra = importlib.import_module("astra")
    except ImportError:
        return {}
    views, bins = sinogram.shape[:2]
    geometry = astra.create_proj_geom("parallel", 1.0, bins, np.pi * np.arange(views) / views)
    projector = astra.create_projector("linear", geometry, astra.create_vol_geom(*case.grid.shape[:2]))
    operator = astra.OpTomo(projector)
    slices = range(image.shape[-1])
    return {
        "forward": lambda: [operator.FP(np.ascontiguousarray(image[..., k])) for k in slices],
        "adjoint": lambda: [operator.BP(np.ascontiguousarray(sinogram[..., k])) for k in slices],
    }


def skimage_radon(case: Case, image: np.ndarray) -> dict[str, Callable[[], Any]]:
    """scikit-image's forward transform, slice by slice; not where the beam is not parallel or slices are many."""
    if not case.parallel or image.shape[-1] > 1:
        return {}
    try:
        from skimage.transform import radon
    except ImportError:
        return {}
    angles = 180 * np.arange(case.end_points.shape[0]) / case.end_points.shape[0]
    return {"forward": lambda: radon(image[..., 0], theta=angles, circle=False)}


def rivals_ms(calls: dict[str, Callable[[], Any]], rounds: int, calls_a_round: int) -> dict[str, float]:
    """Median milliseconds of each call: in turns of several calls, the first of a turn not counted (cold caches)."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            for _ in range(calls_a_round):
                before = time.perf_counter()
                call()
                times[name].append(1e3 * (time.perf_counter() - before))
    return {name: float(np.median(values)) for name, values in times.items()}


def measure(case: Case, repeats: int, console: Console) -> list[Row]:
    """All operations of one case against every rival that is installed."""
    rng = np.random.default_rng(0)
    slices = case.grid.shape[2]
    image = rng.random((*case.grid.shape[:2], slices), dtype=np.float32)
    sinogram = rng.random((*case.end_points.shape[:2], slices), dtype=np.float32)
    system = build_system(case.end_points, case.grid)
    matrix = joseph_matrix(case.end_points, case.grid).astype(np.float32)
    mine = ours(system, image, sinogram)
    peers = {"scipy CSR": scipy_csr(matrix, image, sinogram), "astra": astra_cpu(case, image, sinogram)}
    peers["skimage radon"] = skimage_radon(case, image)
    memory = sum(a.nbytes for a in jax.tree.leaves(system)), matrix.data.nbytes + matrix.indices.nbytes
    gap = _difference(matrix, image, mine["forward"]())
    console.print(
        f"{case.name}: system {memory[0] / 1e6:.1f} MB, matrix {memory[1] / 1e6:.0f} MB; same sinogram to {gap:.0e}"
    )
    rows = []
    if slices == 1:
        shear = ours(build_shear_system(case.end_points, case.grid), image, sinogram)
        for operation, call in shear.items():
            own = {"ours": call, "peer": peers["scipy CSR"][operation]}
            medians = rivals_ms(own, 3, repeats // 3)
            rows.append(Row(f"{case.name}, shear model", operation, medians["ours"], "scipy CSR", medians["peer"]))
    for operation in ("forward", "adjoint", "mlem"):
        for peer, calls in peers.items():
            if operation in calls:
                slow = peer != "scipy CSR" and slices > 1
                medians = rivals_ms({"ours": mine[operation], "peer": calls[operation]}, 3, 2 if slow else repeats // 3)
                rows.append(Row(case.name, operation, medians["ours"], peer, medians["peer"]))
    return rows


def _difference(matrix: Any, image: np.ndarray, projected: Any) -> float:
    want = matrix @ image.reshape(-1, image.shape[-1])
    return float(np.linalg.norm(np.asarray(projected).reshape(want.shape) - want) / np.linalg.norm(want))


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--case", action="append", help="only cases whose name contains this; may be repeated")
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    keep_freed_memory()
    console = Console()
    rows: list[Row] = []
    for case in cases():
        if not options.case or any(part in case.name for part in options.case):
            rows += measure(case, options.repeats, console)
    table = Table("case", "operation", "medjax ms", "peer", "peer ms", "times faster")
    for row in rows:
        table.add_row(
            row.case,
            row.operation,
            f"{row.ours_ms:.2f}",
            row.peer,
            f"{row.peer_ms:.2f}",
            f"{row.peer_ms / row.ours_ms:.1f}",
        )
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()

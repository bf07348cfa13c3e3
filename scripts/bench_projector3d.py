"""The 3-D projector: time per line of response against SciPy's sparse product, direct planes, TOF and list mode.

    python scripts/bench_projector3d.py [--case NAME …] [--repeats N] [--json FILE]

SciPy multiplies with the matrix of Joseph's method for some of the views (the whole matrix does not fit): the share of
the lines is printed, and times are compared per line. Calls alternate, so that a noisy minute hits both. The bandwidth
is that of the reads and writes which the method needs (two reads of an axial line and one addition for each row and
line), beside that of a large copy in the same minute.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from rich.console import Console
from rich.table import Table

from medjax.pet import lor_projector, projector, projector3d
from medjax.pet.grid import Grid
from medjax.pet.lor_system import build_lor_system
from medjax.pet.michelogram import Michelogram, michelogram
from medjax.pet.scanner import Scanner, lors, preset
from medjax.pet.system import build_system
from medjax.pet.system3d import build_system3d
from medjax.pet.tof import Tof
from medjax.running.environment import keep_freed_memory
from tests.pet.oracle import joseph_matrix

CYLINDER = Scanner("cylinder", 320, 32, 120.0, 2.0, 128, 1.0)
EVENTS = 1_000_000


class Case(NamedTuple):
    """A scanner's sinogram and an image grid."""

    name: str
    scanner: Scanner
    planes: Michelogram
    grid: Grid
    share: int  # one of so many views is compared with SciPy


class Row(NamedTuple):
    """Nanoseconds per line of response."""

    case: str
    what: str
    forward_ns: float
    adjoint_ns: float


def cases() -> list[Case]:
    """The prototype's cylinder at two ring differences and with fewer rings, and the whole mMR."""
    grid = Grid((128, 128, 63), (1.0, 1.0, 1.0))
    mmr = preset("mmr")
    whole = Grid((344, 344, 127), (2.08625, 2.08625, mmr.ring_spacing_mm / 2))
    fewer = [
        Case(
            f"cylinder of {rings} rings, all ring differences",
            replace(CYLINDER, rings=rings),
            michelogram(rings, 1),
            Grid((128, 128, 2 * rings - 1), (1.0, 1.0, 1.0)),
            0,
        )
        for rings in (4, 8, 16)
    ]
    return [
        Case("cylinder, |ring difference| ≤ 4", CYLINDER, michelogram(32, 1, 4), grid, 16),
        Case("cylinder, all ring differences", CYLINDER, michelogram(32, 1), grid, 80),
        *fewer,
        Case("mMR span 11", mmr, michelogram(64, 11, 60), whole, 0),
    ]


def seconds(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of calls that alternate, after one of each."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            before = time.perf_counter()
            jax.block_until_ready(call())
            if turn:
                times[name].append(time.perf_counter() - before)
    return {name: float(np.median(values)) for name, values in times.items()}


def oblique_matrix(case: Case, views: np.ndarray) -> scipy.sparse.csr_matrix:
    """Joseph's matrix of all planes of some views: the transaxial one, times the axial interpolation of each row."""
    ends, (nx, ny, nz) = lors(case.scanner)[views], case.grid.shape
    transaxial = joseph_matrix(ends, case.grid).tocoo()
    along_x = np.abs(np.diff(ends, axis=2)[:, :, 0, 0]).mean(1) >= np.abs(np.diff(ends, axis=2)[:, :, 0, 1]).mean(1)
    view, pixel = transaxial.row // ends.shape[1], np.stack([transaxial.col // ny, transaxial.col % ny], -1)
    axis = np.where(along_x[view], 0, 1)
    line = ends.reshape(-1, 2, 2)[transaxial.row]
    start, stop = (np.take_along_axis(line[:, k], axis[:, None], 1)[:, 0] for k in range(2))
    at = (np.take_along_axis(pixel, axis[:, None], 1)[:, 0] - (nx - 1) / 2) * case.grid.voxel_mm[0]
    fraction = (at - start) / (stop - start)
    chord = np.linalg.norm(line[:, 1] - line[:, 0], axis=-1)
    rings = case.planes.plane_rings
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for plane, (first, second) in enumerate(rings):
        z = 2 * (first + fraction * (second - first)) + (nz - 1) / 2 - (case.planes.rings - 1)
        tilt = np.sqrt(1 + ((second - first) * case.scanner.ring_spacing_mm / chord) ** 2)
        low = np.floor(z).astype(int)
        for index, weight in ((low, 1 - (z - low)), (low + 1, z - low)):
            there = (index >= 0) & (index < nz) & (weight > 0)
            row, column = transaxial.row * len(rings) + plane, transaxial.col * nz + index
            value = transaxial.data * weight * tilt
            parts.append((value[there].astype(np.float32), row[there].astype(np.int32), column[there].astype(np.int32)))
    values, rows, columns = (np.concatenate(part) for part in zip(*parts, strict=True))
    return scipy.sparse.csr_matrix(
        (values, (rows, columns)), (ends.shape[0] * ends.shape[1] * len(rings), nx * ny * nz)
    )


def measure(case: Case, repeats: int, console: Console) -> list[Row]:
    """Sinogram, SciPy on a share, time of flight, list mode and direct planes of one case."""
    rng = np.random.default_rng(0)
    ends = lors(case.scanner)
    system = build_system3d(ends, case.planes, case.scanner.ring_spacing_mm, case.grid)
    x = jnp.asarray(rng.random(case.grid.shape, dtype=np.float32))
    y = jnp.asarray(rng.random(system.sinogram_shape, dtype=np.float32))
    lines = y.size
    forward, adjoint = jax.jit(projector3d.project), jax.jit(projector3d.backproject)
    calls: dict[str, Callable[[], Any]] = {
        "sinogram forward": lambda: forward(system, x),
        "sinogram adjoint": lambda: adjoint(system, y),
    }
    number = {"sinogram": lines}
    if case.share:
        views = np.arange(0, case.scanner.views, case.share)
        matrix = oblique_matrix(case, views)
        transpose, own = matrix.T.tocsr(), np.asarray(y)[views].ravel()
        there = np.asarray(forward(system, x))[views].ravel()
        want = matrix @ np.asarray(x).ravel()
        gap = np.linalg.norm(there - want) / np.linalg.norm(want)
        console.print(
            f"{case.name}: {lines:,} lines; SciPy: 1 / {case.share} of them, {matrix.nnz:,} weights; {gap:.0e}"
        )
        calls["SciPy forward"], calls["SciPy adjoint"] = lambda: matrix @ np.asarray(x).ravel(), lambda: transpose @ own
        number["SciPy"] = matrix.shape[0]
        calls |= _others(case, system, x, y, number)
    medians = seconds(calls, repeats)
    rows = [
        Row(case.name, what, *(1e9 * medians[f"{what} {way}"] / count for way in ("forward", "adjoint")))
        for what, count in number.items()
    ]
    traffic = lines * case.grid.shape[0] * 4 * 4  # two reads, one read and one write of the sum
    copy = _copy_rate()
    console.print(
        f"{case.name}: {traffic / medians['sinogram forward'] / 1e9:.0f} GB/s in cache (forward); a large copy moves "
        f"{copy:.0f} GB/s"
    )
    return rows


def _others(case: Case, system: Any, x: Any, y: Any, number: dict[str, int]) -> dict[str, Callable[[], Any]]:
    rng = np.random.default_rng(1)
    ends, tof = lors(case.scanner), Tof(5, 200.0, 300.0)
    flight = build_system3d(ends, case.planes, case.scanner.ring_spacing_mm, case.grid, tof)
    y_tof = jnp.asarray(rng.random(flight.sinogram_shape, dtype=np.float32))
    chosen = rng.integers(0, y.size, EVENTS)
    view, bin_, plane = np.unravel_index(chosen, y.shape)
    z = (case.planes.plane_rings[plane] - (case.planes.rings - 1) / 2) * case.scanner.ring_spacing_mm
    events = np.concatenate([ends[view, bin_], z[..., None]], axis=-1)
    listed = build_lor_system(events, case.grid)
    ones = jnp.ones(EVENTS)
    direct = build_system(ends, case.grid)
    y_direct = jnp.asarray(rng.random((*ends.shape[:2], case.grid.shape[2]), dtype=np.float32))
    number |= {"TOF, a bin": y_tof.size, "list mode": EVENTS, "direct planes": y_direct.size}
    jitted = {
        module: (jax.jit(module.project), jax.jit(module.backproject))
        for module in (projector3d, lor_projector, projector)
    }
    pairs = {
        "TOF, a bin": (projector3d, flight, y_tof),
        "list mode": (lor_projector, listed, ones),
        "direct planes": (projector, direct, y_direct),
    }
    calls: dict[str, Callable[[], Any]] = {}
    for name, (module, own, values) in pairs.items():
        there, back = jitted[module]
        calls[f"{name} forward"] = lambda there=there, own=own: there(own, x)
        calls[f"{name} adjoint"] = lambda back=back, own=own, values=values: back(own, values)
    return calls


def _copy_rate() -> float:
    source = np.ones(64_000_000, np.float32)
    target = np.empty_like(source)
    best = min(seconds({"copy": lambda: np.copyto(target, source)}, 3).values())
    return 2 * source.nbytes / best / 1e9


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--case", action="append", help="only cases whose name contains this; may be repeated")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    keep_freed_memory()
    console = Console()
    rows: list[Row] = []
    for case in cases():
        if not options.case or any(part in case.name for part in options.case):
            rows += measure(case, options.repeats, console)
    table = Table("case", "what", "forward ns/line", "adjoint ns/line")
    for row in rows:
        table.add_row(row.case, row.what, f"{row.forward_ns:.1f}", f"{row.adjoint_ns:.1f}")
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()

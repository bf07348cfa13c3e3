"""Epochs to PETRIC's stopping rule: SVRG, BSREM and MAP-EM on simulated scans, from one epoch of OSEM, in float64.

    python scripts/epochs_petric.py [--case NAME …] [--epochs N] [--json FILE] [--images FILE.npz]

An epoch uses all subsets once. The reference is SVRG after 50 epochs, and twice 50 more of half
the step and a preconditioner of the image that was reached, not smoothed; beside it stands ‖max(x + D ∇Φ, 0) − x‖ /
‖x‖, which is 0 at the maximum (D is the preconditioner there). Penalties have edge weights κ. "BSREM" is as published;
"BSREM, D" has SVRG's preconditioner; "then 1 subset" goes on so, without relaxation, after 20 epochs. SVRG's anchors
cost one pass through the data in every two epochs on top; the gap is (Φ* − Φ) / (Φ* − Φ at the start) after all epochs.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from medjax import iterate
from medjax.iterate import Algorithm
from medjax.penalty import Penalty, Quadratic, RelativeDifference, edge_weights, neighbors
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, acquire, ordered_subsets
from medjax.pet.bsrem import bsrem
from medjax.pet.convergence import ConvergenceErrors, Regions, check_regions, convergence_errors, pass_index
from medjax.pet.grid import Grid, centers_mm
from medjax.pet.kappa import kappa
from medjax.pet.michelogram import michelogram
from medjax.pet.projection import project
from medjax.pet.psf import gaussian_psf
from medjax.pet.scanner import Scanner, lors
from medjax.pet.svrg import State as SvrgState
from medjax.pet.svrg import objective, preconditioner, svrg
from medjax.pet.system import build_system
from medjax.pet.system3d import build_system3d
from medjax.pet.tof import Tof

SUBSETS, REFERENCE, SWITCH = 9, 50, 20  # epochs of each part of the reference; epochs before one subset
SCANNER = Scanner("small", 72, 2, 80.0, 4.0, 35, 4.0)
GRID = Grid((18, 18, 3), (4.5, 4.5, 2.0))


class Case(NamedTuple):
    """A simulated scan: mean counts a bin, oblique planes, and time of flight."""

    name: str
    counts: float
    oblique: bool = False
    tof: Tof | None = None


class Row(NamedTuple):
    """Epochs of an algorithm to the rule, −1 if it was not met, and the gap that is left after all epochs."""

    case: str
    penalty: str
    algorithm: str
    epochs: float
    gap: float


CASES = [
    Case("direct planes, 20 counts a bin", 20.0),
    Case("direct planes, 1 count a bin", 1.0),
    Case("oblique planes, 5 counts a bin", 5.0, oblique=True),
    Case("oblique planes, TOF, 1 count a bin", 1.0, oblique=True, tof=Tof(5, 200.0, 300.0)),
]


def simulate(case: Case) -> tuple[Acquisition, Regions]:
    """Counts of a cylinder with a hot, a warm and a cold rod, half of them background, and its regions."""
    ends, (x, y, z) = lors(SCANNER), centers_mm(GRID)
    system: Any = build_system(ends, GRID)
    if case.oblique:
        system = build_system3d(ends, michelogram(2, 1), SCANNER.ring_spacing_mm, GRID, case.tof)
    flat = np.ones_like(z)
    rods = [(np.hypot(x - a, y - b) < r) & (flat > 0) for a, b, r in ((-16, 0, 7), (12, 14, 9), (12, -14, 9))]
    whole = (np.hypot(x / 36, y / 30) < 1) & (flat > 0)
    image = jnp.asarray(whole + 3.0 * rods[0] + 1.0 * rods[1] - 0.9 * rods[2])
    trues = project(system, image)
    factor = case.counts / 2 / float(trues.mean())
    counts = np.random.default_rng(0).poisson(np.asarray(factor * trues + case.counts / 2))
    inner = (np.hypot(x / 32, y / 26) < 1) & (flat > 0)
    near = [(np.hypot(x - a, y - b) < r + 4) for a, b, r in ((-16, 0, 7), (12, 14, 9), (12, -14, 9))]
    background = inner & ~np.any(near, axis=0)
    acquisition = acquire(system, jnp.asarray(counts, float), factor, case.counts / 2)
    return acquisition, Regions(whole, background, np.stack(rods))


def penalties(stacked: Acquisition, start: jax.Array, regions: Regions) -> dict[str, tuple[Penalty, float]]:
    """Penalties with edge weights κ of the OSEM image, ε a thousandth of its maximum, and their weights."""
    pairs = edge_weights(neighbors(GRID.shape, GRID.voxel_mm), kappa(stacked, start))
    level = float(start[regions.background].mean())
    smoothed = RelativeDifference(pairs, epsilon=1e-3 * float(start.max()))
    return {"quadratic": (Quadratic(pairs), 0.05), "relative difference": (smoothed, 0.1 * level)}


@partial(jax.jit, static_argnums=4)
def run(
    algorithm: Algorithm, state: Any, regions: Regions, reference: jax.Array, updates: int
) -> tuple[Any, ConvergenceErrors]:
    """State after some updates, and the errors after each."""

    def body(state: Any, _: None) -> tuple[Any, ConvergenceErrors]:
        state = algorithm.step(state)[0]
        return state, convergence_errors(state.image, regions, reference)

    return jax.lax.scan(body, state, None, length=updates)


@jax.jit
def repeat(algorithm: Algorithm, state: Any, n: int) -> Any:
    """State after `n` updates."""
    return iterate.repeat(algorithm, state, n)


def measure(case: Case, epochs: int, console: Console, images: dict[str, Any]) -> list[Row]:
    """Rows of one scan."""
    whole, regions = simulate(case)
    stacked, one = ordered_subsets(whole, SUBSETS), ordered_subsets(whole, 1)
    start = repeat(em.osem(stacked), em.init(stacked), SUBSETS).image
    images[f"{case.name}, OSEM"] = np.asarray(start)
    rows: list[Row] = []
    for name, (penalty, weight) in penalties(stacked, start, regions).items():
        smoothing = gaussian_psf(GRID, 5.0)
        reference = start
        for size in (1.0, 0.5, 0.5):  # the first with x̂ smoothed; then the penalty's curvature at the image itself
            best = svrg(stacked, penalty, weight, smoothing if size == 1 else None, size)
            reference = repeat(best, best.init(reference), SUBSETS * REFERENCE).image
        check_regions(regions, reference)
        images[f"{case.name}, {name}"] = np.asarray(reference)
        fixed = preconditioner(stacked, penalty, weight, start, smoothing)
        gradient = whole.gradient(reference) - weight * penalty.gradient(reference)
        step = jnp.maximum(reference + preconditioner(stacked, penalty, weight, reference) * gradient, 0) - reference
        left = float(jnp.linalg.norm(step) / jnp.linalg.norm(reference))
        console.print(f"{case.name}, {name}: gradient step at the reference {left:.1e} of its norm", soft_wrap=True)
        highest, first = (value(stacked, penalty, weight, image) for image in (reference, start))
        for what, parts in algorithms(stacked, one, penalty, weight, smoothing, fixed, epochs).items():
            image, took = follow(parts, start, regions, reference)
            gap = float((highest - value(stacked, penalty, weight, image)) / (highest - first))
            rows.append(Row(case.name, name, what, took, gap))
            console.print(f"  {what}: {took:.1f} epochs, gap {gap:.0e}")
    return rows


value = jax.jit(objective)


def follow(
    parts: list[tuple[Algorithm, int, int]], image: jax.Array, regions: Regions, reference: jax.Array
) -> tuple[jax.Array, float]:
    """Last image of some algorithms, one after the other, and the epochs to the rule, −1 if it was not met."""
    errors, lengths = list[ConvergenceErrors](), list[float]()
    for algorithm, subsets, number in parts:
        state = algorithm.init()._replace(image=image)  # MAP-EM's takes no image
        if isinstance(state, SvrgState):
            state = algorithm.init(image)
        state, some = run(algorithm, state, regions, reference, subsets * number)
        image = state.image
        errors.append(some)
        lengths += [1 / subsets] * (subsets * number)
    at = int(pass_index(jax.tree.map(lambda *a: jnp.concatenate(a), *errors)))
    return image, float(np.cumsum(lengths)[at]) if at >= 0 else -1.0


def algorithms(
    stacked: Acquisition,
    one: Acquisition,
    penalty: Penalty,
    weight: float,
    smoothing: Any,
    fixed: jax.Array,
    epochs: int,
) -> dict[str, list[tuple[Algorithm, int, int]]]:
    """Algorithms, one after the other, with their numbers of subsets and epochs; MAP-EM where there is a surrogate."""
    relaxed = bsrem(stacked, penalty, weight, preconditioner=fixed)
    alone = bsrem(one, penalty, weight, 0.0, preconditioner=fixed)
    found: dict[str, list[tuple[Algorithm, int, int]]] = {
        "SVRG": [(svrg(stacked, penalty, weight, smoothing), SUBSETS, epochs)],
        "BSREM": [(bsrem(stacked, penalty, weight), SUBSETS, epochs)],
        "BSREM, D": [(relaxed, SUBSETS, epochs)],
        "BSREM, D, then 1 subset": [(relaxed, SUBSETS, SWITCH), (alone, 1, max(epochs - SWITCH, 1))],
    }
    if hasattr(penalty, "surrogate"):
        found |= {
            "MAP-EM": [(em.map_em(one, penalty, weight), 1, epochs)],
            f"MAP-EM, {SUBSETS} subsets": [(em.map_em(stacked, penalty, weight), SUBSETS, epochs)],
        }
    return found


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--images", type=Path, help="also write the references and starts to this NPZ file")
    parser.add_argument("--case", action="append", help="only cases whose name contains this; may be repeated")
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    console, rows, images = Console(), list[Row](), dict[str, Any]()
    for case in CASES:
        if not options.case or any(part in case.name for part in options.case):
            rows += measure(case, options.epochs, console, images)
    table = Table("scan", "penalty", "algorithm", "epochs to the rule", "gap at the end")
    for one in rows:
        took = f"{one.epochs:.1f}" if one.epochs >= 0 else f"> {options.epochs}"
        table.add_row(one.case, one.penalty, one.algorithm, took, f"{one.gap:.0e}")
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps([one._asdict() for one in rows], indent=1) + "\n")
    if options.images:
        np.savez(options.images, **images)


if __name__ == "__main__":
    main()

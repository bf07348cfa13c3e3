"""Scatter of a reconstruction: simulated from OSEM images of the scan, scaled to the tails outside the body."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax import iterate
from medjax.errors import ConfigError
from medjax.pet import em
from medjax.pet.acquisition import acquire, ordered_subsets
from medjax.pet.attenuation import attenuation_factors
from medjax.pet.compton import EnergyWindow
from medjax.pet.grid import Grid
from medjax.pet.michelogram import Michelogram, Segment
from medjax.pet.projection import AnySystem, possible_subsets
from medjax.pet.psf import Psf
from medjax.pet.scan import Scan
from medjax.pet.scanner import with_rings
from medjax.pet.scatter import simulate_scatter
from medjax.pet.scatter_estimate import estimate_scatter
from medjax.pet.scatter_tails import tail_mask
from medjax.running.progress import say, track

ROUNDS, UPDATES, SUBSETS = 3, 12, 7  # of the estimation; OSEM updates of a round's image, and at most so many subsets


def add_scatter(
    scan: Scan,
    grid: Grid,
    system: AnySystem,
    mu: Float[Array, "x y z"] | None,
    window: EnergyWindow,
    psf: Psf,
) -> Scan:
    """The scan with the expected single scatter of its own image in the background.

    Raises:
        ConfigError: no μ-map, or time-of-flight bins.
        DataError: there are no tails outside the body: see `fit_scatter_scale`.
    """
    if mu is None:
        raise ConfigError("--scatter needs --mu or --ct, in which the photons scatter")
    if scan.tof is not None:
        raise ConfigError("--scatter does not know time of flight; give the scatter in the background of the counts")
    scanner = with_rings(scan.scanner, scan.slices)
    planes = scan.michelogram or Michelogram(scanner.rings, (Segment(-1, 1) if scanner.rings > 1 else Segment(0, 0),))
    factors = np.asarray(attenuation_factors(system, mu))
    number = max(n for n in possible_subsets(system) if n <= SUBSETS)
    rounds = iter(track(ROUNDS, "scatter"))

    def reconstruct(additive: Float[np.ndarray, "view bin plane"]) -> Array:
        next(rounds, None)
        counts = jnp.asarray(scan.counts)
        known = acquire(system, counts, jnp.asarray(scan.multiplicative * factors), jnp.asarray(additive), psf)
        stacked = ordered_subsets(known, number)
        states = iterate.loop(em.osem(stacked), jax.jit(em.init)(stacked), UPDATES, every=UPDATES)
        return iterate.last(states, em.init(stacked)).image

    simulate = partial(simulate_scatter, mu=mu, grid=grid, scanner=scanner, planes=planes, window=window)
    found = estimate_scatter(
        reconstruct,
        simulate,
        scan.counts,
        scan.additive,
        scan.multiplicative,
        tail_mask(factors),
        planes,
        rounds=ROUNDS,
    )
    total = float(scan.counts.sum(dtype=float))
    say(
        f"scatter: {found.scatter.sum(dtype=float) / max(total, 1):.0%} of the counts, from a single-scatter simulation"
    )
    return replace(scan, additive=scan.additive + found.scatter)

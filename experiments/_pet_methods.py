"""All reconstructions of the PET experiments that are not learned, and the values that each knob is tuned over."""

from collections.abc import Callable
from functools import partial

from experiments._pet import Setup
from experiments._pet_batched import Method, Reconstruction, batched
from experiments._pet_conventional import bsrem, map_em, osem, patch_map_em
from experiments._pet_samplers import (
    Sampling,
    dds,
    dds_delta,
    likelihood_schedule,
    likelihood_schedule_fit,
    looped_dps,
    naive,
)


def methods(b: Setup, s: Sampling, size: int) -> dict[str, Method]:
    """Every method that is not learned, by name; `size` cases at once."""
    guided = partial(map_em, guided=True)
    passes, filters = (1.0, 2.0, 4.0, 8.0), (0.0, 3.0, 5.0, 7.0)
    beta = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    conventional: dict[str, tuple[Callable[..., Reconstruction], dict[str, tuple[float, ...]]]] = {
        "osem": (osem, {"passes": passes, "filter_mm": filters}),
        "map_em": (map_em, {"beta": beta, "passes": (4.0, 10.0), "filter_mm": (0.0, 4.0)}),
        "mr_map_em": (guided, {"beta": (*beta[2:], 64.0, 128.0), "passes": (4.0, 10.0), "filter_mm": (0.0, 4.0)}),
        "patch_map_em": (patch_map_em, {"beta": (*beta[2:], 64.0, 128.0), "delta": (0.03, 0.1, 0.3)}),
        "bsrem": (bsrem, {"beta": (0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128), "filter_mm": (0.0, 4.0)}),
    }
    sampled: dict[str, tuple[Callable[..., Reconstruction], dict[str, tuple[float, ...]]]] = {
        "naive": (naive, {"weight": (32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0)}),
        "dds": (dds, {"anchor": (0.0156, 0.0312, 0.0625, 0.125, 0.25), "updates": (1.0, 2.0, 4.0)}),
        "dds_delta": (dds_delta, {"delta": (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0)}),
        "likelihood_schedule": (likelihood_schedule, {"iterations": (5.0, 10.0, 20.0, 40.0, 80.0)}),
        "likelihood_schedule_fit": (likelihood_schedule_fit, {"multiple": (0.25, 0.5, 1.0, 2.0)}),
    }
    out = {name: Method(name, batched(b, run, size), grid) for name, (run, grid) in conventional.items()}
    out |= {name: Method(name, batched(b, partial(run, s=s), size), grid) for name, (run, grid) in sampled.items()}
    weights = (32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0)
    return out | {"dps": Method("dps", looped_dps(b, s, size), {"weight": weights})}

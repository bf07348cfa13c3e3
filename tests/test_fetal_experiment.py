"""The study of fetal lungs with a network written here, and its statistics where a network saw no lung."""

from functools import partial

import jax.numpy as jnp
import numpy as np

from experiments.fetal import readings
from experiments.fetal.report import AGREEMENT
from experiments.fetal_lung_maturity import measure, over_cohorts, study_cohort
from medjax.models.model import Model
from medjax.phantoms.fetal import cohort, fetal

SHAPE = (16, 16, 10)
SETTINGS = {"base_width": 4, "memory_gb": 1.0, "patch": (8, 8, 8), "folds": 1, "epochs": 1, "iterations": 1}


def init(key, images):
    return {"kernel": jnp.zeros((images.shape[-1], 2))}


def lung_everywhere(params, images, key=None):
    return images @ params["kernel"] + jnp.array([-5.0, 5.0]).reshape(*(1 for _ in images.shape[:-1]), 2)


def test_a_network_from_outside_or_a_function_of_the_plan_that_gives_it(tmp_path, monkeypatch):
    monkeypatch.setattr(readings, "read_scan", lambda one, automatic, boundary_mm: {"seen": automatic.sum()})
    scan = partial(fetal, shape=SHAPE, spacing=(8.0, 8.0, 9.0), bvalues=(0.0,))
    scans = [partial(cohort, seed, number, ages=(23.0, 38.0), scan=scan) for seed, number in ((0, 2), (1, 3))]
    model, plans = Model(init, lung_everywhere), []
    for name, network in (("model", model), ("function", lambda plan: plans.append(plan) or model)):
        found = study_cohort(
            *scans, network, seed=0, boundary_mm=(), checkpoints=tmp_path / name, rate=0.01, save_every=1, **SETTINGS
        )
        assert found["seen"].tolist() == 3 * [np.prod(SHAPE)] and (tmp_path / name / "fold_0").is_dir()
    assert [plan.patch for plan in plans] == [(8, 8, 8)]


def a_cohort(seen: int, fetuses: int = 12):
    """Readings of which the automatic ones are unknown from fetus number `seen` on."""
    draw = np.random.default_rng(0)
    truth = {name: draw.uniform(1, 2, fetuses) for name in readings.PARAMETERS}
    manual = {name: values * draw.uniform(0.9, 1.1, fetuses) for name, values in truth.items()}
    known = np.where(np.arange(fetuses) < seen, 1.0, np.nan)
    read = {
        name: np.stack([values, values * draw.uniform(0.99, 1.01, fetuses) * known], 1)
        for name, values in manual.items()
    }
    return {
        "age": np.linspace(23, 38, fetuses), "restricted": np.arange(fetuses) % 2, "identifiable": np.ones(fetuses),
        "dice": np.nan_to_num(0.9 * known), "volume": np.stack([np.full(fetuses, 50.0), 55 * np.nan_to_num(known)], 1),
        "corrupted": np.eye(fetuses, 10, dtype=bool), "left_out": np.eye(fetuses, 10, k=1, dtype=bool), "truth": truth,
        "read": {readings.VOXEL_FIT: read, readings.WITHOUT_OUTLIERS: read},
        "boundary": {name: np.stack([values / 2, values * 2], 1) for name, values in manual.items()},
    }  # fmt: skip


def test_what_too_few_lungs_tell_is_undefined_and_the_rest_is_not():
    margin = dict.fromkeys(readings.PARAMETERS, 0.2)
    some, none = (measure(a_cohort(seen), margin, 26.0, (-3.0, 3.0)) for seen in (9, 0))
    assert (some["lungs_missed"], none["lungs_missed"]) == (3, 12) and none["dice/mean"] == 0
    undefined = {name.split("/")[0] for name, value in none.items() if np.isnan(value)}
    assert undefined == {*AGREEMENT, "regression"}
    assert np.isnan(none["regression/automatic/age"]) and none["regression/manual/age"] == some["regression/manual/age"]
    assert not any(map(np.isnan, some.values())) and some["tost_p/f"] < 1e-3
    assert (some["boundary/-3_mm/d"], some["boundary/+3_mm/d"]) == (-0.5, 1.0)
    together = over_cohorts([some, none])
    assert together["lungs_missed"] == 7.5 and together["icc/f"] == some["icc/f"] and np.isnan(together["sd/icc/f"])
    assert together["min/tost_p/f"] == together["max/tost_p/f"] == some["tost_p/f"]
    assert "sd/lungs_missed" not in over_cohorts([some])

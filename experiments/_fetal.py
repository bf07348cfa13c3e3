"""One cohort of the study of fetal lungs: train on some fetuses, segment others, fit their scans, read the lungs.

The mask of the simulation plays the manual one. Maps are fitted once for a whole scan, since voxels are fitted one by
one; a mask only says which of them are read.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from medjax.ivim.fit import fit
from medjax.ivim.maps import STEPS, Maps, maps, named_maps
from medjax.ivim.outliers import outlier_frames
from medjax.ivim.signal import Ivim
from medjax.metrics.regions import boundary_sensitivity, region_statistics
from medjax.models.model import Model
from medjax.models.plain_unet import plain_unet
from medjax.phantoms.fetal import LUNGS, Fetal, Motion, cohort, fetal
from medjax.running.progress import track
from medjax.running.workdir import WorkDir, stage
from medjax.segmentation import nnunet
from medjax.segmentation.nnunet import Fold, folds, train_fold
from medjax.segmentation.nnunet_predict import predict_case
from medjax.segmentation.patches import prepare
from medjax.segmentation.plan import Case, Plan, fingerprint, plan
from medjax.training.checkpoint import restore, save

TEST = 1_000_000  # seeds of cohorts that are tested on start here
PARAMETERS = ("f", "d", "d_star", "f_d_star")
READINGS: dict[str, dict[str, Any]] = {
    "voxels": {}, "rician": {"noise": "rician"}, "robust": {"noise": "student"}, "segmented": {"method": "segmented"}
}  # fmt: skip
MAIN = "voxels"  # a least-squares fit of each voxel, and the median over the mask
KEPT = "frames left out"  # the same, without frames that do not go with the others in the automatic mask
PURE = 0.99  # share of lung in a voxel whose true parameters count


def scans(config: ConfigDict, seed: int, number: int) -> tuple[Fetal, ...]:
    """A cohort."""
    d = config.data
    scan = partial(
        fetal, bvalues=d.bvalues, shape=d.shape, spacing=d.spacing, snr=d.snr, motion=Motion(**config.motion)
    )
    return cohort(seed, number, d.restricted, tuple(d.ages), scan)


def network(planned: Plan) -> Model:
    """The network of the study, for a plan."""
    return plain_unet(planned.classes, planned.widths, planned.kernels, planned.strides)


def networks(config: ConfigDict, seed: int, work: WorkDir) -> tuple[Plan, list[Any]]:
    """The plan and the trained parameters of each fold; a run that is killed goes on from its last saved epochs."""
    t = config.training
    cases = [
        Case(one.signals[0][..., None], (one.labels == LUNGS).astype(np.int32), one.spacing)
        for one in scans(config, seed, config.data.train)
    ]
    patch = tuple(t.patch) or None
    planned = plan(fingerprint(cases, 2), memory_gb=t.memory_gb, base_width=t.base_width, patch=patch)
    ready = [prepare(case, planned) for case in cases]
    parts = folds(len(ready), seed, min(5, len(ready)))[: t.folds]
    found = []
    for k, (training, validation) in enumerate(parts):
        train = partial(
            _train, config, [ready[i] for i in training], [ready[i] for i in validation], planned, seed, k, work
        )
        like = jax.eval_shape(partial(nnunet.init, network(planned), planned, 5 * seed + k))
        found.append(stage(work, f"network_{seed}_{k}", train, like=like.state.params))
    return planned, found


def _train(config: ConfigDict, training: Any, validation: Any, planned: Plan, seed: int, k: int, work: WorkDir) -> Any:
    t, model = config.training, network(planned)
    folder = work.checkpoints / f"fold_{seed}_{k}"
    kept = restore(folder, nnunet.init(model, planned, 5 * seed + k)) if folder.is_dir() else None

    def report(fold: Fold, values: dict[str, float | int]) -> None:
        if values["epoch"] % t.save_every == 0 or values["epoch"] == t.epochs:
            save(folder, int(values["step"]), fold)

    fold = train_fold(
        model,
        training,
        validation,
        planned,
        seed=5 * seed + k,
        epochs=t.epochs,
        iterations=t.iterations,
        rate=t.rate,
        state=None if kept is None else kept[1],
        report=report,
        progress=partial(track, description=f"steps, cohort {seed} fold {k}"),
    )
    return fold.state.params


def studied(config: ConfigDict, seed: int, planned: Plan, params: list[Any]) -> dict[str, Any]:
    """Every test fetus's Dice, volumes and readings: arrays over fetuses."""
    rows = []
    for one in track(scans(config, TEST + seed, config.data.test), "fetuses"):
        image = one.signals[0][..., None]
        prediction = predict_case(network(planned), params, image, one.spacing, planned, keep={1: 2})
        rows.append(_read(config, one, prediction.labels == 1))
    out = jax.tree.map(lambda *each: np.stack(each), *rows)
    means = jnp.asarray(out.pop("mean_signal").reshape(-1, len(config.data.bvalues)).T)
    averaged = fit(means, jnp.asarray(config.data.bvalues, jnp.float32), steps=STEPS["gaussian"]).parameters
    values = np.stack([averaged.f, averaged.d, averaged.d_star, averaged.f * averaged.d_star], -1)
    values[~np.isfinite(means).all(0)] = np.nan
    out["read"]["mean signal"] = values.reshape(-1, 2, len(PARAMETERS))
    return out


def _read(config: ConfigDict, one: Fetal, automatic: np.ndarray) -> dict[str, Any]:
    """`read`: (mask, parameter) of each reading, the manual mask first."""
    manual = one.labels == LUNGS
    voxel_ml = float(np.prod(one.spacing)) / 1000
    found = {name: _fitted(one, **options) for name, options in READINGS.items()}
    parameters = {name: _volumes(one, maps.parameters) for name, maps in found.items()}
    left_out = outlier_frames(one.signals[:, automatic if automatic.any() else manual], one.bvalues)
    parameters[KEPT] = _volumes(one, _without(one, left_out))
    pure = manual & (one.lung_share > PURE)
    z = int(np.argmax(manual.sum((0, 1))))
    outlines = boundary_sensitivity(named_maps(parameters[MAIN]), manual, one.spacing, config.boundary_mm)
    return {
        "age": one.age,
        "restricted": one.restricted,
        "dice": 2 * float((manual & automatic).sum()) / float(manual.sum() + automatic.sum()),
        "volume": np.array([mask.sum() * voxel_ml for mask in (manual, automatic)]),
        "truth": _medians(Ivim(*one.parameters), pure if pure.any() else manual),
        "read": {name: np.stack([_medians(p, mask) for mask in (manual, automatic)]) for name, p in parameters.items()},
        "boundary": np.stack([np.array([part.maps[name].median for name in PARAMETERS]) for part in outlines.values()]),
        "mean_signal": np.stack([_mean(one.signals[:, mask]) for mask in (manual, automatic)]),
        "identifiable": float(np.asarray(found[MAIN].identifiable).reshape(manual.shape)[manual].mean()),
        "bad": one.bad,
        "left_out": left_out,
        "slice": one.signals[0, :, :, z],
        "outlines": np.stack([mask[:, :, z] for mask in (manual, automatic)]),
    }


def _fitted(one: Fetal, **options: Any) -> Maps:
    return maps(np.asarray(_flat(one)), one.bvalues, **options)


def _without(one: Fetal, left_out: np.ndarray) -> Ivim:
    weights = jnp.asarray(~left_out, jnp.float32)
    return fit(_flat(one), jnp.asarray(one.bvalues), weights=weights, steps=STEPS["gaussian"]).parameters


def _flat(one: Fetal) -> jax.Array:
    return jnp.asarray(one.signals.reshape(len(one.bvalues), -1))


def _volumes(one: Fetal, parameters: Ivim) -> Ivim:
    return Ivim(*(np.asarray(p).reshape(one.labels.shape) for p in parameters))


def _medians(parameters: Ivim, mask: np.ndarray) -> np.ndarray:
    """NaN where the network saw no lung."""
    if not mask.any():
        return np.full(len(PARAMETERS), np.nan)
    part = region_statistics(named_maps(parameters), mask)
    return np.array([part.maps[name].median for name in PARAMETERS])


def _mean(signals: np.ndarray) -> np.ndarray:
    return signals.mean(1) if signals.size else np.full(len(signals), np.nan)

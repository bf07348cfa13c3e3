"""Deformable registration against DIPY SyN, SimpleITK demons, ANTs SyN and picsl-greedy, in one process.

    taskset -c 0 python scripts/bench_registration.py --seeds 1 2 3
    taskset -c 0 python scripts/bench_registration.py --brains FOLDER   # with vxm_test_scan.npz, and nilearn's MNI152

The phantom has 64³ voxels, 7 labels (two textured tissues, five spheres), a smooth random warp of at most 5 voxels, and
noise of 0.03; settings were chosen on seed 0. The brains, at 3 mm: the labelled scan against itself through a known
warp, and MNI152 against the scan after an affine registration by medjax, with grey and white matter as labels.

A peer that is not installed is left out with a line. All get the same two images, and labels are warped by nearest
neighbour with the displacement that each method gives. Seconds are wall clock of one registration, medjax's with its
inverse; its compilation is a column of its own. Threads are as many as the cores the process may use.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from medjax.registration.affine_registration import register_affine
from medjax.registration.evaluation import folds_fraction, inverse_consistency_mm, sd_log_jacobian, target_error_mm
from medjax.registration.greedy import register
from medjax.registration.grid import Grid
from medjax.registration.similarity import lncc, mean_squares
from medjax.registration.transforms import AffineTransform, resample
from medjax.registration.warp import warp_labels

CORES = len(os.sched_getaffinity(0))
ONES = (1.0, 1.0, 1.0)
Fields = tuple[
    np.ndarray, np.ndarray | None
]  # displacement in voxels, component first, and its inverse if there is one


class Case(NamedTuple):
    """Two images to register, labels of both, and the displacement between them if it is known."""

    name: str
    fixed: np.ndarray
    moving: np.ndarray
    fixed_labels: np.ndarray
    moving_labels: np.ndarray
    truth: np.ndarray | None
    voxel_mm: float


def random_warp(draw: np.random.Generator, shape: tuple[int, ...], largest: float) -> np.ndarray:
    """Smooth random displacement, 0 at the edges, whose longest vector is `largest` voxels."""
    sigma = min(shape) / 8
    field = np.stack([ndimage.gaussian_filter(draw.normal(size=shape), sigma, mode="constant") for _ in shape])
    return field * largest / np.sqrt((field**2).sum(0)).max()


def deform(values: np.ndarray, field: np.ndarray, order: int) -> np.ndarray:
    """Values at x + u(x)."""
    points = np.stack(np.meshgrid(*map(np.arange, values.shape), indexing="ij"))
    return ndimage.map_coordinates(values, points + field, order=order, mode="nearest")


def noisy(image: np.ndarray, sigma: float, draw: np.random.Generator) -> np.ndarray:
    """Image with Gaussian noise."""
    return (image + sigma * draw.normal(size=image.shape)).astype(np.float32)


def phantom(seed: int, side: int = 64, noise: float = 0.03) -> Case:
    """Ellipsoid of two textured tissues with five spheres, and the same through a known warp."""
    draw = np.random.default_rng(seed)
    shape = (side,) * 3
    points = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij")).astype(float)
    middle = (side - 1) / 2
    radii = side * np.array([0.42, 0.36, 0.40]).reshape(3, 1, 1, 1)
    distance = np.sqrt((((points - middle) / radii) ** 2).sum(0))
    labels = (distance < 1).astype(np.int32)
    texture = ndimage.gaussian_filter(draw.normal(size=shape), 3.0)
    labels[(distance < 0.92) & (texture > 0)] = 2
    spheres: list[tuple[np.ndarray, float]] = []
    while len(spheres) < 5:
        center, radius = middle + draw.uniform(-0.22, 0.22, 3) * side, draw.uniform(3.5, 6.5) * side / 64
        if all(np.linalg.norm(center - other) > radius + size + 1 for other, size in spheres):
            spheres.append((center, radius))
    for number, (center, radius) in enumerate(spheres):
        labels[((points - center.reshape(3, 1, 1, 1)) ** 2).sum(0) < radius**2] = 3 + number
    image = ndimage.gaussian_filter(np.array([0, 0.55, 0.8, 1, 0.25, 0.65, 0.95, 0.4])[labels], 0.6)
    fine = ndimage.gaussian_filter(draw.normal(size=shape), 1.5)
    image = image + 0.04 * fine / fine.std() * (labels > 0)
    field = random_warp(draw, shape, 5.0)
    fixed, moving = (noisy(each, noise, draw) for each in (deform(image, field, 1), image))
    return Case(f"phantom {seed}", fixed, moving, deform(labels, field, 0), labels, field.astype(np.float32), 1.0)


def brains(folder: Path) -> list[Case]:
    """The labelled scan through a known warp, and MNI152 with the scan on its grid by an affine registration."""
    from medjax.phantoms.mni import mni_anatomy

    with np.load(folder / "vxm_test_scan.npz") as file:
        scan, regions = file["vol"].astype(np.float32), file["seg"].astype(np.int32)
    with np.load(folder / "vxm_labels.npz") as file:
        kept = file["labels"]
    numbers = np.where(np.isin(regions, kept), np.searchsorted(kept, regions), -1) + 1
    coarse = ndimage.zoom(scan / scan.max(), 1 / 3, order=1).astype(np.float32)
    labels = ndimage.zoom(numbers, 1 / 3, order=0).astype(np.int32)
    draw = np.random.default_rng(0)
    field = random_warp(draw, coarse.shape, 4.0)
    fixed, moving = noisy(deform(coarse, field, 1), 0.02, draw), noisy(coarse, 0.02, draw)
    there = deform(labels, field, 0)
    known = Case("brain, known warp", fixed, moving, there, labels, field.astype(np.float32), 3.0)

    anatomy = mni_anatomy()
    third = (slice(None, None, 3),) * 3
    target = ndimage.gaussian_filter(anatomy.t1 / anatomy.t1.max(), 1.0)[third].astype(np.float32)
    tissue = np.where(anatomy.white > 0.5, 2, np.where(anatomy.gray > 0.5, 1, 0))[third].astype(np.int32)
    target_grid = Grid(target.shape, anatomy.affine @ np.diag([3.0, 3, 3, 1]))
    # the scan's axes go to the left, down and to the front
    turn = np.array([[-3.0, 0, 0], [0, 0, 3], [0, -3, 0]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn, -turn @ ((np.array(coarse.shape) - 1) / 2)
    scan_grid = Grid(coarse.shape, affine)
    matrix = register_affine(target, target_grid, coarse, scan_grid, kind="affine", factors=(2, 1), iterations=(80, 40))
    chain = (AffineTransform(matrix),)
    white = np.isin(regions, [2, 41]) * 2 + np.isin(regions, [3, 42, 10, 11, 12, 13, 17, 18, 49, 50, 51, 52, 53, 54])
    own = ndimage.zoom(white.astype(np.int32), 1 / 3, order=0)
    near = np.asarray(resample(coarse, scan_grid, target_grid, chain))
    near_labels = np.asarray(resample(own, scan_grid, target_grid, chain, order="nearest", outside=0))
    return [known, Case("MNI152 and a brain", target, near, tissue, near_labels, None, 3.0)]


def ours(similarity: Callable[..., Any], case: Case) -> Fields:
    """medjax's greedy registration."""
    result = jax.block_until_ready(register(jnp.asarray(case.fixed), jnp.asarray(case.moving), similarity=similarity))
    return np.asarray(result.displacement), np.asarray(result.inverse)


def from_coordinates(warp: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Displacement of a method that warps images: of the coordinates themselves; 0 where they leave the image."""
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(np.float32)
    inside = warp(np.ones(shape, np.float32)) > 0.999
    return np.stack([np.where(inside, warp(one) - one, 0) for one in points])


def dipy_syn(case: Case) -> Fields:
    """DIPY's SyN with cross-correlation of radius 2."""
    imwarp, metrics = import_module("dipy.align.imwarp"), import_module("dipy.align.metrics")
    method = imwarp.SymmetricDiffeomorphicRegistration(metrics.CCMetric(3, radius=2), level_iters=[100, 60, 30])
    mapping = method.optimize(case.fixed, case.moving)
    return from_coordinates(mapping.transform, case.fixed.shape), from_coordinates(
        mapping.transform_inverse, case.fixed.shape
    )


def demons(case: Case) -> Fields:
    """SimpleITK's diffeomorphic demons, 100 iterations."""
    sitk = import_module("SimpleITK")
    method = sitk.DiffeomorphicDemonsRegistrationFilter()
    method.SetNumberOfIterations(100)
    method.SetStandardDeviations(1.0)
    method.SetNumberOfThreads(CORES)
    field = method.Execute(*(sitk.GetImageFromArray(each.T) for each in (case.fixed, case.moving)))
    return sitk.GetArrayFromImage(field).T, None


def picsl_greedy(case: Case) -> Fields:
    """Greedy of PICSL with NCC of radius 2."""
    sitk = import_module("SimpleITK")
    method = import_module("picsl_greedy").Greedy3D()
    fixed, moving = (sitk.GetImageFromArray(each.T.copy()) for each in (case.fixed, case.moving))
    with silence():
        options = f"-i f m -o d -m NCC 2x2x2 -n 100x60x30 -d 3 -threads {CORES} -V 0"
        method.execute(options, f=fixed, m=moving, d=None)
    return sitk.GetArrayFromImage(method["d"]).T, None


def ants_syn(case: Case) -> Fields:
    """ANTs' SyN with cross-correlation of radius 2, without its affine step."""
    ants = import_module("ants")
    fixed, moving = (ants.from_numpy(each) for each in (case.fixed, case.moving))
    done = ants.registration(
        fixed, moving, "SyNOnly", initial_transform="Identity", syn_metric="CC", syn_sampling=2,
        reg_iterations=(100, 60, 30),
    )  # fmt: skip

    def through(transforms: list[str], invert: list[bool] | None, values: np.ndarray) -> np.ndarray:
        return ants.apply_transforms(fixed, ants.from_numpy(values), transforms, whichtoinvert=invert).numpy()

    shape = case.fixed.shape
    forward = partial(through, done["fwdtransforms"], None)
    backward = partial(through, done["invtransforms"], [name.endswith(".mat") for name in done["invtransforms"]])
    return from_coordinates(forward, shape), from_coordinates(backward, shape)


class silence:
    """Context in which what native code prints is dropped."""

    def __enter__(self) -> None:
        self.kept, self.null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
        os.dup2(self.null, 1)

    def __exit__(self, *_: object) -> None:
        os.dup2(self.kept, 1)
        os.close(self.kept)
        os.close(self.null)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Mean Dice of the labels above 0 that either map has."""
    labels = np.setdiff1d(np.union1d(one, other), [0])
    pairs = [(one == label, other == label) for label in labels]
    return float(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs]))


def row(name: str, case: Case, fields: Fields, seconds: float, compiling: float | None) -> str:
    """Line of the table."""
    displacement, inverse = (None if each is None else jnp.asarray(each, jnp.float32) for each in fields)
    assert displacement is not None
    after = dice(np.asarray(warp_labels(jnp.asarray(case.moving_labels), displacement)), case.fixed_labels)
    mm = (case.voxel_mm,) * 3
    inside = jnp.asarray(case.fixed_labels > 0, jnp.float32)
    error = "–" if case.truth is None else f"{target_error_mm(displacement, jnp.asarray(case.truth), mm, inside):.3f}"
    consistency = "–" if inverse is None else f"{inverse_consistency_mm(displacement, inverse, mm):.4f}"
    folds, regularity = 100 * folds_fraction(displacement), sd_log_jacobian(displacement)
    compile_text = "–" if compiling is None else f"{compiling:.1f}"
    before = dice(case.moving_labels, case.fixed_labels)
    return (
        f"| {case.name} | {name} | {before:.3f} | {after:.4f} | {error} | {folds:.4f} | {regularity:.3f} | "
        f"{consistency} | {seconds:.2f} | {compile_text} |"
    )


def batching(pairs: int = 4) -> str:
    """Seconds of registering pairs one by one and at once."""
    cases = [phantom(100 + number, side=32) for number in range(pairs)]
    fixed, moving = (jnp.stack([jnp.asarray(case[k]) for case in cases]) for k in (1, 2))
    alone = partial(register, similarity=lncc(2))
    together = jax.jit(jax.vmap(alone))

    def loop() -> list[Any]:
        return [alone(one, other) for one, other in zip(fixed, moving, strict=True)]

    times = []
    for call in (loop, lambda: together(fixed, moving)):
        jax.block_until_ready(call())
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    gain = times[0] / times[1]
    return f"\n{pairs} pairs of 32³ voxels: one by one {times[0]:.2f} s, at once {times[1]:.2f} s ({gain:.2f} ×)"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3], help="Seeds of the phantoms.")
    parser.add_argument("--brains", type=Path, help="Folder with vxm_test_scan.npz: brains instead of phantoms.")
    parser.add_argument("--without", nargs="*", default=[], help="Methods to leave out, such as ANTs.")
    settings = parser.parse_args()
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(CORES)
    cases = brains(settings.brains) if settings.brains else [phantom(seed) for seed in settings.seeds]
    methods: dict[str, Callable[[Case], Fields]] = {
        "medjax, LNCC": partial(ours, lncc(2)), "medjax, MSE": partial(ours, mean_squares),
        "DIPY SyN": dipy_syn, "SimpleITK demons": demons, "picsl-greedy": picsl_greedy, "ANTs SyN": ants_syn,
    }  # fmt: skip
    print(f"{CORES} cores\n")
    print("| pair | method | Dice before | after | target error mm | folds % | SD log J | inverse mm | s | compile s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    missing = {}
    for case in cases:
        for name, method in methods.items():
            if name in missing or any(word.lower() in name.lower() for word in settings.without):
                continue
            try:
                times = []
                fields: Fields | None = None
                for _ in range(2 if "medjax" in name else 1):
                    start = time.perf_counter()
                    fields = method(case)
                    times.append(time.perf_counter() - start)
            except ImportError as error:
                missing[name] = error
                continue
            assert fields is not None
            print(row(name, case, fields, times[-1], times[0] - times[-1] if len(times) > 1 else None), flush=True)
    for name, error in missing.items():
        print(f"\n{name} is left out: {error}")
    if not settings.brains:
        print(batching())


if __name__ == "__main__":
    main()

"""Denoising error of score priors by noise level, beside non-local means and total variation; samples; learning curve.

    python scripts/denoising_by_level.py noise_free old=brain.npz --samples samples.png
    python scripts/denoising_by_level.py noise_free --metrics prior/metrics.jsonl --curve curve.png

Images are slices of heads that no prior has seen, of mean emission 1, with white noise of σ; printed is the mean
squared error over σ² d² / (σ² + d²), d the root mean square of the slices: 1 is the best denoiser of white Gaussian
images. The strengths of non-local means and of total variation are those with the least error at each level on slices
of other heads. Samples take 40 Heun steps to σ = 0.03 from slices of held-out heads with noise of σ = 4, which are of
the exact distribution there: coarse shape is the slice's, the rest the prior's.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from medjax import iterate
from medjax.diffusion import guidance, sampler
from medjax.diffusion.prior import Prior, slice_denoiser
from medjax.diffusion.prior_file import load_prior
from medjax.diffusion.prior_training import training_slices
from medjax.diffusion.prior_validation import SIGMAS, select_evenly
from medjax.diffusion.score_matching import normalize_intensity
from medjax.diffusion.sde import time_of_sigma
from medjax.phantoms.mni import tissue_fractions
from medjax.phantoms.uptake import FAMILY, Family, random_activity
from medjax.report.figures import curves, write_png
from medjax.report.gallery import gallery
from medjax.running.progress import track

TEST_SEED, TUNING_SEED = 21_000, 22_000  # first seeds of heads; training ends below 10 000
FAMILIES = {"the family": FAMILY, "FDG-like, no lesions": Family(dpa714=0.0, lesions=0.0, strengths=(1.0, 1.0))}
TV_WEIGHTS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)  # in units of σ
NLM_STRENGTHS = (0.3, 0.45, 0.6, 0.8, 1.1, 1.5)
SAMPLE_SIGMAS, STEPS = (4.0, 0.03), 40
Slices = dict[str, np.ndarray]


def slices_of(family: Family, first: int, heads: int, number: int, voxel_mm: float, size: int) -> Slices:
    """Slices of random heads, as many of each orientation."""
    tissues, affine = tissue_fractions()
    volumes = []
    for seed in track(range(first, first + heads), "heads"):
        head = jnp.asarray(random_activity(seed, tissues, affine, voxel_mm, (size,) * 3, family))
        volumes.append(np.asarray(normalize_intensity(head))[..., None])
    return select_evenly(training_slices(volumes), number)


def with_noise(clean: np.ndarray, sigma: float) -> np.ndarray:
    """Noisy slices, the same noise at all levels."""
    return clean + sigma * np.random.default_rng(0).standard_normal(clean.shape).astype(np.float32)


def relative_error(denoised: np.ndarray, clean: np.ndarray, sigma: float) -> float:
    """Mean squared error over that of the best denoiser of white Gaussian images of the same second moment."""
    return float(np.mean((denoised - clean) ** 2) * (1 / sigma**2 + 1 / np.mean(clean**2)))


@partial(jax.jit, static_argnames="axis")
def by_prior(prior: Prior, noisy: jax.Array, sigma: float, axis: int) -> jax.Array:
    """Slices denoised by a prior."""
    t = time_of_sigma(prior.sde, sigma)
    return slice_denoiser(prior, axis)(prior.sde.marginal(t)[0] * noisy, jnp.full(len(noisy), t))


def non_local_means(noisy: np.ndarray, sigma: float, strength: float) -> np.ndarray:
    """Slices denoised by non-local means with patches of 5² pixels within 7, h = `strength` · σ."""
    from skimage.restoration import denoise_nl_means

    options = {"patch_size": 5, "patch_distance": 7, "sigma": sigma, "fast_mode": True}
    return np.stack([denoise_nl_means(one, h=strength * sigma, **options) for one in noisy])


def total_variation(noisy: np.ndarray, sigma: float, strength: float) -> np.ndarray:
    """Slices denoised by total variation of weight `strength` · σ."""
    from skimage.restoration import denoise_tv_chambolle

    return np.stack([denoise_tv_chambolle(one, weight=strength * sigma) for one in noisy])


def conventional(
    method: Callable[..., np.ndarray], strengths: Sequence[float], tuning: np.ndarray, test: np.ndarray
) -> list[float]:
    """Error of a conventional denoiser at each level, its strength the best one on the tuning slices."""
    errors = []
    for sigma in track(SIGMAS, method.__name__):
        noisy = with_noise(tuning, sigma)
        best = min(strengths, key=lambda h: relative_error(method(noisy, sigma, h), tuning, sigma))
        errors.append(relative_error(method(with_noise(test, sigma), sigma, best), test, sigma))
    return errors


def errors_of(prior: Prior, slices: Slices) -> list[float]:
    """Error of a prior at each level."""
    clean, axes = slices["slices"][..., 0].astype(np.float32), slices["axes"]
    errors = []
    for sigma in SIGMAS:
        noisy = with_noise(clean, sigma)
        denoised = np.zeros_like(clean)
        for axis in prior.settings.orientations:
            denoised[axes == axis] = by_prior(prior, jnp.asarray(noisy[axes == axis]), sigma, axis)
        errors.append(relative_error(denoised, clean, sigma))
    return errors


def samples(prior: Prior, slices: Slices, axis: int, number: int) -> np.ndarray:
    """Samples of the prior, perpendicular to an axis, each from a slice with noise of σ = 4."""
    heads = select_evenly({name: array[slices["axes"] == axis] for name, array in slices.items()}, number)
    start = jnp.asarray(heads["slices"][..., 0], jnp.float32)
    t_max, t_min = (float(time_of_sigma(prior.sde, sigma)) for sigma in SAMPLE_SIGMAS)
    times = sampler.karras_times(prior.sde, STEPS, t_max=t_max, t_min=t_min)
    algorithm = sampler.sampler(guidance.prior_only(slice_denoiser(prior, axis)), prior.sde, times, sampler.heun)

    def one(key: jax.Array, head: jax.Array) -> jax.Array:
        return iterate.scan(algorithm, algorithm.init(key, head.shape, head), STEPS)[0].x0

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(axis), len(start)), start))


def plot_samples(path: Path, prior: Prior, slices: Slices, number: int = 8) -> None:
    """Samples of each orientation, upright."""
    images = [samples(prior, slices, axis, number) for axis in prior.settings.orientations]
    upright = np.concatenate(images).transpose(0, 2, 1)[:, ::-1]
    write_png(
        path,
        gallery(
            np.clip(upright, 0, None),
            columns=number,
            note="Samples of the prior without data, from held-out slices with noise of σ = 4.",
        ),
    )


def plot_curve(path: Path, metrics: Path) -> None:
    """Validation error by noise level against training steps, of a metrics.jsonl."""
    rows = [row for row in map(json.loads, metrics.read_text().splitlines()) if f"error/{SIGMAS[0]:g}" in row]
    series = {f"σ = {sigma:g}": [row[f"error/{sigma:g}"] for row in rows] for sigma in SIGMAS}
    steps = [row["step"] for row in rows]
    write_png(path, curves(steps, series, "training steps", "denoising error (1: white Gaussian)", log_y=True))


def main() -> None:
    """Print the table, write the figures asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("priors", nargs="+", metavar="[LABEL=]PRIOR", help="names of shipped priors, or files")
    parser.add_argument("--heads", type=int, default=6, help="heads of each family (default 6)")
    parser.add_argument("--slices", type=int, default=48, help="slices of each family (default 48)")
    parser.add_argument("--samples", type=Path, help="PNG of unconditional samples of the first prior")
    parser.add_argument("--metrics", type=Path, help="metrics.jsonl of a training, for --curve")
    parser.add_argument("--curve", type=Path, help="PNG of the learning curve")
    options = parser.parse_args()
    priors = {text.partition("=")[0]: load_prior(text.rpartition("=")[2]) for text in options.priors}
    first = next(iter(priors.values()))
    if options.curve:
        plot_curve(options.curve, options.metrics)
    for name, family in FAMILIES.items():
        grid = first.settings.voxel_mm, first.settings.size
        test = slices_of(family, TEST_SEED, options.heads, options.slices, *grid)
        tuning = slices_of(family, TUNING_SEED, 2, 12, *grid)["slices"][..., 0].astype(np.float32)
        clean = test["slices"][..., 0].astype(np.float32)
        if options.samples and name == "the family":
            plot_samples(options.samples, first, test)
        rows = {label: errors_of(prior, test) for label, prior in priors.items()}
        rows["non-local means"] = conventional(non_local_means, NLM_STRENGTHS, tuning, clean)
        rows["total variation"] = conventional(total_variation, TV_WEIGHTS, tuning, clean)
        print(f"{name}: {len(clean)} slices\n{'σ':24s}" + "".join(f"{sigma:>8g}" for sigma in SIGMAS))
        for label, errors in rows.items():
            print(f"{label:24s}" + "".join(f"{error:8.3f}" for error in errors))


if __name__ == "__main__":
    main()

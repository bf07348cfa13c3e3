"""Bias–variance study of PET reconstructions: a table of every method, setting, point and region, and the curves.

study = bias_variance_study(expected, truth, {"OSEM": osem, "MAP-EM": map_em}, regions, "study", realizations=100)

writes study/bias_variance.csv and study/bias_variance.png; methods are `medjax.pet.bias_variance.Method`s.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from medjax.atomic import replacing_together, write_csv
from medjax.errors import DataError
from medjax.pet.bias_variance import BiasVariance, Method, bias_variance
from medjax.report.bias_sd_curves import Curve, plot_bias_sd
from medjax.report.figures import png
from medjax.tools.checks import as_paths, check_output_files, check_output_folder, check_seed

COLUMNS = (
    "method", "setting", "point", "region", "true_mean", "bias", "bias_low", "bias_high", "sd", "sd_low", "sd_high",
    "voxel_sd",
)  # fmt: skip
AnyArray = Array | np.ndarray


def bias_variance_study(
    expected: Float[AnyArray, "..."],
    truth: Float[AnyArray, "x y z"],
    methods: Mapping[str, Method],
    regions: Mapping[str, Bool[AnyArray, "x y z"]] | None = None,
    output: Path | str | None = None,
    *,
    realizations: int = 50,
    chunk: int = 8,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    title: str = "Bias and standard deviation",
) -> dict[str, BiasVariance]:
    """Bias and standard deviation of reconstruction methods over noise realizations, written as a table and a figure.

    A method of several points has a curve over them for each of its settings; one of a single point, a curve over its
    settings. The table is in the image's unit; the figure in % of the true mean of the region.

    Args:
        expected: expected counts, as the methods take them.
        truth: true image.
        methods: methods by name.
        regions: masks by name; None: the whole image.
        output: folder for bias_variance.csv and bias_variance.png, created if need be; None: no file.
        realizations: number of noise realizations.
        chunk: number of realizations that are reconstructed at once; it bounds memory.
        resamples: number of bootstrap resamples.
        level: probability of the confidence intervals.
        seed: random seed.
        title: title of the figure.

    Raises:
        ConfigError: a seed or an output that cannot be used.
        DataError: see `medjax.pet.bias_variance.bias_variance`; or a region whose true mean is not above 0.
    """
    [output] = as_paths(output)
    check_seed(seed)
    masks = {"whole image": np.ones(truth.shape, bool)} if regions is None else regions
    true_means = {name: float(np.mean(np.asarray(truth)[np.asarray(mask)])) for name, mask in masks.items()}
    if dark := [name for name, mean in true_means.items() if not mean > 0]:
        raise DataError(f"region {dark[0]}: true mean {true_means[dark[0]]:g}; expected more than 0")
    files: list[Path] = []
    if output is not None:
        check_output_folder(output)
        files = [output / "bias_variance.csv", output / "bias_variance.png"]
        check_output_files(files)
    study = bias_variance(
        jax.random.key(seed),
        expected,
        truth,
        methods,
        masks,
        realizations=realizations,
        chunk=chunk,
        resamples=resamples,
        level=level,
    )
    if output is not None:
        note = f"{realizations} noise realizations; bands and bars: {100 * level:g} % bootstrap intervals"
        figure = plot_bias_sd(curves(study, true_means), unit="% of the true mean", title=title, note=note)
        output.mkdir(parents=True, exist_ok=True)
        with replacing_together(*files) as (table, picture):
            write_csv(table, COLUMNS, rows(study, true_means))
            picture.write_bytes(png(figure))
    return study


def rows(study: Mapping[str, BiasVariance], true_means: Mapping[str, float]) -> list[Sequence[Any]]:
    """Rows of the table, by `COLUMNS`."""
    return [
        (
            name, setting, point, region, mean, float(one.bias[s, p, r]), *one.bias_interval[:, s, p, r].tolist(),
            float(one.sd[s, p, r]), *one.sd_interval[:, s, p, r].tolist(), float(one.voxel_sd[s, p, r]),
        )
        for name, one in study.items()
        for s, setting in enumerate(one.settings.tolist())
        for p, point in enumerate(one.points.tolist())
        for r, (region, mean) in enumerate(true_means.items())
    ]  # fmt: skip


def curves(study: Mapping[str, BiasVariance], true_means: Mapping[str, float]) -> dict[str, dict[str, Curve]]:
    """Curves by region and method in % of the true means: over points for each setting, or over settings."""
    panels: dict[str, dict[str, Curve]] = {region: {} for region in true_means}
    for r, (region, mean) in enumerate(true_means.items()):
        for name, one in study.items():
            scaled = [100 / mean * a for a in (one.sd[..., r], one.bias[..., r])]
            ends = [100 / mean * a for a in (one.sd_interval[..., r], one.bias_interval[..., r])]
            if len(one.points) == 1:
                panels[region][name] = Curve(*[a[:, 0] for a in scaled], *[a[:, :, 0] for a in ends])
                continue
            for s, setting in enumerate(one.settings.tolist()):
                label = name if len(one.settings) == 1 else f"{name}, {setting:g}"
                panels[region][label] = Curve(*[a[s] for a in scaled], *[a[:, s] for a in ends])
    return panels

"""Low-count volumes judged over noise realisations: bias and deviation against the truth and a full-count image."""

from typing import Any

import numpy as np

from experiments.pet.comparison import Study
from experiments.pet.methods import title
from experiments.pet.scans import Scans
from medjax.metrics.image import bias_and_standard_deviation, roughness
from medjax.metrics.summary import cell
from medjax.report.html import Section, Table

COLUMNS = {
    "nrmse": "NRMSE", "nrmse_full_count": "against full counts", "bias": "bias",
    "bias_full_count": "against full counts", "deviation": "deviation",
    "roughness_between": "roughness between slices", "roughness_within": "within",
}  # fmt: skip
NOTE = (
    "NRMSE of one realisation, and normalised bias of the mean of all, in the brain: against the truth and OSEM "
    "of the full-count scan that they are thinned from. Deviation: SD over realisations / mean, in white matter. "
    "Roughness of the first realisation, between transverse slices and within them, in units of the truth's."
)


def volume_section(study: Study, errors: dict[str, float]) -> tuple[dict[str, float], Section]:
    """Metrics over noise realisations, `MEASURE/METHOD/COUNTS`, and their table; `errors` has the NRMSEs."""
    metrics, rows = dict[str, float](), list[list[Any]]()
    for level in study.inputs.levels:
        for name, done in study.results.items():
            images, cases = done.image[study.cases.level == np.float32(level)], study.cases.at_level(level)
            metrics |= {f"{key}/{name}/{level:g}": value for key, value in _measures(images, cases, study).items()}
            known = errors | metrics
            rows.append([f"{level:g}", title(name), *(cell(known, f"{key}/{name}/{level:g}", 3) for key in COLUMNS)])
    return metrics, Section("Realisations", NOTE, table=Table(["trues/mm³", "method", *COLUMNS.values()], rows))


def _measures(images: np.ndarray, cases: Scans, study: Study) -> dict[str, float]:
    """Means over the heads of one count level, whose realisations follow one another."""
    rows = []
    for first in range(0, cases.number, study.realizations):
        own, case = images[first : first + study.realizations], cases.select(first)
        references = (case.truth, np.asarray(case.full_count))
        truth, full = (bias_and_standard_deviation(own, one, case.mask, case.white) for one in references)
        rough = [roughness(own[0], axis, case.mask) / roughness(case.truth, axis, case.mask) for axis in (2, 0)]
        rows.append([truth.normalized_bias, full.normalized_bias, truth.normalized_deviation, *rough])
    names = ("bias", "bias_full_count", "deviation", "roughness_between", "roughness_within")
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))

"""Can averaged, registered PETs of other people train a prior for one person? Pseudo-PET by registration (paper 9).

Twelve people have a full-count PET and an MR. The MR of each is registered to that of a target subject, the field
carries the PET along, and means of random subsets S of the carried PETs are pseudo-PETs: images of the target's anatomy
with the uptake of others, and with less noise the larger S is. A score prior learns from them, one for each |S| and
target, and another one from the PETs as they are. All begin with the same trained network and make as many steps. Then
direct planes of the targets' low-count scans are reconstructed with these priors, by OSEM and by MAP-EM with a
quadratic penalty and with the MR's Bowsher weights, on the scanner of the cohort and on another one at another count
level: grey–white contrast against the noise of white matter along each method's hyper-parameter, and errors at values
tuned on a validation head.
"""

from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments.pet import contrast_noise, planning, pseudo_report
from experiments.pet.cohort_registration import (
    Fields,
    Registrar,
    bounding_box_of,
    default_registrar,
    field_error_mm,
    register_cohort,
)
from experiments.pet.contrast_noise import CONVENTIONAL, competitor, scan_methods, scan_target
from experiments.pet.multi_subject import People, heads_of, plane_heights, read_anatomies, scan_people
from experiments.pet.pseudo_priors import first_prior, personal_priors
from experiments.pet.pseudo_report import pseudo
from experiments.pet.pseudo_sets import CarriedImages, carry_cohort, pseudo_pets, set_measures
from experiments.pet.scans import ScanSetup, setup, volume_setup
from medjax.diffusion.prior import Prior
from medjax.pet.scanner import preset
from medjax.phantoms.multi_subject import SubjectHead
from medjax.report.html import Figure, Report
from medjax.running.experiment import Result, run_module
from medjax.running.plan import Stage
from medjax.running.workdir import WorkDir, stage

FIRST_TARGET = 1000  # number of the first target subject; the last one is the validation head
Measures = dict[str, np.ndarray]
TRUTH_MEASURES = ("contrast", "background_sd")
FLAT_TRACER = "dpa714"  # whose PET shows less of the anatomy, for registration by PET


class Carriage(NamedTuple):
    """The cohort carried to each target, of which the last one is the validation head."""

    volume: ScanSetup  # of the cohort's scans
    cohort: People
    targets: People
    heads: list[SubjectHead]  # of the targets
    person: SubjectHead  # the first of the cohort
    carried: list[CarriedImages]
    fields: dict[str, list[Fields]]  # by the image that was registered


def run(config: ConfigDict, work: WorkDir, *, registrar: Registrar | None = None) -> Result:
    """Carry the cohort, fine-tune priors, reconstruct. `registrar`: (fixed, moving, grid) → displacement, voxels."""
    r, sizes = config.registration, tuple(config.pseudo.sizes)
    every = carry(config, work, default_registrar(r.factors, r.iterations) if registrar is None else registrar)
    metrics = pseudo_report.registration_metrics(every.fields) | _field_error(work, every)
    rows = {size: [set_measures(one, size, config.seed) for one in every.carried[:-1]] for size in sizes}
    metrics |= pseudo_report.set_metrics(rows)
    own = [sizes] * config.cohort.targets + [(_middle(sizes),)]  # the validation head has one pseudo-PET prior
    priors = personal_priors(config, work, first_prior(config), list(every.cohort.pet), every.carried, own)
    figures, scanners = dict[str, list[Figure]](curves=[], images=[]), dict[str, str]()
    for number, scanner in enumerate(config.test.scanners):
        where = f"{scanner}_{config.test.trues_per_mm3[number]:g}"
        scanners[where] = f"{scanner}, {config.test.trues_per_mm3[number]:g} trues/mm³"
        metrics |= _reconstructions(config, work, every, priors, number, (where, scanners[where]), figures)
    shown = {size: pseudo_pets(every.carried[0], size, 1, config.seed)()[0] for size in sizes}
    carried, grid = every.carried[0].pets, every.volume.grid
    figures["cohort"] = [pseudo_report.cohort_figure(work, every.cohort, every.targets, carried, shown, grid)]
    figures["noise"] = [pseudo_report.noise_figure(work, metrics, sizes)]
    methods = [*CONVENTIONAL, *priors[0]]
    sections = pseudo_report.sections_of(metrics, figures, list(every.fields), sizes, methods, scanners)
    data = (
        f"Simulated: {config.cohort.people} people and {config.cohort.targets} targets, FDG-like, real anatomies "
        f"deformed, with cortices, sulci and ventricles of their own; PETs of the cohort are OSEM images at "
        f"{config.cohort.trues_per_mm3:g} trues/mm³ on the {config.cohort.scanner} ring. Curves and errors: "
        f"{config.test.planes} direct planes of each target, {config.test.realizations} noise realisations."
    )
    remark = "The paper's figures are of real [18F]DPA-714 scans; only the order of methods can be compared."
    table = pseudo_report.tuned_table(metrics, methods, scanners)
    return Result(metrics, Report("Priors from averaged, registered PETs", [data, remark], sections), table)


def plan(config: ConfigDict) -> list[Stage]:
    """Stages of the study: images and registrations of the cohort, fine-tuning of priors, and reconstructions."""
    c, t, test, sizes = config.cohort, config.training, config.test, tuple(config.pseudo.sizes)
    flat, fields = min(config.registration.by_pet, c.people), c.people * (c.targets + 1)
    plane = setup(preset(c.scanner), config.grid.size, config.grid.voxel_mm, test.background)
    volume, start = volume_setup(plane, config.grid.planes), first_prior(config)
    priors = 2 + c.targets * len(sizes)  # real PETs, pseudo-PETs of every target, and of the validation head
    stages = [
        planning.cohort_images(volume, c.iterations, c.people + c.targets + 1 + (flat + 1 if flat else 0)),
        planning.registrations(config, volume.grid.shape, fields + 2 * flat),
        planning.fine_tuning("fine-tuning", start, config.grid.size, t.batch, t.steps, priors),
    ]
    for number, scanner in enumerate(test.scanners):
        plane = setup(preset(scanner), config.grid.size, config.grid.voxel_mm, test.background)
        known = dict.fromkeys(CONVENTIONAL, 1) | {"prior": 2 + len(sizes)}
        for name, names in known.items():
            cases = contrast_noise.number_of_cases(name, test, c.targets, curves=number == 0)
            method, grid = contrast_noise.single_method(name, start)
            title = f"{name}, {scanner}"
            size = config.scans_per_batch
            stages.append(planning.reconstructions(name, plane, method, grid, names * cases, size, title))
    return stages


def carry(config: ConfigDict, work: WorkDir, registrar: Registrar) -> Carriage:
    """Simulate the cohort and the targets; register everyone to each by MR, and some to the first by PET."""
    c, seed, number = config.cohort, config.seed, config.cohort.targets + 1
    anatomies = read_anatomies(c.anatomies, c.anatomy_mm)
    plane = setup(preset(c.scanner), config.grid.size, config.grid.voxel_mm, config.test.background)
    volume = volume_setup(plane, config.grid.planes)
    targeted = range(FIRST_TARGET, FIRST_TARGET + number)

    def people(name: str, numbers: range, tracer: str) -> People:
        return scan_people(
            work, volume, anatomies, name, numbers, c.trues_per_mm3, seed, tracer, c.strength, c.iterations
        )

    cohort, targets = people("person", range(c.people), "fdg"), people("target", targeted, "fdg")
    box = bounding_box_of(cohort.mask.any(axis=0) | targets.mask.any(axis=0))

    def register(name: str, moving: People, fixed: People, t: int, images: str = "mr") -> Fields:
        return register_cohort(work, name, moving, fixed, t, volume.grid, registrar, images, box)

    mr = [register(f"field_{t}", cohort, targets, t) for t in range(number)]
    fields = {"mr": mr[:-1]}
    if few := min(config.registration.by_pet, c.people):
        flat = people("flat_person", range(few), FLAT_TRACER), people("flat_target", targeted[:1], FLAT_TRACER)
        by_pet = {"pet_fdg": (cohort.first(few), targets), f"pet_{FLAT_TRACER}": flat}
        for name, pair in by_pet.items():
            fields[name] = [register(f"field_{name}", *pair, 0, "pet")]
    heads = heads_of(anatomies, seed, FIRST_TARGET, number, "fdg", c.strength)
    [person] = heads_of(anatomies, seed, 0, 1, "fdg", c.strength)
    carried = [carry_cohort(cohort, one, targets, t) for t, one in enumerate(mr)]
    return Carriage(volume, cohort, targets, heads, person, carried, fields)


def _field_error(work: WorkDir, every: Carriage) -> dict[str, float]:
    """Error of the field between the first target and the first person, before and after: theirs is known."""
    target, person = every.heads[0], every.person
    if target.anatomy != person.anatomy:
        return {}
    field, mask = every.fields["mr"][0].displacements[0], every.targets.mask[0]
    pair = (field, target, person, mask, every.volume.grid)
    found = stage(work, "field_error", lambda: {"mm": np.array(field_error_mm(*pair))})
    return dict(zip(("field_error_before_mm", "field_error_mm"), found["mm"].tolist(), strict=True))


def _reconstructions(
    config: ConfigDict, work: WorkDir, every: Carriage, priors: list[dict[str, Prior]], number: int,
    condition: tuple[str, str], figures: dict[str, list[Figure]],
) -> dict[str, float]:  # fmt: skip
    """Tune on the validation head's scans, reconstruct the targets' with every method; curves on the first scanner."""
    where, title = condition
    t, seed, level = config.test, config.seed, config.test.trues_per_mm3[number]
    plane = setup(preset(t.scanners[number]), config.grid.size, config.grid.voxel_mm, t.background)
    methods, heights = scan_methods(plane, config.scans_per_batch), plane_heights(every.volume, t.planes)
    scans = [
        scan_target(work, f"scans_{where}_{k}", plane, head, heights, level, t.realizations, seed + k)
        for k, head in enumerate(every.heads)
    ]
    names, values = [*CONVENTIONAL, *priors[0]], t.values_per_hyperparameter
    settings, shown = dict[str, dict[str, float]](), {"truth": scans[0].cases.truth[0]}
    curves, tuned = dict[str, Measures](), dict[str, Measures]()
    for name in names:
        kind = name if name in CONVENTIONAL else "prior"
        stands = name if name in (*CONVENTIONAL, *priors[-1]) else pseudo(_middle(config.pseudo.sizes))
        if stands not in settings:
            trial = competitor(methods, stands, priors[-1].get(stands))
            scanned = (trial, scans[-1], kind, values, seed)
            settings[stands] = contrast_noise.tune(work, f"tuned_{where}_{stands}", *scanned)
        rows, lines = list[Measures](), list[Measures]()
        for k in range(config.cohort.targets):
            method, key = competitor(methods, name, priors[k].get(name)), f"{where}_{name}_{k}"
            samples = t.samples if kind == "prior" else 1
            found = contrast_noise.test(work, f"test_{key}", method, scans[k], settings[stands], samples, seed)
            rows.append(found)
            if number == 0:
                lines.append(contrast_noise.curve(work, f"curve_{key}", method, scans[k], kind, values, seed))
        tuned[name], shown[name] = contrast_noise.over_targets(rows, 0), rows[0]["images"][0]
        if lines:
            curves[name] = contrast_noise.over_targets(lines, 1)
    truths = [contrast_noise.plane_measures(one.cases.truth, one) for one in scans[:-1]]
    metrics = {f"{key}/truth/{where}": float(np.mean([one[key] for one in truths])) for key in TRUTH_MEASURES}
    metrics |= pseudo_report.tuned_metrics(tuned, where) | {
        f"hyperparameter_{key}/{name}/{where}": value for name, own in settings.items() for key, value in own.items()
    }
    figures["images"].append(pseudo_report.reconstruction_figure(work, shown, plane.grid, where, title))
    if curves:
        figures["curves"].append(pseudo_report.curve_figure(work, curves, where, title))
        metrics |= pseudo_report.curve_metrics(curves, where)
        metrics |= pseudo_report.noise_at_contrast(curves, metrics[f"contrast/osem/{where}"], where)
    return metrics


def _middle(sizes: tuple[int, ...]) -> int:
    return sorted(sizes)[len(sizes) // 2 - (len(sizes) > 2)]


if __name__ == "__main__":
    run_module(__file__)

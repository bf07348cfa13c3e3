"""Can a prior that knows this subject's anatomy improve low-count PET without printing the MR into it? (paper 7)

A cohort has PET and MR of other people. Its MR images are registered to that of the target, their PETs carried along,
and averages of them, pseudo-PETs in the target's anatomy, fine-tune a score prior: the personalised prior. It meets
low-count scans of volumes, by planes in three orientations, and stands against the same prior fine-tuned on PETs as
they are, against one that is given the target's MR as a channel, and against MAP-EM with Bowsher's penalty; all priors
start from one network and make equal steps. Targets have lesions that PET alone shows, which a prior must not remove,
and lesions that MR alone shows, which it must not print into the PET: what it prints is measured against the image of
the same counts by the same method that was told an MR without them.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from math import prod

import numpy as np
from ml_collections import ConfigDict

from experiments.pet import personalised as methods
from experiments.pet import personalised_report as report
from experiments.pet import planning, scans, volume_priors
from experiments.pet.cohort_registration import Fields, Registrar, default_registrar, register_cohort
from experiments.pet.conventional import METHODS as CONVENTIONAL
from experiments.pet.multi_subject import People, heads_of, read_anatomies, scan_people
from experiments.pet.personalised import PRIORS, TITLES, Method, Run, ScanDesign, sampling
from experiments.pet.pseudo_priors import first_prior
from experiments.pet.targets import Lesions, Target, as_people, make_target
from experiments.pet.volume_priors import FineTuning, Pseudo
from medjax.errors import pluralize
from medjax.pet.scanner import preset
from medjax.report.html import Report, Section
from medjax.running.experiment import Result, run_module
from medjax.running.plan import Stage
from medjax.running.tuning import Tuning, thin_grid, tuning_table
from medjax.running.workdir import WorkDir

TARGETS_FIRST, VALIDATION = 1000, 2000  # numbers of the first target and of the validation subject in the cohort


def run(config: ConfigDict, work: WorkDir, *, registrar: Registrar | None = None) -> Result:
    """Scan the cohort, make the priors of every target, reconstruct and compare.

    `registrar` takes the place of affine and greedy registration: (fixed, moving, grid) → displacement in voxels.
    """
    scan, test = config.scan, config.test
    plane = scans.setup(preset(scan.scanner), config.grid.size, config.grid.voxel_mm, scan.background)
    setup = scans.volume_setup(plane, config.grid.planes)
    levels = tuple(float(np.float32(level)) for level in scan.trues_per_mm3)
    design = ScanDesign(setup, levels, test.realizations, config.seed)
    cohort, subjects = _people(config, work, setup)
    r = config.registration
    register = default_registrar(r.factors, r.iterations) if registrar is None else registrar
    known, fields = _methods(config, work, setup, cohort, subjects, register)
    *targets, validation = subjects
    names = report.method_order(known[-1])
    tunings = {
        name: methods.tune(work, design, name, known[-1][name], validation, config.tuning.values_per_hyperparameter)
        for name in names
    }
    measured = {
        name: [
            methods.evaluate(work, design, name, number, target, known[number][name], tunings[name].best)
            for number, target in enumerate(targets)
        ]
        for name in names
    }
    return _result(config, work, design, targets, measured, fields[:-1], tunings)


def plan(config: ConfigDict) -> list[Stage]:
    """Stages of the study: images and registrations of the cohort, fine-tuning of priors, and reconstructions."""
    scan, c, t, test = config.scan, config.cohort, config.training, config.test
    plane = scans.setup(preset(scan.scanner), config.grid.size, config.grid.voxel_mm, scan.background)
    setup, start = scans.volume_setup(plane, config.grid.planes), first_prior(config)
    stages = [planning.cohort_images(setup, c.iterations, c.subjects)]
    fields = 2 * test.targets + 1  # to every target's MR, to its control MR, and to the validation subject's
    personal = "personalised" in config.methods
    if personal:
        stages.append(planning.registrations(config, setup.grid.shape, fields * c.subjects))
    fine_tuned = {"unguided": 1, "mr_channel": 1, "personalised": fields}
    for name, mr in (("unguided", False), ("mr_channel", True), ("personalised", config.pseudo.template)):
        if name in config.methods:
            side = max(setup.grid.shape)
            stages.append(planning.fine_tuning(
                f"fine-tuning, {name}", start, side, t.batch, t.steps, fine_tuned[name], mr
            ))  # fmt: skip
    for name in config.methods:
        grid = thin_grid(methods.GRIDS.get(name, methods.PRIOR_GRID), config.tuning.values_per_hyperparameter)
        controls = 2 if name in ("bowsher", "mr_channel", "personalised") else 1
        number = prod(map(len, grid.values())) + controls * test.targets * test.realizations
        number *= len(scan.trues_per_mm3) * (config.sampling.samples if name in PRIORS else 1)
        if name in PRIORS:
            reconstruct = partial(methods.sample_scan, config.sampling.mode, start)
        else:
            reconstruct = CONVENTIONAL["mr_map_em" if name == "bowsher" else name]
        stages.append(planning.reconstructions(name, setup, reconstruct, grid, number, 1))
    return stages


def _people(config: ConfigDict, work: WorkDir, setup: scans.ScanSetup) -> tuple[People, list[Target]]:
    """The cohort with its PET and MR, and the targets, of which methods are tuned on the last."""
    c, seed = config.cohort, config.seed
    anatomies = read_anatomies(c.anatomies, c.anatomy_mm)
    cohort = scan_people(
        work, setup, anatomies, "cohort", range(c.subjects), c.trues_per_mm3, seed, c.tracer, c.strength, c.iterations
    )
    lesions = Lesions(config.test.lesions)

    def target(name: str, number: int) -> Target:
        [head] = heads_of(anatomies, seed, number, 1, c.tracer, c.strength)
        return make_target(work, name, setup, head, lesions, seed + number)

    targets = [target(f"target_{n}", TARGETS_FIRST + n) for n in range(config.test.targets)]
    return cohort, [*targets, target("validation", VALIDATION)]


def _methods(
    config: ConfigDict,
    work: WorkDir,
    setup: scans.ScanSetup,
    cohort: People,
    subjects: Sequence[Target],
    registrar: Registrar,
) -> tuple[list[dict[str, Method]], list[Fields]]:
    """Methods for each target, with priors fine-tuned for equal steps from one network, and the fields to each.

    The personalised prior has a control too: the cohort registered to the control MR, and a network of its own. The
    last target, on which methods are tuned, goes without.
    """
    t, q = config.training, config.pseudo
    tuning, pseudo = (
        FineTuning(first_prior(config), t.steps, t.rate, t.batch, config.seed),
        Pseudo(q.number, q.size, q.concentration, q.template),
    )
    draws = config.sampling.samples, config.sampling.mode
    program, every, found = methods.conventional_program(setup), list[dict[str, Method]](), list[Fields]()
    shared = {
        name: make(work, cohort, tuning)
        for name, make in (
            ("unguided", volume_priors.unguided_prior), ("mr_channel", volume_priors.mr_channel_prior)
        )
        if name in config.methods
    }  # fmt: skip

    def personal(n: int, name: str, control: bool) -> tuple[Run, Fields]:
        people = as_people(subjects, control)
        fields = register_cohort(work, f"field_{name}", cohort, people, n, setup.grid, registrar)
        own = (pseudo, tuning, config.seed + n)
        prior, template = volume_priors.personalised_prior(work, name, cohort, fields, people.mask[n], *own)
        return sampling(prior, template, *draws), fields

    for n, target in enumerate(subjects):
        mrs = (target.mr, target.control_mr)
        one = {
            name: methods.conventional(setup, program, name, target) for name in config.methods if name not in PRIORS
        }
        if "unguided" in shared:
            one["unguided"] = Method(sampling(shared["unguided"], None, *draws))
        if "mr_channel" in shared:
            one["mr_channel"] = Method(*(sampling(shared["mr_channel"], mr, *draws) for mr in mrs))
        if "personalised" in config.methods:
            own_run, fields = personal(n, f"personalised_{n}", False)
            control = None if target is subjects[-1] else personal(n, f"control_{n}", True)[0]
            one["personalised"] = Method(own_run, control)
            found.append(fields)
        every.append(one)
    return every, found


def _result(
    config: ConfigDict, work: WorkDir, design: ScanDesign, targets: Sequence[Target], measured: report.MeasuredImages,
    fields: Sequence[Fields], tunings: Mapping[str, Tuning],
) -> Result:  # fmt: skip
    levels, names = design.levels, list(measured)
    metrics = report.comparison_metrics(measured, levels) | _registration_metrics(fields)
    table = report.comparison_table(metrics, names, levels)
    sections = [Section("Images", "The first target.", report.plot_images(work, measured, design, targets[0]))]
    sections.append(Section("Lesions", report.NOTE, report.plot_trade_off(work, measured, design)))
    figures = [report.plot_errors(work, metrics, names, design)] if len(levels) > 1 else []
    sections.append(Section("Figures of merit", "In the brain, against the truth.", figures, table))
    if "personalised" in measured and len(measured) > 1:
        metrics |= report.paired_metrics(measured, levels)
        sections.append(Section("Paired differences", "", table=report.paired_table(metrics, names, levels)))
    tuned = {TITLES[name]: tuning for name, tuning in tunings.items()}
    sections.append(
        Section("Tuning", "On one scan of a subject apart.", table=tuning_table(tuned, 1, "NRMSE", "calls"))
    )
    grid, c = config.grid, config.cohort
    data = (
        f"Simulated {c.tracer} scans of {config.test.targets} targets with {config.test.lesions} lesions of each kind, "
        f"{config.test.realizations} noise realisations, {grid.planes} direct planes of {grid.size}² voxels of "
        f"{grid.voxel_mm:g} mm; the cohort: {c.subjects} subjects at {c.trues_per_mm3:g} trues per mm³, "
        "reconstructed by OSEM. Heads are deformed real anatomies with tissue of their own."
    )
    about = (
        f"Priors start from one network and are fine-tuned for {config.training.steps} steps each; images are means of "
        f"{pluralize(config.sampling.samples, 'sample')}. Every method is tuned for each count level on a subject "
        "apart."
    )
    return Result(metrics, Report("Personalised pseudo-PET prior", [data, about], sections), table)


def _registration_metrics(fields: Sequence[Fields]) -> dict[str, float]:
    """Dice of grey matter before and after registration of the cohort to each target, and fraction of folds."""
    out: dict[str, float] = {}
    for n, one in enumerate(fields):
        values = {"dice_before": one.dice_before[:, 1], "dice": one.dice[:, 1], "folds": one.folds}
        out |= {f"registration_{name}/{n}": float(np.mean(value)) for name, value in values.items()}
    return out


if __name__ == "__main__":
    run_module(__file__)

"""Tables of `shortcut_audit`: audits, localisation, agreement, mitigation."""

from collections.abc import Mapping
from itertools import product

from experiments.audit.figures import first
from experiments.audit.measures import Where
from experiments.audit.mitigation import NAMES
from experiments.audit.networks import METHODS, Setup
from medjax.metrics.summary import cell
from medjax.report.html import Table

CAPTION = "Mean ± sd over seeds. "


def overview(setup: Setup, metrics: Mapping[str, float]) -> Table:
    """Table of each cue, architecture and tie by the first method and partition, with accuracies."""
    config, methods = setup.config, setup.config.attribution.methods
    rows = []
    for cue, architecture, fraction in product(config.cues, setup.models, config.fractions):
        where, after = first(setup, cue, architecture, fraction), f"{cue}/{architecture}/{fraction:g}"
        names = ["shortcut", "task", "verdict_shortcut", "peak_distance_both"]
        accuracies = [cell(metrics, f"worst_group/{one}/{after}") for one in ("none", "attenuated", "control")]
        measured = [cell(metrics, where.metric(name), 2) for name in names]
        areas = [cell(metrics, where._replace(method=one).metric("effective_area"), 2) for one in methods]
        rows.append([cue, architecture, f"{fraction:g}", *measured, *areas, *accuracies])
    header = ["cue", "network", "anti-correlated", "ρ(TS,SA|BA)", "ρ(TS,BA|SA)", "verdict", "peak"]
    areas = [f"area, {METHODS[method]}" for method in methods]
    shown = f"{METHODS[methods[0]]}, {config.regions[0]}. "
    note = (
        "Verdict: fraction of seeds with a shortcut. Peak: distance in cells of the highest score, of regions more "
        "important to both, from the cue. Area: effective area of the scores. Last columns: worst-group accuracy."
    )
    return Table([*header, *areas, "unmitigated", "attenuated", "control"], rows, CAPTION + shown + note)


def all_audits(setup: Setup, metrics: Mapping[str, float]) -> Table:
    """Table of every method, cue, architecture, partition and tie."""
    config = setup.config
    columns = {
        "ρ(TS, SA | BA)": "shortcut",
        "ρ(TS, BA | SA)": "task",
        "deviation": "deviation",
        "p, spatial": "p_spatial",
        "p, permutation": "p_permutation",
        "verdict shortcut": "verdict_shortcut",
        "peak": "peak_distance",
        "peak, both more": "peak_distance_both",
        "area": "effective_area",
        "area, both more": "effective_area_both",
        "reliability BA": "reliability_ba",
    }
    axes = (config.attribution.methods, config.cues, setup.models, setup.regions, config.fractions)
    rows = []
    for each in product(*axes):
        where = Where(*each)
        cells = [cell(metrics, where.metric(name), 2) for name in columns.values()]
        rows.append([*each[:4], f"{where.fraction:g}", *cells])
    header = ["method", "cue", "network", "regions", "anti-correlated", *columns]
    return Table(header, rows, CAPTION + "p: range over seeds. Peaks in cells, of the localised cue.")


def stability(setup: Setup, metrics: Mapping[str, float]) -> Table:
    """Table of the agreement of scores between seeds, partitions and architectures."""
    names = ("agreement_seeds", "agreement_partitions", "agreement_architectures")
    config = setup.config
    rows = [
        [cue, architecture, f"{fraction:g}", *(cell(metrics, where.metric(name), 2) for name in names)]
        for cue, architecture, fraction in product(config.cues, setup.models, config.fractions)
        for where in [first(setup, cue, architecture, fraction)]
    ]
    header = ["cue", "network", "anti-correlated", "seeds", "partitions", "architectures"]
    caption = "Pearson's r of region contribution scores, mean over pairs; at 0.5 there is no shortcut to agree on."
    return Table(header, rows, caption)


def mitigation(setup: Setup, metrics: Mapping[str, float]) -> Table:
    """Table of worst-group and balanced accuracy of every mitigation."""
    config = setup.config
    rows = []
    for cue, architecture, fraction in product(config.cues, setup.models, config.fractions):
        for name, label in NAMES.items():
            keys = [
                f"{metric}/{name}/{cue}/{architecture}/{fraction:g}" for metric in ("worst_group", "balanced_accuracy")
            ]
            if keys[0] in metrics:
                rows.append([cue, architecture, f"{fraction:g}", label, *(cell(metrics, key) for key in keys)])
    header = ["cue", "network", "anti-correlated", "mitigation", "worst group", "balanced accuracy"]
    return Table(header, rows, CAPTION + "Attenuation and its control: cross-validated, see the text.")

"""Shortcut audit: where a classifier relies on a spurious cue, and how much, by OSCAR (paper 4).

A cue, a mark at one place or a faint wave over the whole image, is planted into chest X-rays by an attribute that is
tied to the class in training, but for a fraction of anti-correlated cases. Three networks of an architecture are
compared by where they look on one balanced hold-out set: TS, trained so; BA, trained for the class without the tie; SA,
trained for the attribute. Attribution maps become ranks of regions within each image, and rank profiles over images:

    ρ(TS, SA | BA)      shortcut: it should rise as the tie gets stronger
    ρ(TS, BA | SA)      task: it should fall

Reported for every strength, cue, architecture and partition: both with spatial and published p-values and a verdict;
whether region contribution scores find the localised cue, and tell it from the diffuse one by their effective area;
how far they agree between seeds, partitions and architectures; and worst-group accuracy with the regions attenuated at
test time, against the same attenuation elsewhere in the image and against other trainings. At a fraction of 0.5 there
is no tie: what is found there is found by chance.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict, FrozenConfigDict

from experiments.audit import figures, measures, mitigation, tables
from experiments.audit.files import save_files
from experiments.audit.networks import (
    METHODS,
    TRACED,
    Setup,
    TrainedNetwork,
    cells,
    plan_networks,
    prepare,
    train,
)
from medjax.errors import MedjaxError, pluralize
from medjax.models.model import Network, require
from medjax.models.resnet import resnet
from medjax.models.vgg import vgg
from medjax.report.html import Report, Section
from medjax.running.experiment import Result, results_or_errors, run_module, single_result
from medjax.running.network_part import network_part
from medjax.running.plan import Stage
from medjax.running.workdir import WorkDir
from medjax.shortcuts.oscar_verdict import rule

__all__ = ["TRACED", "plan", "population", "run"]

CLASSES = 2
NetworkPart = Network | Callable[[int], Network]  # a Model, or a function of the number of classes that makes one


def run(config: ConfigDict, work: WorkDir, *, network: NetworkPart | None = None) -> Result:
    """Result of the study: metrics averaged over seeds, tables and figures; `network` replaces the architectures."""
    return single_result(population([config], [work], network=network))


def population(
    configs: Sequence[ConfigDict], works: Sequence[WorkDir], *, network: NetworkPart | None = None
) -> list[Result | MedjaxError]:
    """Results of several configs, whose networks train as populations; an error in place of a Result that failed."""
    setups = [
        prepare(FrozenConfigDict(config), work, architectures(config, network))
        for config, work in zip(configs, works, strict=True)
    ]
    studies = [cells(setup) for setup in setups]
    trained = iter(train([one for study in studies for one in study]))
    return results_or_errors(summarize, setups, [{cell.key: next(trained) for cell in study} for study in studies])


def plan(config: ConfigDict, *, network: NetworkPart | None = None) -> list[Stage]:
    """Stages of the study: trainings of every architecture, and logits and attribution maps of the hold-out images."""
    return plan_networks(FrozenConfigDict(config), WorkDir(Path()), architectures(config, network))


def architectures(config: ConfigDict, network: NetworkPart | None = None) -> dict[str, Network]:
    """Architectures that are audited, by name; or `network` alone.

    Raises:
        ConfigError: `network` is not a network, or has no `features` and `head`.
    """
    if network is not None:
        model = network_part(network, CLASSES, "--part network").value
        for part in ("features", "head"):
            require(model, part, "shortcut_audit")
        return {"network": model}
    r, v = config.resnet, config.vgg
    known: dict[str, Callable[[], Network]] = {
        "resnet": lambda: resnet(CLASSES, r.depth, tuple(r.widths), tuple(r.strides), r.stem_pool),
        "vgg": lambda: vgg(CLASSES, tuple(v.widths), tuple(v.convolutions)),
    }
    return {name: known[name]() for name in config.architectures}


def summarize(setup: Setup, networks: Mapping[tuple, TrainedNetwork | MedjaxError]) -> Result:
    """Audits and mitigation of all networks on the hold-out set; metrics, figures and tables.

    Raises:
        MedjaxError: the training of a network failed, or an audit is not defined.
    """
    trained = dict[tuple, TrainedNetwork]()
    for key, one in networks.items():
        if isinstance(one, MedjaxError):
            raise one
        trained[key] = one
    save_files(setup, trained)
    audits = measures.run_audits(setup, trained)
    metrics = measures.measure(setup, audits) | mitigation.measure(setup, trained)
    table = tables.overview(setup, metrics)
    sections = [
        Section("Cues", "", [figures.cue_examples(setup)]),
        Section("Against the strength of the tie", rule(), figures.against_tie(setup, metrics), table),
        Section("Where the shortcut is", "", [figures.score_maps(setup, audits)]),
        Section("Stability", "", table=tables.stability(setup, metrics)),
        Section("Mitigation", MITIGATION, figures.accuracy_bars(setup, metrics), tables.mitigation(setup, metrics)),
        Section("All audits", "", table=tables.all_audits(setup, metrics)),
    ]
    report = Report("Where a classifier relies on a shortcut", summary(setup), sections)
    return Result(metrics, report, table)


MITIGATION = (
    "Attenuation weights the last feature map by 1 − down·m, m being the region contribution score over its largest "
    "absolute value, and 1 − up·m where it is negative; no weight is below 0. Scores, down and up come from three "
    "quarters of the hold-out images, those that keep the balanced accuracy within half a point; accuracy is that of "
    "the last quarter, in four turns. The control has the same scores, moved by half of the image. The direction of "
    "the attribute is projected out of the features in the same four turns. Other trainings are at one tie and of the "
    "first architecture."
)


def summary(setup: Setup) -> list[str]:
    """Summary of the study's data, and of what it does not say."""
    c = setup.config
    methods = ", ".join(METHODS[one] for one in c.attribution.methods)
    return [
        f"Data: {setup.source.name}. {c.train} training images, half of each class, and {c.holdout} hold-out images, "
        f"equally many of each class and attribute, which all networks share. {pluralize(c.seeds, 'seed')} of data "
        f"and start. Attribution: {methods}, for the class that the network predicts.",
        "The cue is planted: no claim is made about any real attribute of patients. Published figures are of other "
        "data (CelebA, CheXpert, ADNI), and are not compared.",
    ]


if __name__ == "__main__":
    run_module(__file__)

"""`medjax segment evaluate`: nnU-Net's summary of predicted label images."""

from pathlib import Path
from typing import Annotated

import typer

from medjax import defaults

Predictions = Annotated[
    Path,
    typer.Argument(metavar="PREDICTIONS", help="Folder of predicted label images, NIfTI or PNG.", show_default=False),
]
References = Annotated[
    Path,
    typer.Argument(metavar="LABELS", help="Folder of reference labels, as labelsTr.", show_default=False),
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Summary to write.", show_default="PREDICTIONS/summary.json"),
]
Dataset = Annotated[
    Path | None,
    typer.Option(
        metavar="dataset.json",
        help="Names and numbers of labels, regions and the ignore label.",
        show_default="that beside LABELS",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        metavar="LABEL,…",
        help="Labels to evaluate, by name or number; 1+2 is the region of both.",
        show_default="all of dataset.json",
    ),
]
Ignore = Annotated[
    int | None,
    typer.Option(
        metavar="LABEL",
        help="Label of the reference whose voxels are left out.",
        show_default='"ignore" of dataset.json',
        min=0,
    ),
]
Chill = Annotated[bool, typer.Option("--chill", help="Leave out reference labels without a prediction.")]
Surface = Annotated[
    bool,
    typer.Option(
        "--surface",
        help="Surface metrics too, in mm, convention in the name: HD95 max and pooled, ASSD pooled and mean, NSD.",
    ),
]
Tolerance = Annotated[float, typer.Option(help="Tolerance of the normalized surface Dice (NSD), mm.")]


def evaluate_command(
    predictions: Predictions,
    references: References,
    output: Output = None,
    dataset: Dataset = None,
    labels: Labels = None,
    ignore: Ignore = None,
    chill: Chill = False,
    surface: Surface = False,
    tolerance: Tolerance = defaults.SEGMENT_TOLERANCE_MM,
) -> None:
    """Evaluate predicted labels: Dice, IoU and voxel counts of each label or region, as nnU-Net's summary.json.

    medjax segment evaluate predicted Dataset004_Hippocampus/labelsTs --surface

    The file equals that of nnUNetv2_evaluate_folder, which takes the labels first. NaN: neither has the structure.
    """
    from medjax.errors import pluralize
    from medjax.report.terminal import print_table
    from medjax.running.environment import command_process
    from medjax.tools.segment_evaluate import evaluate, tables

    file = predictions / "summary.json" if output is None else output
    chosen = None if labels is None else [one.strip() for one in labels.split(",")]
    with command_process():
        result = evaluate(
            predictions, references, file, dataset=dataset, labels=chosen, ignore=ignore, chill=chill, surface=surface,
            tolerance=tolerance,
        )  # fmt: skip
    for one in tables(result):
        print_table(one)
        typer.echo()
    typer.echo(f"{pluralize(len(result.files), 'case')}; wrote {file}")

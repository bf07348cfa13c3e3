"""`medjax shortcuts fairness`: group metrics of a classifier from a table of its predictions."""

from pathlib import Path
from typing import Annotated

import typer

from medjax.cli.plain import Context, command_line

Predictions = Annotated[
    Path,
    typer.Argument(metavar="TABLE.csv", help="CSV of predictions: one row for each case.", show_default=False),
]
Label = Annotated[str, typer.Option(metavar="COLUMN", help="Column of the label, 0 or 1.")]
Score = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Column of the score of class 1: a probability where calibration matters."),
]
Prediction = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Column of the predicted class.", show_default="the score at the threshold"),
]
Attributes = Annotated[
    list[str],
    typer.Option(
        "--attribute",
        metavar="COLUMN",
        help="Column of an attribute's groups, such as sex, of two or more values; may be repeated.",
        show_default=False,
    ),
]
Subject = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column of the subject: cases of a subject are resampled together.",
        show_default="each case is a subject",
    ),
]
Identifier = Annotated[str | None, typer.Option("--id", metavar="COLUMN", help="Column of the case's id.")]
Positive = Annotated[
    str | None,
    typer.Option(
        metavar="VALUE", help="Value of label and prediction that is the positive class, such as AD.", show_default="1"
    ),
]
Compare = Annotated[
    Path | None,
    typer.Option(
        metavar="OTHER.csv",
        help="Predictions of another model for the same cases, matched by --id: paired differences TABLE − OTHER.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="DIR", help="Folder to write: fairness.csv, fairness.json, fairness.png, report.html."
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(help="Threshold of the score; not with --prediction.", show_default="0.5, for probabilities only"),
]
Tnr = Annotated[float, typer.Option(help="True-negative rate (specificity) at which true-positive rates are compared.")]
Resamples = Annotated[int, typer.Option(help="Number of bootstrap resamples.")]
Level = Annotated[float, typer.Option(help="Confidence level of the intervals.")]
Seed = Annotated[int, typer.Option(help="Random seed of the bootstrap.")]


def fairness_command(
    ctx: Context,
    table: Predictions,
    attribute: Attributes,
    label: Label = "label",
    score: Score = None,
    prediction: Prediction = None,
    subject: Subject = None,
    id_: Identifier = None,
    positive: Positive = None,
    compare: Compare = None,
    output: Output = None,
    threshold: Threshold = None,
    tnr: Tnr = 0.9,
    resamples: Resamples = 1000,
    level: Level = 0.95,
    seed: Seed = 0,
) -> None:
    """Fairness of a classifier: metrics of each group, gaps and worst groups, each with a bootstrap interval.

    medjax shortcuts fairness test.csv --score p --attribute sex --attribute site --subject patient -o fairness

    A gap is the largest minus the smallest value over the groups. Two models are compared on the same cases and the
    same resamples: medjax shortcuts fairness biased.csv --compare balanced.csv --id scan …
    """
    from medjax.report.terminal import print_table
    from medjax.running.environment import prepare_process
    from medjax.tools.fairness_report import tables
    from medjax.tools.shortcuts_fairness import fairness_of_table

    prepare_process()
    result = fairness_of_table(
        table, attribute, output, label=label, score=score, prediction=prediction, subject=subject, id=id_,
        positive=positive, compare=compare, threshold=threshold, tnr=tnr, resamples=resamples, level=level, seed=seed,
        command=command_line(ctx),
    )  # fmt: skip
    for warning in result.warnings:
        typer.echo(f"medjax: {warning}", err=True)
    for number, one in enumerate(tables(result, level, str(compare))):
        typer.echo("" if number else None, nl=bool(number))
        print_table(one)
    if output is not None:
        typer.echo(f"\nwrote {output / 'fairness.csv'}, fairness.json, fairness.png and report.html")

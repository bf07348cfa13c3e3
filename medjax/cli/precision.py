"""`medjax precision`: agreement of biomarkers of scan and rescan, as point estimates and as distributions."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medjax.cli.completion import one_of
from medjax.cli.plain import Context, command_line

app = typer.Typer(add_completion=False)

Scan = Annotated[
    Path,
    typer.Argument(
        metavar="SCAN.csv",
        help="Biomarkers of the scan: CSV with columns subject, sample (none: point estimates) and biomarkers.",
        show_default=False,
    ),
]
Rescan = Annotated[
    Path, typer.Argument(metavar="RESCAN.csv", help="Those of the rescan of the same subjects.", show_default=False)
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="DIR", help="Folder to write: precision.csv, subjects.csv, report.html."),
]
Biomarkers = Annotated[
    str | None,
    typer.Option(metavar="NAME,NAME…", help="Columns of the biomarkers.", show_default="all with numbers"),
]
Samples = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Number of samples of each scan, the first ones: methods compare at equal N.",
        show_default="all",
    ),
]
IntervalKind = Annotated[
    str,
    typer.Option(
        "--interval",
        metavar="KIND",
        help="Interval of the samples: percentile, normal (mean ± z sd) or mean (confidence interval of the mean).",
        autocompletion=one_of("percentile", "normal", "mean"),
    ),
]
OverlapKind = Annotated[
    str,
    typer.Option(
        "--overlap",
        metavar="KIND",
        help="Overlap of two intervals: iou, shorter (over the shorter) or dice.",
        autocompletion=one_of("iou", "shorter", "dice"),
    ),
]
Level = Annotated[float, typer.Option(help="Probability of all intervals.")]
Alpha = Annotated[float, typer.Option(help="Significance level of the tests.")]
Correction = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Correction for multiple tests over subjects: holm, bh or none.",
        autocompletion=one_of("holm", "bh", "none"),
    ),
]
Paired = Annotated[
    bool,
    typer.Option(
        "--paired/--unpaired",
        help="Whether equal samples of scan and rescan are one draw of the model: member, dropout mask or transform.",
    ),
]
Truth = Annotated[
    Path | None,
    typer.Option(
        metavar="TRUTH.csv", help="True values: CSV with columns subject and biomarkers; adds coverage and scores."
    ),
]
RescanTruth = Annotated[
    Path | None, typer.Option(metavar="TRUTH.csv", help="True values at the rescan.", show_default="those of --truth")
]
DropIncomplete = Annotated[
    bool,
    typer.Option(
        "--drop-incomplete",
        help="Leave out subjects of one table only and, of each biomarker, those with missing values.",
    ),
]
Seed = Annotated[int, typer.Option(help="Random seed of the bootstrap, subsets of samples and halves of subjects.")]
Resamples = Annotated[int, typer.Option(help="Number of bootstrap resamples of the subjects.")]


@app.command()
def precision_command(
    ctx: Context,
    scan: Scan,
    rescan: Rescan,
    output: Output = None,
    biomarkers: Biomarkers = None,
    samples: Samples = None,
    interval: IntervalKind = "percentile",
    overlap: OverlapKind = "iou",
    level: Level = 0.95,
    alpha: Alpha = 0.05,
    correction: Correction = "holm",
    paired: Paired = True,
    truth: Truth = None,
    rescan_truth: RescanTruth = None,
    drop_incomplete: DropIncomplete = False,
    seed: Seed = 0,
    resamples: Resamples = 1000,
) -> None:
    """Precision of biomarkers from scan and rescan: agreement of point estimates and of the samples' distributions.

    medjax precision scan.csv rescan.csv -o precision

    Overlaps, p-values and coverage depend on the number of samples N, which is printed with them. With --truth:
    coverage of the truth, interval score and CRPS, and coverage after conformal recalibration.
    """
    from medjax.report.terminal import print_table
    from medjax.running.environment import prepare_process
    from medjax.tools.biomarker_precision import Settings
    from medjax.tools.precision import precision_of_tables
    from medjax.tools.precision_report import DEPENDS_ON_N, tables

    prepare_process()
    options: dict[str, Any] = {"interval": interval, "overlap": overlap, "level": level, "alpha": alpha}
    options |= {"correction": correction, "paired": paired, "seed": seed, "resamples": resamples}
    result = precision_of_tables(
        scan, rescan, output, settings=Settings(**options), biomarkers=biomarkers, samples=samples,
        drop_incomplete=drop_incomplete, truth=truth, rescan_truth=rescan_truth,
        command=command_line(ctx),
    )  # fmt: skip
    for warning in result.warnings:
        typer.echo(f"medjax: {warning}", err=True)
    for number, one in enumerate(tables(result)):
        typer.echo("" if number else None, nl=bool(number))
        print_table(one)
    if result.samples > 1:
        typer.echo(f"\n{DEPENDS_ON_N}")
    if output is not None:
        typer.echo(f"\nwrote {output / 'precision.csv'}, subjects.csv, report.html and figures")

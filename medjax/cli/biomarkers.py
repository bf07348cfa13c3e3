"""`medjax biomarkers`: volumes, ejection fraction and mass of cardiac label maps."""

from pathlib import Path
from typing import Annotated

import typer

from medjax.cli.completion import one_of

app = typer.Typer(no_args_is_help=True, add_completion=False)

Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="INPUTS...",
        help="Label maps: CSV lists, 4-D cines in NIfTI, or folders in the layout of ACDC or M&Ms.",
        show_default=False,
    ),
]
Output = Annotated[
    Path, typer.Option("-o", "--output", metavar="FILE.csv", help="Table of biomarkers to write.", show_default=False)
]
Labels = Annotated[
    str | None,
    typer.Option(
        metavar="acdc|mnms|LV,MYO,RV",
        help="Label values of left ventricle, myocardium and right ventricle: acdc is 3,2,1, mnms is 1,2,3.",
        autocompletion=one_of("acdc", "mnms"),
        show_default="by the layout",
    ),
]
GapMm = Annotated[
    float, typer.Option(help="Gap between slices in mm that the files' z spacing leaves out (it is the thickness).")
]
Papillary = Annotated[
    str,
    typer.Option(
        metavar="as-labelled|cavity|myocardium",
        help="Papillary muscles: voxels in the convex hull of the LV cavity of a slice that are not cavity. Labels "
        "that count them as cavity, as ACDC's and M&Ms', stay as they are: no image is read.",
        autocompletion=one_of("as-labelled", "cavity", "myocardium"),
    ),
]
Basal = Annotated[
    float | None,
    typer.Option(
        metavar="FRACTION",
        help="Drop basal slices in which myocardium encloses less than this fraction of the LV cavity's border, "
        "such as 0.5; 1: incomplete rings.",
        show_default="as labelled",
    ),
]
FrameChoice = Annotated[
    str,
    typer.Option(
        "--frames",
        metavar="sample|subject",
        help="ED and ES frame of a cine, largest and smallest LV volume: chosen for each sample, or once for each "
        "subject on the mean curve.",
        autocompletion=one_of("sample", "subject"),
    ),
]
Bsa = Annotated[
    str,
    typer.Option(
        metavar="mosteller|du_bois",
        help="Formula of the body surface area.",
        autocompletion=one_of("mosteller", "du_bois"),
    ),
]
Thickness = Annotated[bool, typer.Option("--thickness", help="Also measure the wall thickness at ED.")]
FrameMs = Annotated[
    float | None,
    typer.Option(help="Time between frames of a cine in ms, for peak rates.", show_default="of the file"),
]
CurveFile = Annotated[
    Path | None,
    typer.Option("--curve", metavar="FILE.csv|.png", help="Volume-time curves to write; as PNG of one subject."),
]


@app.command()
def biomarkers(
    inputs: Inputs,
    output: Output,
    labels: Labels = None,
    gap_mm: GapMm = 0.0,
    papillary: Papillary = "as-labelled",
    basal: Basal = None,
    frames: FrameChoice = "sample",
    bsa: Bsa = "mosteller",
    thickness: Thickness = False,
    frame_ms: FrameMs = None,
    curve: CurveFile = None,
) -> None:
    """Cardiac biomarkers of short-axis label maps: LV and RV volumes, stroke volume, ejection fraction, LV mass.

    medjax biomarkers ACDC/training -o biomarkers.csv

    medjax biomarkers samples.csv --labels acdc -o scan.csv

    A CSV list has columns subject, ed and es (label maps; paths are relative to the list), or cine (4-D), and, if need
    be, sample, height_cm, weight_kg, ed_frame and es_frame. With samples the table has one row for each, as
    `medjax precision` reads it. What was not segmented is NaN.
    """
    from medjax.report.html import Table
    from medjax.report.terminal import print_table
    from medjax.running.environment import prepare_process
    from medjax.tools.biomarkers import biomarkers_of_files, summary

    prepare_process()
    table = biomarkers_of_files(
        inputs, output, labels=labels, gap_mm=gap_mm, papillary=papillary, basal=basal, frames=frames, bsa=bsa,
        thickness=thickness, frame_ms=frame_ms, curve=curve,
    )  # fmt: skip
    for warning in table.warnings:
        typer.echo(f"medjax: {warning}", err=True)
    for line in table.assumptions:
        typer.echo(line)
    print_table(Table(("biomarker", "mean", "SD", "NaN"), summary(table)))
    typer.echo(f"\nwrote {output}" + ("" if curve is None else f" and {curve}"))

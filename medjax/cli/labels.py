"""`medjax labels`: which labels of a data set are suspect."""

from pathlib import Path
from typing import Annotated

import typer

from medjax.tools import defaults

app = typer.Typer(no_args_is_help=True, add_completion=False)

ImageDir = Annotated[
    Path, typer.Argument(metavar="IMAGES", help="Folder of images, PNG or NIfTI; 16 or more.", show_default=False)
]
MaskDir = Annotated[
    Path,
    typer.Argument(
        metavar="MASKS", help="Folder of label masks of the same names: class numbers, no colours.", show_default=False
    ),
]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Work directory.", show_default=False)]
Detector = Annotated[str, typer.Option(help="Score that ranks: vog, dice_mean, softmin, … (all are written).")]
Threshold = Annotated[
    str,
    typer.Option(
        help="Threshold that flags: otsu, mixture, mad, a fraction such as 0.1, or FILE.py:NAME, a function "
        "scores → flags."
    ),
]
Trusted = Annotated[
    Path | None,
    typer.Option(
        metavar="CSV",
        help="Trusted set, labels that were checked: columns name (of the image), wrong (0 or 1).",
        show_default=False,
    ),
]
Size = Annotated[int, typer.Option(help="Voxels of the images in training, each way: a multiple of 8.")]
Classes = Annotated[int | None, typer.Option(help="Number of classes with background; default: found.")]
Epochs = Annotated[int, typer.Option(help="Epochs of training, 4 or more.")]
Seed = Annotated[int, typer.Option(help="Random seed of the network and of the order of images.")]
Network = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:NAME",
        help="A network of your own: a Model, or a function of the number of classes that makes one.",
        show_default="a small U-Net",
    ),
]
Scores = Annotated[
    list[str] | None,
    typer.Option(
        "--score",
        metavar="FILE.py:NAME",
        help="A LabelScore of your own: one more column, NAME. It ranks if --detector names it. May be repeated.",
    ),
]


@app.callback()
def labels() -> None:
    """Find labels that are wrong."""


@app.command("audit")
def audit_command(
    images: ImageDir,
    masks: MaskDir,
    output: Output,
    detector: Detector = defaults.DETECTOR,
    threshold: Threshold = defaults.THRESHOLD,
    trusted: Trusted = None,
    size: Size = defaults.SIZE,
    classes: Classes = None,
    epochs: Epochs = defaults.AUDIT_EPOCHS,
    seed: Seed = 0,
    network: Network = None,
    score: Scores = None,
) -> None:
    """Train a U-Net on the labels as they are and rank them by its training dynamics.

    medjax labels audit images/ masks/ -o audit

    Writes audit/ranked.csv, every image with all scores and what is flagged, and audit/report.html with the most
    suspect ones. When more than half of the labels are wrong in the same way the ranking turns round: look at ten
    images of each end, write them down in a CSV and give it as --trusted.
    """
    from medjax.running.environment import prepare_process
    from medjax.running.parts import load_part, names_part
    from medjax.tools.labels_audit import audit

    prepare_process()
    result = audit(
        images, masks, output, detector=detector, trusted=trusted, size=size, classes=classes, epochs=epochs, seed=seed,
        threshold=load_part(threshold, "--threshold") if names_part(threshold) else threshold,
        network=load_part(network, "--network") if network else None,
        label_scores=[load_part(text, "--score") for text in score or ()],
    )  # fmt: skip
    flagged = f"{int(result.flags.sum())} of {len(result.flags)} labels flagged by {detector}"
    typer.echo(f"{flagged}; wrote {output / 'ranked.csv'} and report.html")
    if trusted is None:
        typer.echo(
            "if more than half are wrong in the same way the list is upside down: look at ten of each end (--trusted)"
        )

"""`medjax labels`: which labels of a data set are suspect."""

from pathlib import Path
from typing import Annotated

import typer

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
Threshold = Annotated[str, typer.Option(help="Threshold that flags: otsu, mixture, mad, or a fraction such as 0.1.")]
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


@app.callback()
def labels() -> None:
    """Find labels that are wrong."""


@app.command("audit")
def audit_command(
    images: ImageDir,
    masks: MaskDir,
    output: Output,
    detector: Detector = "dice_mean",
    threshold: Threshold = "otsu",
    trusted: Trusted = None,
    size: Size = 64,
    classes: Classes = None,
    epochs: Epochs = 24,
    seed: Seed = 0,
) -> None:
    """Train a U-Net on the labels as they are and rank them by its training dynamics.

    medjax labels audit images/ masks/ -o audit

    Writes audit/ranked.csv, every image with all scores and what is flagged, and audit/report.html with the most
    suspect ones. When more than half of the labels are wrong in the same way the ranking turns round: look at ten
    images of each end, write them down in a CSV and give it as --trusted.
    """
    from medjax.running.environment import prepare_process
    from medjax.tools.labels_audit import audit

    prepare_process()
    audit(images, masks, output, detector, threshold, trusted, size, classes, epochs, seed)

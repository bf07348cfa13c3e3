"""`medjax labels`: audit of segmentation labels for annotation errors, and data to try it on."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from medjax import defaults
from medjax.cli.completion import one_of
from medjax.cli.device_options import Devices
from medjax.cli.plain import Context, command_line

app = typer.Typer(no_args_is_help=True, add_completion=False)

ImageDir = Annotated[
    Path, typer.Argument(metavar="IMAGES", help="Folder of 16 or more images, PNG or NIfTI.", show_default=False)
]
MaskDir = Annotated[
    Path,
    typer.Argument(
        metavar="MASKS",
        help="Folder of label masks (class numbers), named as their images; of nnU-Net without _0000.",
        show_default=False,
    ),
]
Output = Annotated[
    Path,
    typer.Option("-o", "--output", metavar="DIR", help="Work directory: ranked.csv, report.html.", show_default=False),
]
Scores = Annotated[
    list[str] | None,
    typer.Option(
        "--score",
        metavar="NAME|FILE.py:NAME",
        help="Label score that ranks the images: dice_mean, vog, softmin, aum, … or a LabelScore of your own, "
        "FILE.py:NAME. May be repeated: the first one ranks, all are columns of ranked.csv.",
        autocompletion=one_of("dice_mean", "loss_mean", "dice", "loss", "vog", "aum", "el2n", "softmin", "gradient"),
        show_default=defaults.AUDIT_SCORE,
    ),
]
Detector = Annotated[str | None, typer.Option("--detector", hidden=True, help="Label score that ranks: see --score.")]
Threshold = Annotated[
    str,
    typer.Option(
        metavar="NAME|FRACTION|FILE.py:NAME",
        help="Threshold of the score that flags an image: otsu, mixture (of two Gaussians), mad (median absolute "
        "deviation), the fraction to flag such as 0.1, or a function of your own, FILE.py:NAME.",
        autocompletion=one_of("otsu", "mixture", "mad"),
    ),
]
Trusted = Annotated[
    Path | None,
    typer.Option(
        metavar="CSV",
        help="Trusted set: CSV of checked labels, columns name (of the image) and wrong (0 or 1).",
        show_default=False,
    ),
]
Size = Annotated[int, typer.Option(help="Image size in training, voxels along each axis: a multiple of 8.")]
Classes = Annotated[int | None, typer.Option(help="Number of classes, with background.", show_default="of the masks")]
Epochs = Annotated[int, typer.Option(help="Number of training epochs, 4 or more.")]
Seed = Annotated[int, typer.Option(help="Random seed of network weights, image order and augmentation.")]
Network = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:NAME",
        help="Network of your own: a Model, or a function of the number of classes that makes one.",
        show_default="a small U-Net",
    ),
]


@app.callback()
def labels() -> None:
    """Find annotation errors in segmentation labels."""


@app.command("audit")
def audit_command(
    ctx: Context,
    images: ImageDir,
    masks: MaskDir,
    output: Output,
    score: Scores = None,
    threshold: Threshold = defaults.AUDIT_THRESHOLD,
    trusted: Trusted = None,
    size: Size = defaults.AUDIT_SIZE,
    classes: Classes = None,
    epochs: Epochs = defaults.AUDIT_EPOCHS,
    seed: Seed = 0,
    network: Network = None,
    devices: Devices = 1,
    detector: Detector = None,
) -> None:
    """Rank segmentation labels by suspicion of an error, from the training dynamics of a U-Net trained on them.

    medjax labels audit images/ masks/ -o audit

    Writes audit/ranked.csv, the scores and the flag of every image, and audit/report.html with the most suspect ones.
    When more than half of the labels are wrong in the same way the ranking is inverted: check ten images of each end,
    list them in a CSV and give it as --trusted.
    """
    from medjax.running.environment import prepare_process
    from medjax.running.parts import is_part_reference, load_part
    from medjax.tools.labels_audit import audit

    prepare_process()
    scores = [load_part(text, "--score") if is_part_reference(text) else text for text in score or ()]
    result = audit(
        images, masks, output, trusted=trusted, size=size, classes=classes, epochs=epochs, seed=seed,
        score=[*([detector] if detector else []), *scores] or defaults.AUDIT_SCORE,
        threshold=load_part(threshold, "--threshold") if is_part_reference(threshold) else threshold,
        network=load_part(network, "--network") if network else None,
        devices=devices, command=command_line(ctx),
    )  # fmt: skip
    flagged = f"{int(result.flags.sum())} of {len(result.flags)} labels flagged by {result.score}"
    typer.echo(f"{flagged}; wrote {output / 'ranked.csv'} and report.html")
    if trusted is None:
        typer.echo(
            "if more than half of the labels are wrong in the same way the ranking is inverted: check ten images of "
            "each end (--trusted)"
        )


@app.command("simulate")
def simulate_command(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="New folder of the data set.")],
    number: Annotated[int, typer.Option(help="Number of images.")] = defaults.SIMULATED_LABELS,
    wrong: Annotated[float, typer.Option(help="Fraction of the masks that are wrong.")] = defaults.SIMULATED_WRONG,
    error: Annotated[
        str,
        typer.Option(
            help="Kind of label error: random, systematic, truncation, shift, omission or swap.",
            autocompletion=one_of("random", "systematic", "truncation", "shift", "omission", "swap"),
        ),
    ] = defaults.SIMULATED_ERROR,
    size: Annotated[int, typer.Option(help="Image size, pixels along each side.")] = defaults.AUDIT_SIZE,
    seed: Annotated[int, typer.Option(help="Random seed of images and errors.")] = 0,
) -> None:
    """Simulate echocardiograms with masks of which some are wrong, to try `medjax labels audit` on.

    medjax labels simulate -o echo

    Writes echo/images and echo/masks (PNG; 1 left ventricle, 2 its wall, 3 left atrium) and echo/truth.csv, which names
    the wrong ones.
    """
    from medjax.tools.labels_simulate import simulate

    made = simulate(output, number=number, wrong=wrong, error=error, size=size, seed=seed)
    typer.echo(f"{len(made.names)} images, {sum(made.wrong)} masks of them wrong ({made.truth})")
    small = [] if size % 8 == 0 and size == defaults.AUDIT_SIZE else ["--size", str(8 * max(size // 8, 2))]
    command = ["medjax", "labels", "audit", made.images, made.masks, "-o", f"{output}_audit", *small]
    typer.echo(f"audit them with: {shlex.join(map(str, command))}")

"""`medjax shortcuts`: `audit` of attribution maps, `fairness` of groups, label `flips` of segmentations."""

from pathlib import Path
from typing import Annotated

import typer

from medjax.cli.shortcuts_audit import audit_command
from medjax.cli.shortcuts_fairness import fairness_command

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Audit a network for shortcut learning.")

Predicted = Annotated[
    Path,
    typer.Argument(
        metavar="PRED", help="Predicted label image, or a folder of them: NIfTI or PNG.", show_default=False
    ),
]
Truth = Annotated[
    Path,
    typer.Argument(
        metavar="GT", help="Ground-truth label image or folder, named as the predictions.", show_default=False
    ),
]
Logits = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE|DIR", help="Logits of the network, for flip-risk: .npy, .npz or 4-D NIfTI, classes last."
    ),
]
Probabilities = Annotated[
    Path | None, typer.Option(metavar="FILE|DIR", help="Softmax probabilities of the network, instead of --logits.")
]
Groups = Annotated[
    Path | None,
    typer.Option(
        metavar="CSV",
        help="Group of each image: CSV with columns image (name without ending) and group; groups 2·class + scene give "
        "the IoU gap of common and rare groups.",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(metavar="B,L,L…", help="All label values, background first.", show_default="0 and those in GT"),
]
Output = Annotated[
    Path,
    typer.Option("-o", "--output", metavar="CSV", help="CSV to write: flip fractions and flip-risk of each image."),
]


@app.callback()
def _shortcuts() -> None:
    pass


app.command("audit")(audit_command)
app.command("fairness")(fairness_command)


@app.command("flips")
def flips_command(
    pred: Predicted,
    gt: Truth,
    logits: Logits = None,
    probabilities: Probabilities = None,
    groups: Groups = None,
    labels: Labels = None,
    output: Output = Path("flips.csv"),
) -> None:
    """Label flips: fractions of the true foreground that are correct, flipped to another class, missed to background.

    medjax shortcuts flips predictions/ truth/ --logits logits/ --groups groups.csv -o flips.csv

    Flip-risk is the entropy of the foreground classes' probabilities, averaged over the predicted foreground: 0 where
    the class is certain, 1 where all are equally probable. It needs no ground truth.
    """
    from medjax.report.html import Table
    from medjax.report.terminal import print_table
    from medjax.running.environment import prepare_process
    from medjax.tools.checks import parse_integers
    from medjax.tools.label_flips import label_flips

    prepare_process()
    expected = "different whole numbers, background first, as in --labels 0,1,2"
    known = parse_integers("--labels", labels, expected, lambda numbers: len(set(numbers)) == len(numbers) > 1)
    found = label_flips(pred, gt, output, logits=logits, probabilities=probabilities, groups=groups, labels=known)
    for name in found.without_foreground:
        typer.echo(f"medjax: {name}: no foreground in its ground truth; left out of the means", err=True)
    rows = [[name, *map(float, fractions)] for name, fractions in found.fractions.items()]
    print_table(Table(["true foreground", "correct", "flip", "miss"], rows))
    if found.iou_gaps is not None:
        iou_gaps = ", ".join(f"class {kind} {gap:.4f}" for kind, gap in enumerate(found.iou_gaps))
        typer.echo(f"\nIoU gap, common minus rare group: {iou_gaps}")
    if found.deciles is not None:
        rows = list(zip(range(1, 11), found.deciles.risk, found.deciles.flip, strict=True))
        typer.echo("")
        print_table(Table(["decile of flip-risk", "risk", "flip"], rows))
        typer.echo(f"\n{found.deciles.top_decile_fraction:.1%} of all flips are in the last decile")
    typer.echo(f"\nwrote {output}")

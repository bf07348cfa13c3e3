"""`medjax shortcuts`: what a network has learnt instead of what it was meant to; `flips`: right region, wrong name."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Audit a classifier for shortcuts.")

Predicted = Annotated[
    Path, typer.Argument(metavar="PRED", help="Label image, or a folder of them: NIfTI or PNG.", show_default=False)
]
Truth = Annotated[
    Path, typer.Argument(metavar="GT", help="Ground truth: the same, under the same names.", show_default=False)
]
Logits = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE|DIR", help="The network's outputs, for flip-risk: .npy, .npz or 4-D NIfTI, classes last."
    ),
]
Probabilities = Annotated[Path | None, typer.Option(metavar="FILE|DIR", help="Its softmax instead.")]
Groups = Annotated[
    Path | None,
    typer.Option(metavar="CSV", help="Columns image (name without ending) and group; 2·class + scene gives gaps."),
]
Labels = Annotated[
    str | None,
    typer.Option(metavar="B,L,L…", help="All label values, background first.", show_default="0 and those in GT"),
]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="CSV", help="One row an image.")]


@app.callback()
def _shortcuts() -> None:
    pass


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
    """Split the true foreground into correct, flipped to another class, and missed to background.

    medjax shortcuts flips predictions/ truth/ --logits logits/ --groups groups.csv -o flips.csv

    Flip-risk is the entropy of the foreground classes' probabilities alone, averaged over what is predicted as
    foreground: 0 where the name is sure, 1 where it is a guess. It needs no truth.
    """
    from medjax.report.html import Table
    from medjax.report.terminal import print_table
    from medjax.running.environment import prepare_process
    from medjax.tools.checks import whole_numbers
    from medjax.tools.label_flips import label_flips

    prepare_process()
    expected = "different whole numbers, background first, as in --labels 0,1,2"
    known = whole_numbers("--labels", labels, expected, lambda numbers: len(set(numbers)) == len(numbers) > 1)
    found = label_flips(pred, gt, output, logits=logits, probabilities=probabilities, groups=groups, labels=known)
    for name in found.without_foreground:
        typer.echo(f"medjax: {name}: no foreground in its ground truth; left out of the means", err=True)
    rows = [[name, *map(float, fractions)] for name, fractions in found.fractions.items()]
    print_table(Table(["true foreground", "correct", "flip", "miss"], rows))
    if found.gaps is not None:
        gaps = ", ".join(f"class {kind} {gap:.4f}" for kind, gap in enumerate(found.gaps))
        typer.echo(f"\nIoU, common minus rare group: {gaps}")
    if found.deciles is not None:
        rows = list(zip(range(1, 11), found.deciles.risk, found.deciles.flip, strict=True))
        typer.echo("")
        print_table(Table(["decile of flip-risk", "risk", "flip"], rows))
        typer.echo(f"\n{found.deciles.top_share:.1%} of all flips are in the last decile")
    typer.echo(f"\nwrote {output}")

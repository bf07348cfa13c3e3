"""`medjax segment`: train a segmentation and predict with it; `flips` is another name for `medjax shortcuts flips`."""

from pathlib import Path
from typing import Annotated

import typer

from medjax.cli.shortcuts import flips_command
from medjax.tools import defaults

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Train segmentation, predict, find what went wrong.")

Dataset = Annotated[
    Path,
    typer.Argument(metavar="DATASET", help="Folder in nnU-Net v2's raw layout: dataset.json, …", show_default=False),
]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder that `train` wrote.", show_default=False)]
Images = Annotated[
    Path, typer.Argument(metavar="IMAGES", help="Folder of CASE_0000.nii.gz, …, as imagesTs.", show_default=False)
]
OutputDir = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write.", show_default=False)]
Patch = Annotated[str | None, typer.Option(metavar="X,Y,Z", help="Voxels of a patch, overruling the plan.")]
Folds = Annotated[str | None, typer.Option(metavar="K,K…", help="Networks to average.", show_default="all there are")]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CLASS=N", help="Largest components to keep of a structure, or none.", show_default="as validation says"
    ),
]


Network = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE.py:NAME",
        help="plain_unet, which is nnU-Net's; unet; or your own: a Model, or a function of the Plan that makes one.",
    ),
]
OwnNetwork = Annotated[
    str | None,
    typer.Option(
        "--network", metavar="FILE.py:NAME", help="The network of your own that the model was trained with, unchanged."
    ),
]


@app.callback()
def _segment() -> None:
    pass


app.command("flips")(flips_command)  # another name for `medjax shortcuts flips`


@app.command("train")
def train_command(
    dataset: Dataset,
    output: OutputDir,
    fold: Annotated[str, typer.Option(help="0 to 4, or all, one after the other.")] = "all",
    epochs: Annotated[int, typer.Option(help="Of each fold.", min=1)] = defaults.EPOCHS,
    iterations: Annotated[int, typer.Option(help="Steps in an epoch.", min=1)] = defaults.ITERATIONS,
    rate: Annotated[float, typer.Option(help="Learning rate at the start.")] = defaults.RATE,
    base_width: Annotated[int, typer.Option(help="Channels of the finest level.", min=1)] = defaults.BASE_WIDTH,
    memory_gb: Annotated[float, typer.Option(help="Accelerator memory to plan for.")] = defaults.MEMORY_GB,
    patch: Patch = None,
    seed: Annotated[int, typer.Option(help="Of folds, networks and patches.", min=0)] = 0,
    network: Network = defaults.NETWORK,
) -> None:
    """Train nnU-Net's 3-D U-Net: plan from the data, five folds, each case validated by the fold that did not see it.

    medjax segment train Dataset004_Hippocampus -o model --fold 0

    The same command continues a run that was stopped. For a try on a CPU: --base-width 8 --memory-gb 1
    --patch 32,32,16 --epochs 40 --iterations 25.

    The folder remembers a network of your own by the name and SHA-256 of its file: `predict` needs --network again.
    """
    from medjax.running.environment import prepare_process
    from medjax.running.parts import load_part, names_part
    from medjax.tools.checks import whole_numbers
    from medjax.tools.segment_train import train

    prepare_process()
    expected = "three whole numbers of voxels, as in --patch 96,96,32"
    sides = whole_numbers("--patch", patch, expected, lambda sides: len(sides) == 3 and min(sides) > 0)
    result = train(
        dataset, output, fold=int(fold) if fold.isdecimal() else fold, epochs=epochs, iterations=iterations, rate=rate,
        base_width=base_width, memory_gb=memory_gb, patch=(sides[0], sides[1], sides[2]) if sides else None, seed=seed,
        network=load_part(network, "--network") if names_part(network) else network,
    )  # fmt: skip
    if result.keep is not None:
        kept = [name for name, kind in result.labels.items() if kind in result.keep]
        typer.echo(f"one component is kept of: {', '.join(kept) or 'none'} (by the validation cases of all folds)")


@app.command("predict")
def predict_command(
    model: Model,
    images: Images,
    output: OutputDir,
    folds: Folds = None,
    mirror: Annotated[bool, typer.Option(help="Average over all mirrored images: 8 times the work.")] = True,
    keep: Keep = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also CASE.npz, classes last.")] = False,
    best: Annotated[bool, typer.Option("--best", help="The best average pseudo-Dice, not the last epoch.")] = False,
    network: OwnNetwork = None,
) -> None:
    """Label every image of a folder with the networks of a model; NIfTI on the images' own grids.

    medjax segment predict model Dataset004_Hippocampus/imagesTs -o predicted --keep Anterior=1
    """
    from medjax.running.environment import prepare_process
    from medjax.running.parts import load_part
    from medjax.tools.checks import whole_numbers
    from medjax.tools.segment_predict import predict

    prepare_process()
    pieces = (
        None
        if not keep
        else {}
        if "none" in keep
        else {name: count for name, _, count in (text.partition("=") for text in keep)}
    )
    result = predict(
        model, images, output, folds=whole_numbers("--folds", folds, "numbers of folds, as in --folds 0,2"),
        mirror=mirror, keep=pieces, probabilities=probabilities, best=best,
        network=load_part(network, "--network") if network else None,
    )  # fmt: skip
    kept = f", {result.keep} components kept" if result.keep else ""
    typer.echo(f"{len(result.cases)} cases by {result.networks} networks{kept}; wrote {output}")

"""`medjax segment`: nnU-Net's training, prediction, evaluation; `flips` is another name of `medjax shortcuts flips`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from medjax import defaults
from medjax.cli.completion import one_of
from medjax.cli.device_options import Devices
from medjax.cli.segment_evaluate import evaluate_command
from medjax.cli.shortcuts import flips_command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Train nnU-Net, segment images with it, evaluate; find label flips.",
)

Dataset = Annotated[
    Path,
    typer.Argument(
        metavar="DATASET", help="Data set folder in nnU-Net v2's raw layout: dataset.json, …", show_default=False
    ),
]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder that `train` wrote.", show_default=False)]
Images = Annotated[
    Path, typer.Argument(metavar="IMAGES", help="Image folder of CASE_0000.nii.gz, …, as imagesTs.", show_default=False)
]
ModelDir = Annotated[
    Path,
    typer.Option("-o", "--output", metavar="DIR", help="Model folder to write: plan and folds.", show_default=False),
]
OutputDir = Annotated[
    Path,
    typer.Option("-o", "--output", metavar="DIR", help="Output folder of the label images.", show_default=False),
]
Patch = Annotated[
    str | None,
    typer.Option(
        metavar="X,Y,Z", help="Patch size in voxels; of 2d two numbers are enough.", show_default="as planned"
    ),
]
Configuration = Annotated[
    str,
    typer.Option(
        "-c",
        "--configuration",
        metavar="3d_fullres|2d",
        help="nnU-Net's configuration: 2d takes slices.",
        autocompletion=one_of("3d_fullres", "2d"),
    ),
]
MirrorAxes = Annotated[
    str | None,
    typer.Option(
        "--mirror",
        metavar="X,Y,Z|none",
        help="Voxel axes that training and prediction mirror, such as x,z. A network mirrored from left to right "
        "cannot tell a left label from a right one.",
        show_default="all, but for left-right if labels name a side",
    ),
]
Splits = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Cross-validation folds: nnU-Net's splits_final.json.",
        show_default="that of the data set, else five drawn from the seed",
    ),
]
Folds = Annotated[
    str | None,
    typer.Option(
        metavar="K,K…",
        help="Cross-validation folds whose networks form the ensemble.",
        show_default="all that are trained",
    ),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CLASS=N",
        help="Number of largest connected components to keep of a class; none: keep all.",
        show_default="by cross-validation",
    ),
]


Network = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE.py:NAME",
        help="Network: plain_unet (nnU-Net's), unet, or your own: a Model, or a function of the Plan that makes one.",
        autocompletion=one_of("plain_unet", "unet"),
    ),
]
OwnNetwork = Annotated[
    str | None,
    typer.Option("--network", metavar="FILE.py:NAME", help="Network of your own that the model was trained with."),
]


app.command("flips")(flips_command)  # another name of `medjax shortcuts flips`


@app.command("train")
def train_command(
    dataset: Dataset,
    output: ModelDir,
    fold: Annotated[str, typer.Option(help="Cross-validation fold: 0 to 4, or all, one after the other.")] = "all",
    splits: Splits = None,
    epochs: Annotated[int, typer.Option(help="Number of epochs of each fold.", min=1)] = defaults.SEGMENT_EPOCHS,
    iterations: Annotated[
        int, typer.Option(help="Number of training steps in an epoch.", min=1)
    ] = defaults.SEGMENT_ITERATIONS,
    rate: Annotated[float, typer.Option(help="Learning rate of the first epoch.")] = defaults.SEGMENT_RATE,
    base_width: Annotated[
        int, typer.Option(help="Number of channels of the network's finest level.", min=1)
    ] = defaults.SEGMENT_WIDTH,
    memory_gb: Annotated[float, typer.Option(help="Accelerator memory to plan for, GB.")] = defaults.SEGMENT_MEMORY_GB,
    patch: Patch = None,
    configuration: Configuration = defaults.SEGMENT_CONFIGURATION,
    mirror: MirrorAxes = None,
    seed: Annotated[
        int, typer.Option(help="Random seed of folds, network weights, patches and augmentation.", min=0)
    ] = 0,
    network: Network = defaults.SEGMENT_NETWORK,
    devices: Devices = 1,
) -> None:
    """Train nnU-Net's 3-D or 2-D U-Net: experiment planning, five-fold cross-validation, postprocessing.

    medjax segment train Dataset004_Hippocampus -o model --fold 0

    The same command resumes a training that was stopped. A small one for a CPU: --base-width 8 --memory-gb 1
    --patch 32,32,16 --epochs 40 --iterations 25.

    A network of your own is recorded by the name and SHA-256 of its file: `predict` needs --network again.
    """
    from medjax.running.environment import command_process
    from medjax.running.parts import is_part_reference, load_part
    from medjax.tools.checks import parse_integers
    from medjax.tools.segment_planning import parse_axes
    from medjax.tools.segment_train import train

    flat = configuration == "2d"
    expected = f"{'two or ' * flat}three whole numbers of voxels, as in --patch {'80,80' if flat else '96,96,32'}"
    sides = parse_integers("--patch", patch, expected, lambda sides: 3 - flat <= len(sides) <= 3 and min(sides) > 0)
    with command_process():
        result = train(
            dataset, output, fold=fold, splits=splits, epochs=epochs,
            iterations=iterations, rate=rate, base_width=base_width, memory_gb=memory_gb, mirror=parse_axes(mirror),
            seed=seed, patch=tuple(sides) if sides else None, configuration=configuration,
            network=load_part(network, "--network") if is_part_reference(network) else network, devices=devices,
        )  # fmt: skip
    if result.keep is not None:
        kept = [name for name, kind in result.labels.items() if kind in result.keep]
        typer.echo(f"one component is kept of: {', '.join(kept) or 'none'} (by cross-validation)")
    own = ["--network", network] if is_part_reference(network) else []
    command = ["medjax", "segment", "predict", str(output), str(dataset / "imagesTs"), "-o", "predicted", *own]
    if (dataset / "imagesTs").is_dir():
        typer.echo(f"segment its test images with: {shlex.join(command)}")


@app.command("predict")
def predict_command(
    model: Model,
    images: Images,
    output: OutputDir,
    folds: Folds = None,
    mirror: Annotated[
        bool,
        typer.Option(
            help="Test-time augmentation by mirroring along the axes that training mirrored: 8 times the time for 3."
        ),
    ] = True,
    keep: Keep = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write class probabilities too: CASE.npz, classes last.")
    ] = False,
    best: Annotated[
        bool,
        typer.Option(
            "--best", help="Use the parameters of the best moving average of pseudo-Dice, not the final ones."
        ),
    ] = False,
    network: OwnNetwork = None,
) -> None:
    """Segment every image of a folder with the ensemble of a model's folds; NIfTI on the images' own grids.

    medjax segment predict model Dataset004_Hippocampus/imagesTs -o predicted --keep Anterior=1
    """
    from medjax.errors import pluralize
    from medjax.running.environment import command_process
    from medjax.running.parts import load_part
    from medjax.tools.checks import parse_integers
    from medjax.tools.segment_predict import predict

    components = (
        None
        if not keep
        else {}
        if "none" in keep
        else {name: count for name, _, count in (text.partition("=") for text in keep)}
    )
    with command_process():
        result = predict(
            model, images, output, folds=parse_integers("--folds", folds, "numbers of folds, as in --folds 0,2"),
            mirror=mirror, keep=components, probabilities=probabilities, best=best,
            network=load_part(network, "--network") if network else None,
        )  # fmt: skip
    kept = f", {result.keep} components kept" if result.keep else ""
    old = len(result.cases) - len(result.new)
    wrote = f"wrote {output}" if result.new else f"finished already in {output}"
    there = f" ({old} were there already)" if old and result.new else ""
    typer.echo(
        f"{pluralize(len(result.cases), 'case')} by {pluralize(result.networks, 'network')}{kept}; {wrote}{there}"
    )
    references = images.with_name("labelsTs")
    if references.is_dir() and images.name == "imagesTs":
        typer.echo(f"evaluate them with: {shlex.join(['medjax', 'segment', 'evaluate', str(output), str(references)])}")


@app.command("simulate")
def simulate_command(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DATASET", help="New data set folder.")],
    number: Annotated[int, typer.Option(help="Number of training cases.")] = defaults.SIMULATED_CASES,
    test: Annotated[int, typer.Option(help="Number of test cases.")] = defaults.SIMULATED_TEST_CASES,
    size: Annotated[int, typer.Option(help="Number of voxels along x and y, of 144 mm.")] = defaults.SIMULATED_SIZE,
    seed: Annotated[int, typer.Option(help="Random seed of fetuses and noise.")] = 0,
) -> None:
    """Simulate fetal MRI with labels of lungs, liver and heart in nnU-Net's layout, to try `medjax segment train` on.

    medjax segment simulate -o Dataset001_Fetus
    """
    from medjax.errors import pluralize
    from medjax.tools.segment_simulate import simulate

    made = simulate(output, number=number, test=test, size=size, seed=seed)
    typer.echo(f"{pluralize(made.training, 'training case')}, {pluralize(made.test, 'test case')}")
    typer.echo("a trial of a few minutes, whose masks are rough, for nnU-Net takes 300 times the iterations:")
    command = f"medjax segment train {shlex.quote(str(output))} -o model --fold 0 --base-width 8 --memory-gb 1"
    typer.echo(f"train on them with: {command} --patch 24,24,12 --epochs 40 --iterations 20")


app.command("evaluate")(evaluate_command)

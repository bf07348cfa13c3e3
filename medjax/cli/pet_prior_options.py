"""The options of `medjax pet train-prior`: their types and help."""

from pathlib import Path
from typing import Annotated

import typer

from medjax.cli.completion import one_of
from medjax.cli.pet_options import part

Images = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="IMAGE…", help="PET images (NIfTI), one a subject; none with --phantoms.", show_default=False
    ),
]
PriorDir = Annotated[
    Path, typer.Option("-o", "--output", metavar="DIR", help="Work directory; the trained prior is its prior.npz.")
]
Phantoms = Annotated[int, typer.Option(help="Number of random brain phantoms to train on, instead of images.")]
PhantomKind = Annotated[
    str,
    typer.Option(
        "--kind",
        help="Kind of phantoms: noise_free, osem (OSEM images at full counts) or without_lesions.",
        autocompletion=one_of("noise_free", "osem", "without_lesions"),
    ),
]
Tracer = Annotated[
    str | None,
    typer.Option(help="Tracer of the images, such as fdg, which the prior remembers.", show_default=False),
]
PriorSize = Annotated[int, typer.Option("--size", help="Number of voxels of a training slice along each side.")]
PriorVoxel = Annotated[float, typer.Option("--voxel-mm", help="Voxel size (mm) of the training slices.")]
Steps = Annotated[int, typer.Option(help="Number of training steps.")]
Batch = Annotated[int, typer.Option(help="Batch size: slices in a training step.")]
Rate = Annotated[
    float, typer.Option(help="Peak learning rate, after warm-up; it decays to 0 over the last quarter of the steps.")
]
TrainSeed = Annotated[int, typer.Option("--seed", help="Random seed of initial parameters, order of slices and noise.")]
StartFrom = Annotated[
    Path | None,
    typer.Option(
        "--start",
        metavar="PRIOR",
        help="Pretrained prior whose parameters training starts from: a file, or the name of a shipped one.",
        show_default=False,
    ),
]
PriorMr = Annotated[
    Path | None,
    typer.Option(
        "--mr",
        metavar="DIR",
        help="Folder of the subjects' MR images, with the PET's file names: train an MR-guided prior.",
        show_default=False,
    ),
]
TrainedNetwork = Annotated[
    str | None,
    part(
        "Network of your own: a Model of (noisy slices, level, orientation[, MR]), or a function of the prior's "
        "settings that returns one. `reconstruct` needs it again as its --network.",
        "--network",
        default="a U-Net",
    ),
]

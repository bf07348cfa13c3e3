"""The options of `medjax pet`: their types and help."""

from pathlib import Path
from typing import Annotated, Any

import typer


def part(text: str, *names: str, default: bool | str = False) -> Any:
    """An option that takes a part of the user's own."""
    return typer.Option(*names, metavar="FILE.py:NAME", help=text, show_default=default)


SCANNERS = "mmr, mct or ring_2d (one ring)"

# Of reconstruct
CountsFile = Annotated[
    Path,
    typer.Argument(
        metavar="COUNTS", show_default=False, help="A counts file (.npz), an Interfile header (.hs), or list mode (.l)."
    ),
]
ImageFile = Annotated[
    Path,
    typer.Option("-o", "--output", metavar="IMAGE", help="NIfTI to write; a picture goes beside it as .png."),
]
Scanner = Annotated[str | None, typer.Option(help=f"{SCANNERS}; a counts file names its own.", show_default=False)]
Method = Annotated[str, typer.Option(help="osem, mlem, map-em, dds or likelihood-schedule.")]
Iterations = Annotated[
    int | None,
    typer.Option(
        help="Iterations, each of all subsets. likelihood-schedule: those of MLEM whose likelihood it ends with; dds: "
        "updates a step.",
        show_default="osem 3, mlem 30, map-em 10, likelihood-schedule 20, dds 4",
    ),
]
Subsets = Annotated[
    int | None, typer.Option(help="Subsets of the views in an iteration.", show_default="osem 21, mlem 1, map-em 7")
]
MuMap = Annotated[
    Path | None,
    typer.Option(
        metavar="NIFTI",
        help="Attenuation map in mm⁻¹. Its factors come on top of those in COUNTS: leave it out where a counts file "
        "holds attenuation already, as those of `medjax pet simulate` do.",
    ),
]
Guide = Annotated[
    Path | None,
    typer.Option(
        metavar="NIFTI", help="MR image in the same space, for map-em (Bowsher), and samplers whose prior knows MR."
    ),
]
Beta = Annotated[
    float | None,
    typer.Option(
        help="Strength of map-em's penalty ½ β Σ w ((xⱼ − xₖ) / m)²: pairs of neighbours, weights w that add up to 1 "
        "around a voxel, m the mean of what is active. So β needs no tuning to units or counts: neighbours are taken "
        "to differ by about 1/√β of m.",
        show_default="5; 30 with --mr",
    ),
]
PsfMm = Annotated[float, typer.Option(help="Resolution (FWHM) that the model knows of; 0: none.")]
PostFilter = Annotated[float, typer.Option(help="FWHM of a Gaussian over the finished image; 0: none.")]
Size = Annotated[
    int | None,
    typer.Option(help="Voxels along x and y; what emits must fit in.", show_default="the file's truth's, or 128"),
]
VoxelMm = Annotated[float | None, typer.Option(help="Voxel size along x and y.", show_default="the scanner's")]
SumPlanes = Annotated[int, typer.Option(help="Neighbouring planes to add up, where counts are few.")]
MaxRingDifference = Annotated[int, typer.Option(help="Largest ring difference of the list-mode events to use.")]
Additive = Annotated[
    Path | None,
    typer.Option(metavar="HEADER", help="Interfile: expected randoms and scatter.", show_default="none"),
]
Multiplicative = Annotated[
    Path | None,
    typer.Option(metavar="HEADER", help="Interfile: attenuation × normalisation.", show_default="the detector gaps"),
]
Centre = Annotated[
    str | None,
    typer.Option(
        metavar="X,Y,Z", help="Where the scanner's centre lies, RAS+ mm.", show_default="the file's, or 0,0,0"
    ),
]

PenaltyPart = Annotated[
    str | None,
    part(
        "Your own penalty for map-em: a pytree with value, gradient and surrogate, or a function of the image's shape "
        "and voxel size (mm) that returns one. β is its weight as it is, 1 unless given.",
        "--penalty",
    ),
]
PriorFile = Annotated[
    str | None,
    typer.Option(
        metavar="PRIOR",
        help="What dds and likelihood-schedule sample: a score prior from `medjax pet train-prior`, or FILE.py:NAME, "
        "your own denoiser (x, t) → x0 of slices (batch, a, b) of mean emission 1 with its `sde`. The same one serves "
        "all three orientations; slices of an --mr are its third argument.",
        show_default="a brain's, FDG-like, 2.5 mm",
    ),
]
PriorNetwork = Annotated[str | None, part("The network that the prior was trained with, if not medjax's.", "--network")]
Samples = Annotated[int, typer.Option(help="Samples; their mean is the image, …_sd.nii.gz their standard deviation.")]
SamplingSteps = Annotated[int, typer.Option("--steps", help="Reverse steps of a sample.")]
SamplingSeed = Annotated[int, typer.Option("--seed", help="Random seed of the samples.")]
Perpendicular = Annotated[
    bool, typer.Option("--perpendicular", help="Use the prior in all three orientations, in turn.")
]

# Of simulate
NewCounts = Annotated[Path, typer.Option("-o", "--output", metavar="COUNTS", help="Counts file (.npz) to write.")]
Phantom = Annotated[str | None, typer.Option(help="fdg or dpa714: a brain.", show_default="fdg")]
Activity = Annotated[
    Path | None,
    typer.Option(metavar="NIFTI", help="An image of your own instead, any unit a volume.", show_default=False),
]
ActivityMu = Annotated[
    Path | None, typer.Option(metavar="NIFTI", help="Its attenuation map in mm⁻¹.", show_default="no attenuation")
]
Lesions = Annotated[int, typer.Option(help="Lesions to put into the phantom.")]
LesionKind = Annotated[str, typer.Option(help="Where they show: pet, mr or both.")]
SimulatedScanner = Annotated[str, typer.Option("--scanner", help=f"{SCANNERS}.")]
TruesPerMm3 = Annotated[
    float | None, typer.Option(help="Expected trues per mm³ of what emits within the planes.", show_default="10")
]
Trues = Annotated[float | None, typer.Option(help="Expected trues in all, instead.", show_default=False)]
Background = Annotated[float, typer.Option(help="Fraction of the prompts that is randoms and scatter.")]
Planes = Annotated[
    int | None, typer.Option(help="Direct planes, an odd number.", show_default="what covers the object")
]
SliceMm = Annotated[
    float | None, typer.Option(help="Middle plane's z in the image's space.", show_default="the object's middle")
]
SimulatedCentre = Annotated[
    str | None,
    typer.Option(
        "--centre",
        metavar="X,Y,Z",
        help="Where the scanner's centre lies, RAS+ mm.",
        show_default="the middle of the image's field of view",
    ),
]
ResolutionMm = Annotated[float, typer.Option("--psf-mm", help="The scanner's resolution, FWHM.")]
TruthSize = Annotated[int, typer.Option("--size", help="Voxels along x and y of the truth.")]
Seed = Annotated[int, typer.Option(help="Random seed of lesions and noise.")]
TruthDir = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Also write truth, mu and t1 (.nii.gz) there.", show_default=False)
]

# Of train-prior
Images = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="IMAGE…", help="NIfTI images of PET, one a subject; none with --phantoms.", show_default=False
    ),
]
PriorDir = Annotated[
    Path, typer.Option("-o", "--output", metavar="DIR", help="Work directory; the prior is its prior.npz.")
]
Phantoms = Annotated[int, typer.Option(help="Train on so many random brain phantoms instead.")]
PriorSize = Annotated[int, typer.Option("--size", help="Voxels of a training slice, each way.")]
PriorVoxel = Annotated[float, typer.Option("--voxel-mm", help="Voxel size of the slices.")]
Steps = Annotated[int, typer.Option(help="Training steps.")]
Batch = Annotated[int, typer.Option(help="Slices a step.")]
Rate = Annotated[float, typer.Option(help="Learning rate: warm-up, then a cosine to 0.")]
TrainSeed = Annotated[int, typer.Option("--seed", help="Random seed of start, order and noise.")]
StartFrom = Annotated[
    Path | None, typer.Option("--start", metavar="PRIOR", help="A prior to go on from.", show_default=False)
]
PriorMr = Annotated[
    Path | None, typer.Option("--mr", metavar="DIR", help="Folder of MR images, named as the PET.", show_default=False)
]
TrainedNetwork = Annotated[
    str | None,
    part(
        "Your own network: a Model of (noisy slices, level, orientation[, MR]), or a function of the prior's Settings "
        "that returns one. `reconstruct --network` takes it again.",
        "--network",
        default="a U-Net",
    ),
]

"""The options of `medjax pet reconstruct`: their types and help."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medjax.cli.completion import one_of


def part(text: str, *names: str, default: bool | str = False) -> Any:
    """Command-line option that takes a user's own part as FILE.py:NAME."""
    return typer.Option(*names, metavar="FILE.py:NAME", help=text, show_default=default)


SCANNERS = "Scanner preset: mmr, mct or ring_2d (one ring)"
complete_scanner = one_of("mmr", "mct", "ring_2d")

CountsFile = Annotated[
    Path,
    typer.Argument(
        metavar="COUNTS",
        show_default=False,
        help="Measured counts: a counts file (.npz), Interfile header (.hs) or list mode (.l, PETSIRD).",
    ),
]
ImageFile = Annotated[
    Path,
    typer.Option(
        "-o", "--output", metavar="IMAGE", help="Reconstructed image to write (NIfTI), with a figure (.png) beside it."
    ),
]
Scanner = Annotated[
    str | None,
    typer.Option(
        help=f"{SCANNERS}; a counts file (.npz) names its own.", show_default=False, autocompletion=complete_scanner
    ),
]
Method = Annotated[
    str,
    typer.Option(
        help="Reconstruction method: osem, mlem, kernel-em; map-em, svrg, bsrem of a penalized likelihood; samplers "
        "split-gibbs, dds-cg, dds or likelihood-schedule.",
        autocompletion=one_of(
            "osem",
            "mlem",
            "kernel-em",
            "map-em",
            "svrg",
            "bsrem",
            "split-gibbs",
            "dds-cg",
            "dds",
            "likelihood-schedule",
        ),
    ),
]
Iterations = Annotated[
    int | None,
    typer.Option(
        help="Number of iterations, each of all subsets. likelihood-schedule: of MLEM, whose likelihood is the target; "
        "dds: updates in each reverse diffusion step; split-gibbs, dds-cg: conjugate-gradient iterations in each step.",
        show_default="osem 3 or more, mlem 30, map-em and kernel-em 10, svrg 20, bsrem 30, likelihood-schedule 20, "
        "dds 4, dds-cg 2, split-gibbs 4",
    ),
]
Subsets = Annotated[
    int | None,
    typer.Option(
        help="Number of ordered subsets of the views.",
        show_default="osem 21, fewer below 500 counts a subset and slice, mlem 1, map-em and kernel-em 7, svrg and "
        "bsrem 21",
    ),
]
MuMap = Annotated[
    Path | None,
    typer.Option(
        metavar="NIFTI",
        help="Attenuation map (μ-map) in mm⁻¹. Its factors multiply those of COUNTS or --multiplicative, which must "
        "not hold attenuation already, as those of `medjax pet simulate` do; see --corrections.",
    ),
]
Guide = Annotated[
    Path | None,
    typer.Option(
        metavar="NIFTI",
        help="MR image in the same space: anatomical guide of the penalty (Bowsher) or of kernel-em, or input of an "
        "MR-guided prior.",
    ),
]
Beta = Annotated[
    float | None,
    typer.Option(
        help="Penalty strength β of map-em, svrg and bsrem, without unit: ½ β Σ w ((xⱼ − xₖ) / m)² over pairs of "
        "neighbours, weights w that add up to 1 around a voxel, m the mean activity; of the relative difference, with "
        "m (xⱼ + xₖ + 2 |xⱼ − xₖ|) / 2 for m². It needs no tuning to units or counts: neighbours are expected to "
        "differ by about m / √β.",
        show_default="5; 30 with --mr",
    ),
]
PsfMm = Annotated[float, typer.Option(help="Resolution (FWHM, mm) of the model's point spread function; 0: none.")]
PostFilter = Annotated[float, typer.Option(help="FWHM (mm) of the Gaussian post-filter; 0: none.")]
Size = Annotated[
    int | None,
    typer.Option(
        help="Number of voxels along x and y; the object must fit in.",
        show_default="as the truth in the file, or 128; of samplers 96",
    ),
]
VoxelMm = Annotated[
    float | None,
    typer.Option(
        "--voxel-mm",
        help="Voxel size (mm) along x and y.",
        show_default="as the truth in the file, or the scanner's; of samplers 2.5",
    ),
]
SumPlanes = Annotated[int, typer.Option(help="Number of neighbouring planes to sum into one, where counts are few.")]
Ct = Annotated[
    Path | None,
    typer.Option(
        metavar="NIFTI",
        help="CT in HU in the same space, instead of --mu: its μ at 511 keV is that of the bilinear curve for --kvp.",
        show_default=False,
    ),
]
Kvp = Annotated[
    int | None,
    typer.Option("--kvp", help="Tube voltage of --ct in kV: 80, 100, 110, 120, 130 or 140.", show_default="120"),
]
ListMode = Annotated[
    bool,
    typer.Option("--list-mode", help="Reconstruct Siemens list mode event by event, in 3-D; PETSIRD always is."),
]
FrameDurations = Annotated[
    str | None,
    typer.Option(
        "--frames",
        metavar="SECONDS",
        help="Time frames of list mode by their durations in s, as in 5x60,3x120, or start and end, as in 30-90: an "
        "image of each, and a table.",
        show_default="one frame",
    ),
]
ScatterWindow = Annotated[
    str | None,
    typer.Option(
        "--scatter",
        metavar="LOWER,UPPER,RESOLUTION",
        help="Add scatter to the background by a single-scatter simulation, scaled to the tails outside the body: "
        "energy window in keV and energy resolution (FWHM at 511 keV) in %, as in 430,610,14.5. It needs --mu or --ct.",
        show_default="none",
    ),
]
Span = Annotated[
    int | None,
    typer.Option(
        help="Axial compression (span, odd) of list mode, for a fully 3-D reconstruction of its oblique planes. Other "
        "files have a span of their own.",
        show_default="list mode: single-slice rebinning to direct planes",
    ),
]
MaxRingDifference = Annotated[
    int | None,
    typer.Option(
        help="Largest ring difference, in rings, of list-mode events or of the segments of oblique planes.",
        show_default="direct planes of list mode 5, else all",
    ),
]
Additive = Annotated[
    Path | None,
    typer.Option(metavar="HEADER", help="Expected randoms + scatter (Interfile).", show_default="none"),
]
AdditiveConvention = Annotated[
    str,
    typer.Option(
        help="Unit of --additive: counts, or divided, that is counts divided by the multiplicative factors, as STIR's "
        "additive sinogram is.",
        autocompletion=one_of("counts", "divided"),
    ),
]
Multiplicative = Annotated[
    Path | None,
    typer.Option(
        metavar="HEADER",
        help="Multiplicative factors (Interfile): attenuation × normalisation, and the number of ring pairs in a "
        "plane. --corrections states what they hold.",
        show_default="the detector gaps and ring pairs",
    ),
]
MultiplicativeConvention = Annotated[
    str,
    typer.Option(
        help="What --multiplicative has: factors, by which expected counts are multiplied (attenuation e^−∫μ ≤ 1), or "
        "corrections, their reciprocals (attenuation correction factors e^+∫μ ≥ 1, STIR's normalisation).",
        autocompletion=one_of("factors", "corrections"),
    ),
]
Corrections = Annotated[
    str | None,
    typer.Option(
        metavar="A,B",
        help="Corrections in the multiplicative factors: none, or some of attenuation, normalisation, dead time, "
        "decay, arc correction. Without attenuation, --mu adds it.",
        show_default="as the file says, else attenuation,normalisation of --multiplicative",
    ),
]
Center = Annotated[
    str | None,
    typer.Option(
        "--centre",
        metavar="X,Y,Z",
        help="Position of the scanner's centre, RAS+ mm.",
        show_default="the file's, or 0,0,0",
    ),
]

PenaltyPart = Annotated[
    str | None,
    typer.Option(
        "--penalty",
        metavar="NAME",
        help="Penalty of map-em, svrg and bsrem: quadratic, relative-difference (not of map-em), or FILE.py:NAME, one "
        "of your own: a pytree with value, gradient and surrogate (svrg: curvature), or a function of the image's "
        "shape and voxel size (mm) that returns one. β is then its weight, 1 by default.",
        show_default="quadratic",
        autocompletion=one_of("quadratic", "relative-difference"),
    ),
]
PriorFile = Annotated[
    str | None,
    typer.Option(
        metavar="PRIOR",
        help="Score prior of dds and likelihood-schedule: a file of `medjax pet train-prior`, or FILE.py:NAME, a "
        "denoiser (x, t) → x0 of your own, of slices (batch, a, b) of mean emission 1, with its `sde`. The same one "
        "serves all three orientations; slices of an --mr are its third argument.",
        show_default="brain, FDG-like, 2.5 mm",
    ),
]
PriorNetwork = Annotated[str | None, part("Network that the prior was trained with, if not medjax's.", "--network")]
Samples = Annotated[
    int,
    typer.Option(help="Number of posterior samples; their mean is the image, …_sd.nii.gz their standard deviation."),
]
SamplingSteps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        help="Number of reverse diffusion steps of a sample; split-gibbs: in each draw from the prior.",
        show_default="dds and likelihood-schedule 50, dds-cg 8, split-gibbs 6",
    ),
]
SamplingSeed = Annotated[int, typer.Option("--seed", help="Random seed of the samples.")]
Perpendicular = Annotated[
    bool,
    typer.Option(
        "--perpendicular", help="Prior on slices of all three orientations in turn, not only transverse ones."
    ),
]

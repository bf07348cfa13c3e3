"""The options of `medjax pet simulate`: their types and help."""

from pathlib import Path
from typing import Annotated

import typer

from medjax.cli.completion import one_of
from medjax.cli.pet_options import SCANNERS, complete_scanner

NewCounts = Annotated[
    Path,
    typer.Option(
        "-o",
        "--output",
        metavar="COUNTS",
        help="Counts file (.npz), Interfile (.hs, with NAME_additive.hs and NAME_multiplicative.hs beside it) or "
        "PETSIRD list mode (.petsird, .ndjson; of --span 1) to write.",
    ),
]
Phantom = Annotated[
    str | None,
    typer.Option(
        help="Brain phantom with the uptake of a tracer: fdg or dpa714.",
        show_default="fdg",
        autocompletion=one_of("fdg", "dpa714"),
    ),
]
Activity = Annotated[
    Path | None,
    typer.Option(
        metavar="NIFTI",
        help="Activity image of your own instead of a phantom, in any unit of activity per volume.",
        show_default=False,
    ),
]
ActivityMu = Annotated[
    Path | None,
    typer.Option(metavar="NIFTI", help="Attenuation map (μ-map) of --activity in mm⁻¹.", show_default="no attenuation"),
]
Lesions = Annotated[int, typer.Option(help="Number of lesions in the phantom.")]
LesionKind = Annotated[
    str,
    typer.Option(
        help="Images in which the lesions are visible: pet, mr or both.", autocompletion=one_of("pet", "mr", "both")
    ),
]
SimulatedScanner = Annotated[str, typer.Option("--scanner", help=f"{SCANNERS}.", autocompletion=complete_scanner)]
TruesPerMm3 = Annotated[
    float | None,
    typer.Option(help="Expected true coincidences per mm³ of emission volume within the planes.", show_default="10"),
]
Trues = Annotated[
    float | None,
    typer.Option(help="Total number of expected true coincidences, instead of --trues-per-mm3.", show_default=False),
]
Background = Annotated[float, typer.Option(help="Fraction of the prompts that is background (randoms + scatter).")]
Planes = Annotated[
    int | None,
    typer.Option(help="Number of direct planes, odd, 2 · rings − 1.", show_default="as many as cover the object"),
]
SimulatedSpan = Annotated[
    int | None,
    typer.Option("--span", help="Axial compression (span, odd) of oblique planes.", show_default="direct planes alone"),
]
SimulatedRingDifference = Annotated[
    int | None,
    typer.Option("--max-ring-difference", help="Largest ring difference of oblique planes.", show_default="all"),
]
TofBins = Annotated[
    str | None,
    typer.Option(
        "--tof",
        metavar="BINS,WIDTH,RESOLUTION",
        help="Time of flight of oblique planes: number of bins, their width and the timing resolution (FWHM) in ps.",
        show_default="none",
    ),
]
SliceMm = Annotated[
    float | None,
    typer.Option(help="Position z (mm) of the middle plane, in the image's space.", show_default="the object's middle"),
]
SimulatedCenter = Annotated[
    str | None,
    typer.Option(
        "--centre",
        metavar="X,Y,Z",
        help="Position of the scanner's centre, RAS+ mm.",
        show_default="the middle of the image's field of view",
    ),
]
ResolutionMm = Annotated[float, typer.Option("--psf-mm", help="Resolution (FWHM, mm) of the scanner.")]
TruthVoxelMm = Annotated[
    float | None,
    typer.Option("--voxel-mm", help="Voxel size (mm) of the truth along x and y.", show_default="the scanner's"),
]
TruthSize = Annotated[int, typer.Option("--size", help="Number of voxels of the truth along x and y.")]
Seed = Annotated[int, typer.Option(help="Random seed of lesions and noise.")]
TruthDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder to write the true image, μ-map and T1 to (truth, mu, t1 .nii.gz).",
        show_default=False,
    ),
]

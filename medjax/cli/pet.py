"""`medjax pet`: simulate counts, reconstruct images from counts, train a prior for that.

Longer than 300 lines because every option's type and help stand here, and nothing else.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from medjax.errors import ConfigError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Simulate PET counts, reconstruct images from counts, train a prior for that.",
)

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
        help="Passes through the data. likelihood-schedule: of MLEM, whose likelihood it ends with, its one knob; dds: "
        "updates a step.",
        show_default="osem 3, mlem 30, map-em 10, likelihood-schedule 20, dds 4",
    ),
]
Subsets = Annotated[
    int | None, typer.Option(help="Subsets of the views in a pass.", show_default="osem 21, mlem 1, map-em 7")
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
MaxRingDifference = Annotated[int, typer.Option(help="Of the list-mode events to use.")]
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

PriorFile = Annotated[
    Path | None,
    typer.Option(
        metavar="PRIOR",
        help="Score prior that dds and likelihood-schedule sample, from `medjax pet train-prior`.",
        show_default="a brain's, FDG-like, 2.5 mm",
    ),
]
Samples = Annotated[int, typer.Option(help="Samples to draw: their mean is the image, …_sd.nii.gz their spread.")]
SamplingSteps = Annotated[int, typer.Option("--steps", help="Reverse steps of a sample.")]
SamplingSeed = Annotated[int, typer.Option("--seed", help="Of the samples.")]
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
Background = Annotated[float, typer.Option(help="Share of the counts that is no trues.")]
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
Seed = Annotated[int, typer.Option(help="Of lesions and noise.")]
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
TrainSeed = Annotated[int, typer.Option("--seed", help="Of start, order and noise.")]
StartFrom = Annotated[
    Path | None, typer.Option("--start", metavar="PRIOR", help="A prior to go on from.", show_default=False)
]
PriorMr = Annotated[
    Path | None, typer.Option("--mr", metavar="DIR", help="Folder of MR images, named as the PET.", show_default=False)
]


@app.command("reconstruct")
def reconstruct_command(
    counts: CountsFile,
    output: ImageFile,
    scanner: Scanner = None,
    method: Method = "osem",
    iterations: Iterations = None,
    subsets: Subsets = None,
    mu: MuMap = None,
    mr: Guide = None,
    beta: Beta = None,
    psf_mm: PsfMm = 4.5,
    post_filter_mm: PostFilter = 0.0,
    size: Size = None,
    voxel_mm: VoxelMm = None,
    sum_planes: SumPlanes = 1,
    max_ring_difference: MaxRingDifference = 5,
    additive: Additive = None,
    multiplicative: Multiplicative = None,
    centre: Centre = None,
    prior: PriorFile = None,
    samples: Samples = 1,
    steps: SamplingSteps = 50,
    seed: SamplingSeed = 0,
    perpendicular: Perpendicular = False,
) -> None:
    """Reconstruct an image from counts.

    medjax pet reconstruct counts.npz --method map-em --mr t1.nii.gz -o image.nii.gz

    medjax pet reconstruct scan.l --scanner mmr --sum-planes 4 --method map-em -o image.nii.gz

    medjax pet reconstruct counts.npz --method likelihood-schedule --samples 8 -o image.nii.gz

    List mode is rebinned to direct planes; its smoothed delayed coincidences are the background. For OSEM of so few
    counts: --sum-planes 4 --iterations 2 --subsets 3 --post-filter-mm 8.
    """
    with _prepared():
        from medjax.pet.io import load_scan
        from medjax.tools.pet_reconstruct import choose_settings, reconstruct
        from medjax.tools.pet_sample import Sampling

        settings = choose_settings(
            method,
            iterations,
            subsets,
            beta,
            psf_mm,
            post_filter_mm,
            guided=mr is not None,
            sampling=Sampling(prior, steps, samples, seed, perpendicular),
        )
        reconstruct(
            lambda: load_scan(
                counts,
                scanner,
                additive=additive,
                multiplicative=multiplicative,
                max_ring_difference=max_ring_difference,
            ),
            output,
            settings,
            mu=mu,
            mr=mr,
            size=size,
            voxel_mm=voxel_mm,
            planes_to_sum=sum_planes,
            centre_mm=_millimetres(centre),
        )


@app.command("simulate")
def simulate_command(
    output: NewCounts,
    phantom: Phantom = None,
    activity: Activity = None,
    mu: ActivityMu = None,
    lesions: Lesions = 0,
    lesion_kind: LesionKind = "both",
    scanner: SimulatedScanner = "mmr",
    trues_per_mm3: TruesPerMm3 = None,
    trues: Trues = None,
    background: Background = 0.5,
    planes: Planes = None,
    slice_mm: SliceMm = None,
    centre: SimulatedCentre = None,
    psf_mm: ResolutionMm = 4.5,
    size: TruthSize = 128,
    voxel_mm: VoxelMm = None,
    seed: Seed = 0,
    truth_dir: TruthDir = None,
) -> None:
    """Simulate the counts of a scan, of a brain phantom or of an image of your own.

    medjax pet simulate --phantom fdg --scanner mmr --trues-per-mm3 10 -o counts.npz

    medjax pet simulate --activity image.nii.gz --scanner ring_2d --slice-mm 20 -o slice.npz

    The phantom is the MNI152 atlas (it comes with nilearn, of medjax's extra `data`), with mm in its space. The
    simulation has 1 mm voxels and finer rays than a reconstruction.
    """
    with _prepared():
        from medjax.tools.pet_simulate import choose_counting, simulate, source

        counting = choose_counting(trues_per_mm3, trues, background, psf_mm, seed)
        simulate(
            source(phantom, activity, mu, lesions, lesion_kind),
            output,
            scanner,
            counting,
            planes=planes,
            slice_mm=slice_mm,
            centre_mm=_millimetres(centre),
            size=size,
            voxel_mm=voxel_mm,
            truth_dir=truth_dir,
        )


@app.command("train-prior")
def train_prior_command(
    output: PriorDir,
    images: Images = None,
    phantoms: Phantoms = 0,
    size: PriorSize = 96,
    voxel_mm: PriorVoxel = 2.5,
    steps: Steps = 10_000,
    batch: Batch = 8,
    rate: Rate = 2e-3,
    seed: TrainSeed = 0,
    start: StartFrom = None,
    mr: PriorMr = None,
) -> None:
    """Train a score prior on PET images of your own: a file that `reconstruct --prior` takes.

    medjax pet train-prior -o my_prior subject_*.nii.gz

    medjax pet train-prior -o brain_prior --phantoms 160

    Slices of all three orientations are learnt. Killed at any moment, the same command goes on.
    """
    with _prepared():
        from medjax.diffusion.prior import Settings
        from medjax.tools.pet_prior import train

        settings = Settings(size=size, voxel_mm=voxel_mm, guided=mr is not None)
        typer.echo(f"wrote {train(output, images or [], phantoms, settings, steps, batch, rate, seed, start, mr)}")


@contextmanager
def _prepared() -> Iterator[None]:
    """Compiled programs are kept, and a warning is one line on stderr, said when it comes."""
    from medjax.running.environment import prepare_process

    prepare_process()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _say
        yield


def _say(message: Warning | str, *_: object, **__: object) -> None:
    typer.echo(f"medjax: {message}", err=True)


def _millimetres(text: str | None) -> tuple[float, float, float] | None:
    """`x,y,z` as numbers."""
    if text is None:
        return None
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--centre {text}; expected three numbers in mm, as in --centre 0,-18.5,10") from None
    if not all(map(math.isfinite, (x, y, z))):
        raise ConfigError(f"--centre {text}; expected finite numbers")
    return x, y, z

"""`medjax pet`: simulate counts, reconstruct images from counts, train a score prior."""

import math
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import typer

from medjax import defaults
from medjax.cli import pet_options as options
from medjax.cli import pet_prior_options as prior_options
from medjax.cli import pet_quantify_options as quantify_options
from medjax.cli import pet_simulation_options as simulation_options
from medjax.cli.device_options import Devices
from medjax.errors import ConfigError
from medjax.running.environment import command_process
from medjax.running.parts import Part, is_part_reference, load_part

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Simulate PET counts, reconstruct images from counts, train a score prior.",
)


@app.command("reconstruct")
def reconstruct_command(
    counts: options.CountsFile,
    output: options.ImageFile,
    scanner: options.Scanner = None,
    method: options.Method = defaults.PET_METHOD,
    iterations: options.Iterations = None,
    subsets: options.Subsets = None,
    mu: options.MuMap = None,
    ct: options.Ct = None,
    kvp: options.Kvp = None,
    mr: options.Guide = None,
    beta: options.Beta = None,
    penalty: options.PenaltyPart = None,
    psf_mm: options.PsfMm = defaults.PET_PSF_MM,
    post_filter_mm: options.PostFilter = 0.0,
    size: options.Size = None,
    voxel_mm: options.VoxelMm = None,
    list_mode: options.ListMode = False,
    frames: options.FrameDurations = None,
    span: options.Span = None,
    max_ring_difference: options.MaxRingDifference = None,
    sum_planes: options.SumPlanes = 1,
    additive: options.Additive = None,
    additive_convention: options.AdditiveConvention = defaults.PET_ADDITIVE_CONVENTION,
    multiplicative: options.Multiplicative = None,
    multiplicative_convention: options.MultiplicativeConvention = defaults.PET_MULTIPLICATIVE_CONVENTION,
    corrections: options.Corrections = None,
    scatter: options.ScatterWindow = None,
    center: options.Center = None,
    prior: options.PriorFile = None,
    network: options.PriorNetwork = None,
    samples: options.Samples = 1,
    steps: options.SamplingSteps = None,
    seed: options.SamplingSeed = 0,
    perpendicular: options.Perpendicular = False,
) -> None:
    """Reconstruct an image from counts.

    medjax pet reconstruct counts.npz --method map-em --mr t1.nii.gz -o image.nii.gz

    medjax pet reconstruct scan.l --scanner mmr --sum-planes 4 --method map-em -o image.nii.gz

    medjax pet reconstruct scan.l --scanner mmr --list-mode --frames 5x60,3x120 -o image.nii.gz

    medjax pet reconstruct counts.npz --method split-gibbs --samples 16 -o image.nii.gz

    List mode is rebinned to direct planes, with --span reconstructed from oblique planes too, with --list-mode event by
    event; its expected randoms, from delayeds, are the background. For OSEM of few counts: --sum-planes 4 --iterations
    2 --subsets 3 --post-filter-mm 8.
    """
    with command_process():
        from medjax.pet.interfile_scan import Factors
        from medjax.pet.io import load_frames
        from medjax.tools.pet_frames import reconstruct_frames
        from medjax.tools.pet_maps import attenuation_map, energy_window
        from medjax.tools.pet_sample import SamplingOptions
        from medjax.tools.pet_settings import ReconstructionSettings

        slice_prior = _name_or_part(prior, "--prior") or (prior and Path(prior))
        sampling = SamplingOptions(slice_prior, steps, samples, seed, perpendicular, _part(network, "--network"))
        own = _name_or_part(penalty, "--penalty") or penalty
        settings = ReconstructionSettings(method, iterations, subsets, beta, psf_mm, post_filter_mm, own, sampling)
        factors = Factors(additive, multiplicative, additive_convention, multiplicative_convention, corrections)
        known = {"factors": factors, "span": span, "max_ring_difference": max_ring_difference, "events": list_mode}
        given = {"mu": attenuation_map(mu, ct, kvp), "mr": mr, "size": size, "voxel_mm": voxel_mm}
        given |= {"planes_to_sum": sum_planes, "center_mm": _millimetres(center), "scatter": energy_window(scatter)}
        load = partial(load_frames, counts, scanner, frames=frames, **known)
        made = reconstruct_frames(load, settings, output, dynamic=frames is not None, **given)
        error = "" if made.nrmse is None else f", NRMSE {made.nrmse:.3f} against the file's truth"
        written = f"wrote {made.files[0]} and {made.files[1].name}"
        typer.echo(f"{made.title}: {made.counts:,.0f} counts, {made.seconds:.1f} s{error}; {written}")


@app.command("quantify")
def quantify_command(
    image: quantify_options.ActivityImage,
    output: quantify_options.QuantifiedImage,
    calibration: quantify_options.Calibration,
    duration_s: quantify_options.Duration,
    per_second: quantify_options.PerSecond = False,
    start_s: quantify_options.Start = 0.0,
    nuclide: quantify_options.NuclideName = "F-18",
    dose_mbq: quantify_options.Dose = None,
    weight_kg: quantify_options.Weight = None,
    delay_s: quantify_options.Delay = 0.0,
) -> None:
    """Turn an image into activity concentration (kBq/ml) or standardised uptake values (SUV).

    medjax pet quantify image.nii.gz --calibration 2.3e7 --duration-s 600 --dose-mbq 200 --weight-kg 70 --delay-s 3600
    -o suv.nii.gz

    Decay is corrected to the start of the scan. The image must be corrected for attenuation, normalisation and scatter
    as the phantom of the calibration was.
    """
    with command_process():
        from medjax.tools.pet_quantify import Units, quantify

        units = Units(calibration, duration_s, per_second, start_s, nuclide, dose_mbq, weight_kg, delay_s)
        files, unit, largest = quantify(image, output, units)
        typer.echo(f"up to {largest:.3g} {unit}; wrote {files[0]} and {files[1].name}")


@app.command("simulate")
def simulate_command(
    output: simulation_options.NewCounts,
    phantom: simulation_options.Phantom = None,
    activity: simulation_options.Activity = None,
    mu: simulation_options.ActivityMu = None,
    lesions: simulation_options.Lesions = 0,
    lesion_kind: simulation_options.LesionKind = "both",
    scanner: simulation_options.SimulatedScanner = defaults.PET_SCANNER,
    trues_per_mm3: simulation_options.TruesPerMm3 = None,
    trues: simulation_options.Trues = None,
    background: simulation_options.Background = defaults.PET_BACKGROUND,
    planes: simulation_options.Planes = None,
    span: simulation_options.SimulatedSpan = None,
    max_ring_difference: simulation_options.SimulatedRingDifference = None,
    tof: simulation_options.TofBins = None,
    slice_mm: simulation_options.SliceMm = None,
    center: simulation_options.SimulatedCenter = None,
    psf_mm: simulation_options.ResolutionMm = defaults.PET_PSF_MM,
    size: simulation_options.TruthSize = defaults.PET_SIZE,
    voxel_mm: simulation_options.TruthVoxelMm = None,
    seed: simulation_options.Seed = 0,
    truth_dir: simulation_options.TruthDir = None,
) -> None:
    """Simulate the counts of a PET scan, of a brain phantom or of your own activity image.

    medjax pet simulate --phantom fdg --scanner mmr --trues-per-mm3 10 -o counts.npz

    medjax pet simulate --activity image.nii.gz --scanner ring_2d --slice-mm 20 -o slice.npz

    medjax pet simulate --scanner mmr --planes 31 --span 3 --tof 11,400,500 -o tof.npz

    medjax pet simulate --scanner ring_2d --planes 1 --span 1 --truth-dir truth -o events.petsird

    The phantom is the MNI152 atlas (it comes with nilearn, of medjax's extra `data`), in MNI mm. The simulation
    has 1 mm voxels and finer rays than a reconstruction.
    """
    with command_process():
        from medjax.errors import pluralize
        from medjax.tools.pet_counts_output import reconstruction_command
        from medjax.tools.pet_planes import PlaneSettings
        from medjax.tools.pet_simulate import CountSettings, simulate

        made, files = simulate(
            output,
            phantom=phantom,
            activity=activity,
            mu=mu,
            lesions=lesions,
            lesion_kind=lesion_kind,
            scanner=scanner,
            count_settings=CountSettings(trues_per_mm3, trues, background, psf_mm, seed),
            plane_settings=PlaneSettings(planes, span, max_ring_difference, None if tof is None else _tof(tof)),
            slice_mm=slice_mm,
            center_mm=_millimetres(center),
            size=size,
            voxel_mm=voxel_mm,
            truth_dir=truth_dir,
        )
        total, expected = made.counts.sum(dtype=float), made.additive.sum(dtype=float)
        where = ", ".join(f"{c:g}" for c in made.metadata["centre_mm"])
        typer.echo(
            f"{made.metadata['object']} in {scanner}, {pluralize(made.counts.shape[2], 'plane')} about {where} mm: "
            f"{total:,.0f} counts, {expected / max(total, 1):.0%} of them background; "
            f"wrote {', '.join(map(str, files))}"
        )
        known_mu = mu if truth_dir is None or not made.metadata["attenuation"] else truth_dir / "mu.nii.gz"
        command = reconstruction_command(output, made, known_mu)
        typer.echo(f"reconstruct it with: {shlex.join(command)}")


@app.command("train-prior")
def train_prior_command(
    output: prior_options.PriorDir,
    images: prior_options.Images = None,
    phantoms: prior_options.Phantoms = 0,
    kind: prior_options.PhantomKind = "noise_free",
    size: prior_options.PriorSize = defaults.PRIOR_SIZE,
    voxel_mm: prior_options.PriorVoxel = defaults.PRIOR_VOXEL_MM,
    steps: prior_options.Steps = defaults.PRIOR_STEPS,
    batch: prior_options.Batch = defaults.PRIOR_BATCH,
    rate: prior_options.Rate = defaults.PRIOR_RATE,
    seed: prior_options.TrainSeed = 0,
    start: prior_options.StartFrom = None,
    tracer: prior_options.Tracer = None,
    mr: prior_options.PriorMr = None,
    network: prior_options.TrainedNetwork = None,
    devices: Devices = 1,
) -> None:
    """Train a score prior on your own PET images, for `medjax pet reconstruct --prior`.

    medjax pet train-prior -o my_prior subject_*.nii.gz

    medjax pet train-prior -o brain_prior --phantoms 240

    medjax pet train-prior -o osem_prior --phantoms 60 --kind osem --steps 1500 --start noise_free

    Training slices are of all three orientations. After an interruption, the same command resumes.
    """
    with command_process():
        from medjax.diffusion.prior import PriorSettings
        from medjax.tools.pet_prior import train

        tracers = () if tracer is None else (tracer,)
        settings = PriorSettings(size=size, voxel_mm=voxel_mm, mr_guided=mr is not None, tracers=tracers)
        parts = {"pretrained": start, "mr": mr, "network": _part(network, "--network"), "devices": devices}
        trained = train(output, images or [], phantoms, kind, settings, steps, batch, rate, seed, **parts)
        typer.echo(f"wrote {trained.file}")


def _part(text: str | None, option: str) -> Part | None:
    return None if text is None else load_part(text, option)


def _name_or_part(text: str | None, option: str) -> Part | None:
    """The part FILE.py:NAME; None of a name."""
    return load_part(text, option) if text and is_part_reference(text) else None


def _tof(text: str) -> Any:
    """`bins,width,resolution` as time-of-flight bins."""
    from medjax.pet.tof import Tof

    try:
        bins, width, resolution = text.split(",")
        numbers = int(bins), float(width), float(resolution)
    except ValueError:
        expected = "expected BINS,WIDTH,RESOLUTION in ps, as in --tof 13,312.5,580"
        raise ConfigError(f"--tof {text}; {expected}") from None
    return Tof(*numbers)


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

"""`medjax ivim`: perfusion and diffusion maps of diffusion MRI, and a scan to try them on."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from medjax import defaults
from medjax.cli.completion import one_of

app = typer.Typer(no_args_is_help=True, add_completion=False)

Scan = Annotated[
    Path, typer.Argument(metavar="DWI", help="Diffusion scan, 4-D NIfTI, frames last.", show_default=False)
]
Bvalues = Annotated[
    Path,
    typer.Option(metavar="FILE", help="b-values of the frames, s/mm²: FSL's .bval, or one a line.", show_default=False),
]
Output = Annotated[
    Path, typer.Option("-o", "--output", metavar="DIR", help="Output folder of the maps.", show_default=False)
]
Mask = Annotated[
    Path | None,
    typer.Option(
        metavar="NIFTI",
        help="Mask of the voxels to fit, on the scan's grid.",
        show_default="all with signal",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="NIFTI", help="Labels of regions of interest for regions.csv, on the scan's grid.", show_default=False
    ),
]
Segment = Annotated[
    Path | None,
    typer.Option(
        metavar="MODEL",
        help="Model folder of `medjax segment train`, which segments the b = 0 frame: its classes are the regions, and "
        "the mask unless there is --mask.",
        show_default=False,
    ),
]
OwnNetwork = Annotated[
    str | None,
    typer.Option("--network", metavar="FILE.py:NAME", help="Network of your own that the model was trained with."),
]
Method = Annotated[
    str,
    typer.Option(
        help="Fit method: full; segmented (two steps); hierarchical (empirical Bayes over the voxels fitted).",
        autocompletion=one_of("full", "segmented", "hierarchical"),
    ),
]
NoiseKind = Annotated[
    str,
    typer.Option(
        "--noise",
        help="Noise model: gaussian; rician (low SNR); student (robust to outliers).",
        autocompletion=one_of("gaussian", "rician", "student"),
    ),
]
Sigma = Annotated[
    str,
    typer.Option(help="Standard deviation of the noise: residual (of each voxel), a number, or a NIfTI mask of air."),
]
Convention = Annotated[
    str,
    typer.Option(
        help="Convention of the pseudo-diffusion coefficient D*: absolute, exp(−b D*), or excess, exp(−b (D + D*)).",
        autocompletion=one_of("absolute", "excess"),
    ),
]
Average = Annotated[
    str,
    typer.Option(
        "--average",
        help="Average over frames of one b-value, such as directions: none, mean or geometric.",
        autocompletion=one_of("none", "mean", "geometric"),
    ),
]
Threshold = Annotated[
    float, typer.Option(help="Threshold b-value, s/mm², from which the segmented fit neglects perfusion.")
]
Bounds = Annotated[
    str,
    typer.Option(
        help="Bounds of f, D and absolute D*, mm²/s: default (f 0–1, D 0.0001–0.006, D* 0.003–0.5), osipi (f 0–1, D "
        "0–0.005, D* 0.005–0.2), or such as f=0:0.7,D=0:0.003,Dstar=0.004:0.1."
    ),
]
DropOutliers = Annotated[bool, typer.Option("--drop-outliers", help="Leave outlier frames out of the fit.")]
FormerDropOutliers = Annotated[bool, typer.Option("--drop-spoilt", hidden=True)]  # its former name


@app.callback()
def ivim() -> None:
    """Fit intravoxel incoherent motion to diffusion MRI."""


@app.command("fit")
def fit_command(
    scan: Scan,
    bvals: Bvalues,
    output: Output,
    mask: Mask = None,
    labels: Labels = None,
    segment: Segment = None,
    network: OwnNetwork = None,
    method: Method = defaults.IVIM_METHOD,
    noise: NoiseKind = defaults.IVIM_NOISE,
    sigma: Sigma = defaults.IVIM_SIGMA,
    convention: Convention = defaults.IVIM_CONVENTION,
    average: Average = defaults.IVIM_AVERAGE,
    threshold: Threshold = defaults.IVIM_THRESHOLD,
    drop_outliers: DropOutliers = False,
    bounds: Bounds = defaults.IVIM_BOUNDS,
    former_drop_outliers: FormerDropOutliers = False,
) -> None:
    """Fit S(b) = S0 [(1 − f) exp(−b D) + f exp(−b D*)] in every voxel.

    medjax ivim fit dwi.nii.gz --bvals dwi.bval --mask lungs.nii.gz -o maps

    medjax ivim fit dwi.nii.gz --bvals dwi.bval --segment model -o maps

    Writes S0, f, D, Dstar, ADC, residual, crlb_* (Cramér–Rao lower bound, standard deviation), identifiable and
    at_bound (1 for f, 2 for D, 4 for D*, added up) as NIfTI, maps.png, regions.csv (statistics of regions) and
    frames.csv (misfit of each frame); with --segment also labels.nii.gz.
    """
    import numpy as np

    from medjax.errors import pluralize
    from medjax.ivim.information import identifiable_each
    from medjax.running.environment import command_process
    from medjax.running.parts import load_part
    from medjax.tools.ivim_fit import fit_scan

    method, drop_outliers = "hierarchical" if method == "shrunk" else method, drop_outliers or former_drop_outliers
    with command_process():
        found = fit_scan(
            scan, bvals, output, mask=mask, labels=labels, method=method, noise=noise, sigma=sigma,
            convention=convention, average=average, threshold=threshold, drop_outliers=drop_outliers, bounds=bounds,
            segment=segment, network=load_part(network, "--network") if network else None,
        )  # fmt: skip
    if (segmented := found.segmentation) is not None:
        frames = f"{pluralize(segmented.baseline.frames, 'frame')} of b = {segmented.baseline.b_value:g}"
        numbers = ", ".join(f"{name} {_numbers(one)}" for name, one in segmented.structures.items())
        typer.echo(f"segmented the mean of {frames}; labels.nii.gz: {numbers}")
    f, d, fast, _ = (summary.median for summary in found.regions["all"].maps.values())
    voxels = f"{found.regions['all'].voxels} voxels, {len(found.bvalues)} b-values"
    typer.echo(f"{voxels}: median f {f:.3f}, D {d:.3g}, D* {fast:.3g} mm²/s")
    held = found.voxels.at_bound
    told = identifiable_each(found.voxels.parameters, found.voxels.crlb) & ~np.stack([held.f, held.d, held.d_star])
    each = ", ".join(f"{name} in {here.mean():.0%}" for name, here in zip(("f", "D", "D*"), told, strict=True))
    typer.echo(
        f"Cramér–Rao bound at most half the value: {each} of the voxels; all three in "
        f"{found.voxels.identifiable.mean():.0%}"
    )
    if held.any.any():
        each = ", ".join(f"{name} {at.mean():.0%}" for name, at in zip(("f", "D", "D*"), held, strict=True))
        typer.echo(f"{held.any.mean():.0%} of the voxels are at a bound ({each}): see at_bound and --bounds")
    if found.scan.remark:
        typer.echo(found.scan.remark)
    for frame in np.flatnonzero(found.voxels.outliers):
        advice = "left out" if drop_outliers else "--drop-outliers leaves it out, --noise student counts it less"
        typer.echo(f"frame {frame} (b = {found.bvalues[frame]:g}) is an outlier: {advice}")
    typer.echo(f"wrote maps, maps.png, regions.csv and frames.csv to the folder {output}")


def _numbers(structure: int | tuple[int, ...]) -> str:
    """Class numbers of a structure: 1, or 1+2 of a region."""
    return "+".join(map(str, structure if isinstance(structure, tuple) else (structure,)))


@app.command("simulate")
def simulate_command(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="New folder of the scan.")],
    size: Annotated[int, typer.Option(help="Number of voxels along x and y, of 144 mm.")] = defaults.SIMULATED_SIZE,
    age: Annotated[float, typer.Option(help="Gestational age, weeks.")] = defaults.SIMULATED_AGE,
    snr: Annotated[float, typer.Option(help="Signal-to-noise ratio of the lungs at b = 0.")] = defaults.SIMULATED_SNR,
    seed: Annotated[int, typer.Option(help="Random seed of fetus, motion and noise.")] = 0,
) -> None:
    """Simulate fetal diffusion MRI of ten b-values, to try `medjax ivim fit` on.

    medjax ivim simulate -o fetus

    Writes dwi.nii.gz, dwi.bval, mask.nii.gz (lungs), regions.nii.gz (1 left lung, 2 right lung) and the true maps,
    true_f, true_D and true_Dstar.
    """
    from medjax.tools.ivim_simulate import simulate

    made = simulate(output, size=size, age=age, snr=snr, seed=seed)
    shape = " × ".join(map(str, made.data.labels.shape))
    typer.echo(
        f"{shape} voxels, {len(made.data.bvalues)} b-values, {int((made.data.labels == 1).sum())} voxels of lung"
    )
    command = ["medjax", "ivim", "fit", made.scan, "--bvals", made.bvalues, "--mask", made.mask]
    command += ["--labels", made.regions, "-o", f"{output}_maps"]
    typer.echo(f"fit it with: {shlex.join(map(str, command))}")

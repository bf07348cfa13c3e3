"""`medjax ivim`: perfusion and diffusion maps of one's own diffusion MRI."""

from pathlib import Path
from typing import Annotated

import typer

from medjax.tools import defaults

app = typer.Typer(no_args_is_help=True, add_completion=False)

Scan = Annotated[Path, typer.Argument(metavar="DWI", help="4-D NIfTI, frames last.", show_default=False)]
Bvalues = Annotated[
    Path, typer.Option(metavar="FILE", help="b-values in s/mm²: FSL's .bval, or one a line.", show_default=False)
]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder of the maps.", show_default=False)]
Mask = Annotated[
    Path | None,
    typer.Option(metavar="NIFTI", help="Where to fit, on the scan's grid; default: all signal.", show_default=False),
]
Labels = Annotated[
    Path | None,
    typer.Option(metavar="NIFTI", help="Regions to give statistics of, on the scan's grid.", show_default=False),
]
Method = Annotated[str, typer.Option(help="full; segmented (two steps); shrunk (all voxels fitted help each other).")]
NoiseKind = Annotated[str, typer.Option("--noise", help="gaussian; rician (low signal); student (spoilt frames).")]
Sigma = Annotated[
    str,
    typer.Option(
        help="Noise of a measurement: residual (of each voxel), a number, or a NIfTI mask of air on the scan's grid."
    ),
]
Convention = Annotated[str, typer.Option(help="Of D*: absolute, exp(−b D*), or excess, exp(−b (D + D*)).")]
Average = Annotated[
    str, typer.Option("--average", help="Frames of one b-value, say of several directions: none, mean or geometric.")
]
Threshold = Annotated[float, typer.Option(help="Of a segmented fit: perfusion is over from this b-value, s/mm².")]
Drop = Annotated[bool, typer.Option("--drop-spoilt", help="Leave out frames that do not go with the others.")]


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
    method: Method = defaults.METHOD,
    noise: NoiseKind = defaults.NOISE,
    sigma: Sigma = defaults.SIGMA,
    convention: Convention = defaults.CONVENTION,
    average: Average = defaults.AVERAGE,
    threshold: Threshold = defaults.PERFUSION_OVER,
    drop: Drop = False,
) -> None:
    """Fit S(b) = S0 [(1 − f) exp(−b D) + f exp(−b D*)] in every voxel.

    medjax ivim fit dwi.nii.gz --bvals dwi.bval --mask lungs.nii.gz -o maps

    Writes S0, f, D, Dstar, ADC, residual, crlb_* (the least standard deviation that the protocol allows) and
    identifiable as NIfTI, maps.png, regions.csv (statistics) and frames.csv (how well each frame fits the others).
    """
    import numpy as np

    from medjax.running.environment import prepare_process
    from medjax.tools.ivim_fit import fit_scan

    prepare_process()
    found = fit_scan(
        scan, bvals, output, mask=mask, labels=labels, method=method, noise=noise, sigma=sigma, convention=convention,
        average=average, threshold=threshold, drop=drop,
    )  # fmt: skip
    f, d, fast, _ = (summary.median for summary in found.regions["all"].maps.values())
    voxels = f"{found.regions['all'].voxels} voxels, {len(found.bvalues)} b-values"
    typer.echo(f"{voxels}: median f {f:.3f}, D {d:.3g}, D* {fast:.3g} mm²/s")
    typer.echo(f"{np.mean(found.voxels.identifiable):.0%} of the voxels tell f, D and D* to half their value or better")
    if found.scan.remark:
        typer.echo(found.scan.remark)
    for frame in np.flatnonzero(found.voxels.spoilt):
        advice = "left out" if drop else "--drop-spoilt leaves it out, --noise student counts it less"
        typer.echo(f"frame {frame} (b = {found.bvalues[frame]:g}) does not go with the others: {advice}")
    typer.echo(f"maps, maps.png, regions.csv, frames.csv: {output}")

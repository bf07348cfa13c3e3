"""`medjax register`: registration of two images, and its transforms applied to other images and to landmarks."""

# typing.override needs Python 3.12
# pyrefly: ignore-errors[missing-override-decorator]
from pathlib import Path
from typing import Annotated, Any

import typer

from medjax import defaults
from medjax.cli.completion import one_of
from medjax.cli.plain import Group


class WithDefault(Group):
    """A group whose command `images` is run where no command is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = not args or args[0] in self.commands or args[0] in ("--help", "-h")
        return super().parse_args(ctx, args if named else ["images", *args])


app = typer.Typer(cls=WithDefault, no_args_is_help=True, add_completion=False)


def _nifti(help: str, *names: str, default: str | bool = False) -> Any:
    return typer.Option(*names, metavar="NIFTI", help=help, show_default=default)


Fixed = Annotated[
    Path, typer.Argument(metavar="FIXED", help="Image whose grid the result is on, NIfTI.", show_default=False)
]
Moving = Annotated[Path, typer.Argument(metavar="MOVING", help="Image to warp, NIfTI.", show_default=False)]
Warped = Annotated[Path, _nifti("Warped image to write.", "-o", "--output")]
Field = Annotated[Path | None, _nifti("Displacement field of the whole map to write (LPS mm, as SimpleITK and ANTs).")]
InverseField = Annotated[
    Path | None, _nifti("Displacement field of the inverse map to write, on the moving grid.", "--inverse-field")
]
AffineFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Affine part to write: ITK's .txt or .tfm, or ANTs' .mat.", show_default=False),
]
Kind = Annotated[
    str,
    typer.Option(
        metavar="KIND",
        help="deformable (an affine, then a field), affine, or rigid.",
        autocompletion=one_of("deformable", "affine", "rigid"),
    ),
]
Similarity = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Similarity of the images: lncc (local correlation), mse (mean squares), mi (mutual information) or mind.",
        autocompletion=one_of("lncc", "mse", "mi", "mind"),
        show_default="lncc for the field, mi for the affine",
    ),
]
Iterations = Annotated[
    str, typer.Option(metavar="N,N,…", help="Iterations of the levels of the last stage, from coarse to fine.")
]
Mask = Annotated[Path | None, _nifti("Mask of the voxels of the fixed image that count, on its grid.")]
FixedLabels = Annotated[
    Path | None, _nifti("Labels on the fixed grid, for the Dice before and after.", "--fixed-labels")
]
MovingLabels = Annotated[Path | None, _nifti("Labels on the moving grid.", "--moving-labels")]
FigureFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE.png", help="Figure to write: images, checkerboard, grid.", show_default=False),
]
NetworkFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Registration network that gives the start of the field.", show_default=False),
]
Transforms = Annotated[
    list[Path],
    typer.Option(
        "-t",
        "--transform",
        metavar="FILE",
        help="Displacement field (NIfTI) or affine (.txt, .tfm, .mat); several are applied to points of the fixed "
        "space first to last.",
        show_default=False,
    ),
]
Invert = Annotated[bool, typer.Option("--invert", help="Apply the inverse of the chain.")]


@app.callback()
def register() -> None:
    """Register images: `medjax register FIXED MOVING -o WARPED` (options: `medjax register images --help`)."""


@app.command("images")
def images_command(
    fixed: Fixed,
    moving: Moving,
    output: Warped,
    field: Field = None,
    affine: AffineFile = None,
    inverse_field: InverseField = None,
    figure: FigureFile = None,
    kind: Kind = defaults.REGISTER_KIND,
    similarity: Similarity = None,
    iterations: Iterations = defaults.REGISTER_ITERATIONS,
    mask: Mask = None,
    fixed_labels: FixedLabels = None,
    moving_labels: MovingLabels = None,
    network: NetworkFile = None,
) -> None:
    """Register MOVING to FIXED: an affine by the positions in both headers, then a deformable field.

    medjax register fixed.nii.gz moving.nii.gz -o warped.nii.gz --field field.nii.gz

    Orientations and voxel sizes may differ. The field holds the whole map, affine included: a point of the fixed image,
    x, is at x + d(x) in the moving one.
    """
    from medjax.running.environment import prepare_process
    from medjax.tools.register import register_images

    prepare_process()
    result = register_images(
        fixed, moving, output, field=field, affine=affine, inverse_field=inverse_field, figure=figure, kind=kind,
        similarity=similarity, iterations=iterations, mask=mask, fixed_labels=fixed_labels,
        moving_labels=moving_labels, network=network,
    )  # fmt: skip
    dice = "" if result.dice is None else f"Dice {result.dice[0]:.3f} before, {result.dice[1]:.3f} after; "
    folds = f"folds {result.folds:.2%}, SD of log Jacobian {result.sd_log_jacobian:.3f}"
    typer.echo(f"{dice}{folds}; {result.seconds:.1f} s: {output}")


@app.command("apply")
def apply_command(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Image to resample, NIfTI.", show_default=False)],
    reference: Annotated[
        Path, typer.Argument(metavar="REFERENCE", help="Image whose grid the result is on.", show_default=False)
    ],
    transform: Transforms,
    output: Annotated[Path, _nifti("Resampled image to write.", "-o", "--output")],
    labels: Annotated[bool, typer.Option("--labels", help="The image holds labels: take the nearest.")] = False,
    invert: Invert = False,
) -> None:
    """Apply a chain of transforms to another image or label map, with one interpolation.

    medjax register apply pet.nii.gz fixed.nii.gz -t field.nii.gz -o pet_warped.nii.gz
    """
    from medjax.running.environment import prepare_process
    from medjax.tools.register_apply import apply_transforms

    prepare_process()
    apply_transforms(image, reference, transform, output, labels=labels, invert=invert)
    typer.echo(f"{len(transform)} transform{'s' * (len(transform) != 1)}, one interpolation: {output}")


@app.command("points")
def points_command(
    points: Annotated[
        Path, typer.Argument(metavar="POINTS.csv", help="Landmarks: columns x, y, z in mm.", show_default=False)
    ],
    transform: Transforms,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE.csv", help="Landmarks to write.")],
    invert: Invert = False,
    lps: Annotated[
        bool, typer.Option("--lps", help="Coordinates are LPS, as in ITK, ANTs and Slicer.", show_default="RAS")
    ] = False,
) -> None:
    """Take landmarks of the fixed image's space to the moving image's.

    medjax register points landmarks.csv -t field.nii.gz -o landmarks_moving.csv
    """
    from medjax.errors import pluralize
    from medjax.running.environment import prepare_process
    from medjax.tools.register_apply import transform_points

    prepare_process()
    rows = transform_points(points, transform, output, invert=invert, lps=lps)
    typer.echo(f"{pluralize(len(rows), 'point')}: {output}")

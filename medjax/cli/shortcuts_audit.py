"""`medjax shortcuts audit`: OSCAR's audit of attribution maps of three networks."""

from pathlib import Path
from typing import Annotated

import typer

from medjax.cli.completion import one_of
from medjax.cli.plain import Context, command_line

MAPS = (
    "a .npz with keys maps (image, *space) and ids; a .npy with a .csv of the same name, column id; or a folder of "
    "NIfTI or .npy files named by id. May be repeated, such as for seeds: ranks are averaged"
)
TestMaps = Annotated[
    list[Path],
    typer.Option(
        "--ts", metavar="FILE|DIR", help=f"Attribution maps of the network under audit: {MAPS}.", show_default=False
    ),
]
BalancedMaps = Annotated[
    list[Path],
    typer.Option(
        "--ba",
        metavar="FILE|DIR",
        help="Attribution maps of a network for the same task, trained on balanced data.",
        show_default=False,
    ),
]
AttributeMaps = Annotated[
    list[Path],
    typer.Option(
        "--sa",
        metavar="FILE|DIR",
        help="Attribution maps of a network for the sensitive attribute, trained on balanced data.",
        show_default=False,
    ),
]
RegionOption = Annotated[
    str,
    typer.Option(
        metavar="WHICH",
        help="Regions: cells of a grid (grid:7x7), superpixels of the images (slic:49), a label volume, or a folder of "
        "one for each image. Label 0 is background.",
        show_default=False,
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE|DIR",
        help="The images, in the same layouts (key images in a .npz), or PNG; for superpixels and figures.",
        show_default=False,
    ),
]
Names = Annotated[
    Path | None,
    typer.Option(
        metavar="CSV",
        help="Names of label values, columns label and name: these labels are the regions.",
        show_default="all labels but 0",
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Attribution method: grad_cam, grad_cam_plus_plus, lrp, gradient, input_times_gradient, "
        "integrated_gradients or smooth_grad. --ts, --ba and --sa are then weights of classifiers, and --images what "
        "they are applied to, preprocessed as in training.",
        autocompletion=one_of(
            "grad_cam",
            "grad_cam_plus_plus",
            "lrp",
            "gradient",
            "input_times_gradient",
            "integrated_gradients",
            "smooth_grad",
        ),
        show_default="maps are given",
    ),
]
Network = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:NAME",
        help="Network of the weights, a Model or a function that makes one.",
        show_default="as the files name it",
    ),
]
Sign = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="What of a map is importance: positive (its positive part), absolute (its magnitude), or signed (as it "
        "is).",
        autocompletion=one_of("positive", "absolute", "signed"),
        show_default="absolute of --method gradient and smooth_grad, positive of others; maps as they are",
    ),
]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write to.")]
Seed = Annotated[int, typer.Option(help="Random seed of resamples, permutations and surrogate maps.")]
Alpha = Annotated[float, typer.Option(help="Significance level α of the decision.")]


def audit_command(
    ctx: Context,
    ts: TestMaps,
    ba: BalancedMaps,
    sa: AttributeMaps,
    regions: RegionOption,
    images: Images = None,
    names: Names = None,
    method: Method = None,
    network: Network = None,
    sign: Sign = None,
    output: Output = Path("audit"),
    seed: Seed = 0,
    alpha: Alpha = 0.05,
) -> None:
    """Shortcut audit (OSCAR) from attribution maps of any framework: does a network look where the attribute is?

    medjax shortcuts audit --ts ts.npz --ba ba.npz --sa sa.npz --images images.npz --regions grid:7x7 -o audit

    Maps are matched by the ids of their images. Writes the decision with its rule (audit.json, report.html),
    correlations.csv, regions.csv with rank profiles and region contribution scores, figures, and the map of the scores.
    """
    from medjax.report.terminal import print_table
    from medjax.running.environment import command_process
    from medjax.running.parts import load_part
    from medjax.running.progress import track
    from medjax.shortcuts.oscar_verdict import Limits, rule, to_table
    from medjax.tools.shortcuts_audit import audit_maps

    limits = Limits(alpha=alpha)
    with command_process():
        result = audit_maps(
            ts, ba, sa, regions, output, images=images, names=names, seed=seed, limits=limits,
            method=method, network=load_part(network, "--network") if network else None, sign=sign,
            progress=lambda ids: track(ids, "images"),
            command=command_line(ctx),
        )  # fmt: skip
    for warning in result.warnings:
        typer.echo(f"medjax: {warning}", err=True)
    print_table(to_table(result.audit))
    typer.echo(f"\n{result.verdict.decision}: {'; '.join(result.verdict.reasons)}\n\n{rule(limits)}\n\nwrote {output}")

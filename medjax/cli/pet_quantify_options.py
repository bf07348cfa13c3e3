"""The options of `medjax pet quantify`: their types and help."""

from pathlib import Path
from typing import Annotated

import typer

ActivityImage = Annotated[
    Path, typer.Argument(metavar="IMAGE", show_default=False, help="Image of `medjax pet reconstruct` (NIfTI).")
]
QuantifiedImage = Annotated[
    Path,
    typer.Option("-o", "--output", metavar="IMAGE", help="Image to write (NIfTI), with a figure (.png) beside it."),
]
Calibration = Annotated[
    float,
    typer.Option(help="Calibration factor of the scanner, (Bq/ml) / (image unit / s), of a phantom of known activity."),
]
Duration = Annotated[float, typer.Option("--duration-s", help="Duration of the scan or time frame in s.")]
PerSecond = Annotated[
    bool, typer.Option("--per-second", help="The image is in activity a second, as those of --frames are.")
]
Start = Annotated[float, typer.Option("--start-s", help="Start of the time frame in s from the start of the scan.")]
NuclideName = Annotated[str, typer.Option("--nuclide", help="Nuclide, whose decay during the scan is corrected.")]
Dose = Annotated[
    float | None,
    typer.Option(
        "--dose-mbq", help="Injected activity in MBq: with --weight-kg the image is in SUV.", show_default=False
    ),
]
Weight = Annotated[float | None, typer.Option("--weight-kg", help="Body weight in kg.", show_default=False)]
Delay = Annotated[float, typer.Option("--delay-s", help="Time in s from the injection to the start of the scan.")]

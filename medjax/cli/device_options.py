"""The option of commands that train: how many devices a batch is divided among."""

from typing import Annotated

import typer

Devices = Annotated[
    int,
    typer.Option(
        "--devices",
        metavar="N",
        min=1,
        help="Number of devices (GPUs) that each batch is divided among: it divides the batch.",
    ),
]

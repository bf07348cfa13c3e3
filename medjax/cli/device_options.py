"""The option of commands that train: how many devices a batch is split over."""

from typing import Annotated

import typer

Devices = Annotated[
    int,
    typer.Option(
        "--devices",
        metavar="N",
        min=1,
        help="Number of devices (GPUs) to split each batch over; the batch size must be a multiple of it.",
    ),
]

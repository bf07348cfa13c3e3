"""`medjax new`: a working copy of an experiment, or a template of a new one."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from medjax.cli import completion

app = typer.Typer(no_args_is_help=True, add_completion=False)

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Name of the experiment: one of `medjax experiments` is copied, another one is a template.",
        show_default=False,
        autocompletion=completion.experiment,
    ),
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of experiments/ and configs/.")]
Source = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="EXPERIMENT",
        help="Experiment of `medjax experiments` to copy under that name.",
        autocompletion=completion.experiment,
    ),
]


@app.command()
def new(name: Name, folder: Folder = Path(), source: Source = None) -> None:
    """Write a copy of an experiment that runs anywhere, or a template of a new one, to change.

    medjax new label_flips

    medjax new mine --from label_flips

    medjax new mine

    Writes experiments/NAME.py, configs/NAME.py and the files that they share with others. Nothing is overwritten.
    """
    from medjax.errors import pluralize
    from medjax.tools.new_experiment import new_experiment

    made = new_experiment(name, folder, source)
    more = f" and {pluralize(len(made.shared), 'other file')}" if made.shared else ""
    typer.echo(f"wrote {made.experiment}, {made.config}{more}")
    where = [] if made.folder == Path() else [f"--experiments={made.folder}"]
    typer.echo(f"run it with: {shlex.join(['medjax', 'run', f'{name}:tiny', *where])}")

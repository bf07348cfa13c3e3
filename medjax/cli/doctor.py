"""`medjax doctor`: what is installed, which devices JAX sees, and what is wrong."""

import json
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Write the same, in all details, as JSON.")] = False,
) -> None:
    """Say what is installed, which devices JAX sees, where the cache lies, and what is wrong.

    medjax doctor

    Every problem is a line that says what to do. Exit code 0: nothing is wrong; 1: something is.
    """
    from medjax.tools.doctor import diagnosis

    found = diagnosis()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        width = max(map(len, found["summary"]))
        for name, text in found["summary"].items():
            typer.echo(f"{name:<{width}}  {text}")
        typer.echo("")
        for line in found["problems"] or ["nothing is wrong"]:
            typer.echo(f"wrong: {line}" if found["problems"] else line)
    if found["problems"]:
        raise typer.Exit(1)

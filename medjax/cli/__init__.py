"""The `medjax` command. It imports only what the command that was asked for needs, so that help answers at once."""

# typing.override needs Python 3.12
# pyrefly: ignore-errors[missing-override-decorator]
import importlib
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from medjax.errors import ConfigError, MedjaxError

TOOLS = {  # medjax/cli/NAME.py has a typer `app`; it is imported when its command is used
    "pet": "Reconstruct and simulate PET.",
    "ivim": "Fit intravoxel incoherent motion to diffusion MRI.",
    "segment": "Train segmentation, predict, find what went wrong.",
    "labels": "Find labels that are wrong.",
    "shortcuts": "Audit a classifier for shortcuts.",
}


class Commands(TyperGroup):
    """The group of all commands: tools are loaded late, and errors a user can mend are one line."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *(name for name in TOOLS if _tool_exists(name))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in TOOLS and _tool_exists(cmd_name):  # enough for help and for suggestions
            return TyperGroup(name=cmd_name, help=TOOLS[cmd_name])
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, _load_tool(name) if name in TOOLS else command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (MedjaxError, OSError) as error:
            if ctx.params.get("traceback"):
                raise
            typer.echo(f"medjax: {one_line(error)}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            again = "; the same command continues" if ctx.invoked_subcommand in ("run", "sweep") else ""
            typer.echo(f"medjax: stopped{again}", err=True)
            raise typer.Exit(130) from None


class WithOverrides(TyperCommand):
    """A command that also takes `--config.a.b=value`, any number of times, as `override`; other options stay strict."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for argument in args:
            if argument.startswith("--config.") and "=" not in argument:
                raise ConfigError(f"{argument} has no value; write {argument}=VALUE")
        return super().parse_args(ctx, [re.sub(r"^--config\.", "--override=", argument) for argument in args])


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Trustworthy medical imaging in JAX: run the papers' experiments, or the tools on your own data.",
)

Experiment = Annotated[str, typer.Argument(metavar="NAME[:PRESET]", show_default=False)]
ConfigFile = Annotated[
    str | None, typer.Option(metavar="FILE[:PRESET]", help="Another config file (default: configs/NAME.py).")
]
Overrides = Annotated[list[str] | None, typer.Option(hidden=True)]  # what WithOverrides gathers
Experiments = Annotated[
    Path | None,
    typer.Option("--experiments", metavar="DIR", help="Folder of experiments/ and configs/ (default: here)."),
]

Parts = Annotated[
    list[str] | None,
    typer.Option(
        "--part", metavar="SEAM=FILE.py:NAME", help="A part of your own, such as network=mine.py:net; may be repeated."
    ),
]


def main(arguments: list[str] | None = None) -> None:
    """Run `arguments` (default: those of the process) and exit: 0, 2 for a user's error, 130 if stopped."""
    app(arguments, prog_name="medjax")


def one_line(error: Exception) -> str:
    """An error's message as one line; an operating system's error names its file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _version(wanted: bool) -> bool:
    if wanted:
        import medjax

        typer.echo(f"medjax {medjax.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it and exit.")
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error comes from.")] = False,
) -> None:
    pass


@app.command(cls=WithOverrides)
def run(
    experiment: Experiment,
    workdir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where results go (default: runs/NAME-PRESET-HASH).")
    ] = None,
    config: ConfigFile = None,
    experiments: Experiments = None,
    part: Parts = None,
    override: Overrides = None,
) -> None:
    """Run an experiment; if it was stopped, continue it; if it is finished, do nothing.

    PRESET is tiny (seconds, needs no data), small (the default: minutes on two cores) or paper (the published scale).

    Any value of the config can be changed by --config.KEY=VALUE, for example

    medjax run demo:small --config.seed=1 --config.scan.trues_per_mm3=10.0

    NAME is experiments/NAME.py with configs/NAME.py in the current directory, there to be copied and changed.
    """
    from medjax.running.experiment import run_experiment

    name, preset, file = _which(experiment, config)
    run_experiment(name, preset, override or [], workdir, experiments, file, part or [])


@app.command(cls=WithOverrides)
def sweep(
    experiment: Experiment,
    over: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUES", help="What to vary; several make a grid.")
    ] = None,
    workdir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where members go (default: runs/NAME-PRESET-sweep-HASH).")
    ] = None,
    config: ConfigFile = None,
    experiments: Experiments = None,
    part: Parts = None,
    together: Annotated[
        int | None, typer.Option(metavar="N", help="Most members that run at once (default: all that can).")
    ] = None,
    slurm: Annotated[
        bool,
        typer.Option(
            "--slurm",
            help="Only write a Slurm job array, a task for members that run at once; the same without it collects.",
        ),
    ] = False,
    task: Annotated[int | None, typer.Option(metavar="K", help="Run that task of the job array only, from 0.")] = None,
    override: Overrides = None,
) -> None:
    """Run an experiment for every combination of values; if it was stopped, continue; finished members stay.

    VALUES are a list or a range with both ends, for example

    medjax sweep demo:tiny --over slices.steps=2,4 --over seed=0..7 --config.slices.samples=2

    Every member is a run in a directory of its own; DIR/sweep.csv has one row for each: its values, its metrics.
    """
    from medjax.running.sweep import plan_sweep, run_sweep, write_job_array

    name, preset, file = _which(experiment, config)
    plan = plan_sweep(name, over or [], preset, override or [], workdir, experiments, file, part or [], together)
    if slurm:
        typer.echo(f"submit it with: sbatch {write_job_array(plan)}")
    else:
        run_sweep(plan, task)


@app.command("experiments")
def list_all(experiments: Experiments = None) -> None:
    """List the experiments of the ten papers, and the others here."""
    from medjax.report.html import Table
    from medjax.report.terminal import print_table
    from medjax.running.checkout import find_root, list_experiments

    listed = list_experiments(find_root(experiments))
    rows = [(it.name, f"{it.title}\n{it.source}".strip(), " ".join((it.state, *it.presets))) for it in listed]
    print_table(Table(("experiment", "what it is", "state, presets"), rows))


def _which(experiment: str, config: str | None) -> tuple[str, str, Path | None]:
    """Name, preset and config file of `medjax run NAME[:PRESET] [--config=FILE[:PRESET]]`."""
    name, _, preset = experiment.partition(":")
    file, _, other = (config or "").partition(":")
    if preset and other and preset != other:
        raise MedjaxError(f"two presets: '{preset}' in {experiment} and '{other}' in --config={config}; expected one")
    return name, preset or other or "small", Path(file) if file else None


def _tool_exists(name: str) -> bool:
    return Path(__file__).with_name(f"{name}.py").is_file()


def _load_tool(name: str) -> Any:
    return typer.main.get_command(importlib.import_module(f"medjax.cli.{name}").app)

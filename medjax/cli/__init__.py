"""The `medjax` command: `run`, `sweep`, `experiments`, and the tools. It imports only what a command needs."""

# typing.override needs Python 3.12
# pyrefly: ignore-errors[missing-override-decorator]
import importlib
import logging
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from medjax.cli import completion, plain
from medjax.errors import ConfigError, MedjaxError, one_line
from medjax.memory import check_address_space
from medjax.report.terminal import accept_any_text

TOOLS = {  # medjax/cli/NAME.py has a typer `app`; it is imported when its command is used
    "new": "Write a copy of an experiment, or a template, to change.",
    "pet": "Simulate and reconstruct PET, train score priors.",
    "ivim": "Fit intravoxel incoherent motion to diffusion MRI.",
    "segment": "Train segmentation networks, predict, measure label flips.",
    "labels": "Find label errors in segmentation masks.",
    "shortcuts": "Audit a network for shortcut learning.",
    "biomarkers": "Measure cardiac biomarkers of label maps.",
    "register": "Register images; apply transforms to images and landmarks.",
    "precision": "Assess the precision of biomarkers from scan and rescan.",
    "doctor": "Say what is installed, which devices are seen, and what is wrong.",
}


WITHOUT_JAX = ("new", "experiments", "doctor")
OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory", "bad_alloc", "can't start new thread")  # of JAX and Python


class Commands(plain.Group):
    """The group of all commands: tools are imported when used, and errors that a user can correct are one line."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *(name for name in TOOLS if _tool_exists(name))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in TOOLS and _tool_exists(cmd_name):  # enough for help and for suggestions
            return plain.Group(name=cmd_name, help=TOOLS[cmd_name])
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if name not in WITHOUT_JAX:
            check_address_space()
        return name, _load_tool(name) if name in TOOLS else command, rest

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for before, argument in zip(["", *args], args, strict=False):
            if not argument or re.fullmatch(r"--(?!config\.)[^=]*=", argument):  # an unset variable of the shell
                raise plain.USAGE_ERROR(f"no value after {argument[:-1] or before or 'medjax'}; expected one")
        return super().parse_args(ctx, args)

    def main(self, *arguments: Any, **options: Any) -> Any:
        try:
            code = super().main(*arguments, **options | {"standalone_mode": False})
        except plain.USAGE_ERROR as error:
            help_asked = type(error).__name__ == "NoArgsIsHelpError"
            typer.echo(error.format_message() if help_asked else f"medjax: {plain.usage_line(error)}", err=True)
            sys.exit(2)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (MedjaxError, OSError) as error:
            if ctx.params.get("traceback"):
                raise
            typer.echo(f"{getattr(error, 'frames', '')}medjax: {one_line(error)}", err=True)
            raise typer.Exit(2) from error
        except (MemoryError, RuntimeError) as error:
            if ctx.params.get("traceback") or not _lacks_memory(error):
                raise
            typer.echo("medjax: out of memory; use smaller images or batches, or fewer at a time", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            again = "; the same command continues" if ctx.invoked_subcommand in ("run", "sweep") else ""
            typer.echo(f"medjax: stopped{again}", err=True)
            raise typer.Exit(130) from None


class WithOverrides(plain.Command):
    """A command that also takes `--config.a.b=value`, any number of times, as `override`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for argument in args:
            if argument.startswith("--config.") and "=" not in argument:
                raise ConfigError(f"{argument} has no value; write {argument}=VALUE")
        return super().parse_args(ctx, [re.sub(r"^--config\.", "--override=", argument) for argument in args])


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": plain.MAX_WIDTH},
    help="Trustworthy medical imaging in JAX: run the papers' experiments, or the tools on your own data.",
)


Experiment = Annotated[
    str,
    typer.Argument(
        metavar="NAME[:PRESET]",
        help="Name and preset of the experiment.",
        show_default=False,
        autocompletion=completion.experiment_and_preset,
    ),
]
ConfigFile = Annotated[
    str | None, typer.Option(metavar="FILE[:PRESET]", help="Config file and preset.", show_default="configs/NAME.py")
]
Overrides = Annotated[list[str] | None, typer.Option(hidden=True)]  # what WithOverrides gathers
Experiments = Annotated[
    Path | None,
    typer.Option(
        "--experiments",
        metavar="DIR",
        help="Folder that holds experiments/ and configs/.",
        show_default="the current one, then what came with medjax",
    ),
]

Parts = Annotated[
    list[str] | None,
    typer.Option(
        "--part",
        metavar="KEYWORD=FILE.py:NAME",
        help="Component of your own, such as network=mine.py:net; may be repeated.",
    ),
]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line `arguments` (default: the process's); exits with 0, 2 (user error) or 130 (stopped)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA's alarms: its errors are raised as well
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # that it has no folder for its settings
    sys.excepthook = plain.print_traceback
    accept_any_text()
    typer.main.get_command(app).main(arguments, prog_name="medjax")


def _lacks_memory(error: Exception) -> bool:
    """Whether an error says that memory is exhausted, of this process or of a device of JAX."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)


def _version(wanted: bool) -> bool:
    if wanted:
        import medjax

        typer.echo(f"medjax {medjax.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show the traceback of an error.")] = False,
) -> None:
    pass


@app.command(cls=WithOverrides)
def run(
    experiment: Experiment,
    workdir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Work directory of the results.", show_default="runs/NAME-PRESET-HASH"),
    ] = None,
    config: ConfigFile = None,
    experiments: Experiments = None,
    part: Parts = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Print steps, memory, FLOPs, bytes and H100 hours of each stage; run nothing."),
    ] = False,
    override: Overrides = None,
) -> None:
    """Run an experiment, or resume it after an interruption; a finished one is left as it is.

    PRESET is tiny (a smoke test of a few minutes, without data), small (the default: 15 minutes to two hours on
    two cores) or paper (the published scale, for an accelerator).

    Any value of the config can be changed by --config.KEY=VALUE, for example

    medjax run demo:small --config.seed=1 --config.scan.trues_per_mm3=10.0

    NAME is experiments/NAME.py with configs/NAME.py of the current directory, or what came with medjax. `medjax new`
    writes a copy of both to change.
    """
    from medjax.running.experiment import run_experiment

    name, preset, file = _which(experiment, config)
    if plan:
        from medjax.running.plan import plan_experiment

        if workdir is not None:
            raise ConfigError("--plan runs nothing and needs no --workdir; expected one of the two")

        plan_experiment(name, preset, override or [], experiments, file, part or [])
        return
    run_experiment(name, preset, override or [], workdir, experiments, file, part or [])


@app.command(cls=WithOverrides)
def sweep(
    experiment: Experiment,
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES", help="Config key and its values, a list or a range; several --over make a grid."
        ),
    ] = None,
    workdir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the runs' work directories.", show_default="runs/NAME-PRESET-sweep-HASH"
        ),
    ] = None,
    config: ConfigFile = None,
    experiments: Experiments = None,
    part: Parts = None,
    together: Annotated[
        int | None,
        typer.Option(metavar="N", help="Maximum number of runs trained in parallel.", show_default="all that can"),
    ] = None,
    slurm: Annotated[
        bool,
        typer.Option(
            "--slurm",
            help="Write a Slurm job array (sweep.sh) instead of running; without it, collect results.",
        ),
    ] = False,
    task: Annotated[
        int | None, typer.Option(metavar="K", help="Index of the one job-array task to run, from 0.")
    ] = None,
    override: Overrides = None,
) -> None:
    """Run an experiment for every combination of config values, or resume the sweep; finished runs are kept.

    VALUES are a list or a range with both ends, for example

    medjax sweep demo:tiny --over slices.dds_steps=2,4 --over seed=0..7 --config.slices.samples=2

    Every run has a work directory of its own; DIR/sweep.csv has its values and metrics in one row.
    """
    from medjax.running.sweep import plan_sweep, run_sweep, write_job_array

    name, preset, file = _which(experiment, config)
    plan = plan_sweep(name, over or [], preset, override or [], workdir, experiments, file, part or [], together)
    if slurm:
        typer.echo(f"submit it with: sbatch {write_job_array(plan)}")
    else:
        run_sweep(plan, task)


@app.command("experiments", cls=plain.Command)
def list_all(experiments: Experiments = None) -> None:
    """List the experiments of the ten papers, and others of the folder, with their presets; none of them is run."""
    from medjax.report.html import Table
    from medjax.report.terminal import print_table
    from medjax.running.checkout import find_experiments

    rows = [
        (it.name, f"{it.title}\n{it.source}".strip(), " ".join((it.state, *it.presets)))
        for _, it in find_experiments(experiments)
    ]
    print_table(Table(("experiment", "title and paper", "state, presets"), rows))


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
    return typer.main.get_command(plain.make_plain(importlib.import_module(f"medjax.cli.{name}").app))

"""README and docs/: every snippet runs as it stands, every command parses, every link, option and name exists.

The blocks of a page share a folder and their names, from top to bottom. Python is executed; a block that begins with
`# FILE.py` is also written to that file, as its reader would. Lines of `sh` are given to the `medjax` command, in a
folder with tiny files of the names that the pages use. What trains networks for long is told to be brief: see BRIEF.
"""

import importlib
import json
import re
import runpy
import shlex
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from medjax import cli
from medjax.running.config import load_config
from medjax.running.modules import load_module
from medjax.running.parts import check_parts, load_parts
from medjax.running.sweep import plan_sweep
from tests.page_data import write_example_data
from tests.tiny_runs import tiny_run

ROOT = Path(__file__).parents[1]
AUTO = ROOT / "docs" / "auto"  # made when the site is built
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").rglob("*.md") if AUTO not in page.parents)]
SCRIPTS = ("accelerator", "demo", "devices", "docs", "setup", "slurm_trial", "test")
NOT_OURS = (*(f"scripts/{name}" for name in SCRIPTS), "pip", "git", "cd", "sbatch", "python")  # not run here
BRIEF = {  # options that make a training brief, where the page does not give them; networks: `page_data.PART`
    "labels audit": {"--size": "16", "--epochs": "4", "--network": "brief.py:pointwise"},
    "segment train": {
        "--patch": "8,8,8", "--epochs": "1", "--iterations": "1", "--fold": "0", "--network": "brief.py:pointwise"
    },
    "segment predict": {"--network": "brief.py:pointwise"},
    "register fixed.nii.gz": {"--iterations": "4", "--kind": "affine", "--similarity": "mse"},
    "precision scan.csv": {"--biomarkers": "LVEF_percent", "--resamples": "20"},
    "pet train-prior": {"--size": "16", "--steps": "2", "--batch": "2", "--network": "brief.py:levels"},
}  # fmt: skip


# ── what is on the pages ──


def fenced(page: Path) -> list[tuple[str, str]]:
    """Language and text of every fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def inline(page: Path) -> list[str]:
    """Every `inline code`, outside of the blocks."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def lines_of(block: str) -> list[str]:
    """Commands of a shell block, one a line."""
    return [line for line in block.replace("\\\n", " ").splitlines() if shlex.split(line, comments=True)]


every_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


# ── the folder that commands run in ──


@pytest.fixture(scope="session")
def example_data(tmp_path_factory) -> Path:
    pytest.importorskip("PIL")
    folder = tmp_path_factory.mktemp("pages")
    write_example_data(folder)
    return folder


@pytest.fixture
def here(example_data: Path, tmp_path: Path, monkeypatch) -> Path:
    """The page's own folder, as if it were a checkout too."""
    shutil.copytree(example_data, tmp_path, dirs_exist_ok=True)
    for name in ("experiments", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_command(command: str, tiny_runs: Path) -> None:
    """What a reader does with a line of the page that starts with `medjax`."""
    words = shlex.split(command, comments=True)[1:]
    context = parse(words)
    if (
        words[0] in ("run", "sweep")
        and not {"--slurm", "--experiments"} & {*words}
        and not check_run(context, tiny_runs)
    ):
        return
    if {"likelihood-schedule", "split-gibbs"} & {*words}:  # tests/test_prior_command.py runs them
        return
    settings = BRIEF.get(" ".join(words[:2]), {})
    if words[:2] == ["ivim", "fit"] and "--segment" in words:
        settings = {"--network": "brief.py:pointwise"}
    if words[:2] == ["pet", "reconstruct"] and "--prior" in words:  # the one that train-prior wrote before
        settings = {"--network": "brief.py:levels"}
    words += [word for option, value in settings.items() if option not in words for word in (option, value)]
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code in (0, None), command


def check_run(context: Any, tiny_runs: Path) -> bool:
    """Whether an experiment of the page is to be run: members of its sweeps and larger presets are only planned.

    A tiny run with a work directory finds there what the session's run of it has left.
    """
    given = context.params
    name, _, preset = given["experiment"].partition(":")
    parts, overrides, workdir = tuple(given["part"] or ()), given["override"] or (), given["workdir"]
    if context.info_name == "sweep":
        assert plan_sweep(name, given["over"], preset or "small", overrides, workdir, parts=parts).members
    load_config(ROOT / "configs" / f"{name}.py", preset or "small", overrides)
    check_parts(load_module(ROOT / "experiments" / f"{name}.py", f"experiments.{name}"), load_parts(parts), name)
    if preset != "tiny" or context.info_name == "sweep" or workdir is None:
        return False
    if not parts:
        shutil.copytree(tiny_run(name, tiny_runs), workdir)
    return True


with_code = [page for page in PAGES if fenced(page)]


@pytest.mark.parametrize("page", with_code, ids=[str(page.relative_to(ROOT)) for page in with_code])
def test_what_a_page_says_to_type_works(page: Path, here: Path, tiny_runs: Path):
    names: dict[str, Any] = {"__name__": "page"}
    for language, text in fenced(page):
        if language == "python":
            if file := re.match(r"# ([\w/]+\.py)\n", text):
                (here / file[1]).parent.mkdir(parents=True, exist_ok=True)
                (here / file[1]).write_text(text)
            exec(compile(text, str(page), "exec"), names)
        elif language == "sh":
            for line in lines_of(text):
                program = next(word for word in shlex.split(line, comments=True) if "=" not in word)
                if program == "medjax":
                    run_command(line, tiny_runs)
                else:
                    assert program in NOT_OURS, line
                    assert all((ROOT / word).is_file() for word in line.split() if word.startswith("scripts/")), line
        else:
            assert language == "", f"{page.name}: a block of {language}"


# ── what is said in passing ──


def parse(words: list[str]) -> Any:
    """The context of a command line that the real options accept, without running it."""
    assert "--install-completion" not in words  # parsing it would write to the shell's files of whoever runs the tests
    command: Any = typer.main.get_command(cli.app)
    context = command.make_context("medjax", list(words))
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
    return context


def every_option() -> set[str]:
    """The options of all commands, hidden ones left out."""
    found, waiting = {"--help"}, [typer.main.get_command(cli.app)]
    waiting += [typer.main.get_command(importlib.import_module(f"medjax.cli.{name}").app) for name in cli.TOOLS]
    while waiting:
        command: Any = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        found.update(
            name
            for one in command.params
            if not getattr(one, "hidden", False)
            for name in (*one.opts, *one.secondary_opts)
        )
    return found


def resolve(dotted: str) -> Any:
    """What `medjax.room.module.name` is."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for name in parts[end:]:
            found = getattr(found, name)
        return found
    raise AssertionError(dotted)


@every_page
def test_commands_options_and_names_in_a_sentence_exist(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options = every_option()
    (tmp_path / "database_nifti").mkdir()  # a folder that a config names has to exist
    monkeypatch.chdir(tmp_path)
    for text in inline(page):
        if text.startswith("medjax ") and text != "medjax --help":
            words = shlex.split(text)[1:]
            try:
                given = parse(words).params
                if words[0] in ("run", "sweep"):
                    name, _, preset = given["experiment"].partition(":")
                    load_config(ROOT / "configs" / f"{name}.py", preset or "small", given["override"] or ())
            except Exception as error:  # a command that is named without its arguments
                assert type(error).__name__ in ("MissingParameter", "NoArgsIsHelpError"), f"{text}: {error}"
        elif text.startswith("--config"):
            keys = re.findall(r"--config\.([\w.]+)", text)
            assert {*keys} - {"KEY", "a.b"} <= config_keys(), text
        elif re.match(r"--?[a-z]", text):
            assert re.split("[ =]", text)[0] in options, text
        elif re.fullmatch(r"medjax(\.\w+)+", text):
            resolve(text)
        elif re.fullmatch(r"(medjax|experiments|configs|scripts|tests)/[a-z_0-9/.]*", text):
            assert (ROOT / text).exists(), text


@cache
def config_keys() -> set[str]:
    """Every key of an experiment's config, and every part of a nested one's."""
    keys = {"oblique."}  # of all that it holds
    for file in (ROOT / "configs").glob("[a-z]*.py"):
        if (ROOT / "experiments" / file.name).exists():
            waiting = [("", json.loads(load_config(file, "small", ()).to_json_best_effort()))]
            while waiting:
                before, values = waiting.pop()
                keys |= {before + name for name in values}
                waiting += [(f"{before}{name}.", inner) for name, inner in values.items() if isinstance(inner, dict)]
    return keys


@every_page
def test_links_exist(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists() and file.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    """The headings of a page as a link names them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["RESULTS.md", "CONTRIBUTING.md"])
def test_links_of_other_pages_exist(name: str):
    test_links_exist(ROOT / name)


def test_every_page_is_on_the_list_and_every_paper_in_the_readme():
    index = (ROOT / "docs" / "index.md").read_text()
    for page in PAGES[1:]:
        assert page.name == "index.md" or f"]({page.relative_to(ROOT / 'docs')})" in index, page.name
    papers = runpy.run_path(str(ROOT / "experiments" / "__init__.py"))["PAPERS"]  # not another test's checkout
    readme = PAGES[0].read_text()
    for name in papers:
        assert f"`{name}`" in readme
        ready = (ROOT / "experiments" / f"{name}.py").exists()
        assert ready == (ROOT / "docs" / "papers" / f"{name}.md").exists() == (f"](docs/papers/{name}.md)" in readme)


def test_the_readme_and_its_snippets_are_short():
    assert len(PAGES[0].read_text().splitlines()) <= 200
    assert max(len(re.findall(r"^.*\S", text, re.MULTILINE)) for _, text in fenced(PAGES[0])) <= 10


def test_a_part_is_ten_lines_of_code():
    """Without imports and the name of its file."""
    for _, text in fenced(ROOT / "docs" / "swap-a-part.md"):
        assert len(re.findall(r"^(?!import |from |# ).*\S", text, re.MULTILINE)) <= 10, text

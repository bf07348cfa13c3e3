"""Scripts of the gallery: short, with a title, from public functions alone; they run, and leave figures with titles.

A script is on a page of the site and in a notebook, and is run by itself: it imports nothing that an installed medjax
does not bring. A quick one is run here, the others if asked for with `-m slow` or when the site is built.
"""

import ast
import runpy
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "gallery"
SCRIPTS = sorted(FOLDER.glob("plot_*.py"))
QUICK = ("plot_12_ivim_and_its_cramer_rao_bound",)  # run each time
SHORTER_THAN = 60  # lines
BROUGHT = {"jax", "matplotlib", "medjax", "numpy", "optax", "scipy"}  # by an installation of medjax
TITLES = "expected a docstring with a title, underlined by as many ="

every_script = pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])


def imported(tree: ast.Module) -> set[str]:
    """Full names of what a script imports: medjax.pet.em, numpy, …"""
    names = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_quick_scripts_exist() -> None:
    assert {script.stem for script in SCRIPTS} >= {*QUICK}


@every_script
def test_a_script_is_short_has_a_title_and_compiles(script: Path) -> None:
    text = script.read_text()
    tree = ast.parse(text)
    compile(tree, str(script), "exec")
    title, underline, *rest = (ast.get_docstring(tree) or "").splitlines() or ["", ""]
    assert title and underline == "=" * len(title), TITLES
    assert any(rest), "expected a sentence below the title"
    assert len(text.splitlines()) < SHORTER_THAN
    assert "# %%\n" in text, "expected cells"
    assert "random.seed" not in text, "expected a generator or a key"


@every_script
def test_a_script_needs_medjax_alone_and_only_what_is_public(script: Path) -> None:
    names = imported(ast.parse(script.read_text()))
    assert {name.split(".")[0] for name in names} <= BROUGHT | sys.stdlib_module_names
    assert not [name for name in names if any(part.startswith("_") for part in name.split("."))]


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
@pytest.mark.parametrize(
    "script",
    [pytest.param(one, id=one.stem, marks=() if one.stem in QUICK else pytest.mark.slow) for one in SCRIPTS],
)
def test_a_script_runs_and_leaves_figures(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nilearn")  # the anatomy of the phantoms
    matplotlib.use("Agg")
    plt.close("all")
    monkeypatch.chdir(tmp_path)
    try:
        runpy.run_path(str(script), run_name="__main__")
        figures = [plt.figure(number) for number in plt.get_fignums()]
        assert figures
        for figure in figures:
            titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
            assert any(titles), "expected a title"
            assert all(axes.has_data() for axes in figure.axes if axes.axison)
        assert not [*tmp_path.iterdir()], "expected no files"
    finally:
        plt.close("all")
    assert not plt.get_fignums()

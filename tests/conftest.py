"""What every test runs under: shapes and types checked at every call, silent broadcasting refused, two devices.

Most of the suite's time is compilation, so: each program is compiled once and kept in the user's cache; LLVM does not
optimise the many programs that run once (tests marked `optimized` run for long, and are compiled as XLA_FLAGS say); and
two workers take the longest files first, by the seconds in `durations.json`.
"""

import gc
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxtyping import install_import_hook

hook = install_import_hook("medjax", "beartype.beartype")  # before anything imports medjax

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

from medjax.running.compilation_cache import enable_compilation_cache  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)  # so that sharding is tested on any machine

hypothesis.settings.register_profile("medjax", deadline=None, derandomize=True, max_examples=20)
hypothesis.settings.load_profile("medjax")

enable_compilation_cache()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # also where the environment names the folder
gc.freeze()  # what is imported stays: the collector need not look at it again

DURATIONS = Path(__file__).with_name("durations.json")
SECONDS: Counter[str] = Counter()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-durations", action="store_true", help=f"Write the seconds of each file, {DURATIONS}.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that two workers end together; a file that is not known yet counts as long."""
    known = json.loads(DURATIONS.read_text())
    items.sort(key=lambda item: -known.get(item.nodeid.split("::")[0], 30))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before fixtures are made, which compile too."""
    jax.config.update("jax_disable_most_optimizations", item.get_closest_marker("optimized") is None)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    SECONDS[report.nodeid.split("::")[0]] += report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--record-durations") and not hasattr(session.config, "workerinput"):
        seconds = {file: round(value) for file, value in sorted(SECONDS.items()) if value >= 1}
        DURATIONS.write_text(json.dumps(seconds, indent=0) + "\n")


@pytest.fixture(autouse=True)
def own_trace_counts() -> None:
    """`chex.assert_max_traces` counts from 0 in every test."""
    if "chex" in sys.modules:
        sys.modules["chex"].clear_trace_counter()


@pytest.fixture(scope="module", autouse=True)
def few_programs() -> Iterator[None]:
    """Drop programs before they take all memory mappings that Linux gives a process, 65,530: the next one crashes."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 30_000:
        jax.clear_caches()


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory) -> Path:
    """The folder of this session's finished tiny runs, for `tests.tiny_runs.tiny_run`; all workers see it."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny_runs"


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data, MEDJAX_TEST_DATA or ../shared/data beside the checkout; skips the test without it."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MEDJAX_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; MEDJAX_TEST_DATA names another folder")
    return folder


@pytest.fixture
def make_checkout(tmp_path: Path, monkeypatch) -> Callable[[str, str], Path]:
    """make_checkout(config, experiment): a checkout of one experiment, `toy`, to stand in; it is forgotten again."""

    def made(config: str, experiment: str) -> Path:
        for folder, text in (("configs", config), ("experiments", experiment)):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "toy.py").write_text(text)
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return made


@pytest.fixture
def x64() -> Iterator[None]:
    """64-bit numbers within one test."""
    with jax.enable_x64(True):
        yield

"""What every test runs under: shapes and types checked at every call, silent broadcasting refused, two devices."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxtyping import install_import_hook

hook = install_import_hook("medjax", "beartype.beartype")  # before anything imports medjax

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)  # so that sharding is tested on any machine

hypothesis.settings.register_profile("medjax", deadline=None, derandomize=True, max_examples=20)
hypothesis.settings.load_profile("medjax")

LONG = ("test_pet_experiments", "test_experiments", "test_readme", "test_prior_command", "test_labels_command")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that two workers end together."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


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
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)

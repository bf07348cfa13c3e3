"""What every test runs under: shapes and types checked at every call, silent broadcasting refused, two devices."""

import os
from collections.abc import Iterator
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


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data, MEDJAX_TEST_DATA or ../shared/data beside the checkout; skips the test without it."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MEDJAX_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; MEDJAX_TEST_DATA names another folder")
    return folder


@pytest.fixture
def x64() -> Iterator[None]:
    """64-bit numbers within one test."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)

"""The PET experiments' tiny presets; a file of their own, for they take as long as all the others together."""

from pathlib import Path

import pytest

from tests.tiny_runs import NAMES, check_tiny_run, parameters


@pytest.mark.parametrize("name", parameters([name for name in NAMES if name.startswith("pet_")]))
def test_tiny_runs(name: str, tiny_runs: Path, tmp_path: Path):
    check_tiny_run(name, tiny_runs, tmp_path)

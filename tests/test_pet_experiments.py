"""The PET experiments' tiny presets; a file of their own, for they take as long as all the others together."""

import pytest

from tests.test_experiments import NAMES, runs_and_repeats


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("pet_")])
def test_tiny_runs(name: str, tmp_path):
    runs_and_repeats(name, tmp_path, repeats=False)  # they are long; the demonstration samples the same prior twice

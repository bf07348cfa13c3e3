"""Grids of cells and stages computed together: each is computed once, and a run that was killed goes on after it."""

import itertools

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.running.cells import cell_name, compute_cells
from medjax.running.workdir import open_workdir, stages


def test_stages_computed_together_are_kept_one_by_one(tmp_path):
    asked: list[list[int]] = []

    def compute(numbers, stop=99):
        asked.append(numbers)
        for number in reversed(numbers):
            if number == stop:
                raise KeyboardInterrupt
            yield number, {"x": np.full(2, number)}

    def run(stop=99):
        with open_workdir(tmp_path / "a", {}) as a, open_workdir(tmp_path / "b", {}) as b:
            return stages([(a, "one"), (b, "two"), (b, "three")], lambda numbers: compute(numbers, stop))

    with pytest.raises(KeyboardInterrupt):
        run(stop=1)
    found = run()
    assert asked == [[0, 1, 2], [0, 1]]
    assert [one["x"].tolist() for one in found] == [[0, 0], [1, 1], [2, 2]]
    assert (tmp_path / "b" / "checkpoints" / "two.npz").is_file()
    with open_workdir(tmp_path / "c", {}) as work:
        with pytest.raises(RuntimeError, match="b were not computed"):
            stages([(work, "a"), (work, "b")], lambda numbers: [(0, {"x": 1.0})])
        with pytest.raises(ValueError, match="exists already"):
            stages([(work, "a")], lambda numbers: [])


def test_a_grid_of_cells_is_computed_once(tmp_path):
    asked: list[tuple] = []

    def compute(kind, fraction, seed):
        asked.append((kind, fraction, seed))
        return {"x": np.float32(fraction + seed)}

    keys = list(itertools.product(("random",), (0.25, 0.5), range(2)))
    for _ in range(2):
        with open_workdir(tmp_path, {}) as work:
            found = compute_cells(work, keys, compute, "cells")
    assert asked == keys == list(found) and float(found["random", 0.5, 1]["x"]) == 1.5
    assert (tmp_path / "checkpoints" / "random_0.25_0.npz").is_file()


def test_every_cell_has_a_plain_name_of_its_own(tmp_path):
    assert cell_name(("random", 0.25, 0)) == "random_0.25_0" and cell_name(("clean", 10.0)) == "clean_10"
    with open_workdir(tmp_path, {}) as work:
        found = compute_cells(
            work, [("a", 2e6, seed) for seed in (1234567, 1234568)], lambda *key: {"x": key[2]}, "cells"
        )
    assert [int(one["x"]) for one in found.values()] == [1234567, 1234568]


def test_an_error_in_place_of_a_result_is_handed_back_and_tried_again(tmp_path):
    tried: list[list[int]] = []

    def compute(numbers):
        tried.append(numbers)
        return [(n, DataError("diverged") if n == 1 else {"x": np.float32(n)}) for n in numbers]

    for _ in range(2):
        with open_workdir(tmp_path, {}) as work:
            one, two, three = stages([(work, "a"), (work, "b"), (work, "c")], compute)
        assert isinstance(two, DataError) and (one["x"], three["x"]) == (0, 2)
    assert tried == [[0, 1, 2], [1]]

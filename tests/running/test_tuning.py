"""A grid search against a grid solved by hand."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.running.tuning import FAILED_ERROR, Tuning, grid_search, thin_grid, tuning_table
from medjax.running.workdir import open_workdir, stage

GRID = {"beta": (1.0, 2.0, 4.0, 16.0), "iterations": (5, 10)}
# Errors of (beta, iterations) in two groups; costs are iterations, twice as many in the second.
ERRORS = {
    (1, 5): (4.0, 9.0), (1, 10): (3.0, 8.0),
    (2, 5): (2.0, 6.0), (2, 10): (2.5, 7.0),
    (4, 5): (3.0, 4.0), (4, 10): (5.0, 3.0),
    (16, 5): (9.0, 2.0), (16, 10): (np.nan, 5.0),
}  # fmt: skip


def evaluate(beta: float, iterations: float) -> tuple[tuple[float, float], list[float]]:
    return ERRORS[int(beta), int(iterations)], [iterations, 2 * iterations]


@pytest.fixture(scope="module")
def tuning() -> Tuning:
    return grid_search(GRID, evaluate, groups=(2.5, 10.0))


def test_every_setting_is_tried_once_the_last_axis_fastest(tuning):
    assert [tuple(row) for row in tuning.settings] == list(ERRORS)
    np.testing.assert_array_equal(tuning.errors[:-1], list(ERRORS.values())[:-1])
    assert tuning.errors[-1].tolist() == [2 * 9.0, 5.0]
    assert tuning.cost == 7.5 * 1.5  # the mean of 5 and 10, once and twice


def test_the_best_setting_of_each_group_and_of_all(tuning):
    assert tuning.best == {2.5: {"beta": 2.0, "iterations": 5.0}, 10.0: {"beta": 16.0, "iterations": 5.0}}
    # Errors over the groups' least ones, 2 and 2: (4, 5) has 1.5 + 2, (2, 5) 1 + 3, (4, 10) 2.5 + 1.5, others more.
    assert tuning.shared == {"beta": 4.0, "iterations": 5.0}
    np.testing.assert_allclose(tuning.shared_loss(), [3 / 2 - 1, 4 / 2 - 1])


def test_sensitivity_looks_at_one_axis_through_the_best_setting(tuning):
    # Group 2.5, best beta 2 at 5 iterations: within a factor of 4 are 1, 2 and 4, with errors 4, 2 and 3.
    # Group 10, best beta 16: within a factor of 4 are 4 and 16, with errors 4 and 2.
    np.testing.assert_allclose(tuning.sensitivity("beta"), [4 / 2 - 1, 4 / 2 - 1])
    np.testing.assert_allclose(tuning.sensitivity("beta", factor=16), [9 / 2 - 1, 9 / 2 - 1])  # all of them: 9 and 9
    np.testing.assert_allclose(tuning.sensitivity("iterations"), [2.5 / 2 - 1, 5 / 2 - 1])


def test_the_least_cost_that_is_good_enough(tuning):
    np.testing.assert_array_equal(tuning.cost_to_reach(np.array([2.5, 3.0])), [5.0, 10.0])
    np.testing.assert_array_equal(tuning.cost_to_reach(np.array([1.0, 3.0])), [np.nan, 10.0])
    np.testing.assert_array_equal(tuning.cost_to_reach(np.array([2.6, 2.0])), [5.0, 10.0])


def test_without_axes_nothing_is_evaluated():
    nothing = grid_search({}, lambda: pytest.fail("evaluated"), groups=(1.0, 2.0))
    assert nothing.best == {1.0: {}, 2.0: {}} and nothing.settings.shape == (1, 0)


def test_what_is_not_finite_is_never_the_best():
    for errors, failed in (((30.0, np.nan, 20.0), 60.0), ((0.3, np.inf, 0.2), FAILED_ERROR)):
        found = grid_search(
            {"beta": (0.0, 1.0, 2.0)}, lambda beta, errors=errors: ([errors[int(beta)]], [1.0]), groups=(1.0,)
        )
        assert found.errors[1, 0] == failed and found.best == {1.0: {"beta": 2.0}}


def test_a_stage_keeps_it(tuning, tmp_path):
    with open_workdir(tmp_path / "run", {"a": 1}) as work:
        kept = Tuning(**stage(work, "tuned", lambda: tuning._asdict()))
    assert kept.best == tuning.best and kept.shared == tuning.shared


def test_bad_input():
    with pytest.raises(DataError, match="beta has no values"):
        grid_search({"beta": ()}, evaluate, groups=(1,))
    with pytest.raises(DataError, match="expected one for each of 3 groups"):
        grid_search(GRID, evaluate, groups=(1, 2, 3))


def test_thinned_grids_keep_their_middle():
    grid = {"beta": (1.0, 2.0, 4.0, 8.0, 16.0), "delta": (0.1, 0.2)}
    assert thin_grid(grid, 0) == grid
    assert thin_grid(grid, 1) == {"beta": (4.0,), "delta": (0.1,)}
    assert thin_grid(grid, 3) == {"beta": (2.0, 4.0, 8.0), "delta": (0.1, 0.2)}


def test_the_table_says_what_was_found(tuning):
    nothing = grid_search({}, evaluate, groups=(2.5, 10.0))
    table = tuning_table({"A": tuning, "B": nothing}, cases=3, error="NRMSE", unit="calls")
    assert len(table.rows) == 1 and "NRMSE" in table.header[3]
    assert table.rows[0] == [
        "A", "2.5: beta 2 iterations 5, 10: beta 16 iterations 5", "24 results, 270 calls", "beta: 100 %, 100 %",
        "50.0 %, 100.0 %",
    ]  # fmt: skip


def test_change_around_a_default_is_the_largest_within_its_factor():
    errors = {0.25: 3.0, 0.5: 1.1, 1.0: 1.0, 2.0: 0.96, 4.0: 2.0}
    tuned = grid_search({"rho": tuple(errors)}, lambda rho: ([errors[rho], 2.0], [1.0, 1.0]), (2.5, 10.0))
    np.testing.assert_allclose(tuned.change_around({"rho": 1.0}, "rho"), [0.1, 0.0])
    np.testing.assert_allclose(tuned.change_around({"rho": 1.0}, "rho", 4.0), [2.0, 0.0])

"""Bounds of a user's own, and who lies at one."""

import numpy as np
import pytest

from medjax.errors import ConfigError
from medjax.ivim.bounds import PRESETS, at_bound, parse_bounds
from medjax.ivim.signal import Ivim


def test_bounds_are_a_preset_or_a_users_own():
    lower, upper = parse_bounds("f=0.1:0.7, D*=0.004:0.1")
    assert (float(lower.f), float(upper.f), float(lower.d_star), float(upper.d_star)) == (0.1, 0.7, 0.004, 0.1)
    assert lower.d == PRESETS["default"].lower.d and upper.d == PRESETS["default"].upper.d
    lower, upper = parse_bounds("osipi")
    assert [float(value) for value in (*lower[1:], *upper[1:])] == [0, 0, 0.005, 1, 0.005, 0.2]


@pytest.mark.parametrize("text", ["", "wide", "f=0:2", "D=0.3", "D=5:1", "T2=0:1", "D=nan:1", "D=-1:1", "f=0.2:0.2"])
def test_what_are_no_bounds_is_refused(text):
    with pytest.raises(ConfigError, match=r"expected default, osipi or f=0:0.7"):
        parse_bounds(text)


def test_a_parameter_at_either_end_is_at_its_bound():
    f, d, fast = np.array([0, 0.3, 1, 0.3]), np.array([1e-3, 0, 5e-3, 1e-3]), np.array([5e-3, 0.02, 0.2, 0.02])
    held = at_bound(Ivim(np.ones(4), f, d, fast), PRESETS["osipi"])
    np.testing.assert_array_equal(held.code, [1 + 4, 2, 1 + 2 + 4, 0])
    np.testing.assert_array_equal(held.any, [True, True, True, False])

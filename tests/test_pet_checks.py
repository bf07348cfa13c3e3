"""`medjax pet reconstruct`: default subsets suit counts and views, and maps cover the emission, by hand."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.tools.pet_checks import check_coverage
from medjax.tools.pet_settings import ReconstructionSettings, complete_settings, settings_for_counts


def test_subsets_by_counts():
    def chosen(total, planes=1, **requested):
        requested = ReconstructionSettings(**requested)
        possible = [n for n in range(1, 127) if 126 % n == 0]  # of the 252 views of mmr and ring_2d, two fans
        return settings_for_counts(complete_settings(requested), requested, total / planes, possible)[1:3]

    assert chosen(1e6) == (3, 21) and chosen(1e6, planes=100) == (4, 18)
    assert chosen(5200) == (7, 9) and chosen(1000) == (30, 2) and chosen(10) == (30, 1)
    assert chosen(2500) == (21, 3) and chosen(6500) == (7, 9)  # not 4 and 12, which divide 252 only
    assert chosen(1000, iterations=2) == (2, 2) and chosen(1000, subsets=21) == (3, 21)
    assert chosen(1000, method="map-em") == (10, 7) and chosen(1000, method="mlem") == (30, 1)


def test_coverage_by_hand():
    emission = np.zeros((10, 10, 9), np.float32)
    emission[2:8, 2:8] = 1.0
    whole = emission.copy()
    planes = np.where(np.arange(9) < 3, emission, 0)
    most = np.where(np.arange(9) < 7, emission, 0)
    assert check_coverage(emission, {"m": whole, "n": None}) == ("m: covers 100% of the emission",)
    with pytest.raises(DataError, match=r"^m: covers 33% of the emission; expected 90% or more: look at its voxel"):
        check_coverage(emission, {"m": planes})
    with pytest.warns(UserWarning, match="m: covers 78% of the emission; it is taken as 0 beyond"):
        check_coverage(emission, {"m": most})
    with pytest.warns(UserWarning, match="m: covers 33% of the emission, which is uncertain as 97% of the counts are"):
        assert check_coverage(emission, {"m": planes}, 0.97)  # the emission may be noise
    assert check_coverage(emission, {"m": most}, 0.97)[0].startswith("m: covers 78% of the emission, which is uncert")

"""μ-maps: each wrong unit gets its own advice, metal passes, rounding below 0 passes, and a bad voxel is named."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.pet.attenuation import check_mu

HEAD = np.zeros((20, 20, 3), np.float32)
HEAD[4:16, 4:16] = 0.0096  # water, mm⁻¹ at 511 keV
HEAD[4:16, 4] = 0.0151  # bone
HEAD[5, 5, 1] = 0.0003


def with_voxel(value):
    changed = HEAD.copy()
    changed[7, 8, 1] = value
    return changed


@pytest.mark.parametrize(
    ("mu", "message"),
    [
        (HEAD * 10, r"0\.096 in most of the body; .* this looks like cm⁻¹: divide by 10$"),
        (HEAD * 1000, r"9\.6 in most of the body; .* this looks like m⁻¹: divide by 1000$"),
        (np.round(HEAD * 1e6), r"neither cm⁻¹ nor m⁻¹ \(whole numbers: perhaps their scale factor is lost\)$"),
        (np.where(HEAD > 0, HEAD / 0.0096 * 1000 - 1000, -1000), r"smallest value -1000, as CT numbers \(HU\) have"),
        (with_voxel(-0.002), r"-0\.002 at voxel \(7, 8, 1\); expected 0 or more"),
        (with_voxel(np.inf), r"inf at voxel \(7, 8, 1\); expected finite"),
        (with_voxel(0.5), r"0\.5 at voxel \(7, 8, 1\); expected at most 0\.3 mm⁻¹, even of metal"),
    ],
)
def test_other_units_and_impossible_voxels_are_refused_with_their_remedy(mu, message):
    with pytest.raises(DataError, match=message) as caught:
        check_mu(mu)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mu", [HEAD, with_voxel(0.065), with_voxel(-1e-9), HEAD * 0, HEAD * 0.3])
def test_bodies_with_metal_rounding_or_air_alone_pass(mu):
    """0.065 mm⁻¹ is steel at 511 keV, 0.3 × water lung."""
    check_mu(mu)

"""Simulated echocardiograms: labels are anatomy, speckle is speckle, groups differ as hearts do."""

import numpy as np
import pytest

from medjax.phantoms.echo import ATRIUM, LV, MYOCARDIUM, echo, label_image, random_heart, sector_mask
from medjax.phantoms.echo import _cartesian as cartesian


@pytest.fixture(scope="module")
def data():
    return echo(0, 48, 64, hard=0.25)


def test_the_same_seed_is_the_same_and_another_another(data):
    again, other = echo(0, 48, 64, hard=0.25), echo(1, 48, 64, hard=0.25)
    for one, two in zip(data, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(data.labels, other.labels)


def test_shapes_ranges_and_shares(data):
    assert data.images.shape == (48, 64, 64, 1) and data.images.min() == 0 and data.images.max() == 1
    assert data.hard.sum() == 12 and (np.bincount(data.group) == 12).all()
    assert (data.images[:, ~sector_mask(64)] == 0).all()


def test_every_heart_has_its_parts_in_place(data):
    rows = np.arange(64)[:, None]
    for one in data.labels:
        assert set(np.unique(one)) == {0, LV, MYOCARDIUM, ATRIUM}
        middle = {c: (rows * (one == c)).sum() / (one == c).sum() for c in (LV, MYOCARDIUM, ATRIUM)}
        assert middle[LV] < middle[ATRIUM] and middle[MYOCARDIUM] < middle[ATRIUM]  # the apex is near the probe


def test_systole_is_smaller_and_thicker(data):
    ratio = [(one == MYOCARDIUM).sum() / (one == LV).sum() for one in data.labels]
    systole = data.group % 2 == 1
    assert np.mean(np.array(ratio)[systole]) > 1.5 * np.mean(np.array(ratio)[~systole])


def test_blood_is_darker_than_muscle_less_so_in_hard_images(data):
    def contrast(chosen):
        pairs = zip(data.images[chosen, ..., 0], data.labels[chosen], strict=True)
        return np.mean([image[one == MYOCARDIUM].mean() - image[one == LV].mean() for image, one in pairs])

    assert contrast(~data.hard) > 0.15 and contrast(data.hard) < 0.7 * contrast(~data.hard)


def test_speckle_has_rayleighs_statistics():
    """The envelope of many scatterers is Rayleigh-distributed: its logarithm's standard deviation is 5.57 dB."""
    big = echo(3, 12, 256, hard=0.0)
    deviations = []
    for image, one in zip(big.images[..., 0], big.labels, strict=True):
        rows, columns = np.nonzero(one == ATRIUM)
        inside = image[rows, columns]
        inside = inside[(inside > 0.02) & (inside < 0.98)]
        deviations.append(inside.std() * 44)  # mean dynamic range in dB
    assert np.median(deviations) == pytest.approx(5.57, rel=0.3)


def test_a_label_does_not_depend_on_the_grid():
    heart = random_heart(np.random.default_rng(0), four_chambers=True, systole=False)
    fine, coarse = (label_image(heart, *cartesian(side)) for side in (256, 64))
    shares = [np.bincount(one.ravel(), minlength=4) / one.size for one in (fine, coarse)]
    np.testing.assert_allclose(*shares, atol=0.01)

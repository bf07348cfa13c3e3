"""IVIM fits against OSIPI's tissues, SciPy, the Cramér–Rao bound, and what must not matter."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from medjax.errors import DataError
from medjax.ivim.fit import check_bvalues, fit
from medjax.ivim.information import cramer_rao, identifiable
from medjax.ivim.levenberg_marquardt import levenberg_marquardt
from medjax.ivim.signal import UM2_PER_MS, Ivim, convert_d_star, signal

B = np.array([0, 10, 20, 30, 40, 50, 75, 100, 150, 200, 250, 300, 400, 500, 600, 800], np.float32)
LUNG = Ivim(*(np.float32(v) for v in (1.0, 0.32, 1.7e-3, 22e-3)))


def voxels(number: int, sigma: float, seed: int = 0) -> tuple[Ivim, np.ndarray]:
    """Fetal-lung-like voxels, their noisy signals."""
    draw = np.random.default_rng(seed)
    low, high = (800, 0.25, 1.39e-3, 13e-3), (1200, 0.39, 1.97e-3, 32e-3)
    truth = Ivim(*(draw.uniform(a, b, number).astype(np.float32) for a, b in zip(low, high, strict=True)))
    return truth, (np.asarray(signal(truth, B)) + sigma * draw.normal(size=(16, number))).astype(np.float32)


def test_osipis_tissues(test_data):
    """14 of 14 inside f ± 0.02, D ± 3 %, D* ± 10 %."""
    tissues = json.loads((test_data / "ivim_osipi" / "generic.json").read_text())
    bvalues = np.array(tissues.pop("config")["bvalues"], np.float32)
    found = fit(jnp.asarray(np.stack([t["data"] for t in tissues.values()], 1), jnp.float32), jnp.asarray(bvalues))
    truth = {name: np.array([t[name] for t in tissues.values()]) for name in ("f", "D", "Dp")}
    assert len(tissues) == 14
    assert np.abs(found.parameters.f - truth["f"]).max() < 0.02
    assert np.abs(found.parameters.d / truth["D"] - 1).max() < 0.03
    assert np.abs(found.parameters.d_star / truth["Dp"] - 1).max() < 0.10


def test_the_minimum_is_scipys():
    """Against trust-region fits in float64 from several starts; relative excess of the cost."""
    _, y = voxels(24, 20.0)
    found = fit(jnp.asarray(y), jnp.asarray(B))
    excess = []
    for k in range(24):
        scale = y[:, k].max()

        def residual(p, k=k, scale=scale):
            return (
                p[0] * ((1 - p[1]) * np.exp(-B * p[2] * UM2_PER_MS) + p[1] * np.exp(-B * p[3] * UM2_PER_MS))
                - y[:, k] / scale
            )

        starts = [(1, f, d, s) for f in (0.1, 0.4) for d in (0.8, 2.0) for s in (8.0, 40.0)]
        bounds = ([0, 0, 0.1, 3], [np.inf, 1, 6, 500])
        best = min(2 * optimize.least_squares(residual, x, bounds=bounds).cost for x in starts) * scale**2
        excess.append(float(found.cost[k]) / best - 1)
    assert max(excess) < 1e-5


def test_the_fit_is_as_precise_as_can_be():
    """At SNR 50 with 16 b-values the standard deviation over noise is within 10 % of the Cramér–Rao bound."""
    number = 8192
    truth = Ivim(*(np.full(number, v, np.float32) for v in LUNG))
    y = np.asarray(signal(truth, B)) + np.random.default_rng(0).normal(size=(16, number)) / 50
    found = fit(jnp.asarray(y, jnp.float32), jnp.asarray(B), steps=30).parameters
    bound = cramer_rao(Ivim(*(p[:1] for p in truth)), B, 1 / 50)
    for value, least in zip(found, bound, strict=True):
        low, high = np.quantile(np.asarray(value), (0.1587, 0.8413))  # robust: the tail of D* is long
        assert (high - low) / 2 == pytest.approx(float(least[0]), rel=0.10)


def test_bounds_are_cramer_and_raos():
    """Against the inverse information in float64, derivatives by differences."""
    p0 = np.array([1.0, 0.32, 1.7, 22.0])

    def s(p):
        return p[0] * ((1 - p[1]) * np.exp(-B * p[2] * UM2_PER_MS) + p[1] * np.exp(-B * p[3] * UM2_PER_MS))

    jacobian = np.stack([(s(p0 + h) - s(p0 - h)) / (2 * h.sum()) for h in np.diag(1e-5 * p0)], 1)
    expected = 0.02 * np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian))) * [1, 1, UM2_PER_MS, UM2_PER_MS]
    bound = cramer_rao(Ivim(*(p[None] for p in LUNG)), B, 0.02)
    np.testing.assert_allclose(np.ravel(bound), expected, rtol=1e-3)
    seen = identifiable(Ivim(*(p[None] for p in LUNG)), bound)
    assert bool(seen[0]) and not bool(
        identifiable(Ivim(*(p[None] for p in LUNG)), Ivim(*(9 * one for one in bound)))[0]
    )


def test_order_scale_chunks_and_a_missing_b0_do_not_matter():
    _, y = voxels(50, 5.0)
    found = fit(jnp.asarray(y), jnp.asarray(B))
    order = np.random.default_rng(1).permutation(16)
    for other in (
        fit(jnp.asarray(y[order]), jnp.asarray(B[order])),
        fit(jnp.asarray(y), jnp.asarray(B), chunk=16),
        fit(jnp.asarray(y / 1000), jnp.asarray(B)),
    ):
        for name in ("f", "d", "d_star"):
            one, two = getattr(found.parameters, name), getattr(other.parameters, name)
            assert np.median(np.abs(one - two) / one) < 1e-3
    truth, clean = voxels(50, 0.0)
    without = fit(jnp.asarray(clean[1:]), jnp.asarray(B[1:]), steps=40).parameters
    np.testing.assert_allclose(without.f, truth.f, atol=0.01)


def test_bounds_hold_even_when_silly():
    _, y = voxels(200, 400.0)  # SNR 2.5
    lower, upper = Ivim(*map(np.float64, (0.5, 0.3, 2e-3, 2e-2))), Ivim(*map(np.float64, (0.9, 0.31, 2.1e-3, 3e-2)))
    p = fit(jnp.asarray(y), jnp.asarray(B), lower=lower, upper=upper).parameters
    largest = y.max(0).astype(float)
    assert (p.s0 / largest >= 0.5 * (1 - 1e-5)).all() and (p.s0 / largest <= 0.9 * (1 + 1e-5)).all()
    for name in ("f", "d", "d_star"):
        value = np.asarray(getattr(p, name), float)
        assert value.min() >= getattr(lower, name) * (1 - 1e-5) and value.max() <= getattr(upper, name) * (1 + 1e-5)


def test_the_conventions_of_d_star():
    truth, y = voxels(20, 0.0)
    excess = fit(jnp.asarray(y), jnp.asarray(B), convention="excess", steps=40).parameters
    np.testing.assert_allclose(excess.d_star, truth.d_star - truth.d, rtol=0.02)
    np.testing.assert_allclose(signal(excess, B, "excess"), y, rtol=1e-3)
    back = convert_d_star(convert_d_star(truth, "absolute", "excess"), "excess", "absolute")
    np.testing.assert_allclose(back.d_star, truth.d_star, rtol=1e-6)


def test_the_faster_decay_is_d_star():
    """At low SNR least squares may find the parts the other way round; in the excess convention D* is then below 0."""
    _, y = voxels(2000, 150.0)
    found = fit(jnp.asarray(y), jnp.asarray(B))
    assert (found.parameters.d <= found.parameters.d_star).all()
    excess = fit(jnp.asarray(y), jnp.asarray(B), convention="excess").parameters
    assert (excess.d_star >= 0).all()
    predicted = signal(found.parameters, B)
    np.testing.assert_allclose(np.sum((y - predicted) ** 2, 0), found.cost, rtol=1e-3)


def test_voxels_without_signal_are_zero_and_never_nan():
    _, y = voxels(6, 1.0)
    y[:, 0], y[:, 1], y[3, 2], y[:, 3] = 0, -5, np.nan, y[0, 3]
    found = fit(jnp.asarray(y), jnp.asarray(B))
    assert all(np.isfinite(value).all() for value in (*found.parameters, found.cost))
    assert float(found.parameters.s0[0]) == float(found.parameters.s0[1]) == 0


def test_any_model_fits_in_ten_lines():
    """Mono-exponential T2 decay, against SciPy."""
    times = jnp.array([10.0, 20, 40, 60, 90, 120])
    truth = jnp.array([[100.0, 80.0, 120.0], [45.0, 70.0, 110.0]])

    def decay(p):
        return p[0][None] * jnp.exp(-times[:, None] / p[1][None])

    y = decay(truth) + jax.random.normal(jax.random.key(0), (6, 3))
    found = levenberg_marquardt(
        decay, jnp.full((2, 3), 50.0), y, jnp.array([[0.0], [1.0]]), jnp.array([[1e4], [1e4]]), steps=30
    )
    for k in range(3):
        best, _ = optimize.curve_fit(
            lambda t, a, t2: a * np.exp(-t / t2), np.asarray(times), np.asarray(y[:, k]), (50, 50)
        )
        np.testing.assert_allclose(found.parameters[:, k], best, rtol=1e-3)


@pytest.mark.parametrize(
    ("message", "signals", "bvalues"),
    [
        ("16 b-values for 15 frames", np.ones((15, 2)), B),
        ("3 different b-values", np.ones((3, 2)), B[:3]),
        ("multiply ms/µm² by 1000", np.ones((16, 2)), B / 1000),
        ("negative or not finite", np.ones((16, 2)), -B),
    ],
)
def test_b_values_that_cannot_be_are_refused(message, signals, bvalues):
    with pytest.raises(DataError, match=message):
        check_bvalues(signals, bvalues)

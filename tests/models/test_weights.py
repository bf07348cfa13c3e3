"""Files of weights: what is saved comes back; what is no such file, or another network's, is refused in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.models.weights import load_weights, save_weights

PARAMS = {"stem": {"kernel": jnp.linspace(-1, 1, 6).reshape(2, 3), "bias": jnp.ones(3)}, "count": jnp.arange(2)}
HEADER = {"widths": [8, 16], "about": "a test"}


@pytest.mark.parametrize("dtype", [None, np.float16])
def test_weights_and_header_come_back(dtype, tmp_path):
    save_weights(tmp_path / "w.npz", PARAMS, HEADER, dtype)
    like = jax.eval_shape(lambda: PARAMS)
    for params, header in (load_weights(tmp_path / "w.npz"), load_weights(tmp_path / "w.npz", like)):
        assert header == HEADER
        assert jax.tree.structure(params) == jax.tree.structure(PARAMS)
        assert params["stem"]["kernel"].dtype == jnp.float32 and params["count"].dtype == jnp.int32
        same = np.testing.assert_array_equal if dtype is None else lambda a, b: np.testing.assert_allclose(a, b, 5e-4)
        jax.tree.map(same, params, PARAMS)


def test_the_same_weights_make_the_same_file(tmp_path):
    for name in "ab":
        save_weights(tmp_path / name, PARAMS, HEADER)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_bfloat16_holds_is_kept(tmp_path):
    save_weights(tmp_path / "w.npz", {"a": jnp.asarray([1.5, 2.0], jnp.bfloat16)}, {})
    np.testing.assert_array_equal(load_weights(tmp_path / "w.npz")[0]["a"], [1.5, 2.0])


@pytest.mark.parametrize(
    ("message", "other"),
    [
        ("stem/bias are missing", {"stem": {"kernel": PARAMS["stem"]["kernel"]}, "count": PARAMS["count"]}),
        ("extra are none of this network", {**PARAMS, "extra": jnp.ones(1)}),
        (r"stem/bias have shape \(4,\); expected \(3,\)", {**PARAMS, "stem": {**PARAMS["stem"], "bias": jnp.ones(4)}}),
    ],
)
def test_another_networks_weights_are_refused(message, other, tmp_path):
    save_weights(tmp_path / "w.npz", other, HEADER)
    with pytest.raises(DataError, match=message):
        load_weights(tmp_path / "w.npz", jax.eval_shape(lambda: PARAMS))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])  # the last is beyond float16
def test_values_that_are_not_finite_are_refused(value, tmp_path):
    with pytest.raises(DataError, match="a are not finite; nothing is written"):
        save_weights(tmp_path / "w.npz", {"a": jnp.asarray([value])}, HEADER, np.float16)
    assert not list(tmp_path.iterdir())
    np.savez(tmp_path / "w.npz", settings=np.frombuffer(b"{}", np.uint8), a=np.array([np.nan]))
    with pytest.raises(DataError, match="a are not finite"):
        load_weights(tmp_path / "w.npz")


def test_other_files_are_refused(tmp_path):
    file = tmp_path / "w.npz"
    with pytest.raises(DataError, match="no such file"):
        load_weights(file)
    for write in (
        lambda: file.write_bytes(b"no weights"),
        lambda: np.savez(file, a=np.ones(2)),
        lambda: np.savez(file, settings=np.frombuffer(b"{", np.uint8)),
        lambda: np.savez(file, settings=np.frombuffer(b"{}", np.uint8), a=np.array([{}], object)),
    ):
        write()
        with pytest.raises(DataError, match=r"expected weights: an npz|settings: not JSON"):
            load_weights(file)


@pytest.mark.parametrize(
    ("message", "params"),
    [
        ("'settings': that is a name that the file needs itself", {"settings": jnp.ones(1)}),
        ("'allow_pickle': that is a name", {"allow_pickle": jnp.ones(1)}),
        ("'a/b'; expected names without '/'", {"a/b": jnp.ones(1), "a": {"b": jnp.zeros(1)}}),
    ],
)
def test_names_that_would_be_lost_are_refused(message, params, tmp_path):
    with pytest.raises(DataError, match=message):
        save_weights(tmp_path / "w.npz", params, HEADER)
    assert not list(tmp_path.iterdir())
    save_weights(tmp_path / "w.npz", {"net": {"settings": jnp.ones(2), "file": jnp.ones(1)}}, HEADER)
    params, header = load_weights(tmp_path / "w.npz")
    assert header == HEADER and params["net"]["settings"].shape == (2,)


@pytest.mark.parametrize(
    ("message", "array"),
    [
        ("stem/bias are int64; expected float32", np.ones(3, np.int64)),
        ("are complex128; expected float32, or other real numbers", np.ones(3, complex)),
        ("stem/bias are not finite as float32", np.full(3, 1e300)),
    ],
)
def test_arrays_that_are_no_weights_are_refused(message, array, tmp_path):
    bias = {"stem/kernel": np.ones((2, 3)), "count": np.arange(2), "stem/bias": array}
    np.savez(tmp_path / "w.npz", settings=np.frombuffer(b"{}", np.uint8), **bias)
    with pytest.raises(DataError, match=message):
        load_weights(tmp_path / "w.npz", jax.eval_shape(lambda: PARAMS))

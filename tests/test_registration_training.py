"""Training of a registration network on heads in a file: kept, resumed, evaluated."""

import json

import jax
import numpy as np
import pytest
from scipy import ndimage

from medjax.errors import ConfigError, DataError, WorkdirError
from medjax.registration.network_file import load
from medjax.tools.registration_training import FILE, Heads, evaluate, read_heads, train, write_heads

TINY = {"batch": 2, "widths": (4,), "every": 2}


@pytest.fixture(scope="module")
def heads() -> Heads:
    return balls()


def balls() -> Heads:
    """Seven smooth balls of two tissues, each a little elsewhere."""
    draw, images, labels = np.random.default_rng(0), [], []
    for _ in range(7):
        center = 7.5 + draw.uniform(-1.5, 1.5, 3).reshape(3, 1, 1, 1)
        radius = np.sqrt(((np.indices((16, 16, 16)) - center) ** 2).sum(0))
        labels.append((radius < 6).astype(np.uint8) + (radius < 3))
        images.append(np.round(ndimage.gaussian_filter(120.0 * labels[-1], 0.7)).astype(np.uint8))
    return Heads(np.stack(images), np.stack(labels).astype(np.uint8), 2.5)


def test_heads_come_back_from_their_file(heads, tmp_path):
    write_heads(tmp_path / "h.npz", heads)
    back = read_heads(tmp_path / "h.npz")
    for one, other in zip(back, heads, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(back.learnt().images) == 3 and len(back.held_out().images) == 4
    write_heads(tmp_path / "few.npz", heads.select(slice(3)))
    (tmp_path / "none.npz").write_text("no heads")
    for name, message in {
        "few.npz": "3 heads; expected at least 6",
        "none.npz": "a file of --make",
    }.items():
        with pytest.raises(DataError, match=message):
            read_heads(tmp_path / name)


def test_an_interrupted_training_ends_as_one_that_was_not(heads, tmp_path, monkeypatch):
    whole = train(tmp_path / "whole", heads, 12, **TINY)
    rows = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12] and "validation" in rows[-1]

    import medjax.tools.registration_training as tool

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tool, "validation_loss", stop)  # at step 10, after its checkpoint
        train(tmp_path / "halves", heads, 12, **TINY)
    again = train(tmp_path / "halves", heads, 12, **TINY)
    jax.tree.map(np.testing.assert_array_equal, again.params, whole.params)
    kept = load(tmp_path / "halves" / FILE)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), kept.params, whole.params)
    with pytest.raises(WorkdirError):
        train(tmp_path / "halves", heads, 13, **TINY)


def test_evaluation_of_held_out_heads(heads, tmp_path):
    network = train(tmp_path / "run", heads, 2, **TINY)
    affine, predicted, refined = evaluate(network, heads, 1, ("affine", "network", "refined"))
    assert 0 < affine["dice"] < refined["dice"] <= 1 and abs(predicted["dice"] - affine["dice"]) < 0.2
    assert refined["folds"] < 0.03 and refined["sd_log_jacobian"] > 0 and refined["seconds"] > 0
    with pytest.raises(ConfigError, match="method syn; expected affine, network, greedy, refined"):
        evaluate(network, heads, 1, ("syn",))


def test_what_cannot_be_trained_is_refused(heads, tmp_path):
    with pytest.raises(ConfigError, match=r"heads of \(16, 16, 16\) voxels; 5 levels need multiples of 32"):
        train(tmp_path / "a", heads, 2, widths=(4,) * 5)
    with pytest.raises(DataError, match="pairs: 7 of 3 heads"):
        train(tmp_path / "a", heads, 2, pairs=7)
    with pytest.raises(ConfigError, match="expected positive numbers"):
        train(tmp_path / "a", heads, 0)
    assert not (tmp_path / "a").exists()

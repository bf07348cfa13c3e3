"""Kinds of phantoms that priors learn from: OSEM images at full counts, and fine-tuning from one kind to another."""

import json

import jax
import numpy as np
import pytest

from medjax.diffusion.prior import PriorSettings
from medjax.diffusion.prior_file import load_prior
from medjax.errors import ConfigError
from medjax.phantoms.mni import tissue_fractions
from medjax.phantoms.uptake import FAMILY, random_activity
from medjax.tools import pet_prior
from medjax.tools.pet_prior_images import osem_image, osem_scanner, phantom_volumes

pytest.importorskip("nilearn")
SETTINGS = PriorSettings((8,), 1, (), 1, size=16, voxel_mm=12.0)


def test_an_osem_image_is_the_head_blurred_and_noisy_in_its_own_units():
    tissues, scanner = tissue_fractions(), osem_scanner(SETTINGS)
    head = random_activity(7, *tissues, 12.0, (16, 16, 16), FAMILY)
    (exact,) = phantom_volumes(range(7, 8), SETTINGS)
    full = next(iter(phantom_volumes(range(7, 8), SETTINGS, "osem")))[..., 0]
    few = osem_image(7, scanner, *tissues, trues_per_mm3=0.02)
    assert np.isfinite(full).all() and (full >= 0).all()
    assert not full[head.max(axis=(1, 2)) == 0].any(), "no slice of noise alone"
    np.testing.assert_allclose(full.sum(), exact.sum(), rtol=0.03)

    def error(image):
        return np.linalg.norm(image - exact[..., 0]) / np.linalg.norm(exact)

    assert 0.01 < error(full) < 0.2 and error(few) > 1.5 * error(full)


def train(folder, kind, pretrained=None, settings=SETTINGS, steps=2):
    return pet_prior.train(folder, (), 1, kind, settings, steps, 2, 1e-3, 0, pretrained=pretrained, every=1)


def test_a_prior_is_fine_tuned_from_one_kind_to_another(tmp_path, monkeypatch):
    monkeypatch.setattr(pet_prior, "VALIDATION_PHANTOMS", 1)
    first = train(tmp_path / "first", "noise_free")
    assert first.prior.settings.kind == "noise_free" and first.prior.settings.tracers == ("fdg", "dpa714")
    tuned = train(tmp_path / "tuned", "without_lesions", first.file, steps=1)
    assert load_prior(tuned.file).settings.kind == "without_lesions"
    rows = [json.loads(line) for line in (tmp_path / "tuned" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1] and rows[0]["error/0.4"] > 0
    near = jax.tree.map(lambda a, b: bool(np.allclose(a, b, atol=2e-3)), tuned.prior.params, first.prior.params)
    assert jax.tree.all(near), "one step from where the other one ended"
    with pytest.raises(ConfigError, match=r"--start .*prior.npz: its network has widths \(8,\); expected \(16,\)"):
        train(tmp_path / "other", "osem", first.file, SETTINGS._replace(widths=(16,)))
    assert not (tmp_path / "other").exists()

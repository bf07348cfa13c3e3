"""List mode event by event, from the file: its image, and its randoms, are those of the sinogram of the same events."""

import dataclasses
import warnings
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import iterate
from medjax.errors import ConfigError, DataError
from medjax.io import siemens_listmode
from medjax.io.nifti import read_nifti
from medjax.pet import em, listmode_stream
from medjax.pet.acquisition import acquire, select_subset
from medjax.pet.attenuation import attenuation_factors, line_attenuation
from medjax.pet.grid import Grid
from medjax.pet.io import load_frames
from medjax.pet.listmode import acquire_events
from medjax.pet.listmode_events import read_listmode_events
from medjax.pet.listmode_scan import read_listmode_scans
from medjax.pet.listmode_stream import acquire_stream
from medjax.pet.lor_system import build_lor_system
from medjax.pet.psf import gaussian_psf
from medjax.pet.scan import system_model
from medjax.pet.scanner import Scanner
from medjax.tools import pet_events
from medjax.tools.pet_frames import reconstruct_frames
from medjax.tools.pet_reconstruct import reconstruct
from medjax.tools.pet_settings import ReconstructionSettings

SCANNER = Scanner("small", 24, 4, 80.0, 5.0, 13, 6.0, block=6, gaps=True)
HEADER = """!INTERFILE:=
%data format:=CoincidenceList
!name of data file:=scan.l
image duration (sec):=4
%number of rings:=4
%total listmode word counts:={words}
%LM event and tag words format (bits):=32
%axial compression:=1
%maximum ring difference:=3
%patient orientation:=HFS
%number of projections:=13
%number of views:=12
"""
GRID = Grid((12, 12, 7), (6.0, 6.0, 2.5))


def save(folder: Path, seed: int = 0, number: int = 4000, prompts: float = 2 / 3) -> Path:
    """Events of 4 s, a fraction of them prompts, a time tag every 10 ms, lines of response near the middle."""
    rng = np.random.default_rng(seed)
    bins = np.clip(np.round(rng.normal(6, 2, number)), 0, 12)
    sinogram, view = ((n * rng.random(number) ** 2).astype(int) for n in (16, 12))  # so that crystals differ
    address = (sinogram * 12 + view) * 13 + bins.astype(int)
    words = address | np.where(rng.random(number) < prompts, 1 << 30, 0)
    tags = (1 << 31) | (10 * np.arange(400))
    stream = np.concatenate(
        [np.concatenate([[tag], part]) for tag, part in zip(tags, words.reshape(400, -1), strict=True)]
    )
    (folder / "scan.l").write_bytes(stream.astype("<u4").tobytes())
    (folder / "scan.l.hdr").write_text(HEADER.format(words=len(stream)))
    return folder / "scan.l"


def scans(path: Path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # events in the gaps are left out
        return list(read_listmode_scans(path, SCANNER, **options))


@pytest.mark.parametrize("mu", [None, 0.005])
def test_events_have_the_gradient_of_their_sinogram(tmp_path, mu: float | None):
    path = save(tmp_path, number=40_000)
    (scan,) = scans(path, span=1)
    system = system_model(scan.scanner, GRID, scan.michelogram)
    attenuation = None if mu is None else jnp.full(GRID.shape, mu)
    factors = jnp.asarray(scan.multiplicative)
    if attenuation is not None:
        factors = factors * attenuation_factors(system, attenuation)
    whole = acquire(system, jnp.asarray(scan.counts), factors, jnp.asarray(scan.additive))
    (events,) = read_listmode_events(path, SCANNER)
    assert events.events == scan.counts.sum() and events.additive == pytest.approx(scan.additive.sum(), rel=1e-5)
    single = select_subset(events.acquire(GRID, 1, attenuation, None), 0)
    image = jnp.asarray(np.random.default_rng(1).uniform(0.5, 1.5, GRID.shape), jnp.float32)
    want, got = np.asarray(whole.gradient(image)), np.asarray(single.gradient(image))
    np.testing.assert_allclose(np.asarray(single.sensitivity), np.asarray(whole.sensitivity), rtol=1e-4, atol=1e-3)
    assert np.abs(got - want).max() < 1e-4 * np.abs(want).max()


def test_frames_share_out_all_counts(tmp_path):
    path, frames = save(tmp_path), ((0.0, 1.0), (1.0, 3.0), (3.0, 4.0))
    for options in ({}, {"span": 3}):
        (whole,), parts = scans(path, **options), scans(path, frames=frames, **options)
        np.testing.assert_array_equal(sum(part.counts for part in parts), whole.counts)
        assert [part.frame_s for part in parts] == list(frames) and parts[1].summary.startswith("1 to 3 s: ")
    single = list(read_listmode_events(path, SCANNER, frames))
    (all_of_them,) = read_listmode_events(path, SCANNER)
    assert sum(part.events for part in single) == all_of_them.events and len(single) == 3
    assert single[1].events == pytest.approx(all_of_them.events / 2, rel=0.1)


def test_a_frame_without_prompts_is_refused(tmp_path):
    path = save(tmp_path, number=400)
    words = np.fromfile(path, "<u4")
    words[words < 1 << 31] &= (1 << 30) - 1  # delayeds alone
    path.write_bytes(words.tobytes())
    with pytest.raises(DataError, match=r"scan\.l: no prompts; expected some"):
        list(read_listmode_events(path, SCANNER))


def test_attenuation_of_lines_is_the_closed_form():
    """exp(−μ · length) of lines along x and y through the middle of a uniform box, and 1 of one beside it."""
    ends = np.array([[[-50, 1, 0], [50, 1, 0]], [[1, -50, 0], [1, 50, 0]], [[-50, 60, 0], [50, 60, 0]]], float)
    factors = line_attenuation(GRID, jnp.full(GRID.shape, 0.01))(ends)
    np.testing.assert_allclose(factors, [np.exp(-0.72), np.exp(-0.72), 1], rtol=1e-5)
    np.testing.assert_array_equal(line_attenuation(GRID, None)(ends), 1)
    system = build_lor_system(ends, GRID)
    np.testing.assert_allclose(attenuation_factors(system, jnp.full(GRID.shape, 0.01)), factors, rtol=1e-5)


def test_images_of_events_and_of_their_frames(tmp_path):
    path = save(tmp_path, number=40_000, prompts=0.98)
    settings = ReconstructionSettings("osem", iterations=3, subsets=2, psf_mm=0.0)
    (scan,) = read_listmode_events(path, SCANNER)
    options = {"size": 12, "voxel_mm": 6.0}
    whole = reconstruct(scan, settings, tmp_path / "a.nii.gz", **options)
    assert whole.title == "OSEM, 3 iterations × 2 subsets, list mode" and whole.counts == scan.events
    assert whole.note == "real data, no attenuation or normalisation correction"
    assert read_nifti(tmp_path / "a.nii.gz").array.shape == (12, 12, 7) and (tmp_path / "a.png").is_file()
    sensitivity = np.asarray(scan.acquire(GRID, 1, None, None).sensitivity[0])
    assert float((sensitivity * whole.image).sum()) == pytest.approx(scan.events - scan.additive, rel=0.1)
    frames = ((0.0, 2.0), (2.0, 4.0))
    load = partial(read_listmode_events, path, SCANNER, frames)
    last = reconstruct_frames(load, settings, tmp_path / "f.nii.gz", dynamic=True, **options)
    assert last.files[0].name == "f_frame02.nii.gz"
    rows = [line.split(",") for line in (tmp_path / "f_frames.csv").read_text().splitlines()]
    assert rows[0] == ["frame", "start_s", "end_s", "counts", "file"] and rows[2][:3] == ["2", "2.0", "4.0"]
    assert sum(int(row[3]) for row in rows[1:]) == scan.events
    both = sum(2 * read_nifti(tmp_path / f"f_frame0{k}.nii.gz").array for k in (1, 2))  # activity a second × 2 s
    assert float((sensitivity * both).sum()) == pytest.approx(float((sensitivity * whole.image).sum()), rel=0.03)


@pytest.mark.parametrize("mu", [None, 0.005])
def test_events_read_anew_in_every_iteration(tmp_path, monkeypatch, mu: float | None):
    """The image of MLEM is that of all events in memory; of OSEM that of runs of events, computed by hand."""
    path = save(tmp_path, number=20_000)
    monkeypatch.setattr(siemens_listmode, "CHUNK", 3000)
    monkeypatch.setattr(listmode_stream, "_BATCH", 4096)
    (scan,) = read_listmode_events(path, SCANNER)
    psf = gaussian_psf(GRID, 5.0)
    stream = scan.stream(GRID, None if mu is None else jnp.full(GRID.shape, mu))
    chunks = [len(one.factors) for one in stream.read()]
    assert len(chunks) > 4 and sum(chunks) == scan.events
    held = acquire_stream(stream, GRID, 1, psf)
    start = em.init(held)
    np.testing.assert_allclose(em.init(listmode_stream.single_bin(stream, psf)).image, start.image, rtol=1e-5)
    want = iterate.scan(em.osem(held), start, 3)[0].image
    states = list(listmode_stream.osem(stream, GRID, start.image, 3, 1, psf))
    assert [int(state.step) for state in states] == [1, 2, 3]
    np.testing.assert_allclose(states[-1].image, want, atol=2e-5 * float(want.max()))
    (events,) = [jax.tree.map(lambda *a: np.concatenate(a), *stream.read())]
    image, length = start.image, -(-scan.events // 3)
    for k in range(3):
        run = jax.tree.map(lambda a, k=k: a[k * length : (k + 1) * length], events)
        part = acquire_events(run, GRID, stream.sensitivity / 3, stream.additive / 3, psf=psf)
        image = em.osem(part).step(start._replace(image=image))[0].image
    more = stream._replace(events=2 * stream.events)  # as if as many were left out
    *_, last = listmode_stream.osem(more, GRID, start.image, 1, 3, psf)
    np.testing.assert_allclose(last.image, image, atol=2e-5 * float(image.max()))


def test_events_beyond_memory_are_reconstructed(tmp_path, monkeypatch, capsys):
    path = save(tmp_path, number=20_000, prompts=0.98)
    (scan,) = read_listmode_events(path, SCANNER)
    options = {"size": 12, "voxel_mm": 6.0}
    settings = ReconstructionSettings("mlem", iterations=3, psf_mm=0.0)
    held = reconstruct(scan, settings, **options)
    monkeypatch.setattr(pet_events, "available_memory", lambda: 0)
    read = reconstruct(scan, settings, **options)
    assert "events do not fit into memory: each iteration reads" in capsys.readouterr().out
    np.testing.assert_allclose(read.image, held.image, atol=1e-5 * float(held.image.max()))


def test_options_that_do_not_go_together(tmp_path):
    path = save(tmp_path)
    for options, message in (
        ({"events": True, "span": 3}, "--span goes with sinograms; single events keep"),
        ({"frames": "2,3"}, "ends after the scan|beyond|4 s"),
        ({"events": True, "frames": "0"}, "lasts 0 s"),
        ({"max_ring_difference": -1}, "--max-ring-difference -1; expected 0 to"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            list(load_frames(path, "mmr", **options))
    mashed = dataclasses.replace(SCANNER, mash=2)
    with pytest.raises(DataError, match="12 views"):
        list(read_listmode_events(path, mashed))

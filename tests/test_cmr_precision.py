"""Precision of cardiac biomarkers: stacks keep volumes, samples are paired, statistics of cohorts made here."""

from pathlib import Path

import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from experiments import cmr_precision
from experiments.cmr import readout, sampling, scans
from experiments.cmr.networks import design_network
from medjax.errors import ConfigError, DataError
from medjax.models.model import Model
from medjax.phantoms.cine import PROTOCOLS, scan_rescan
from medjax.running.config import load_config
from medjax.running.workdir import open_workdir
from medjax.uncertainty.predictive import deep_ensemble, stack_members

CONFIG = Path(__file__).parents[1] / "configs" / "cmr_precision.py"


def configured(*changes):
    return FrozenConfigDict(load_config(CONFIG, "tiny", list(changes)))


@pytest.fixture(scope="module")
def hearts():
    """Two subjects of a cohort, the tiny crop and plan replaced by ones that hold a heart."""
    config = configured("data.roi_mm=150.0", "training.crop=80", "data.subjects=4")
    data = scans.source(config, 0)
    design, _ = design_network(config, data.training(), None)
    return scans._simulated_cohort(0, "C", 2, ("C",), 150.0), design


def test_a_stack_keeps_volumes_and_the_truth_is_near(hearts):
    """Voxels of other sizes, a crop and a patch later, volumes are those of the scan's labels."""
    subjects, design = hearts
    for session in subjects[0]:
        stack = scans.prepare_stack(session, design)
        assert stack.images.shape[1:] == (80, 80, 1, 1) and len(stack.images) == 2 * session.image.shape[2]
        for phase, (half, labels) in enumerate(
            zip(np.split(stack.labels, 2), np.moveaxis(session.labels, -1, 0), strict=True)
        ):
            for code in (1, 2, 3):
                before = np.sum(labels == code) * np.prod(session.spacing) / 1000
                assert np.sum(half == code) * stack.voxel_ml == pytest.approx(before, rel=0.02, abs=0.5), (phase, code)
    known = sampling._known([[(one, scans.prepare_stack(one, design)) for one in row] for row in subjects])
    np.testing.assert_allclose(known.labels, known.truth, rtol=0.2)  # what slices lose


def test_a_still_heart_is_scanned_anew_and_has_not_changed(hearts):
    scan, rescan, still = hearts[0][0]
    assert still.truth == scan.truth != rescan.truth
    expected = scans.crop_to_heart(scan_rescan(scans.STREAMS["C"], 0, PROTOCOLS["C"], change=0)[1], 150.0)
    assert still.image.tobytes() == expected.image.tobytes() != scan.image.tobytes()


def init(key, image):
    return jax.random.normal(key, (4,))


def apply(params, image, key=None):
    """A network of one's own: classes by brightness, each member with other thresholds."""
    levels = (jnp.array([-1.0, -0.5, 0.2, 1.0]) + 0.05 * params).reshape(1, 1, 1, 1, 4)
    return -((jnp.asarray(image) - levels) ** 2)


NETWORK = Model(init, apply)


def test_samples_of_a_stack_are_counts_of_ed_and_es_and_dice_of_the_mean(hearts):
    stack = scans.prepare_stack(hearts[0][0][0], hearts[1])
    members = [init(jax.random.key(k), None) for k in range(4)]
    method = sampling.Method(deep_ensemble, stack_members(members), jax.random.key(0))
    found, probabilities = sampling.sample_stack(NETWORK, method, stack, (2, 4))
    logits = [np.asarray(apply(one, stack.images)) for one in members]
    labels = np.argmax(logits, -1)
    expected = [[np.bincount(phase.ravel(), minlength=4) for phase in np.split(one, 2)] for one in labels]
    np.testing.assert_array_equal(found["counts"], expected)
    np.testing.assert_allclose(probabilities[0], np.mean([jax.nn.softmax(one) for one in logits[:2]], 0), atol=1e-6)
    np.testing.assert_allclose(found["dice"][1], sampling._dice(probabilities[1].argmax(-1), stack.labels))


EXTRA = {"dice": np.zeros((40, 3, 1, 2, 3)), "pixels": np.zeros((1, 3))}
EXTRA |= dict.fromkeys(("image", "label", "predicted"), np.zeros((2, 4, 4)))


def cohort(rng, shift=0.0, sd=1.0, subjects=40, samples=20, counted=False):
    """Volumes in ml of hearts of known truth, of which each scan's samples lie `shift` sd beside the last one's."""
    volumes = rng.uniform([[130, 50]], [[180, 80]], (subjects, 2))  # ED, ES
    off = shift * sd * np.arange(3)[None, :, None, None]
    lv = volumes[:, None, None] + off + rng.normal(0, sd, (subjects, 3, samples, 2))
    counts = np.stack([0 * lv, lv, lv, lv], -1)  # classes: background, RV, myocardium, LV
    known = np.broadcast_to(np.array([volumes] * 3), (3, subjects, 2)).swapaxes(0, 1)
    truth = sampling.biomarker_samples(
        np.stack([0 * known, known, known, known], -1)[:, :, None], np.ones((subjects, 3))
    )
    truth = np.moveaxis(truth[..., 0], 0, -1)
    known = sampling.Known(truth, truth, np.ones((subjects, 3)))
    return (known, counts) if counted else readout.as_cohort(known, {"tta": {"counts": counts, **EXTRA}})


def metrics(data, **changes):
    config = configured("numbers=(2,)", "members=2", "curve=(2,)", *(f"{k}={v}" for k, v in changes.items()))
    config = FrozenConfigDict({**config.to_dict(), "numbers": (20,)})
    return config, readout.cohort_metrics(config, data, "B", 0)


def test_honest_samples_cover_the_truth_and_explain_the_difference():
    data = cohort(np.random.default_rng(0))
    # each scan's mean of samples is the truth but for 1/√20 sd: intervals of the samples hold it always
    config, found = metrics(data)
    assert found["coverage/B/tta/20/all"] == 1.0 and found["overlap/B/tta/20/all"] > 0.9
    assert found["significant/ks/B/tta/20/LVEDV"] < 0.15
    assert found["still/ratio/B/tta/20/all"] == pytest.approx(20, rel=0.4)  # too wide by N
    assert found["recalibrated/width/B/tta/20/all"] < found["width/B/tta/20/all"]  # and recalibration says so
    shares = readout.fraction_intervals(config, [data], "tta", 20)
    assert shares["low/overlap"] <= found["overlap/B/tta/20/all"] <= shares["high/overlap"]


def test_a_shift_between_scans_is_significant_and_is_not_covered():
    found = metrics(cohort(np.random.default_rng(1), shift=4.0))[1]
    assert found["significant/mann_whitney/B/tta/20/LVEDV"] == 1.0 and found["overlap/B/tta/20/LVEDV"] == 0.0
    assert found["bias/B/tta/20/LVEDV"] == pytest.approx(4.0, abs=0.3)
    assert found["coverage_rescan/B/tta/20/LVEDV"] == 0.0 and found["coverage/B/tta/20/LVEDV"] == 1.0
    assert found["still/inside/B/tta/20/LVEDV"] < 0.2


def test_a_ventricle_that_is_not_found_is_left_out_and_counted():
    data = cohort(np.random.default_rng(2))
    data.samples["tta"][2, 3, 1, 5] = np.nan  # LVEF of one subject's rescan in one sample
    found = metrics(data)[1]
    assert found["left_out/B/tta/20/LVEF"] == 1 and found["left_out/B/tta/20/LVEDV"] == 0
    assert np.isfinite(found["coverage/B/tta/20/LVEF"])
    data.samples["tta"][2, 1:, 1, 5] = np.nan
    assert np.isnan(metrics(data)[1]["overlap/B/tta/20/LVEF"])


def test_a_draw_that_finds_no_ventricle_is_a_failure_and_no_volume_of_nothing():
    """A dropout mask that takes the left ventricle from every scan is left out, and another sample's misses are NaN."""
    data = cohort(np.random.default_rng(3), counted=True)
    known, counts = data
    counts[:, :, 4, :, 3] = 0  # one mask, all scans
    counts[7, 1, 2, 1, 3] = 0  # one sample of one scan
    made = {"tta": {"counts": counts, **EXTRA}}
    found = readout.as_cohort(known, made)
    assert found.samples["tta"].shape[-1] == 19 and np.flatnonzero(found.failed["tta"]).tolist() == [4]
    assert np.argwhere(np.isnan(found.samples["tta"][0])).tolist() == [[7, 1, 2]]
    values = metrics(found)[1]
    assert values["failed_draws/B/tta/20"] == 1 and values["left_out/B/tta/20/LVEDV"] == 1
    assert values["width/B/tta/20/LVEDV"] < 5  # ml: an interval down to 0 would be 150 wide


def write_patient(folder, rng):
    """A subject in ACDC's layout."""
    folder.mkdir(parents=True)
    (folder / "Info.cfg").write_text("ED: 1\nES: 2\nGroup: NOR\n")
    for frame, radius in ((1, 9), (2, 6)):
        x, y = np.meshgrid(np.arange(40), np.arange(40), indexing="ij")
        labels = np.where(np.hypot(x - 20, y - 20) < radius, 3, 0) + 2 * (np.abs(np.hypot(x - 20, y - 20) - radius) < 2)
        labels = np.where(labels > 3, 2, labels) + (np.hypot(x - 20, y - 34) < radius / 3)
        volume = np.repeat(labels[..., None], 3, -1)
        image = volume + rng.normal(0, 0.6, volume.shape)  # so that samples differ
        for name, array in (("", image), ("_gt", volume)):
            nii = nibabel.Nifti1Image(array.astype(np.float32), np.diag([1.5, 1.5, 10.0, 1.0]))
            nibabel.save(nii, folder / f"{folder.name}_frame{frame:02d}{name}.nii.gz")


@pytest.fixture
def on_disk(tmp_path):
    """Six subjects of ACDC's layout, a CSV of four scanned twice, and the config of both."""
    rng = np.random.default_rng(0)
    for k in range(6):
        write_patient(tmp_path / "training" / f"patient00{k}", rng)
    write_patient(tmp_path / "later", rng)
    lines = [f"{k},training/patient00{k},later" for k in range(4)]
    (tmp_path / "pairs.csv").write_text("\n".join(["subject,scan,rescan", *lines]))
    data = (f"data.training={tmp_path / 'training'}", f"data.cohorts=('{tmp_path}/pairs.csv',)")
    return tmp_path, configured(
        "data.layout=acdc", *data, "methods=('ensemble',)", "training.crop=32", "resamples=10", "figures.subjects=2"
    )


def with_data(config, **data):
    return FrozenConfigDict({**config.to_dict(), "data": {**config.data.to_dict(), **data}})


def test_acdc_and_a_list_of_scans_on_disk(on_disk):
    config = on_disk[1]
    data = scans.source(config, 0)
    assert (len(data.training()), len(data.test())) == (4, 2)
    [scan, rescan] = data.cohorts["pairs"]()[0]
    area = np.sum(np.hypot(*np.meshgrid(np.arange(40) - 20, np.arange(40) - 20)) <= 7)
    assert scan.truth == rescan.truth and scan.truth["LVEDV"] == pytest.approx(area * 3 * 22.5 / 1000, rel=0.1)
    with pytest.raises(DataError, match="6 subjects, 6 of them to test"):
        scans.source(with_data(config, test=6), 0)


def test_acdc_is_split_by_a_seeded_draw(on_disk):
    """Folders are sorted by diagnosis, so that the last would be of one kind; all seeds of a run have one split."""
    every = {
        float(one.image.sum())
        for k in range(6)
        for one in scans._read_all([on_disk[0] / f"training/patient00{k}"], 60.0)
    }

    def split(seed, number=0):
        data = scans.source(FrozenConfigDict({**on_disk[1].to_dict(), "seed": seed}), number)
        sets = data.training(), [one for [one] in data.test()]
        return [{float(one.image.sum()) for one in some} for some in sets]

    splits = [split(seed) for seed in range(3)]
    assert all(training | test == every and len(test) == 2 and len(training) == 4 for training, test in splits)
    assert split(0, number=1) == splits[0] and splits[0] != splits[1] != splits[2]


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("A.csv", 4, "named 'A'; expected letters, .* and not A"),
        ("my cohort.csv", 4, "named 'my cohort'; expected letters"),
        ("missing/B.csv", 0, "B.csv: no such file; expected a CSV with columns scan, rescan"),
        ("B.csv", 3, "B.csv: 3 subjects; expected 4 or more"),
        ("B.csv", 5, "B.csv: .*no_such has no Info.cfg; expected a folder of one scan"),
    ],
)
def test_cohorts_that_cannot_be_are_refused_before_training(on_disk, name, lines, message):
    folder, config = on_disk
    rows = [f"training/patient00{k},later" for k in range(4)] + ["no_such,later"]
    if lines:
        (folder / name).write_text("\n".join(["scan,rescan", *rows[:lines]]))
    with pytest.raises(DataError, match=message):
        cmr_precision.cells(with_data(config, cohorts=(str(folder / name),)), None, NETWORK)


def test_cohorts_of_one_name_and_an_unreadable_scan_are_refused_before_training(on_disk):
    folder, config = on_disk
    with pytest.raises(DataError, match="several files are named 'pairs'"):
        cmr_precision.cells(with_data(config, cohorts=("one/pairs.csv", "two/pairs.csv")), None, NETWORK)
    (folder / "later" / "later_frame02_gt.nii.gz").unlink()
    with pytest.raises(DataError, match=r"later_frame02_gt\.nii\.gz"):
        cmr_precision.cells(config, None, NETWORK)


def test_a_cohort_of_a_csv_is_named_by_its_stem_to_the_end(on_disk, tmp_path):
    """Stages, metrics and figures: with a network that needs no training."""
    with open_workdir(tmp_path / "work", {}) as work:
        study = cmr_precision.cells(on_disk[1], work, NETWORK)
        result = cmr_precision.summarize(study, [init(jax.random.key(k), None) for k in range(2)])
    stages = {path.stem for path in work.checkpoints.iterdir()}
    assert {"known_0_pairs", "samples_0_pairs_ensemble", "samples_0_A_ensemble"} <= stages
    assert np.isfinite(result.metrics["coverage/pairs/ensemble/4/LVEDV"])
    assert not any("csv" in name for name in result.metrics) and any(
        "pairs" in path.name for path in work.figures.iterdir()
    )


def test_phases_of_a_padded_scan_have_one_crop_and_keep_their_area(hearts):
    """Where an image is 0 about the heart in one phase and less so in the other."""
    session, design = hearts[0][0][0], hearts[1]
    image = session.image.copy()
    image[:7], image[-2:, :, :, 1] = 0, 0
    whole, padded = (scans.prepare_stack(one, design) for one in (session, session._replace(image=image)))
    ml = [np.sum(one.labels == 3) * one.voxel_ml for one in (whole, padded)]
    assert ml[1] == pytest.approx(ml[0], rel=0.01)
    sides = np.array(session.labels.shape[:2]) - [7, 0]
    target = [max(round(n * mm / new), 1) for n, mm, new in zip(sides, session.spacing, design.spacing, strict=False)]
    area = np.prod(sides * session.spacing[:2]) / np.prod(target)
    assert padded.voxel_ml == pytest.approx(area * session.spacing[2] / 1000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("numbers=(2,5)",), r"numbers \(2, 5\); expected 2 \(members\) and multiples"),
        (("curve=(2,8)",), r"curve \(2, 8\); expected numbers up to 4"),
        (("data.cohorts=('B','D')",), r"data.cohorts \('B', 'D'\); expected some of B, C"),
    ],
)
def test_configs_that_cannot_be(changes, message):
    with pytest.raises(ConfigError, match=message):
        configured(*changes)

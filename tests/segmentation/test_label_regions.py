"""Regions and ignored voxels in nnU-Net's recipe: plan, patches, training, prediction and postprocessing."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.models.model import Model
from medjax.segmentation import nnunet
from medjax.segmentation.components import keep_largest
from medjax.segmentation.nnunet_predict import determine_postprocessing, predict_case
from medjax.segmentation.patches import patches, prepare
from medjax.segmentation.plan import fingerprint, plan
from medjax.segmentation.plan_file import from_json, to_json
from medjax.segmentation.pseudo_dice import pseudo_dice
from medjax.segmentation.regions import paint_regions
from medjax.training.augment_nnunet import NO_AUGMENTATION
from tests.segmentation.blobs import blobs

REGIONS, ORDER, IGNORE = ((1, 2), (2,)), (1, 2), 3


def scribbled(seed):
    """A case with labels in a third of its slices alone; the others are ignored, whatever they show."""
    case = blobs(seed)
    labels = np.where(np.arange(16) % 3 == 1, case.labels, IGNORE).astype(np.int32)
    return case._replace(labels=labels)


CASES = [scribbled(seed) for seed in range(3)]
PLAN = plan(
    fingerprint(CASES, 3, ignore=True), base_width=4, patch=(12, 12, 12), batch=4, regions=REGIONS, region_order=ORDER
)


def test_the_plan_says_what_is_predicted():
    assert PLAN.outputs == 2 and PLAN.classes == 3 and PLAN.ignore == IGNORE and PLAN.label_values == 4
    assert from_json(to_json(PLAN)) == PLAN and replace(PLAN, regions=()).outputs == 3
    of_labeled = fingerprint([blobs(seed) for seed in range(3)], 3).intensities[0]
    of_few = fingerprint(CASES, 3, ignore=True).intensities[0]
    assert of_labeled.std > 1.8 and of_few.std > 1.8  # of bright and dark: with ignored voxels, mostly 0, it is 1.2
    with pytest.raises(DataError, match="labels from 0 to 3; expected 0 to 2"):
        fingerprint(CASES, 3)
    for regions, order in ((REGIONS, (1,)), (((1, 3), (2,)), ORDER), (((), (2,)), ORDER), (REGIONS, (1, 4))):
        with pytest.raises(DataError, match="expected one for each, of classes 0 to 2"):
            plan(fingerprint(CASES, 3, ignore=True), regions=regions, region_order=order)


def test_patches_are_centred_on_labelled_voxels():
    """Each patch of three slices has a labelled one in its middle; those for structures are centred on a region."""
    ready = [prepare(case, PLAN) for case in CASES]
    assert all((one.labels[tuple(one.labeled.T)] != IGNORE).all() and len(one.class_locations) == 2 for one in ready)
    whole, second = (ready[0].labels[tuple(where.T)] for where in ready[0].class_locations)
    assert set(whole.tolist()) == {1, 2} and set(second.tolist()) == {2}
    batches = patches(ready, (3, 3, 1), (3, 3, 1), 4, 0)
    assert all((labels != IGNORE).all() for number in range(10) for labels in batches(number)[1])
    everything = [prepare(case._replace(labels=np.full_like(case.labels, IGNORE)), PLAN) for case in CASES[:1]]
    assert (patches(everything, (3, 3, 1), (3, 3, 1), 4, 0)(0)[1] == IGNORE).all()  # nothing to choose: anywhere
    without = prepare(blobs(0), replace(PLAN, ignore=None))
    assert without.labeled is None
    with pytest.raises(DataError, match="labels: from 0 to 3; expected 0 to 2, as planned"):
        prepare(CASES[0], replace(PLAN, ignore=None))


def test_regions_are_painted_in_their_order():
    probabilities = np.array([[0.2, 0.9], [0.9, 0.2], [0.9, 0.9], [0.5, 0.5]])
    assert paint_regions(probabilities, (1, 2)).tolist() == [2, 1, 2, 0]  # 0.5 is in none
    assert paint_regions(probabilities[:, ::-1], (2, 1)).tolist() == [2, 1, 1, 0]


# a network that compiles at once: logits of the gray value, its square and 1


def powers_init(key, images):
    return {"kernel": jnp.zeros((3, 2))}


def powers(params, images, key=None):
    x = images / 2
    return jnp.concatenate([x, x**2, jnp.ones_like(x)], axis=-1) @ params["kernel"]


MODEL = Model(powers_init, powers)


@pytest.fixture(scope="module")
def trained():
    ready = [prepare(case, PLAN) for case in CASES]
    reports = []
    fold = nnunet.train_fold(
        MODEL, ready[:2], ready[2:], PLAN, epochs=2, iterations=60, rate=0.3, augmentation=NO_AUGMENTATION,
        report=lambda state, values: reports.append(values),
    )  # fmt: skip
    return fold.state.params, reports


def test_regions_are_learned_from_labelled_slices(trained):
    """Bright is 1, dark is 2: the first region is both, which no monotonous function of the gray value gives."""
    params, reports = trained
    assert reports[-1]["pseudo_dice"] > 0.8 and np.isfinite(reports[-1]["loss"])
    case = blobs(7)
    found = predict_case(MODEL, [params], case.image, case.spacing, PLAN, mirror=())
    assert found.probabilities.shape == (16, 16, 16, 2) and found.labels.dtype == np.int32
    np.testing.assert_array_equal(found.labels, paint_regions(found.probabilities, ORDER))
    assert set(np.unique(found.labels)) == {0, 1, 2}  # never the ignored label
    for region in REGIONS:
        a, b = np.isin(found.labels, region), np.isin(case.labels, region)
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.8
    bare = np.zeros((20, 16, 16, 1), np.float32)
    bare[4:] = case.image
    outside = predict_case(MODEL, [params], bare, case.spacing, PLAN, mirror=())
    assert not outside.labels[:4].any() and not outside.probabilities[:4].any()


def test_ignored_labels_change_nothing(trained):
    """The same training with other structures in the ignored slices: bit for bit the same."""
    params, _ = trained
    hidden = [case._replace(labels=case.labels.copy()) for case in CASES]
    ready = [prepare(case, PLAN) for case in hidden]
    images, labels = patches(ready, PLAN.patch, PLAN.patch, 4, 0)(0)
    settings = nnunet.StepSettings(1, 1, NO_AUGMENTATION._replace(patch=PLAN.patch), False, IGNORE, REGIONS)
    step = jax.jit(nnunet.trainer(MODEL, settings, 0.1).step)
    state = nnunet.init(MODEL, PLAN, 0, params).state
    noisy = np.where((labels == IGNORE)[..., None], images + 3, images).astype(np.float32)
    one, other = (step(state, (each, labels))[0].params["kernel"] for each in (images, noisy))
    np.testing.assert_array_equal(one, other)
    known = np.where(labels == IGNORE, 0, labels)
    assert np.abs(step(state, (noisy, known))[0].params["kernel"] - one).max() > 1e-4


def test_the_pseudo_dice_by_hand():
    """σ > 0.5 for gray values above 0 and above 1: region (1, 2) has 2 of 3 predicted rightly, region (2,) 1 of 1."""
    params = {"kernel": jnp.asarray([[2.0, 2.0], [0.0, 0.0], [0.0, -1.0]])}
    images = np.array([0.5, 2.0, -1.0, 3.0, 0.5, -1.0], np.float32).reshape(1, 6, 1, 1, 1)
    labels = np.array([1, 2, 1, IGNORE, 0, 0], np.int32).reshape(1, 6, 1, 1)
    found = pseudo_dice(MODEL, PLAN, params, lambda number: (images, labels), 0, 1)
    assert found == pytest.approx(np.mean([2 * 2 / (3 + 3), 2 * 1 / (1 + 1)]))
    classes = replace(PLAN, regions=(), region_order=())
    logits = Model(powers_init, lambda params, images, key=None: jnp.concatenate([0 * images, images, -images], -1))
    found = pseudo_dice(logits, classes, params, lambda number: (images, labels), 0, 1)
    # predicted 1 1 2 · 1 2, true 1 2 1 · 0 0
    assert found == pytest.approx(np.mean([2 * 1 / (3 + 2), 0 / (2 + 1)]))


def test_components_of_regions():
    """A tumor's ring is broken by its core, and whole with it: components are those of the region."""
    labels = np.array([0, 1, 2, 1, 0, 0, 1, 0, 2])
    assert keep_largest(labels, {(1, 2): 1}, 0.0).tolist() == [0, 1, 2, 1, 0, 0, 0, 0, 0]
    assert keep_largest(labels, {1: 1}, 0.0).tolist() == [0, 1, 2, 0, 0, 0, 0, 0, 2]
    reference = np.array([0, 1, 2, 1, 0, 0, 0, 0, IGNORE])
    structures = [(1, 2), (2,)]
    found = determine_postprocessing([labels], [reference], 3, structures=structures, ignore=IGNORE)
    assert found == {(1, 2): 1}  # the speck of 2 lies where nobody knows
    counted = np.where(reference == IGNORE, 0, reference)
    assert determine_postprocessing([labels], [counted], 3, structures=structures) == {(1, 2): 1, (2,): 1}

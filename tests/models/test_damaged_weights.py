"""Damaged files of priors, registration networks and classifiers: one line, quickly, before a network is made."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from damages import ARCHIVES, ARRAYS, JSON, header_of, in_one_line

from medjax.diffusion.prior_file import load_prior
from medjax.models import build
from medjax.models.weights import HEADER, load_weights
from medjax.registration import network_file
from medjax.tools.classifier_file import load_classifier

NETWORK = {"widths": [8, 16], "blocks": 1, "attention": [1], "patch": 1}
PRIOR = NETWORK | {"size": 16, "sigma_data": 0.7, "network": "score_unet", "tracers": ["FDG"]}
REGISTRATION = {"network": "registration_unet", "widths": [8, 16], "axes": 2}
RESNET = {"classes": 2, "depth": 10, "widths": [4, 4, 4, 8], "strides": [1, 1, 2, 2, 1], "stem_pool": False}
CLASSIFIER = {"network": "resnet", "settings": RESNET}
NOT_A_NUMBER = float("nan")


def named(shapes):
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    return {name: np.ones(leaf.shape, np.float32) for name, (_, leaf) in zip(names, leaves, strict=True)}


def shapes_of(name, settings, *shapes):
    examples = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    return named(jax.eval_shape(build(name, settings).init, jax.random.key(0), *examples))


@pytest.fixture(scope="module")
def arrays():
    """Good weights of each kind of file."""
    return {
        "prior": shapes_of("score_unet", NETWORK, (1, 8, 8, 1), (1,), (1, 3)),
        "registration": shapes_of("registration_unet", {"widths": [8, 16]}, (1, 8, 8), (1, 8, 8)),
        "classifier": shapes_of("resnet", RESNET, (1, 10, 10, 1)),
    }


READERS = {
    "prior": (PRIOR, load_prior),
    "registration": (REGISTRATION, network_file.load),
    "classifier": (CLASSIFIER, lambda path: load_classifier(path, (10, 10, 1))),
}
EACH = pytest.mark.parametrize("kind", READERS)


def write(path: Path, header, arrays) -> Path:
    np.savez(path, **{HEADER: header_of(header)}, **arrays)
    return path


@EACH
def test_good_files_are_read(kind, arrays, tmp_path):
    header, read = READERS[kind]
    read(write(tmp_path / "good.npz", header, arrays[kind]))


@EACH
@pytest.mark.parametrize("damage", ARRAYS)
def test_arrays_that_are_no_weights(kind, damage, arrays, tmp_path):
    header, read = READERS[kind]
    name, array = list(arrays[kind].items())[1]
    path = write(tmp_path / "w.npz", header, arrays[kind] | {name: ARRAYS[damage](array)})
    in_one_line(lambda: read(path), path)


@EACH
def test_arrays_that_are_missing_too_many_or_in_each_other(kind, arrays, tmp_path):
    header, read = READERS[kind]
    first = next(iter(arrays[kind]))
    few = {name: array for name, array in arrays[kind].items() if name != first}
    one = np.ones(2, np.float32)
    for other in (few, {}, arrays[kind] | {"more": one}, arrays[kind] | {f"{first}/a": one}, {"a/" * 3000 + "a": one}):
        path = write(tmp_path / "w.npz", header, other)
        in_one_line(lambda path=path: read(path), path)


@EACH
@pytest.mark.parametrize("damage", JSON)
def test_headers_that_are_no_settings(kind, damage, arrays, tmp_path):
    path = tmp_path / "w.npz"
    np.savez(path, **{HEADER: np.frombuffer(JSON[damage], np.uint8)}, **arrays[kind])
    in_one_line(lambda: READERS[kind][1](path), path)


@EACH
@pytest.mark.parametrize("header", [np.array("{}"), np.ones(3), np.ones((2, 2), np.uint8), np.array(b"{}")])
def test_headers_of_another_type(kind, header, arrays, tmp_path):
    np.savez(tmp_path / "w.npz", **{HEADER: header}, **arrays[kind])
    in_one_line(lambda: READERS[kind][1](tmp_path / "w.npz"), "w.npz")


@EACH
@pytest.mark.parametrize("damage", ARCHIVES)
def test_damaged_archives(kind, damage, arrays, tmp_path):
    header, read = READERS[kind]
    path = write(tmp_path / "w.npz", header, arrays[kind])
    path.write_bytes(ARCHIVES[damage](path.read_bytes()))
    in_one_line(lambda: read(path), path)


def test_a_folder_and_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "absent.npz"):
        in_one_line(lambda path=path: load_weights(path), path)


WIDTHS = ([10**9, 16], [8, 0], [-8, 16], [8.5, 16], ["8", 16], [[8], 16], [], [8] * 1000, 8, None, "wide", [True, 8])
DEEP = json.loads("[" * 300 + "8" + "]" * 300)
PRIORS = [
    *({"widths": widths} for widths in (*WIDTHS, DEEP, {"a": 1})),
    *({"blocks": blocks} for blocks in (0, -1, 10**9, 50, "1", None, 1.5, [1], True)),
    *({"attention": levels} for levels in ([99], [-1], ["1"], 1, None, [1] * 10**5)),
    *({"patch": patch} for patch in (0, -2, 10**9, 12, 2.0, "2")),
    *({"size": size} for size in (0, -1, 10**9, "96", [96], NOT_A_NUMBER)),
    *({"voxel_mm": size} for size in (0, -2.5, NOT_A_NUMBER, float("inf"), "2.5", None)),
    *({"beta_min": beta} for beta in (NOT_A_NUMBER, -1, float("inf"), "0.1", 99)),
    *({"beta_max": beta} for beta in (NOT_A_NUMBER, 0, 1e9, float("-inf"), None, 10**400)),
    *({"orientations": axes} for axes in ([], [3], [-1], ["x"], 0)),
    *({"sigma_data": sigma} for sigma in (0, -1, NOT_A_NUMBER, float("inf"), None, "1", [1], 10**400)),
    *({"tracers": tracers} for tracers in ([1], "FDG", None, {"FDG": 1})),
    *({"network": network} for network in (None, 1, ["score_unet"], "another", "a\nb")),
    {"sha256": 7},
    {"kind": 1},
    {"about": None},
    {"mr_guided": 1},
    {"mr_guided": True},
    {"unknown": 1},
    {"a\nb": 1},
]


@pytest.mark.parametrize("odd", PRIORS, ids=lambda odd: str(odd)[:40])
def test_odd_settings_of_a_prior(odd, arrays, tmp_path):
    path = write(tmp_path / "p.npz", PRIOR | odd, arrays["prior"])
    in_one_line(lambda: load_prior(path), path)


def test_a_prior_without_sigma_data(arrays, tmp_path):
    header = {key: value for key, value in PRIOR.items() if key != "sigma_data"}
    path = write(tmp_path / "p.npz", header, arrays["prior"])
    assert "sigma_data None; expected float" in in_one_line(lambda: load_prior(path), path)


@pytest.mark.parametrize(
    "odd", [*({"widths": widths} for widths in WIDTHS), {"axes": 0}, {"axes": 10**9}, {"voxel_mm": -1}, {"more": 1}]
)
def test_odd_settings_of_a_registration_network(odd, arrays, tmp_path):
    path = write(tmp_path / "r.npz", REGISTRATION | odd, arrays["registration"])
    in_one_line(lambda: network_file.load(path), path)


@pytest.mark.parametrize(
    "odd",
    [
        *({"settings": RESNET | {"widths": widths}} for widths in WIDTHS),
        *({"settings": RESNET | {"depth": depth}} for depth in (11, 0, 10**9, "10", 50)),
        *({"settings": RESNET | {"classes": classes}} for classes in (0, 10**9, None, 3)),
        *({"settings": RESNET | {"strides": strides}} for strides in ([1] * 4, [0] * 5, [10**9] * 5)),
        *({"settings": settings} for settings in (None, [], "a", {}, RESNET | {"unknown": 1})),
        *({"network": name} for name in (None, 1, ["resnet"], "inception", {"a": 1}, "swin", "vgg", "unet")),
    ],
    ids=lambda odd: str(odd)[:60],
)
def test_odd_settings_of_a_classifier(odd, arrays, tmp_path):
    path = write(tmp_path / "c.npz", CLASSIFIER | odd, arrays["classifier"])
    in_one_line(lambda: load_classifier(path, (10, 10, 1)), path)

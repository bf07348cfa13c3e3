"""Shortcut audit: a network of one's own is audited in 2-D and 3-D, and shows the cue; data, folds and distances."""

from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import shortcut_audit
from experiments.audit import images, measures, mitigation, networks
from experiments.audit.listed import listed_images
from experiments.shortcut_audit import architectures
from medjax.errors import ConfigError, DataError
from medjax.models.model import Model
from medjax.running.config import flatten, load_config
from medjax.running.workdir import open_workdir
from medjax.shortcuts.regions import grid_regions, label_regions

CONFIG = Path(__file__).parents[1] / "configs" / "shortcut_audit.py"
AXES = "XYZ"


def init(key, x):
    kernel, dense = jax.random.split(key)
    axes, channels = x.ndim - 2, x.shape[-1]
    shape = (*[3] * axes, channels, 6)
    return {
        "kernel": jax.random.normal(kernel, (3**axes * channels * 6,)).reshape(shape) / 3,
        "bias": jnp.zeros(6),
        "dense": jax.random.normal(dense, (12,)).reshape(6, 2) / 3,
    }


def features(params, x):
    """A convolution, a ReLU and means over blocks of 4 voxels: of side 20, 5 cells along each axis."""
    axes = x.ndim - 2
    layout = (f"N{AXES[:axes]}C", f"{AXES[:axes]}IO", f"N{AXES[:axes]}C")
    y = jax.lax.conv_general_dilated(x, params["kernel"], (1,) * axes, "SAME", dimension_numbers=layout)
    y = jax.nn.relu(y + params["bias"].reshape(*[1] * (axes + 1), -1))
    cells = [n for side in y.shape[1:-1] for n in (side // 4, 4)]
    return y.reshape(len(y), *cells, 6).mean(tuple(range(2, 2 * axes + 1, 2)))


def head(params, z):
    mean = z.mean(tuple(range(1, z.ndim - 1)))
    return jnp.matmul(mean, params["dense"], precision="highest")


def apply(params, x, key=None):
    return head(params, features(params, x))


NETWORK = Model(init, apply, features, head)  # compiled in no time


def configured(*overrides):
    options = (
        "seeds=2", "train=160", "holdout=80", "fractions=(0.5,0.02)", "training.steps=150", "training.rate=0.02",
        "training.batch=32", "regions=('grid_5','slic_25')", "mark.height=1.2", "mark.radius=2.5",
        "wave.amplitude=0.2", "mitigation.fraction=0.02", "mitigation.methods=('reweighted',)",
        "attribution.batch=80", "phantoms.contrast=0.4", "audit.surrogates=29",
    )  # fmt: skip
    values = dict(one.split("=", 1) for one in (*options, *overrides))
    return load_config(CONFIG, "tiny", [f"{key}={value}" for key, value in values.items()])


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """The study of 2-D phantoms, end to end."""
    with open_workdir(tmp_path_factory.mktemp("audit") / "run", {}) as work:
        return shortcut_audit.run(configured(), work, network=NETWORK)


def test_the_audit_tells_a_tie_from_none(result):
    m = result.metrics
    for cue in ("localized", "diffuse"):
        where = f"grad_cam/{cue}/network/grid_5"
        assert m[f"accuracy_sa/{cue}/network"] > 0.75  # the cue is learnt
        assert m[f"shortcut/{where}/0.02"] > m[f"shortcut/{where}/0.5"] + 0.1
        assert m[f"task/{where}/0.02"] < m[f"task/{where}/0.5"]


def test_the_localised_cue_is_found_where_it_is(result):
    for partition, cells in (("grid_5", 1), ("slic_25", 1.5)):  # a superpixel's centre may be off
        where = f"grad_cam/localized/network/{partition}/0.02"
        assert result.metrics[f"peak_distance_both/{where}"] <= cells
    assert not [name for name in result.metrics if name.startswith("peak_distance") and "diffuse" in name]


def test_every_setting_has_its_metrics(result):
    m = result.metrics
    names = ["shortcut", "task", "deviation", "verdict_shortcut", "effective_area", "agreement_seeds"]
    names += ["agreement_partitions", "min/p_spatial", "max/p_permutation", "sd/shortcut"]
    for name, cue, partition, tie in product(names, ("localized", "diffuse"), ("grid_5", "slic_25"), ("0.5", "0.02")):
        kind, _, metric = name.rpartition("/")
        assert np.isfinite(m["/".join(filter(None, (kind, metric, "grad_cam", cue, "network", partition, tie)))])
    done = {name.split("/")[1] for name in m if name.startswith("worst_group/")}
    assert done == {"none", "attenuated", "attenuated_both", "control", "projected", "reweighted", "ba"}
    assert all(np.isnan(value) or 0 <= value <= 1 for name, value in m.items() if name.startswith(("worst", "balanc")))
    text = " ".join(result.report.summary)
    assert "simulated chests of 20 × 20 voxels (no real images)" in text and "no claim" in text


def test_volumes_are_audited_by_the_same_code(tmp_path):
    """3-D phantoms, of which the mark is found."""
    volumes = (
        "seeds=1", "phantoms.space=(12,12,12)", "mark.center=(0.2,0.2,0.2)", "cues=('localized',)", "fractions=(0.02,)",
        "regions=('grid_4',)", "train=96", "holdout=40", "training.steps=80", "training.batch=16",
        "mitigation.methods=()",
    )  # fmt: skip
    with open_workdir(tmp_path / "run", {}) as work:
        m = shortcut_audit.run(configured(*volumes), work, network=NETWORK).metrics
        assert (work.figures / "scores.png").is_file() and (work.figures / "cues.png").is_file()
    where = "grad_cam/localized/network/grid_4/0.02"
    assert m[f"shortcut/{where}"] > 0 and m[f"peak_distance_both/{where}"] <= 2
    assert "agreement_seeds/" + where not in m  # of one seed


def test_networks_of_a_seed_share_images_and_all_share_the_holdout():
    config = configured()
    source = images.planted_images(config)
    one, other = source.training("localized", 0, 0.5), source.training("localized", 0, 0.02)
    anti = [(data.attribute != data.label)[data.label == k].sum() for data in (one, other) for k in (0, 1)]
    assert anti == [40, 40, 2, 2] and (one.label == other.label).all()
    far = (slice(None), slice(12, None))  # where the mark is not
    np.testing.assert_array_equal(one.image[far], other.image[far])
    assert (source.training("localized", 1, 0.5).image[far] != one.image[far]).any()
    first, second = (source.holdout(cue) for cue in ("localized", "diffuse"))
    assert np.bincount(first.group).tolist() == [20] * 4 and (first.group == second.group).all()
    marked = first.image[:, 4, 4, 0]  # in the mark, by attribute
    assert marked[first.attribute == 1].min() > marked[first.attribute == 0].max()


def test_real_images_are_read_and_what_does_not_suit_is_refused(tmp_path):
    rng = np.random.default_rng(0)

    def file(classes, number=60):
        path, arrays = tmp_path / f"{classes}_{number}.npz", {}
        for split in ("train", "val", "test"):
            arrays[f"{split}_images"] = rng.integers(0, 256, (number, 20, 20)).astype(np.uint8)
            arrays[f"{split}_labels"] = np.arange(number) % classes
        np.savez(path, **arrays)
        return path

    small = ("train=40", "holdout=40")
    assert images.planted_images(configured(f"images={file(2)}", *small)).name == "images of 2_60.npz"
    with pytest.raises(DataError, match=r"3_60.npz: class 2; expected a data set of two classes"):
        images.planted_images(configured(f"images={file(3)}", *small))
    with pytest.raises(DataError, match="images: 20 of class 0; expected 80 or more"):
        images.planted_images(configured(f"images={file(2, 40)}", "holdout=40"))
    with pytest.raises(DataError, match="images: 30 of class 0; expected 40 or more"):
        images.planted_images(configured(f"images={file(2)}", "train=40"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("holdout=42", "train 160, holdout 42; expected multiples of 2"),
        ("phantoms.space=(16,16,16)", r"mark.center .* expected one number for each axis"),
        ("fractions=(0.5,)", r"mitigation.fraction 0.02; expected one of fractions \(0.5,\)"),
        ("regions=('grid_x',)", "expected 1 or more values, each grid_N"),
        ("vgg.widths=(8,)", "expected one of each a stage"),
    ],
)
def test_configs_that_do_not_fit_are_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        configured(override)


def test_a_network_that_cannot_be_audited_is_refused():
    with pytest.raises(ConfigError, match="shortcut_audit needs a model with `features`"):
        architectures(configured(), Model(init, apply))
    with pytest.raises(ConfigError, match="--part network int"):
        architectures(configured(), 3)
    assert list(architectures(configured())) == ["resnet", "vgg"]


def test_cells_are_named_once_and_traced_keys_make_no_other_population():
    config = configured()
    setup = networks.prepare(config, None, {"a": NETWORK, "b": NETWORK})
    keys = [cell.key for cell in networks.cells(setup)]
    assert len(keys) == len(set(keys)) == 2 * 2 * (2 * 4 + 1)
    assert set(shortcut_audit.TRACED) <= flatten(config).keys()


def test_distance_of_the_peak_is_in_cells_of_any_partition():
    grid = grid_regions((28, 28), (7, 7))
    scores = np.zeros(49)
    scores[7 * 1 + 3] = 1
    assert measures.peak_distance(scores, grid, (5.5, 5.5)) == 2  # from cell (1, 1) to (1, 3)
    assert np.isnan(measures.peak_distance(-scores, grid, (5.5, 5.5)))
    halves = label_regions(np.repeat([[1, 2]], 4, 0).repeat(2, 1))
    assert measures.peak_distance(np.array([0.0, 1.0]), halves, (1.5, 2.5)) == 0


def test_folds_are_stratified():
    group = np.repeat([0, 1, 2, 3], [8, 9, 10, 3])
    fold = mitigation.stratified_folds(0, group, 4)
    for one in range(4):
        counts = np.bincount(fold[group == one], minlength=4)
        assert counts.max() - counts.min() <= 1


def test_images_whose_attribute_is_their_own_are_held_out_first(tmp_path):
    """CelebA's layout: hair and sex, equally often together, as grey values of the image."""
    Image = pytest.importorskip("PIL.Image")  # of medjax's extra `data`
    (tmp_path / "img_align_celeba").mkdir()
    names = ["Blond_Hair Male "]
    for k in range(60):
        blond, male = k % 2, k // 2 % 2
        image = np.random.default_rng(k).integers(0, 60, (218, 178, 3)).astype(np.uint8) + 100 * blond + 60 * male
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / "img_align_celeba" / f"{k:06d}.jpg")
        names.append(f"{k:06d}.jpg {2 * blond - 1} {2 * male - 1}")
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(["60", *names]) + "\n")
    options = (f"images={tmp_path}", "layout=celeba", "cues=('attribute',)", "train=16", "holdout=16")
    source = listed_images(configured(*options, "listed.label=Blond_Hair", "listed.side=16", "fractions=(0.5,0.25)",
                                      "mitigation.fraction=0.25"))  # fmt: skip
    held_out, tied = source.holdout("attribute"), source.training("attribute", 0, 0.25)
    assert held_out.image.shape == (16, 16, 16, 3)
    assert np.bincount(2 * held_out.label + held_out.attribute).tolist() == [4] * 4
    assert np.bincount(2 * tied.label + tied.attribute).tolist() == [2, 6, 6, 2]  # blond and female go together
    seen = {image.tobytes() for image in held_out.image}
    assert not seen & {image.tobytes() for image in tied.image}

"""CheXpert and CelebA: tiny imitations of their layouts; images are read at a size."""

import numpy as np
import pytest
from PIL import Image

from medjax.datasets import chexpert
from medjax.datasets.celeba import celeba
from medjax.datasets.image_list import by_threshold, by_value, number, plain, read_images
from medjax.errors import ConfigError, DataError

HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Pleural Effusion"
PLEURAL = chexpert.finding("Pleural Effusion")


@pytest.fixture
def xrays(tmp_path):
    folder = tmp_path / "my copy"
    rows = [
        "patient00001/study1/view1_frontal.jpg,Female,44,Frontal,AP,,1.0",
        "patient00001/study2/view1_frontal.jpg,Female,45,Frontal,AP,,0.0",
        "patient00002/study1/view1_frontal.jpg,Male,87,Frontal,PA,1.0,0.0",
        "patient00002/study1/view2_lateral.jpg,Male,87,Lateral,,1.0,0.0",
        "patient00003/study1/view1_frontal.jpg,Male,50,Frontal,AP,,-1.0",
        "patient00004/study1/view1_frontal.jpg,Male,50,Frontal,AP,,",
        "patient00005/study1/view1_frontal.jpg,Unknown,50,Frontal,AP,,1.0",
        "patient00006/study1/view1_frontal.jpg,Male,20,Frontal,AP,,1.0",
    ]
    for k, row in enumerate(rows):
        path = folder / "train" / row.split(",")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        ramp = np.linspace(0, 200 + k, 40 * 60).reshape(40, 60).astype(np.uint8)
        Image.fromarray(ramp).save(path, quality=95)
    lines = [HEADER, *(f"CheXpert-v1.0-small/train/{row}" for row in rows)]
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_chexpert(xrays):
    found = chexpert.chexpert(xrays, PLEURAL)
    assert found.subjects == ["patient00001", "patient00001", "patient00006"]
    assert found.ids[0] == "train/patient00001/study1/view1_frontal.jpg" and found.paths[0].is_file()
    np.testing.assert_array_equal([found.label, found.attribute], [[1, 0, 1], [0, 0, 1]])
    np.testing.assert_array_equal(found.age, [44, 45, 20])
    assert found.dropped == {"of other views": 2, "without a class": 3}
    ages = chexpert.chexpert(xrays, PLEURAL, chexpert.AGE, projection=None)
    assert list(ages.attribute) == [0, 1, 1, 1, 0]
    blank = chexpert.chexpert(xrays, chexpert.finding("Pleural Effusion", blank_negative=True))
    assert blank.subjects == ["patient00001", "patient00001", "patient00004", "patient00006"]
    assert list(blank.label) == [1, 0, 0, 1]


def test_images_are_read_at_a_size(xrays):
    paths = chexpert.chexpert(xrays, PLEURAL).paths
    images = read_images(paths, 20)
    assert images.shape == (3, 20, 20, 1) and images.dtype == np.float32
    assert 0 <= images.min() < 0.05 and 0.7 < images.max() <= 1
    assert (np.diff(images[0, :, 10, 0]) > 0).all()  # rows run downwards
    standard = read_images(paths, 20, z_score=True, channels=3)
    np.testing.assert_allclose(standard.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(standard.std(axis=(1, 2, 3)), 1, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_values_of_16_bits_are_scaled_by_their_range(tmp_path, channels):
    ramp = np.linspace(0, 65535, 40 * 40).reshape(40, 40)
    for name in ("a.png", "a.tif"):
        Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / name)
        image = read_images([tmp_path / name], 40, channels=channels)[0]
        np.testing.assert_allclose(image, np.repeat(ramp[..., None] / 65535, channels, -1), atol=2e-5)
    Image.fromarray(np.rint(ramp / 257).astype(np.uint8)).save(tmp_path / "b.png")
    eight = read_images([tmp_path / "b.png"], 20, channels=channels, crop=30)
    sixteen = read_images([tmp_path / "a.png"], 20, channels=channels, crop=30)
    np.testing.assert_allclose(eight, sixteen, atol=1.5 / 255)
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "c.tif")
    with pytest.raises(DataError, match=r"c\.tif: grey values of 32 bits, whose range is unknown"):
        read_images([tmp_path / "c.tif"], 20, channels=channels)


def test_wrong_tables_and_images_are_refused(xrays, tmp_path):
    with pytest.raises(DataError, match="no column Edema"):
        chexpert.chexpert(xrays, chexpert.finding("Edema"))
    with pytest.raises(DataError, match=r"no image left \(8 of other views\)"):
        chexpert.chexpert(xrays, PLEURAL, projection="LL")
    with pytest.raises(DataError, match="no such file; expected an image: the table names it"):
        read_images([xrays / "train" / "nothing.jpg"], 20)
    with pytest.raises(DataError, match="cannot be read as an image"):
        read_images([xrays / "train.csv"], 20)
    Image.new("L", (30, 30), 7).save(tmp_path / "flat.png")
    with pytest.raises(DataError, match="constant"):
        read_images([tmp_path / "flat.png"], 20, z_score=True)
    with pytest.raises(DataError, match="expected 178 or more"):
        read_images([tmp_path / "flat.png"], 20, crop=178)
    text = (xrays / "train.csv").read_text().replace("patient00001/study1", "somebody/study1")
    (xrays / "train.csv").write_text(text)
    with pytest.raises(DataError, match="expected a patient"):
        chexpert.chexpert(xrays, PLEURAL)


@pytest.fixture
def faces(tmp_path):
    (tmp_path / "img_align_celeba").mkdir()
    for k in range(4):
        image = np.zeros((218, 178, 3), np.uint8)
        image[20:198] = (10, 60 * k, 200)  # the 178 rows in the middle
        Image.fromarray(image).save(tmp_path / "img_align_celeba" / f"00000{k + 1}.jpg", quality=95)
    signs = ["-1 1 1", " 1 -1  1", "-1 -1 -1", " 1 1 -1"]
    rows = [f"00000{k + 1}.jpg {one}" for k, one in enumerate(signs)]
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(["4", "Bangs Blond_Hair Male ", *rows]) + "\n")
    parts = [f"00000{k + 1}.jpg {part}" for k, part in enumerate((0, 0, 1, 2))]
    (tmp_path / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    return tmp_path


def test_celeba(faces):
    found = celeba(faces)
    assert found.ids == found.subjects == [f"00000{k}.jpg" for k in range(1, 5)]
    np.testing.assert_array_equal([found.label, found.attribute], [[1, 0, 0, 1], [1, 1, 0, 0]])
    training = celeba(faces, "Bangs", "Blond_Hair", partition="train")
    assert list(training.label) == [0, 1] and training.dropped == {"of other partitions": 2}
    (faces / "identity_CelebA.txt").write_text("000001.jpg 7\n000002.jpg 8\n000003.jpg 7\n000004.jpg 9\n")
    assert celeba(faces).subjects == ["7", "8", "7", "9"]
    images = read_images(found.paths, 32, channels=3, crop=178)
    assert images.shape == (4, 32, 32, 3)
    np.testing.assert_allclose(images[3].mean(axis=(0, 1)) * 255, [10, 180, 200], atol=4)  # nothing of the black bars


def test_wrong_lists_of_celeba_are_refused(faces):
    with pytest.raises(ConfigError, match="'Blonde'; did you mean 'Blond_Hair'"):
        celeba(faces, "Blonde")
    with pytest.raises(ConfigError, match="partition 'val'"):
        celeba(faces, partition="val")
    (faces / "list_eval_partition.txt").write_text("000001.jpg 0\n")
    with pytest.raises(DataError, match=r"'000002\.jpg' is in list_attr_celeba.txt and not"):
        celeba(faces, partition="train")
    attributes = faces / "list_attr_celeba.txt"
    attributes.write_text(attributes.read_text().replace("000002.jpg  1 -1  1", "000002.jpg 1 0 1"))
    with pytest.raises(DataError, match=r"'000002\.jpg 1 0 …'"):
        celeba(faces)
    attributes.unlink()
    with pytest.raises(DataError, match="no such file"):
        celeba(faces)


def test_cells():
    assert [plain(one) for one in (" 5.0", "-1.0", "M ", "", None, "0.5", "1_0", "nan")] == [
        "5", "-1", "M", "", "", "0.5", "1_0", "nan",
    ]  # fmt: skip
    assert number("45") == 45 and np.isnan(number("")) and np.isnan(number("45+")) and np.isnan(number("1_0"))
    assert by_value("a", {"5": 1}).code("5.0") == 1 and by_value("a", {"5": 1}).code("4") is None
    assert [by_threshold("a", 45).code(one) for one in ("44.9", "45", "?")] == [0, 1, None]

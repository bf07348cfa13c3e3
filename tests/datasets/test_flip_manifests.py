"""Manifests: tiny imitations of the published layouts, written by hand, come back as images, masks and groups."""

import json

import numpy as np
import pytest

from medjax.datasets.flip_manifests import load, load_splits, read
from medjax.errors import ConfigError, DataError

Image = pytest.importorskip("PIL.Image")


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)
    return path


def gray(value, size=(12, 16)):
    return np.full((*size, 3), value)


def square(label, size=(12, 16)):
    mask = np.zeros(size)
    mask[3:9, 4:12] = label
    return mask


@pytest.fixture
def waterbirds(tmp_path):
    """Five birds: three to train on, one each to validate and to test; grey as bright as their row."""
    rows = ["img_id,img_filename,y,split,place,group_id,place_filename"]
    for row, (y, split, place) in enumerate([(0, 0, 0), (0, 0, 1), (1, 0, 1), (1, 1, 0), (0, 2, 0)]):
        name = f"00{y}.Bird/Bird_{row}"
        save(tmp_path / "images" / f"{name}.jpg", gray(40 * row))
        save(tmp_path / "masks" / f"{name}.png", square(y + 1))
        rows.append(f"{row},{name}.jpg,{y},{split},{place},{2 * y + place},/b/forest/1.jpg")
    (tmp_path / "images" / "metadata.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.fixture
def coco(tmp_path):
    """A cat indoors (two polygons), a dog outdoors (run lengths), a cat outdoors beside a crowd of other things."""
    cat = [[4, 3, 11, 3, 11, 8, 4, 8], [0, 0, 2, 0, 2, 2, 0, 2]]
    runs = np.diff(np.flatnonzero(np.diff(np.r_[-1, square(1).T.ravel(), -1])))
    dog = {"counts": runs.tolist(), "size": [12, 16]}
    for number, split in enumerate(("train_corr0.95", "val_balanced", "test_balanced")):
        images, things = [], []
        for place, (group, category, mask) in enumerate([(0, 17, cat), (3, 18, dog), (1, 17, cat)]):
            one = 10 * number + place
            name = f"train2017/{one:012d}.jpg"
            save(tmp_path / name, gray(5 * one))
            images.append({"id": one, "file_name": name, "height": 12, "width": 16, "group_id": group})
            things.append({"image_id": one, "category_id": category, "segmentation": mask, "iscrowd": 0})
            things.append({"image_id": one, "category_id": 3, "segmentation": [[0, 0, 15, 0, 15, 11]], "iscrowd": 0})
        names = [{"id": 3, "name": "car"}, {"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}]
        content = {"images": images, "annotations": things, "categories": names}
        file = tmp_path / "annotations" / f"instances_{split}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return tmp_path


def of(records, split):
    return [one for one in records if one.split == split]


def test_waterbirds(waterbirds):
    records = read("waterbirds_seg", waterbirds)
    assert [one.split for one in records] == ["train"] * 3 + ["validation", "test"]
    train = load(of(records, "train"), 8)
    np.testing.assert_array_equal(train.group, [0, 1, 3])
    np.testing.assert_allclose(
        train.image, np.ones((3, 8, 8, 3)) * np.array([0, 40, 80])[:, None, None, None] / 255, atol=0.02
    )
    nearest = np.ix_((np.arange(8) * 12 + 6) // 8, np.arange(8) * 2 + 1)  # the middle of each new pixel
    for label, kind in zip(train.label, (1, 1, 2), strict=True):
        np.testing.assert_array_equal(label, square(kind)[nearest])
    assert load(of(records, "validation"), 8).group == [2]
    splits = load_splits(records, 8)
    np.testing.assert_array_equal(splits.train.image, train.image)
    assert splits.validation.group == [2] and len(splits.test.group) == 1


def test_coco(coco):
    records = read("coco_cd", coco, coco / "annotations")
    assert [len(of(records, split)) for split in ("train", "validation", "test")] == [3, 3, 3]
    test = load(of(records, "test"), 16)
    np.testing.assert_array_equal(test.group, [0, 3, 1])
    np.testing.assert_allclose(test.image.mean((1, 2, 3)), np.array([20, 21, 22]) * 5 / 255, atol=0.01)
    rows = (np.arange(16) * 12 + 6) // 16
    np.testing.assert_array_equal(test.label[1], square(2)[rows])  # runs are exact
    wanted = square(1)
    wanted[:3, :3] = 1  # both polygons, with their edges
    np.testing.assert_array_equal(test.label[0], wanted[rows])


def test_a_table_of_one_s_own(tmp_path):
    save(tmp_path / "a.png", gray(100)), save(tmp_path / "m" / "a.png", square(2))
    (tmp_path / "mine.csv").write_text("mask,image,class,scene,split\nm/a.png,a.png,1,0,train\n")
    (record,) = read("csv", tmp_path / "mine.csv")
    assert (record.class_index, record.scene, record.split) == (1, 0, "train")
    assert load([record], 4).group == [2]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,m/a.png,one,0,train", "class 'one'; expected 0, 1"),
        ("a.png,m/a.png,1,2,train", "scene 2; expected 0 or 1"),
        ("a.png,m/a.png,1,0,holdout", "split 'holdout'; expected train, validation, test"),
        ("a.png", "1 cells in line 2; expected 5, one for each column"),
    ],
)
def test_wrong_rows_are_named(tmp_path, row, message):
    (tmp_path / "mine.csv").write_text(f"image,mask,class,scene,split\n{row}\n")
    with pytest.raises(DataError, match=rf"mine.csv: .*{message}"):
        read("csv", tmp_path / "mine.csv")


def one_record(tmp_path, mask, kind=0):
    save(tmp_path / "a.png", gray(0)), save(tmp_path / "m.png", mask)
    (tmp_path / "mine.csv").write_text(f"image,mask,class,scene,split\na.png,m.png,{kind},0,train\n")
    return read("csv", tmp_path / "mine.csv")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (square(0), r"m.png: foreground empty; expected the label 1"),
        (square(255), r"m.png: foreground \[255\]; expected the label 1"),
        (square(2), r"m.png: foreground \[2\]; expected the label 1"),
        (square(1, (16, 16)), r"m.png: 16 × 16 pixels; expected 16 × 12"),
    ],
)
def test_wrong_masks_are_named(tmp_path, mask, message):
    with pytest.raises(DataError, match=message):
        load(one_record(tmp_path, mask), 12)


def test_missing_and_damaged_files_are_named(tmp_path, coco):
    records = one_record(tmp_path, square(1))
    (tmp_path / "m.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"m.png: cannot be read as an image"):
        load(records, 8)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"a.png: no such file; expected an image: the manifest names it"):
        load(records, 8)
    with pytest.raises(DataError, match="no image in this split"):
        load([], 8)
    with pytest.raises(DataError, match=r"metadata.csv: no such file"):
        read("waterbirds_seg", tmp_path)
    with pytest.raises(ConfigError, match="layout 'coco'; expected waterbirds_seg, coco_cd, csv"):
        read("coco", tmp_path)
    file = coco / "annotations" / "instances_val_balanced.json"
    file.write_text(file.read_text().replace("group_id", "group"))
    with pytest.raises(DataError, match=r"val_balanced.json: no COCO instances with group_id \(KeyError"):
        read("coco_cd", coco, coco / "annotations")
    file.unlink()
    with pytest.raises(DataError, match=r"annotations: 0 files instances_val_balanced.json; expected one"):
        read("coco_cd", coco, coco / "annotations")

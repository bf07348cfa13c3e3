"""Damaged pictures, tables of numbers and transforms: one line that names the file, nothing printed beside it."""

import struct
import zlib

import numpy as np
import pytest
from damages import ARCHIVES, in_one_line

from medjax.datasets import celeba, flip_manifests, medmnist
from medjax.datasets.image_list import read_images
from medjax.io.bvalues import read_bvalues
from medjax.io.images import IMAGE_TYPES, read_image
from medjax.io.itk_transforms import HEADER, read_itk_affine, write_itk_affine

Image = pytest.importorskip("PIL.Image")
GRAY = np.arange(64 * 64, dtype=np.uint32).reshape(64, 64).astype(np.uint8)


def png(width, height, content=b""):
    """A PNG that declares these sides."""
    out = b"\x89PNG\r\n\x1a\n"
    for name, data in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", content),
        (b"IEND", b""),
    ):
        out += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return out


def saved(path, kind):
    Image.fromarray(GRAY).save(path, format=kind)
    return path.read_bytes()


@pytest.mark.parametrize("kind", IMAGE_TYPES)
@pytest.mark.parametrize("damage", [name for name in ARCHIVES if name != "flipped"])
def test_damaged_pictures(tmp_path, kind, damage, capfd):
    path = tmp_path / "a.png"
    content = saved(path, kind)
    assert read_image(path)[0].shape == (64, 64)
    path.write_bytes(ARCHIVES[damage](content))
    for read in (read_image, lambda path: read_images([path], 8)):
        in_one_line(lambda read=read: read(path), path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("sides", [(10**9, 10**9), (20_000, 20_000), (11_000, 11_000), (0, 5), (2**31 - 1, 1)])
def test_pictures_of_more_pixels_than_there_are(tmp_path, sides):
    (tmp_path / "a.png").write_bytes(png(*sides, zlib.compress(bytes(1000))))
    in_one_line(lambda: read_image(tmp_path / "a.png"), "a.png")


@pytest.mark.parametrize("kind", ["EPS", "PCX", "PPM", "TGA", "ICNS", "WEBP", "SGI"])
def test_other_formats_are_not_opened_whatever_they_are_called(tmp_path, kind):
    try:
        saved(tmp_path / "a.png", kind)
    except (KeyError, OSError):
        pytest.skip("not written by this Pillow")
    in_one_line(lambda: read_image(tmp_path / "a.png"), "a.png")


BVALUES = {
    "NaN": b"0 nan 100",
    "infinite": b"0 inf",
    "negative": b"0 -5",
    "1e999": b"0 1e999",
    "1e30": b"0 1e30",
    "digits": b"0 " + b"9" * 5000,
    "word": b"0 " + b"a" * 5000,
    "binary": bytes(range(256)),
    "UTF-16": "0 100".encode("utf-16"),
    "latin-1": "0 100 größe".encode("latin-1"),
    "empty": b"",
    "blank": b" \n \n",
    "large": b"0 " * 2**22,
}


@pytest.mark.parametrize("damage", BVALUES)
def test_odd_bvalues(tmp_path, damage):
    (tmp_path / "a.bval").write_bytes(BVALUES[damage])
    in_one_line(lambda: read_bvalues(tmp_path / "a.bval"), "a.bval")


VERSOR = "Transform: VersorRigid3DTransform_double_3_3\n"
EULER = "Transform: Euler3DTransform_double_3_3\n"
KIND = "Transform: AffineTransform_double_3_3\n"
TRANSFORMS = {
    "empty": b"",
    "header": HEADER.encode(),
    "no parameters": f"{HEADER}\n{KIND}".encode(),
    "words": f"{HEADER}\n{KIND}Parameters: a b\n".encode(),
    "NaN": f"{HEADER}\n{KIND}Parameters: {'nan ' * 12}\nFixedParameters: 0 0 0\n".encode(),
    "1e999": f"{HEADER}\n{KIND}Parameters: {'1e999 ' * 12}\nFixedParameters: 0 0 0\n".encode(),
    "huge": f"{HEADER}\n{KIND}Parameters: {'1e308 ' * 12}\nFixedParameters: 1e308 1e308 1e308\n".encode(),
    "versor": f"{HEADER}\n{VERSOR}Parameters: {'0 ' * 6}\nFixedParameters: nan 0 0\n".encode(),
    "infinite angle": f"{HEADER}\n{EULER}Parameters: {'inf ' * 6}\nFixedParameters: 0 0 0\n".encode(),
    "too many": f"{HEADER}\n{KIND}Parameters: {'0 ' * 99}\n".encode(),
    "displacement": f"{HEADER}\nTransform: DisplacementFieldTransform_double_3_3\nParameters: 0\n".encode(),
    "UTF-16": HEADER.encode("utf-16"),
    "binary": bytes(range(256)),
    "large": b"#Insight Transform File V1.0\n" + b"0" * 2**21,
}


@pytest.mark.parametrize("damage", TRANSFORMS)
def test_odd_transforms(tmp_path, damage, capfd):
    (tmp_path / "a.txt").write_bytes(TRANSFORMS[damage])
    in_one_line(lambda: read_itk_affine(tmp_path / "a.txt"), "a.txt")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("damage", ["cut", "empty", "rubbish", "text", "sides", "complex"])
def test_odd_binary_transforms(tmp_path, damage):
    path = tmp_path / "a.mat"
    write_itk_affine(path, np.eye(4))
    content = path.read_bytes()
    own = {
        "sides": lambda content: content[:4] + struct.pack("<ii", 2**30, 2**30) + content[12:],
        "complex": lambda content: content[:12] + struct.pack("<i", 1) + content[16:],
    }
    path.write_bytes((ARCHIVES | own)[damage](content))
    in_one_line(lambda: read_itk_affine(path), path)


LISTS = ("list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt")


@pytest.mark.parametrize("file", LISTS)
@pytest.mark.parametrize("content", [b"", b"\xff", b"a\0b", b"1.jpg\n", "1.jpg 0".encode("utf-16")])
def test_damaged_lists_of_celeba(tmp_path, file, content):
    (tmp_path / LISTS[0]).write_text("1\nBlond_Hair Male\n1.jpg 1 -1\n")
    (tmp_path / LISTS[1]).write_text("1.jpg 0\n")
    (tmp_path / LISTS[2]).write_text("1.jpg 7\n")
    celeba.celeba(tmp_path, partition="train")
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError) as caught:
        celeba.celeba(tmp_path, partition="train")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("damage", [*ARCHIVES, "object", "float", "complex"])
def test_damaged_medmnist(tmp_path, damage):
    path = tmp_path / "set.npz"
    images, labels = np.zeros((2, 4, 4), np.uint8), np.zeros((2, 1), np.uint8)
    arrays = {
        f"{split}_{what}": array
        for split in medmnist.SPLITS
        for what, array in (("images", images), ("labels", labels))
    }
    types = {"object": object, "float": float, "complex": complex}
    np.savez(path, **arrays | {"val_images": images.astype(types.get(damage, np.uint8))})
    if damage in ARCHIVES:
        path.write_bytes(ARCHIVES[damage](path.read_bytes()))
    in_one_line(lambda: medmnist.read(path), path)


GOOD = '{"categories": [{"id": 1, "name": "cat"}], "annotations": [%s], "images": [%s]}'
COCO = {
    "list": "[]",
    "null": "null",
    "deep": "[" * 99_999,
    "cut": '{"categories": [',
    "categories": '{"categories": 7}',
    "image": GOOD % ("", "7"),
    "group": GOOD % ("", '{"id": 1, "file_name": "a", "group_id": 99}'),
    "negative group": GOOD % ("", '{"id": 1, "file_name": "a", "group_id": -1}'),
    "text as group": GOOD % ("", '{"id": 1, "file_name": "a", "group_id": "0"}'),
    "annotation": GOOD % ('{"category_id": 1, "image_id": []}', ""),
}


@pytest.mark.parametrize("damage", COCO)
def test_damaged_coco(tmp_path, damage):
    (tmp_path / "instances_train_corr1.json").write_text(COCO[damage])
    in_one_line(lambda: flip_manifests.read_coco(tmp_path, tmp_path), "instances_train_corr1.json")


@pytest.mark.parametrize(
    "segmentation",
    [7, [[1, 2, 3]], [["a", "b"]], {"counts": "text"}, {"counts": [10**12], "size": [8, 8]},
     {"counts": [64], "size": [1, 64]}, {"counts": [-1, 65], "size": [8, 8]}, {}, None],
)  # fmt: skip
def test_odd_segmentations(tmp_path, segmentation):
    Image.fromarray(GRAY[:8, :8]).save(tmp_path / "a.png")
    record = flip_manifests.Record(tmp_path / "a.png", (segmentation,), 0, 0, "train")
    in_one_line(lambda: flip_manifests.load([record], 8), "a.png")

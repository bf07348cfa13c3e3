"""Manifests of data sets with class and scene: image, mask, class, scene and split of every example.

    records = read("waterbirds_seg", folder)          a `Record` of each image
    train = load([r for r in records if r.split == "train"], size=512)
    splits = load_splits(records, size=512)          all three

Layouts, the first two as the published code (acharaakshit/label-flips) writes and reads them:

- `waterbirds_seg`: FOLDER/images/metadata.csv with columns img_filename, y (class), place (scene) and split (0, 1, 2);
  images in FOLDER/images; masks of the same name with .png in FOLDER/masks: 0 background, 1 and 2 the classes;
- `coco_cd`: COCO instance files instances_{train_corr…, val_balanced, test_balanced}.json in a folder of annotations,
  whose images carry a group_id = 2 · class + scene; images in FOLDER/train2017 and FOLDER/val2017; cat is 0, dog 1;
- `csv`: any file with columns image, mask, class, scene, split (train, validation, test), paths relative to the file.

Images are read with pillow, of medjax's extra `data`. It also fills the polygons: their edges may differ by a pixel
from those that pycocotools draws.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medjax.errors import ConfigError, DataError, type_and_message
from medjax.io.files import read_json
from medjax.io.images import open_image
from medjax.io.tables import read_table
from medjax.phantoms.scenes import SCENES, Scenes, Splits

SPLITS = ("train", "validation", "test")
EXPECTED = "an image: the manifest names it"
CATEGORIES = ("cat", "dog")  # categories of COCO-CD, in the order of its classes


class Record(NamedTuple):
    """Manifest entry of an image; its mask is a file, or COCO segmentations of the object's class."""

    image: Path
    mask: Path | tuple[Any, ...]  # file, or COCO segmentations
    class_index: int  # class, from 0; its label in a mask is one more
    scene: int  # scene (background) of the image, from 0
    split: str  # train, validation or test


def read(layout: str, folder: str | Path, annotations: str | Path = "") -> list[Record]:
    """Records of a data set in one of the layouts; `folder` holds the images, and is the file itself for `csv`.

    Raises:
        ConfigError: no such layout.
        DataError: a manifest is missing or damaged, a column or a value is not as described.
    """
    readers: dict[str, Callable[[], list[Record]]] = {
        "waterbirds_seg": lambda: read_waterbirds(Path(folder)),
        "coco_cd": lambda: read_coco(Path(folder), Path(annotations)),
        "csv": lambda: read_csv(Path(folder)),
    }
    if layout not in readers:
        raise ConfigError(f"layout '{layout}'; expected {', '.join(readers)}")
    return readers[layout]()


def read_csv(file: Path) -> list[Record]:
    """Records of a CSV with columns image, mask, class, scene, split.

    Raises:
        DataError: see `read`.
    """
    root = file.parent
    return [
        Record(root / row["image"], root / row["mask"], _number(file, row, "class"), _scene(file, row, "scene"), split)
        for row in read_table(file, ("image", "mask", "class", "scene", "split"))
        for split in [_split(file, row["split"], SPLITS)]
    ]


def read_waterbirds(folder: Path) -> list[Record]:
    """Records of Waterbirds-Seg: landbird 0, waterbird 1; land 0, water 1.

    Raises:
        DataError: see `read`.
    """
    file = folder / "images" / "metadata.csv"
    records = []
    for row in read_table(file, ("img_filename", "y", "place", "split")):
        name = Path(row["img_filename"])
        split = _split(file, row["split"], ("0", "1", "2"))
        mask = folder / "masks" / name.with_suffix(".png")
        index, scene = _number(file, row, "y"), _scene(file, row, "place")
        records.append(Record(folder / "images" / name, mask, index, scene, split))
    return records


def read_coco(folder: Path, annotations: Path) -> list[Record]:
    """Records of COCO-CD: cat 0, dog 1; indoor 0, outdoor 1.

    Raises:
        DataError: see `read`.
    """
    files = ("instances_train_corr*.json", "instances_val_balanced.json", "instances_test_balanced.json")
    return [one for name, split in zip(files, SPLITS, strict=True) for one in _coco(folder, annotations, name, split)]


def load(records: Sequence[Record], size: int) -> Scenes:
    """Images (0 … 1, three channels) and masks of the records, resized to `size`² pixels (bilinear, nearest).

    In memory: 4 · 4 · side² bytes an image.

    Raises:
        DataError: there is no record, a file cannot be read, or a mask has a value that is no class or no foreground.
    """
    if not records:
        raise DataError("no image in this split of the manifest")
    images, labels = zip(*(_load(record, size) for record in records), strict=True)
    group = np.array([SCENES * one.class_index + one.scene for one in records], np.int32)
    return Scenes(np.stack(images), np.stack(labels), group)


def load_splits(records: Sequence[Record], size: int) -> Splits:
    """Images and masks of each split, see `load`; raises as it does."""
    return Splits(*(load([record for record in records if record.split == name], size) for name in SPLITS))


def _load(record: Record, size: int) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    with open_image(record.image, EXPECTED) as file:
        pixels = file.size
        image = np.asarray(file.convert("RGB").resize((size, size), Image.Resampling.BILINEAR), np.float32) / 255
    if isinstance(record.mask, Path):
        with open_image(record.mask, EXPECTED) as file:
            mask = file.copy()
    else:
        try:
            drawn = _mask_of_polygons(record, pixels)
        except (TypeError, ValueError, KeyError) as error:
            found = str(error) if isinstance(error, DataError) else f"{record.image}: {type_and_message(error)}"
            raise DataError(f"{found}; expected a COCO segmentation") from error
        mask = Image.fromarray(drawn * np.uint8(record.class_index + 1))
    if mask.size != pixels:
        raise DataError(f"{record.mask}: {mask.size[0]} × {mask.size[1]} pixels; expected {pixels[0]} × {pixels[1]}")
    label = np.asarray(mask.resize((size, size), Image.Resampling.NEAREST))
    found = sorted(set(np.unique(label).tolist()) - {0})
    if label.ndim != 2 or found != [record.class_index + 1]:
        what = f"{record.image.name} in its mask" if not isinstance(record.mask, Path) else str(record.mask)
        raise DataError(
            f"{what}: foreground {found or 'empty'}; expected the label {record.class_index + 1}, class + 1"
        )
    return image, label.astype(np.int32)


def _mask_of_polygons(record: Record, size: tuple[int, int]) -> np.ndarray:
    """The union of COCO segmentations, each a list of polygons or uncompressed run lengths, as 0 and 1."""
    from PIL import Image, ImageDraw

    canvas = Image.new("L", size)
    pen, whole = ImageDraw.Draw(canvas), np.zeros(size[::-1], np.uint8)
    for one in record.mask if isinstance(record.mask, tuple) else ():
        if isinstance(one, dict):  # runs go down the columns, background first
            if not isinstance(one["counts"], list):
                raise DataError(f"{record.image.name}: compressed run lengths; expected polygons or a list of counts")
            if sum(one["counts"]) != size[0] * size[1] or one["size"] != [size[1], size[0]]:
                raise DataError(f"{record.image.name}: run lengths of another size; expected the image's")
            runs = np.repeat(np.arange(len(one["counts"])) % 2, one["counts"])
            whole |= runs.reshape(one["size"][::-1]).T.astype(np.uint8)
        else:
            for polygon in one:
                pen.polygon([tuple(point) for point in np.reshape(polygon, (-1, 2)).tolist()], fill=1)
    return whole | np.asarray(canvas)


def _coco(folder: Path, annotations: Path, pattern: str, split: str) -> list[Record]:
    found = sorted(annotations.glob(pattern))
    if len(found) != 1:
        raise DataError(f"{annotations}: {len(found)} files {pattern}; expected one")
    content = read_json(found[0], "COCO instances")
    try:
        named = {one["id"]: CATEGORIES.index(one["name"]) for one in content["categories"] if one["name"] in CATEGORIES}
        drawn: dict[int, list[tuple[int, Any]]] = {}
        for one in content["annotations"]:
            if one["category_id"] in named:
                drawn.setdefault(one["image_id"], []).append((named[one["category_id"]], one["segmentation"]))
        images = [(one["id"], str(one["file_name"]), *_group(one["group_id"])) for one in content["images"]]
    except (ValueError, KeyError, TypeError) as error:
        found_in = f"{found[0]}: no COCO instances with group_id"
        raise DataError(f"{found_in} ({type_and_message(error)}); expected 2 · class + scene") from error
    return [
        Record(
            folder / name,
            tuple(mask for of, mask in drawn.get(number, []) if of == index),
            index,
            scene,
            split,
        )
        for number, name, index, scene in images
    ]


def _group(number: Any) -> tuple[int, int]:
    """Class and scene. Raises ValueError where there are none of this number."""
    if type(number) is not int or not 0 <= number < SCENES * len(CATEGORIES):
        raise ValueError(f"group_id {number!r}")
    return divmod(number, SCENES)


def _number(file: Path, row: dict[str, str], column: str) -> int:
    if not row[column].isdecimal():
        raise DataError(f"{file}: {column} '{row[column]}'; expected 0, 1, …")
    return int(row[column])


def _scene(file: Path, row: dict[str, str], column: str) -> int:
    scene = _number(file, row, column)
    if scene >= SCENES:
        raise DataError(f"{file}: {column} {scene}; expected 0 or 1")
    return scene


def _split(file: Path, name: str, known: Sequence[str]) -> str:
    if name not in known:
        raise DataError(f"{file}: split '{name}'; expected {', '.join(known)}")
    return SPLITS[known.index(name)]

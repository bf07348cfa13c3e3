"""CelebA: aligned images of faces with forty binary attributes; the layout as distributed.

    DIR/list_attr_celeba.txt        number of images; names of the attributes; "000001.jpg -1 1 …" for each image
    DIR/list_eval_partition.txt     "000001.jpg 0": 0 train, 1 validation, 2 test
    DIR/identity_CelebA.txt         "000001.jpg 2880": the person; optional
    DIR/img_align_celeba/000001.jpg

The data are for research that is not commercial.

Source: Liu et al., ICCV 2015.
"""

from pathlib import Path

from medjax.datasets.image_list import ImageList, Row, to_list
from medjax.errors import ConfigError, DataError
from medjax.io.files import read_text
from medjax.running.config import did_you_mean

PARTITIONS = ("train", "validation", "test")


def celeba(folder: Path, label: str = "Blond_Hair", attribute: str = "Male", partition: str | None = None) -> ImageList:
    """Images of CelebA; label and attribute are two of its attributes. Read them with `read_images(…, crop=178)`.

    Where there is no file of identities each image is a subject of its own.

    Args:
        folder: folder of the lists and of img_align_celeba.
        label: name of the label.
        attribute: name of the attribute.
        partition: train, validation or test; default: all images, which the published design of OSCAR draws from.

    Raises:
        ConfigError: no such partition or attribute.
        DataError: a list is missing or damaged, or lists do not name the same images.
    """
    if partition not in (None, *PARTITIONS):
        raise ConfigError(f"partition '{partition}'; expected {', '.join(PARTITIONS)}")
    file = folder / "list_attr_celeba.txt"
    lines = _lines(file)
    names, rows = [*lines[1:2], list[str]()][0], lines[2:]
    column: dict[str, int] = {name: k + 1 for k, name in enumerate(names)}
    for name in (label, attribute):
        if name not in column:
            raise ConfigError(f"CelebA has no attribute '{name}'{did_you_mean(name, column)}")
    if broken := next((row for row in rows if len(row) != len(names) + 1 or not {*row[1:]} <= {"-1", "1"}), None):
        raise DataError(f"{file}: '{' '.join(broken[:3])} …'; expected an image and {len(names)} values of −1 and 1")
    part = dict[str, str]() if partition is None else _pairs(folder / "list_eval_partition.txt")
    people = folder / "identity_CelebA.txt"
    person = _pairs(people) if people.exists() else {row[0]: row[0] for row in rows}
    wanted = None if partition is None else str(PARTITIONS.index(partition))
    try:
        chosen = [row for row in rows if wanted is None or part[row[0]] == wanted]
        found: list[Row] = []
        for row in chosen:
            y, a = (int(row[column[one]] == "1") for one in (label, attribute))
            found.append((row[0], person[row[0]], y, a, folder / "img_align_celeba" / row[0], float("nan")))
    except KeyError as error:
        raise DataError(
            f"{folder}: {error} is in {file.name} and not in another list; expected the same images"
        ) from error
    return to_list(found, {"of other partitions": len(rows) - len(chosen)}, file)


def _lines(file: Path) -> list[list[str]]:
    text = read_text(file, "a list of CelebA as distributed")
    return [line.split() for line in text.splitlines() if line.split()]


def _pairs(file: Path) -> dict[str, str]:
    """Second word of each line, by the first one."""
    lines = _lines(file)
    if odd := next((words for words in lines if len(words) != 2), None):
        raise DataError(f"{file}: '{' '.join(odd)[:60]}' in a line; expected an image and a number")
    return {image: value for image, value in lines}

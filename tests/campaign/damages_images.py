"""Damages of images: NIfTI and PNG."""

import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaign.damage_kinds import KINDS, NIFTI, PNG, Damage, Kind, bytes_kind, kind


def nifti_kind(name: str, change: Callable[[bytearray], None], harmless: bool = False) -> None:
    """Add a kind that changes the header of a NIfTI file, the image staying."""

    def rewrite(content: bytes, rng: np.random.Generator) -> bytes:
        whole = bytearray(gzip.decompress(content))
        change(whole)
        return gzip.compress(bytes(whole), mtime=0)

    bytes_kind(f"nifti_{name}", rewrite, *NIFTI, harmless=harmless)


def at(place: int, form: str, *values: Any) -> Callable[[bytearray], None]:
    return lambda content: struct.pack_into(f"<{form}", content, place, *values)


HARMLESS = ("slope_infinite", "type_binary", "no_bits", "affine_far")  # affine_far: where no position is asked for
for name, place, form, values in (
    ("size_of_header", 0, "i", (10**9,)),
    ("no_axes", 40, "h", (0,)),
    ("nine_axes", 40, "h", (9,)),
    ("negative_side", 42, "h", (-5,)),
    ("zero_side", 42, "h", (0,)),
    ("huge_sides", 42, "hhh", (32767, 32767, 32767)),
    ("unknown_type", 70, "h", (77,)),
    ("type_complex", 70, "hh", (32, 64)),
    ("type_rgb", 70, "hh", (128, 24)),
    ("type_binary", 70, "hh", (1, 1)),
    ("no_bits", 72, "h", (0,)),
    ("offset_negative", 108, "f", (-1000.0,)),
    ("offset_nan", 108, "f", (float("nan"),)),
    ("offset_huge", 108, "f", (1e9,)),
    ("slope_infinite", 112, "f", (float("inf"),)),
    ("no_magic", 344, "4s", (b"abcd",)),
    ("affine_nan", 280, "f", (float("nan"),)),
    ("affine_of_zeros", 280, "12f", (0.0,) * 12),
    ("affine_sheared", 284, "f", (50.0,)),
    ("affine_infinite", 292, "f", (float("inf"),)),
    ("affine_far", 292, "f", (1e30,)),
):
    nifti_kind(name, at(place, form, *values), harmless=name in HARMLESS)
for name, sides in {"voxels_of_a_kilometre": 1e6, "voxels_of_a_nanometre": 1e-6}.items():
    nifti_kind(name, at(280, "12f", sides, 0, 0, 0, 0, sides, 0, 0, 0, 0, sides, 0), harmless=True)


@kind(*NIFTI)
def nifti_bomb(path: Path, rng: np.random.Generator) -> None:
    """A valid header before 6 GB of zeros."""
    header = gzip.decompress(path.read_bytes())[:352]
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header)
        for _ in range(60):
            file.write(bytes(10**8))


def with_values(change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    def damage(path: Path, rng: np.random.Generator) -> None:
        import nibabel

        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(change(np.asarray(image.dataobj)), image.affine), path)

    return damage


for name, change, harmless in (
    ("of_one_axis", lambda array: array.reshape(-1), True),
    ("of_five_axes", lambda array: np.stack([np.stack([array, array], -1)] * 2, -1), True),
    ("of_two_axes", lambda array: array[(slice(None), slice(None), *(0,) * (array.ndim - 2))], True),
    ("not_a_number", lambda array: np.where(array == array.max(), np.nan, array.astype(np.float32)), True),
    ("infinite", lambda array: np.where(array == array.max(), np.inf, array.astype(np.float32)), True),
    ("all_zero", lambda array: np.zeros_like(array, np.float32), True),
    ("negative", lambda array: -array.astype(np.float32) - 1, True),
    ("huge", lambda array: array.astype(np.float64) * 1e200, True),
    ("of_half_numbers", lambda array: array.astype(np.float32) + 0.5, True),
    ("of_another_size", lambda array: array[:-1], True),
    ("of_one_voxel", lambda array: array[:1, :1, :1], True),
):
    KINDS.append(Kind(f"values_{name}", NIFTI, with_values(change), harmless))


# ── PNG ──


def picture_kind(name: str, make: Callable[[Any], tuple[Any, str]], harmless: bool = False) -> None:
    def damage(path: Path, rng: np.random.Generator) -> None:
        from PIL import Image

        with Image.open(path) as file:
            image, form = make(file.copy())
        image.save(path, format=form)

    KINDS.append(Kind(f"picture_{name}", PNG, damage, harmless))


picture_kind(
    "in_colours", lambda image: (image.convert("RGB").rotate(0).point(lambda v: v, None), "PNG"), harmless=True
)
picture_kind("as_eps", lambda image: (image.convert("L"), "EPS"))
picture_kind("as_jpeg", lambda image: (image.convert("L"), "JPEG"), harmless=True)
picture_kind("of_another_size", lambda image: (image.resize((5, 7)), "PNG"), harmless=True)
picture_kind("of_one_pixel", lambda image: (image.resize((1, 1)), "PNG"), harmless=True)
picture_kind("floating", lambda image: (image.convert("F"), "TIFF"), harmless=True)


@kind(*PNG)
def picture_declares_more(path: Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    struct.pack_into(">II", content, 16, 10**5, 10**5)
    struct.pack_into(">I", content, 29, zlib.crc32(bytes(content[12:29])))
    path.write_bytes(bytes(content))

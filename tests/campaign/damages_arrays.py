"""Damages of npz files: counts, weights, attribution maps."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaign.damage_kinds import KINDS, NPZ, Kind, kind


def entries_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def npz_kind(name: str, change: Callable[[np.ndarray], np.ndarray | None], harmless: bool = False) -> None:
    """Add a kind that changes one entry, other than a header, of an archive; None takes it away."""

    def damage(path: Path, rng: np.random.Generator) -> None:
        entries = entries_of(path)
        names = [one for one in entries if entries[one].dtype.kind in "fiu" and one != "settings"]
        chosen = names[int(rng.integers(len(names)))]
        new = change(entries.pop(chosen))
        np.savez(path, allow_pickle=True, **(entries if new is None else entries | {chosen: new}))

    KINDS.append(Kind(f"npz_{name}", NPZ, damage, harmless))


npz_kind("entry_missing", lambda array: None, harmless=True)
npz_kind("entry_longer", lambda array: np.concatenate([array, array]) if array.ndim else array[None], harmless=True)
npz_kind("entry_with_more_axes", lambda array: array[None, None], harmless=True)
npz_kind("entry_scalar", lambda array: array.reshape(-1)[0])
npz_kind("entry_empty", lambda array: array[:0] if array.ndim else np.zeros(0))
npz_kind("entry_complex", lambda array: array + 1j)
npz_kind("entry_of_texts", lambda array: array.astype(str))
npz_kind("entry_of_objects", lambda array: array.astype(object))
npz_kind("entry_boolean", lambda array: array > 0, harmless=True)
npz_kind("entry_of_dates", lambda array: array.astype(int).astype("M8[s]"))
npz_kind("entry_not_finite", lambda array: np.where(array == array.max(), np.nan, array.astype(float)))
npz_kind("entry_infinite", lambda array: np.where(array == array.max(), np.inf, array.astype(float)))
npz_kind("entry_huge", lambda array: array.astype(float) * 1e200, harmless=True)
npz_kind("entry_negative", lambda array: -np.abs(array.astype(float)) - 1, harmless=True)
npz_kind("entry_long_double", lambda array: array.astype(np.longdouble), harmless=True)


@kind(*NPZ, harmless=True)
def npz_entry_extra(path: Path, rng: np.random.Generator) -> None:
    np.savez(path, **entries_of(path), extra=np.ones(3))


@kind(*NPZ)
def npz_bomb(path: Path, rng: np.random.Generator) -> None:
    """Every array is of 6 GB, a few MB on the disk."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1500, 1000, 1000)})
    names = list(entries_of(path))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names[:1]:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                member.write(header.getvalue())
                for _ in range(60):
                    member.write(bytes(10**8))


@kind(*NPZ)
def npz_declares_more(path: Path, rng: np.random.Generator) -> None:
    entries = entries_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in entries.items():
            content = io.BytesIO()
            shape = (10**6, 10**6)
            np.lib.format.write_array_header_1_0(
                content, {"descr": array.dtype.str, "fortran_order": False, "shape": shape}
            )
            archive.writestr(f"{name}.npy", content.getvalue() + array.tobytes())


def header_kind(name: str, change: Callable[[dict[str, Any], np.random.Generator], Any], harmless: bool = True) -> None:
    """Add a kind that changes the JSON header of a file of weights; other archives lose their names."""

    def damage(path: Path, rng: np.random.Generator) -> None:
        entries = entries_of(path)
        if "settings" not in entries:
            np.savez(path, **{f"x{number}": array for number, array in enumerate(entries.values())})
            return
        header = json.loads(entries["settings"].tobytes())
        entries["settings"] = np.frombuffer(json.dumps(change(header, rng)).encode(), np.uint8)
        np.savez(path, **entries)

    KINDS.append(Kind(f"header_{name}", NPZ, damage, harmless))


def odd_setting(header: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    names = sorted(header)
    odd = [None, [], {}, "x", -1, 0, 1e300, 10**9, True, [[1]], [10**9, 10**9], float("nan"), [4, "x"], [-4, 4]]
    return header | {names[int(rng.integers(len(names)))]: odd[int(rng.integers(len(odd)))]}


for number in range(40):
    header_kind(f"setting_{number}", odd_setting)
header_kind("empty", lambda header, rng: {})
header_kind("a_list", lambda header, rng: [header], harmless=False)
header_kind("null", lambda header, rng: None, harmless=False)
header_kind("more", lambda header, rng: header | {"surprise": 1})

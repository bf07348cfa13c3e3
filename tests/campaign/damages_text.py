"""Damages of text, tables and JSON."""

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.campaign.damage_kinds import JSON, TABLES, TEXT, bytes_kind

bytes_kind("utf_16", lambda content, rng: content.decode().encode("utf-16"), *TEXT)
HEADERS = (".hs", ".hdr")  # comments of Interfile may be in latin-1
for name, endings in {"latin_1": [one for one in TEXT if one not in HEADERS], "latin_1_header": HEADERS}.items():
    harmless = name == "latin_1_header"
    bytes_kind(name, lambda content, rng: content.rstrip() + "\nµ²é".encode("latin-1"), *endings, harmless=harmless)
bytes_kind("byte_order_mark", lambda content, rng: b"\xef\xbb\xbf" + content, *TEXT, harmless=True)
bytes_kind("windows_lines", lambda content, rng: content.replace(b"\n", b"\r\n"), *TEXT, harmless=True)
bytes_kind("old_mac_lines", lambda content, rng: content.replace(b"\n", b"\r"), *TEXT, harmless=True)
bytes_kind("null_bytes", lambda content, rng: content[:9] + b"\0\0" + content[9:], *TEXT)
bytes_kind("control_characters", lambda content, rng: content.replace(b"1", b"\x1b[31m1", 1), *TEXT, harmless=True)
bytes_kind("a_huge_field", lambda content, rng: content + b"9" * 300_000, *TEXT, harmless=True)


def replace_number(content: bytes, rng: np.random.Generator, text: bytes) -> bytes:
    """One number of a text replaced."""
    found = [one for one in re.finditer(rb"(?<![\w.])-?\d+(\.\d+)?(?![\w.])", content)]
    if not found:
        return content + text
    one = found[int(rng.integers(len(found)))]
    return content[: one.start()] + text + content[one.end() :]


for text in ("nan", "inf", "1e999", "9" * 5000, "-3", "", "x", "1e9", "=1+1", "$\\foo$", "{0}"):
    bytes_kind(
        f"number_{text[:6]}",
        lambda content, rng, text=text: replace_number(content, rng, text.encode()),
        ".csv", ".bval", ".hs", ".hdr", ".txt", harmless=True,
    )  # fmt: skip


# ── tables ──


def rows_kind(name: str, change: Callable[[list[str]], list[str]], harmless: bool = False) -> None:
    def rewrite(content: bytes, rng: np.random.Generator) -> bytes:
        return ("\n".join(change(content.decode().strip().split("\n"))) + "\n").encode()

    bytes_kind(name, rewrite, *TABLES, harmless=harmless)


rows_kind("only_a_header", lambda rows: rows[:1])
rows_kind("no_header", lambda rows: rows[1:])
rows_kind("a_row_twice", lambda rows: [*rows, rows[-1]], harmless=True)
rows_kind("a_short_row", lambda rows: [*rows, "x"])
rows_kind("a_column_twice", lambda rows: [f"{row},{row.split(',')[0]}" for row in rows])
rows_kind("semicolons", lambda rows: [row.replace(",", ";") for row in rows])
rows_kind("tabs", lambda rows: [row.replace(",", "\t") for row in rows])
rows_kind("an_open_quote", lambda rows: [*rows[:-1], '"' + rows[-1]])
rows_kind("a_wide_header", lambda rows: [rows[0] + "," * 10**6, *rows[1:]])


# ── JSON ──

for name, text in {
    "null": "null", "a_list": "[]", "a_number": "3", "a_text": '"x"', "an_empty_object": "{}", "nested": "[" * 10**5,
    "nested_objects": '{"a":' * 10**5, "nan_alone": "NaN", "a_huge_number": "9" * 5000,
}.items():  # fmt: skip
    bytes_kind(f"json_{name}", lambda content, rng, text=text: text.encode(), *JSON, harmless=name == "an_empty_object")


def other_value(content: bytes, rng: np.random.Generator) -> bytes:
    """One value, at any depth, of another type or size."""
    tree = json.loads(content)
    places = list[tuple[Any, Any]]()

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            walk(node[key])

    walk(tree)
    if places:
        node, key = places[int(rng.integers(len(places)))]
        odd = [None, [], {}, "x", -1, 0, 1e300, 10**9, True, [[1]], float("nan"), "$\\foo$"]
        node[key] = odd[int(rng.integers(len(odd)))]
    return json.dumps(tree).encode()


for number in range(12):
    bytes_kind(f"json_value_{number}", other_value, *JSON, harmless=True)

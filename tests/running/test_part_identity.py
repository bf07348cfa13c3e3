"""A user's part is told from another one, and from itself after its file was edited."""

import importlib.util
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from medjax.iterate import static_partial
from medjax.labels.scores import LabelScore, built_in
from medjax.models.model import Model
from medjax.models.unet import group_norm, unet
from medjax.running.part_identity import as_part, identity
from medjax.running.parts import Part

ROOT = Path(__file__).parents[2]
SOURCE = """
class Plain:
    def apply(self, params, x, key=None):
        return x

class Slotted:
    __slots__ = ("width",)

    def __init__(self, width=3):
        self.width = width

def apply(width, params, x, key=None):
    return x
"""
PARTS = {
    "function": lambda module: module.apply,
    "instance": lambda module: module.Plain(),
    "class": lambda module: module.Plain,
    "slots": lambda module: module.Slotted(),
    "method": lambda module: module.Plain().apply,
    "partial": lambda module: partial(module.apply, 3),
    "nested": lambda module: Model(np.sum, static_partial(print, partial(partial(module.apply, 3), x=1))),
    "jit": lambda module: LabelScore(jax.jit(module.apply), np.sum, np.sum),
    "dict": lambda module: {"a": [(module.apply,)]},
    "attribute": lambda module: Holder(module.Slotted()),
}


class Holder:
    def __init__(self, held):
        self.held = held


def load(file: Path, registered: bool):
    spec = importlib.util.spec_from_file_location("users_part", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules.pop("users_part", None)
    if registered:
        sys.modules["users_part"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("registered", [True, False])
@pytest.mark.parametrize("kind", PARTS)
def test_an_edited_file_is_another_part(kind, registered, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(SOURCE)
    before = identity(PARTS[kind](load(file, registered)))
    assert identity(PARTS[kind](load(file, registered))) == before
    file.write_text(SOURCE.replace("return x", "return 2 * x"))
    assert identity(PARTS[kind](load(file, registered))) != before
    sys.modules.pop("users_part", None)


def test_other_settings_are_another_part(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(SOURCE)
    module = load(file, False)
    different = [
        module.Slotted(3), module.Slotted(4), Holder(3), Holder(4), partial(module.apply, 3), partial(module.apply, 4),
        static_partial(module.apply, 3), static_partial(module.apply, 4), Holder(np.zeros(2000)),
        Holder(jax.random.key(0)), Holder(jax.numpy.zeros((2, 2))), Holder(np.zeros((4, 1), np.float32)),
        Holder(np.eye(2000)[999]), unet(3, (8, 16)), unet(3, (8, 16), group_norm(4)),
    ]  # fmt: skip
    assert len(set(map(identity, different))) == len(different)
    assert len(set(map(identity, built_in().values()))) == len(built_in()) - 1  # vog is vog_peak


def test_a_part_built_equally_is_the_same_one_in_another_process():
    code = (
        "from medjax.models.unet import unet, group_norm; from medjax.running.part_identity import identity; "
        "print(identity((unet(3, (8, 16), group_norm(4)), {'a', 'b', 'c'})))"
    )

    def of_process(seed):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)

    first, second = map(of_process, ("1", "2"))
    assert first.stdout == second.stdout and len(first.stdout) == 9, first.stderr


def test_a_part_that_holds_itself():
    ring = Holder(None)
    ring.held = ring
    assert len(identity(ring)) == 8


def test_an_object_becomes_a_part_of_its_name_and_a_part_stays():
    part = Part("mine.py:net", "ab" * 32, 3)
    assert as_part(part) is part
    assert as_part(np.sum) == Part("sum", identity(np.sum), np.sum)
    assert as_part(Holder(3)).identity == {"name": "Holder", "sha256": identity(Holder(3))}

"""Parts given as FILE.py:NAME: what is loaded, what tells it from another, and what is said of one that is none."""

import hashlib
import os
import sys
from types import ModuleType

import pytest

from medjax.errors import ConfigError
from medjax.running.parts import check_parts, is_part_reference, load_part, load_parts


def test_a_part_is_what_its_file_calls_so_and_its_digest_that_of_the_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def net(x):\n    return 2 * x\n")
    part = load_part(f"{file}:net")
    assert part.value(3) == 6 and part.identity == {
        "name": "mine.py:net", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()
    }  # fmt: skip
    assert load_part(f"{file}:net").identity == part.identity and str(tmp_path) not in sys.path
    file.write_text("def net(x):\n    return 3 * x\n")
    assert load_part(f"{file}:net").value(3) == 9 and load_part(f"{file}:net").sha256 != part.sha256


def test_an_edited_file_is_run_anew_however_soon(tmp_path, monkeypatch):
    """Python's compiled files tell editions apart by whole seconds and length."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "mine.py"
    for number in (1, 2):
        file.write_text(f"net = {number}\n")
        os.utime(file, (1e9, 1e9))
        assert load_part(f"{file}:net").value == number
    assert [one.name for one in tmp_path.iterdir()] == ["mine.py"]


def test_two_parts_of_one_file_are_of_one_kind(tmp_path):
    """A class defined in a user's file is the same class for every part of that file."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass A:\n    x: int = 1\na, b = A(), A()\n"
    )
    assert load_part(f"{file}:a").value == load_part(f"{file}:b").value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine.py", r"--network .*mine.py; expected FILE.py:NAME, as in --network mine.py:net"),
        ("mine.py:a-b", r"expected FILE.py:NAME"),
        ("absent.py:net", r"no file .*absent.py"),
        ("mine.py:nett", r"mine.py has no nett; did you mean 'net'\?"),
        ("broken.py:net", r"broken.py cannot be run: ZeroDivisionError: division by zero$"),
        ("wrong.py:net", r"wrong.py cannot be run: SyntaxError"),
    ],
)
def test_what_is_no_part_is_said_in_one_line(tmp_path, text, message):
    for name, content in (("mine", "net = 1\n"), ("broken", "1 / 0\n"), ("wrong", "def\n")):
        (tmp_path / f"{name}.py").write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_part(f"{tmp_path}/{text}", "--network")
    assert "\n" not in str(caught.value)


def experiment(run, **functions):
    module = ModuleType("toy")
    vars(module).update(run=run, **functions)
    return module


def test_seams_are_named_once_and_taken_by_the_experiment(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("net = 1\n")
    assert is_part_reference(f"{file}:net") and not is_part_reference(str(file)) and not is_part_reference("prior.npz")
    parts = load_parts([f"network={file}:net", f"prior={file}:net"])
    assert [part.value for part in parts.values()] == [1, 1]
    for given, message in (
        ([f"{file}:net"], "expected KEYWORD=FILE.py:NAME"),
        ([f"network={file}:net"] * 2, "--part network is given twice"),
        ([f"network={file}"], "mine.py; expected FILE.py:NAME, as in --part network=mine.py:net"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_parts(given)
    check_parts(experiment(lambda config, work, network=None, *, prior=None: None), parts, "toy")
    check_parts(experiment(lambda config, work, **parts: None), parts, "toy")
    with pytest.raises(ConfigError, match="--part network: no part of toy; it takes none"):
        check_parts(experiment(lambda config, work: None), parts, "toy")
    half = experiment(lambda config, work, **parts: None, population=lambda configs, works, network=None: None)
    with pytest.raises(ConfigError, match="--part prior: no part of toy; expected network"):
        check_parts(half, parts, "toy")

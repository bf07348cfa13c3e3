"""`medjax doctor`: what it reads from faked machines, what it says of faked installations, and one real run."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jax
import pytest
from typer.testing import CliRunner

from medjax import cli
from medjax.tools import doctor, doctor_packages, doctor_state
from medjax.tools.doctor import problems, summary
from medjax.tools.doctor_packages import Package, extra_packages, extras_of, read_requirements, required_packages
from medjax.tools.doctor_state import CacheState, Device, ExperimentsState, JaxState, State, read_state

CPU, GPU = Device("cpu", "cpu", None), Device("gpu", "NVIDIA A100", 59 * 2**30)
EXTRAS = {name: [Package(f"jax-{name}-plugin", "", ">=0.10", "jax")] for name in ("cuda12", "cuda13")}
PLUGIN = {"cuda13": [Package("jax-cuda13-plugin", "0.10.2", "", "jax")]}
A100 = {"gpus": ["NVIDIA A100"], "driver": "580.65"}
WELL = {
    "medjax": "0.1.0", "system": "Linux x86_64",
    "packages": [Package("Python", "3.11.0+", ">=3.11"), Package("jax", "0.10.2", ">=0.10")],
    "extras": EXTRAS, "jax": JaxState([CPU], False, "", ""), "cores": 2, "memory_bytes": 8.0 * 2**30,
    "gpus": [], "driver": "", "tpus": 0, "cache": CacheState("cache", 3, 4096, ""), "weights": {"osem": ""},
    "experiments": ExperimentsState(True, ["demo"], [], {}), "variables": {}, "encoding": "utf-8",
}  # fmt: skip


def state(**changes) -> State:
    return State(**WELL | changes)


def sees(*devices, x64=False, error="", remark="") -> dict:
    return {"jax": JaxState(list(devices), x64, error, remark)}


def test_nothing_is_wrong_with_a_good_installation():
    assert problems(state()) == []
    assert problems(state(**A100, **sees(GPU), extras=EXTRAS | PLUGIN)) == []
    assert problems(state(**A100, variables={"JAX_PLATFORMS": "cpu"})) == []  # as its user wants it


WRONG = {
    "flax is not installed, which medjax needs: pip install \"flax>=0.12\"":
        {"packages": [Package("flax", "", ">=0.12")]},
    "medjax needs jax>=0.10, but 0.9.2 is here: pip install --upgrade \"jax>=0.10\"":
        {"packages": [Package("jax", "0.9.2", ">=0.10")]},
    "jax needs jaxlib<=0.10.2,>=0.10.1, but 0.9.0 is here: pip install --upgrade \"jax\" \"jaxlib\"":
        {"packages": [Package("jaxlib", "0.9.0", "<=0.10.2,>=0.10.1", "jax")]},
    "medjax needs pillow>=11, but 9.0 is here: pip install --upgrade \"pillow>=11\"":
        {"extras": {"data": [Package("pillow", "9.0", ">=11"), Package("pydicom", "", ">=3")]}},
    "medjax needs Python>=3.11, but 3.10.1 is here: use such a Python":
        {"packages": [Package("Python", "3.10.1", ">=3.11")]},
    "medjax is not installed, so that its requirements are not known: pip install .": {"packages": []},
    "JAX does not start (AssertionError): unset JAX_PLATFORMS=cuda, or install that platform":
        sees(error="AssertionError") | {"variables": {"JAX_PLATFORMS": "cuda"}},
    "JAX does not start (Unknown flag in XLA_FLAGS: --foo): unset XLA_FLAGS, or correct it":
        sees(error="Unknown flag in XLA_FLAGS: --foo"),
    "JAX computes in float64, slower and with other roundings than the results: unset JAX_ENABLE_X64":
        sees(CPU, x64=True),
    "1.5 GiB of memory are free, commands need 2 or more: end other programs, or raise the limit":
        {"memory_bytes": 1.5 * 2**30},
    "the shipped prior osem cannot be loaded (DataError: cut): install medjax again":
        {"weights": {"osem": "DataError: cut"}},
    "NVIDIA A100 (driver 580.65), which JAX does not see: pip install \"jax[cuda13]\"": A100,
    "NVIDIA A100 (driver 535.1), which JAX does not see: pip install \"jax[cuda12]\"": A100 | {"driver": "535.1"},
    "NVIDIA A100 (driver 470.1), which JAX does not see: update the driver to 525 or newer": A100 | {"driver": "470.1"},
    "for CUDA 13 needs driver 580: pip uninstall jax-cuda13-plugin, pip install \"jax[cuda12]\"":
        A100 | {"driver": "550.1", "extras": EXTRAS | PLUGIN},
    "with CUDA_VISIBLE_DEVICES=: unset it":
        A100 | {"extras": EXTRAS | PLUGIN, "variables": {"CUDA_VISIBLE_DEVICES": ""}},
    "though jax-cuda13-plugin is installed (cuInit failed): pip install --upgrade \"jax[cuda13]\" and unset LD_LIB":
        A100 | sees(CPU, remark="cuInit failed") | {"extras": EXTRAS | PLUGIN, "variables": {"LD_LIBRARY_PATH": "x"}},
    "jax-cuda12-plugin and jax-cuda13-plugin are both installed, of which JAX takes one: pip uninstall one of them":
        {"extras": PLUGIN | {"cuda12": [Package("jax-cuda12-plugin", "0.10.2", "", "jax")]}},
    "4 TPU chips, of which JAX sees none: pip install \"jax[tpu]\"": {"tpus": 4},
    "cache: Permission denied; every command compiles anew: set XDG_CACHE_HOME to a folder of yours":
        {"cache": CacheState("cache", 0, 0, "Permission denied")},
    "compilation cache: no home directory": {"cache": CacheState("", 0, 0, "no home directory (no such user)")},
    "the papers' experiments are missing: install medjax again": {"experiments": ExperimentsState(True, [], [], {})},
    "experiment mine: no config: correct configs/mine.py":
        {"experiments": ExperimentsState(True, ["demo"], ["mine"], {"mine": "no config"})},
    "the terminal's encoding is latin-1, in which symbols such as σ are spelt: set LC_ALL=C.UTF-8":
        {"encoding": "latin-1"},
}  # fmt: skip


@pytest.mark.parametrize("line", WRONG)
def test_each_problem_is_one_line_that_says_what_to_do(line):
    [found] = problems(state(**WRONG[line]))
    assert line in found and "\n" not in found


def test_the_summary_counts_devices_and_names_what_an_extra_lacks():
    extras = EXTRAS | {"data": [Package("pillow", "11.1", ""), Package("pydicom", "", "")]}
    extras |= {"tpu": [Package("libtpu", "", ""), Package("requests", "2.34", "")]}  # which another package needs
    rows = dict(summary(state(**A100, **sees(GPU, GPU), extras=extras, variables={"JAX_PLATFORMS": "cuda"})))
    assert rows["devices"] == "2 × gpu NVIDIA A100, 59.0 GiB (the system has 1 × NVIDIA A100, driver 580.65)"
    assert rows["extra data"] == "not complete: pydicom missing; pillow 11.1"
    assert rows["extra cuda12"] == rows["extra tpu"] == "not installed, optional" and rows["JAX_PLATFORMS"] == "cuda"
    assert dict(summary(state(**sees(error="x"))))["devices"] == "none, JAX does not start"


# ── what is read from the machine ──


def test_gpus_that_an_empty_variable_hides_are_seen_to_be_hidden(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("LD_LIBRARY_PATH", "")
    found = read_state(run=answers("", "", 1), root=tmp_path).variables
    assert found["CUDA_VISIBLE_DEVICES"] == "" and "LD_LIBRARY_PATH" not in found


def answers(stdout="", stderr="", code=0):
    return lambda command, **_: subprocess.CompletedProcess(command, code, stdout, stderr)


def absent(command, **_):
    raise FileNotFoundError(command[0])


def test_gpus_are_those_of_the_driver(tmp_path):
    listed = "NVIDIA H100 80GB HBM3, 550.54.15\nNVIDIA L4, 550.54.15\n"
    assert doctor_state.nvidia_gpus(answers(listed), tmp_path) == (["NVIDIA H100 80GB HBM3", "NVIDIA L4"], "550.54.15")
    assert doctor_state.nvidia_gpus(answers("NVIDIA-SMI has failed, as\n", code=9), tmp_path) == ([], "")
    folder = tmp_path / "proc" / "driver" / "nvidia"
    (folder / "gpus" / "0000:01:00.0").mkdir(parents=True)
    (folder / "gpus" / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA A100-PCIE-40GB\nIRQ:   \t\t 42\n")
    (folder / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\n")
    assert doctor_state.nvidia_gpus(absent, tmp_path) == (["NVIDIA A100-PCIE-40GB"], "535.104.05")


def test_tpus_are_googles_devices_that_are_no_network(tmp_path):
    for name, vendor, kind in (("a", "0x1ae0", "0x120000"), ("b", "0x1ae0", "0x020000"), ("c", "0x8086", "0x120000")):
        folder = tmp_path / "sys" / "bus" / "pci" / "devices" / name
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(vendor + "\n")
        (folder / "class").write_text(kind + "\n")
    assert doctor_state.google_devices(tmp_path) == 1 and doctor_state.google_devices(tmp_path / "none") == 0


def test_jax_that_aborts_hangs_or_fails_is_an_error_of_one_line(monkeypatch):
    def error(run):
        return doctor_state.start_jax(run)[0].error

    aborted = (
        "F1128 07:32:34.527185    5093 parse_flags_from_env.cc:234] Unknown flag in XLA_FLAGS: --foo=1\n*** Check\n"
    )
    assert error(answers("", aborted, -6)) == "Unknown flag in XLA_FLAGS: --foo=1"
    assert error(answers("", "Traceback:\n  File\nAssertionError\n", 1)) == "AssertionError"
    assert error(answers("", "", -9)) == "its process ended with -9"

    def hangs(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    assert error(hangs) == "no answer within 180 s"
    monkeypatch.setattr(
        doctor_state, "check_address_space", lambda: (_ for _ in ()).throw(doctor_state.ConfigError("x"))
    )
    assert error(absent) == "x"


def test_devices_and_weights_are_what_the_other_process_writes():
    devices = json.dumps([[["gpu", "NVIDIA L4", 2**34]], True])
    found, weights = doctor_state.start_jax(answers(f'{devices}\n{{"osem": "DataError: cut"}}\n', "a remark\n"))
    assert found == JaxState([Device("gpu", "NVIDIA L4", 2**34)], True, "", "a remark")
    assert weights == {"osem": "DataError: cut"}
    found, weights = doctor_state.start_jax(answers(f"{devices}\n", "ImportError: flax\n", 1))
    assert not found.error and set(weights.values()) == {"ImportError: flax"}


def test_the_cache_is_measured_and_where_it_cannot_be_written_it_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert doctor_state.read_cache() == CacheState(str(tmp_path / "medjax" / "xla"), 0, 0, "")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "medjax" / "xla").mkdir(parents=True)
    (tmp_path / "medjax" / "xla" / "jit_f-1a-cache").write_bytes(b"x" * 50)
    (tmp_path / "medjax" / "xla" / "jit_f-1a-atime").write_bytes(b"x" * 8)
    assert doctor_state.read_cache()[1:] == (1, 58, "")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert doctor_state.read_cache().error == f"is a file: {tmp_path / 'file'}"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "gs://bucket/cache")
    assert doctor_state.read_cache() == CacheState("gs://bucket/cache", 0, 0, "")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(
        Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("Could not determine home directory."))
    )
    assert doctor_state.read_cache().error.startswith("no home directory (Could")


def test_versions_are_those_that_pip_has_installed(monkeypatch):
    requirements = read_requirements()
    assert requirements[0].startswith("Python>=3.") and extras_of(requirements)[:3] == ["cuda12", "cuda13", "tpu"]
    packages = {(one.name, one.by): one for one in required_packages(requirements)}
    assert packages["jax", "medjax"].version == metadata.version("jax") == jax.__version__
    assert packages["jaxlib", "jax"].version == metadata.version("jaxlib")
    assert {one.name for one in extra_packages(requirements, "cuda13")} == {"jax-cuda13-plugin"}
    assert all(map(doctor.fits, packages.values()))
    monkeypatch.setattr(doctor_packages.metadata, "version", lambda name: "0.4" if name == "jaxlib" else "9.9")
    wrong = [
        (one.by, one.name) for one in required_packages(requirements) if one.name == "jaxlib" and not doctor.fits(one)
    ]
    assert ("jax", "jaxlib") in wrong


# ── the command ──


def test_the_exit_code_says_whether_something_is_wrong(monkeypatch):
    for changes, code, words in (({}, 0, "nothing is wrong"), ({"encoding": "latin-1"}, 1, "wrong: the terminal's")):
        monkeypatch.setattr(doctor, "read_state", lambda changes=changes: state(**changes))
        result = CliRunner().invoke(cli.app, ["doctor"])
        assert result.exit_code == code and words in result.stdout.splitlines()[-1]
        result = CliRunner().invoke(cli.app, ["doctor", "--json"])
        assert result.exit_code == code
        assert json.loads(result.stdout)["problems"] == problems(state(**changes))
        assert json.loads(result.stdout)["jax"]["devices"] == [CPU._asdict()]


def test_a_real_installation_in_a_folder_with_a_file_of_the_users(tmp_path, monkeypatch):
    """A file jax.py of the current folder is not taken for JAX."""
    (tmp_path / "jax.py").write_text("raise SystemExit('the wrong file')\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(Path(cli.__file__).parents[2]))
    done = subprocess.run(
        [sys.executable, "-m", "medjax", "doctor", "--json"], cwd=tmp_path, capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    assert done.returncode == (1 if found["problems"] else 0), done.stderr
    assert not found["jax"]["error"] and found["jax"]["devices"][0]["platform"] == jax.default_backend()
    assert found["weights"] == dict.fromkeys(found["weights"], "") and len(found["weights"]) == 3
    assert "demo" in found["experiments"]["bundled"] and found["cache"]["folder"].startswith(str(tmp_path))
    assert not (tmp_path / "cache").exists()

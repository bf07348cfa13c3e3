"""The campaign itself: it tells clean refusals from others; a few of its inputs, and, marked slow, all of it."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.campaign import bad_input, faults, kills
from tests.campaign.__main__ import FINE, attempt_all, cache_of, jobs, parser
from tests.campaign.bad_input import Case, judge, names_cause, snapshot
from tests.campaign.commands import Limits, Outcome, Server
from tests.campaign.damage_kinds import KINDS, damages_of
from tests.campaign.inputs import COMMANDS, command, write_inputs

NAMES = (  # an input of every ending
    "prior.npz scan.npz dwi.nii.gz test.csv dwi.bval logits/case_01.npy images images/case_03.png "
    "Dataset004_Hippocampus/dataset.json scan.l scan.l.hdr sinogram.s"
)
REFUSED = Outcome(2, "", "medjax: scan.npz: no such file; expected counts\n", 0.5, 0.5, 2**28)
CASE = Case(command("pet reconstruct scan.npz -o image.nii.gz", "scan.npz"), "scan.npz", "missing", ("x",), seed=1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"code": 0, "err": ""}, "accepted"),
        ({"code": 1}, "exit code 1"),
        ({"code": -9, "seconds": 20.0}, "hang"),
        ({"peak_bytes": 5 * 2**30}, "memory"),
        ({"err": "Traceback (most recent call last):\nValueError: scan.npz"}, "traceback: ValueError"),
        ({"err": "a warning\nmedjax: scan.npz: no such file\n"}, "2 lines"),
        ({"err": "medjax: something is wrong\n"}, "does not name the cause"),
    ],
)
def test_what_is_clean(change: dict, reason: str) -> None:
    found = judge(CASE, REFUSED._replace(**change), {}, {})
    assert found.startswith(reason) and bool(found) == bool(reason)


def test_what_is_left_behind_is_no_clean_refusal() -> None:
    assert judge(CASE, REFUSED, {"a": "1"}, {"a": "1"}) == ""
    assert judge(CASE, REFUSED, {"a": "1"}, {"a": "2"}) == "left behind: a"
    assert judge(CASE, REFUSED, {}, {"model": "folder"}) == "left behind: model"


def test_every_kind_of_damage_changes_an_input(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    write_inputs(inputs)
    seen = set[str]()
    for name in NAMES.split():
        for kind in damages_of(inputs / name):
            if "bomb" in kind.name:  # of 6 GB
                continue
            path = tmp_path / "one" / Path(name).name
            path.parent.mkdir(exist_ok=True)
            if (inputs / name).is_dir():
                shutil.copytree(inputs / name, path)
            else:
                shutil.copy(inputs / name, path)
            before = snapshot(path.parent)
            kind.damage(path, np.random.default_rng(3))
            if snapshot(path.parent) != before:
                seen.add(kind.name)
            shutil.rmtree(path.parent)
    unchanged = {kind.name for kind in KINDS if "bomb" not in kind.name} - seen
    assert not {name for name in unchanged if "old_mac" not in name}, unchanged


def test_every_command_has_a_case_for_every_option() -> None:
    names = {one.command.name for one in bad_input.option_cases()}
    assert names == {one.name for one in COMMANDS} and len(names) > 15
    targets = {case.target for case in bad_input.option_cases() if case.command.name == "ivim fit"}
    assert {"--threshold", "--bvals", "--mask", "--bounds"} <= targets
    case = next(case for case in bad_input.option_cases() if case.target == "--threshold" and case.kind == "nan")
    assert case.arguments[-2:] == ("--threshold", "nan")
    assert names_cause(case, "medjax: --threshold nan; expected") and not names_cause(case, "medjax: no")


def test_commands_in_processes_of_their_own(tmp_path: Path) -> None:
    """Exit code and output; what takes too long or too much is killed; a hundredth of the campaign, without models."""
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    write_inputs(inputs)
    with Server() as server:
        assert server.run(["--version"], tmp_path).out.startswith("medjax ")
        long = ["ivim", "fit", "dwi.nii.gz", "--bvals", "dwi.bval", "-o", "maps"]
        late = server.run(long, inputs, Limits(seconds=0.1))
        assert late.code == -9 and late.reason.startswith("hang")
        large = server.run(long, inputs, Limits(bytes=2**20))
        assert large.code == -9
        own = [one for one in COMMANDS if one.name == "register points"]
        cases = [case for case in bad_input.file_cases(inputs, 0) if case.command in own and not case.harmless]
        assert len(cases) > 15
        for number, case in enumerate(cases):
            found = bad_input.attempt(server, case, inputs, tmp_path / f"case_{number}")
            assert found.reason in FINE, found


@pytest.mark.slow
@pytest.mark.parametrize("part", ["input", "kills", "faults"])
def test_the_whole_campaign(part: str, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    with Server(cache_of(inputs)) as server:
        bad_input.make_inputs(inputs, server)
    every = jobs(part, inputs, parser().parse_args([]))
    assert len(every) >= {"input": 1000, "kills": len(kills.TOOLS) + 10, "faults": 8 * len(faults.commands())}[part]
    found = attempt_all(every, tmp_path / part, cache_of(inputs), 2, None)
    assert not [one for one in found if one.reason not in FINE]

"""Kills at random moments: a command that is started again ends with the results of one that was left alone."""

import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.campaign.bad_input import snapshot
from tests.campaign.commands import ROOT, Limits, Server

VARIES = {"timings.json", "environment.json", "report.html", "metrics.jsonl", ".lock", "frames.json"}
INNER = {"checkpoints", "checkpoint", "__pycache__"}  # folders of what is kept to resume
LONG = Limits(seconds=3600, bytes=2**50)
TOOLS = [
    "pet train-prior subject_1.nii.gz subject_2.nii.gz --size 16 --steps 40 --batch 2 --network brief.py:levels "
    "-o trained",
    "pet reconstruct scan.npz --iterations 6 --subsets 3 --size 24 --voxel-mm 11 -o image.nii.gz",
    "ivim fit dwi.nii.gz --bvals dwi.bval -o maps",
    "segment train Dataset004_Hippocampus -o model --network brief.py:pointwise --patch 8,8,8 --epochs 6 "
    "--iterations 3",
    "segment predict trained_model Dataset004_Hippocampus/imagesTr --network brief.py:pointwise -o new",
    "labels audit images masks --size 16 --epochs 8 --network brief.py:pointwise -o audited",
    "shortcuts audit --ts ts.npz --ba ba.npz --sa sa.npz --images images.npz --regions grid:7x7 -o audited",
    "shortcuts fairness test.csv --score p --attribute sex -o fairness",
    "run mine:small --workdir again",
    "sweep mine:tiny --over seed=0,1,2 --workdir swept",
    "precision scan.csv rescan.csv --truth truth.csv --resamples 200 -o precise",
    "register images fixed.nii.gz moving.nii.gz --iterations 3,3,3 --field field_2.nii.gz -o warped.nii.gz",
]


class Survival(NamedTuple):
    """What came of a command that was killed."""

    title: str
    kills: int
    seconds: float  # of the run that was left alone
    reason: str  # why it did not survive; empty: it did


def experiments() -> list[str]:
    """The tiny preset of every experiment."""
    names = sorted(file.stem for file in (ROOT / "experiments").glob("*.py") if not file.stem.startswith("_"))
    return [f"run {name}:tiny --experiments {ROOT} --workdir killed" for name in names]


def survive(server: Server, arguments: Sequence[str], inputs: Path, folder: Path, kills: int, seed: int) -> Survival:
    """Run a command alone, then one that is killed several times, and compare what both leave."""
    title = " ".join(arguments[:2])
    alone, killed = folder / "alone", folder / "killed"
    folder.mkdir()
    for one in (alone, killed):
        shutil.copytree(inputs, one, symlinks=True)
    try:
        first = server.run(arguments, alone, LONG)
        if first.code:
            return Survival(title, 0, first.seconds, f"fails alone: {first.err[-300:]}")
        random = np.random.default_rng([seed, zlib.crc32(title.encode())])
        done, span = 0, first.seconds
        for _ in range(4 * kills):
            outcome = server.run(arguments, killed, LONG._replace(kill_after=span * float(random.random())))
            if outcome.code not in (0, -9):
                return Survival(title, done, first.seconds, f"after {done} kills: {outcome.err[-300:]}")
            done += outcome.code == -9
            if done == kills:
                break
            if outcome.code == 0:  # it ended before, for programs are compiled by now: anew, and killed earlier
                if unlike := difference(alone, killed):
                    return Survival(title, done, first.seconds, unlike)
                span /= 2
                shutil.rmtree(killed)
                shutil.copytree(inputs, killed, symlinks=True)
        last = server.run(arguments, killed, LONG)
        if last.code:
            return Survival(title, done, first.seconds, f"after {done} kills: {last.err[-300:]}")
        return Survival(title, done, first.seconds, difference(alone, killed))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def difference(alone: Path, killed: Path) -> str:
    """First files that differ, or that one of the folders has alone; empty: none."""
    kept = [
        {name: value for name, value in snapshot(one).items() if not (VARIES | INNER) & {*Path(name).parts}}
        for one in (alone, killed)
    ]
    names = sorted(name for name in kept[0] | kept[1] if kept[0].get(name) != kept[1].get(name))
    return f"differ: {', '.join(names[:4])}" if names else ""

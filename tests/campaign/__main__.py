"""The campaign: bad input, kills and faults over every command, with counts.

scripts/campaign input      damaged files and absurd options
scripts/campaign kills      commands and experiments that are killed and started again
scripts/campaign faults     full disk, read-only folder, no home, damaged cache, little memory
scripts/campaign            all of them
"""

import argparse
import json
import queue
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaign import bad_input, faults, kills
from tests.campaign.commands import Server

PARTS = ("input", "kills", "faults")
FINE = ("", "valid")  # reasons of what is clean, or of input that may be valid


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="scripts/campaign", description=__doc__.partition("\n")[0])
    found.add_argument("part", nargs="*", default=PARTS, help=f"{', '.join(PARTS)} (default: all).")
    found.add_argument("--seed", type=int, default=0, help="Seed of damages and kills.")
    found.add_argument("--match", default="", help="Only what has this in its title.")
    found.add_argument("--share", type=float, default=1.0, help="Share of them, drawn by the seed.")
    found.add_argument("--kills", type=int, default=3, help="Kills of each command.")
    found.add_argument("--processes", type=int, default=2, help="Commands at once.")
    found.add_argument("--inputs", type=Path, help="Folder of valid inputs, made if absent and kept.")
    found.add_argument("--again", type=Path, help="Only what was not fine in this file of findings (--out).")
    found.add_argument("--out", type=Path, help="File of all findings, JSON lines.")
    return found


def main() -> int:
    given = parser().parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        inputs = given.inputs or folder / "inputs"
        if not inputs.exists():
            with Server(cache_of(inputs)) as server:
                bad_input.make_inputs(inputs, server)
        failed = 0
        for part in given.part:
            found = attempt_all(jobs(part, inputs, given), folder / part, cache_of(inputs), given.processes, given.out)
            failed += report(part, found)
    return int(failed > 0)


Job = tuple[str, Callable[[Server, Path], Any]]  # title, and what a server does in a folder


def jobs(part: str, inputs: Path, given: argparse.Namespace) -> list[Job]:
    """What a part of the campaign tries."""
    if part == "input":
        every = [
            (case.title, lambda server, folder, case=case: bad_input.attempt(server, case, inputs, folder))
            for case in bad_input.cases(inputs, given.seed)
        ]
    elif part == "kills":
        every = [
            (
                text,
                lambda server, folder, text=text: kills.survive(
                    server, text.split(), inputs, folder, given.kills, given.seed
                ),
            )
            for text in [*kills.TOOLS, *kills.experiments()]
        ]
    else:
        every = [
            (
                f"{one.name}: {fault.name}",
                lambda server, folder, one=one, fault=fault: faults.meet(
                    server, fault, one, inputs, cache_of(inputs), folder
                ),
            )
            for fault in faults.FAULTS
            for one in faults.commands()
        ]
        every += [
            (
                f"{one.name}: two writers",
                lambda server, folder, one=one: faults.write_twice(server, one, inputs, cache_of(inputs), folder),
            )
            for one in faults.commands()
        ]
    random = np.random.default_rng(given.seed)
    drawn = [job for job in every if random.random() < given.share and given.match in job[0]]
    if given.again is None:
        return drawn
    lines = [json.loads(line) for line in given.again.read_text().splitlines()]
    again = {line["title"] for line in lines if line["reason"] not in FINE}
    return [job for job in drawn if job[0] in again]


def cache_of(inputs: Path) -> Path:
    """Folder of the campaign's compilation cache."""
    return inputs.with_name(f"{inputs.name}_cache")


def attempt_all(wanted: Sequence[Job], folder: Path, cache: Path, processes: int, out: Path | None) -> list[Any]:
    """What came of all jobs, several at once; a line is printed of what is not fine, and written to `out` of each."""
    folder.mkdir()
    folder.chmod(0o755)
    waiting: queue.Queue[tuple[int, Job]] = queue.Queue()
    for item in enumerate(wanted):
        waiting.put(item)
    found: dict[int, Any] = {}
    lock = threading.Lock()

    def work() -> None:
        with Server(cache) as server:
            while True:
                try:
                    number, (_, do) = waiting.get_nowait()
                except queue.Empty:
                    return
                one = do(server, folder / f"case_{number}")
                with lock:
                    found[number] = one
                    if one.reason not in FINE:
                        print(f"[{len(found)}/{len(wanted)}] {one.title}: {one.reason}", flush=True)
                    elif len(found) % 100 == 0:
                        print(f"[{len(found)}/{len(wanted)}]", flush=True)
                    if out:
                        with out.open("a") as file:
                            file.write(json.dumps(one._asdict()) + "\n")

    with ThreadPoolExecutor(processes) as pool:
        for worker in [pool.submit(work) for _ in range(processes)]:
            worker.result()
    return [found[number] for number in sorted(found)]


def report(part: str, found: Sequence[Any]) -> int:
    """Print the counts of a part; returns how many were not fine."""
    counts = Counter(one.reason.split(":")[0] or "clean" for one in found)
    print(f"{part}: {len(found)} tried; " + ", ".join(f"{number} {reason}" for reason, number in counts.most_common()))
    return sum(one.reason not in FINE for one in found)


if __name__ == "__main__":
    sys.exit(main())

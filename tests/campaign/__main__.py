"""Run the campaign and print its counts: `scripts/campaign [--seed N] [--match TEXT] [--limit N] [--out FILE.json]`."""

import argparse
import json
import queue
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

from tests.campaign.bad_input import Case, Finding, attempt, cases, make_inputs
from tests.campaign.commands import Server


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="Seed of the damages.")
    parser.add_argument("--match", default="", help="Only cases whose title has this.")
    parser.add_argument("--limit", type=int, help="Only so many cases.")
    parser.add_argument("--processes", type=int, default=2, help="Commands at once.")
    parser.add_argument("--inputs", type=Path, help="Folder of valid inputs to keep (made if absent).")
    parser.add_argument("--out", type=Path, help="File for the findings, JSON lines.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        inputs = given.inputs or Path(folder) / "inputs"
        if not inputs.exists():
            with Server() as server:
                make_inputs(inputs, server)
        wanted = [case for case in cases(inputs, given.seed) if given.match in case.title][: given.limit]
        findings = run(wanted, inputs, Path(folder), given.processes)
    if given.out:
        given.out.write_text("".join(json.dumps(one._asdict()) + "\n" for one in findings))
    return report(findings)


def run(wanted: list[Case], inputs: Path, folder: Path, processes: int) -> list[Finding]:
    """All cases, several at once."""
    waiting: queue.Queue[tuple[int, Case]] = queue.Queue()
    for item in enumerate(wanted):
        waiting.put(item)
    findings: dict[int, Finding] = {}

    def work() -> None:
        with Server() as server:
            while True:
                try:
                    number, case = waiting.get_nowait()
                except queue.Empty:
                    return
                findings[number] = found = attempt(server, case, inputs, folder / f"case_{number}")
                if found.reason not in ("", "valid"):
                    print(f"[{len(findings)}/{len(wanted)}] {found.title}: {found.reason}", flush=True)

    threads = [threading.Thread(target=work) for _ in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [findings[number] for number in sorted(findings)]


def report(findings: list[Finding]) -> int:
    counts = Counter(one.reason.split(":")[0] or "clean" for one in findings)
    print(f"{len(findings)} inputs: " + ", ".join(f"{number} {reason}" for reason, number in counts.most_common()))
    return int(any(one.reason not in ("", "valid") for one in findings))


if __name__ == "__main__":
    sys.exit(main())

"""Compare the metrics of work directories: largest relative differences.

    python scripts/compare_metrics.py OLD NEW              two work directories, or folders of them
    python scripts/compare_metrics.py NEW                  against scripts/tiny_metrics.json, kept of `tiny` runs
    python scripts/compare_metrics.py --keep DIR           write that file from a folder of work directories

A refactor changes no number: before one, keep the metrics; after it, run every experiment's `tiny` preset into
DIR/EXPERIMENT and compare. Numbers are of one kind of machine: another processor or number of cores differs in the last
digits, and what is learnt from them in more.
"""

import json
import sys
from pathlib import Path

KEPT = Path(__file__).with_name("tiny_metrics.json")
Metrics = dict[str, float | None]


def read(folder: Path) -> dict[str, Metrics]:
    """Metrics by name of the run: of the folder itself, or of those in it."""
    files = [folder / "metrics.json"] if (folder / "metrics.json").is_file() else sorted(folder.glob("*/metrics.json"))
    return {file.parent.name: json.loads(file.read_text()) for file in files}


def difference(old: float | None, new: float | None) -> float:
    """|new − old| / |old|; 0 where both are unknown, infinite where one is."""
    if old is None or new is None:
        return 0.0 if old is new else float("inf")
    return 0.0 if new == old else abs(new - old) / max(abs(old), 1e-12)


def row(name: str, old: Metrics, new: Metrics) -> str:
    """A line of the table."""
    shared = sorted(old.keys() & new.keys(), key=lambda key: -difference(old[key], new[key]))
    differences = [difference(old[key], new[key]) for key in shared]
    odd = len(old.keys() ^ new.keys())
    above = sum(value > 1e-5 for value in differences)
    worst = f"{differences[0]:.1e} (`{shared[0]}`)" if differences and differences[0] > 0 else "0"
    return f"| `{name}` | {len(shared)} | {odd} | {worst} | {above} |"


def main() -> None:
    """Compare, or keep."""
    if sys.argv[1] == "--keep":
        KEPT.write_text(json.dumps(read(Path(sys.argv[2])), indent=0) + "\n")
        return
    folders = [read(Path(name)) for name in sys.argv[1:]]
    old, new = folders if len(folders) == 2 else (json.loads(KEPT.read_text()), folders[0])
    print("| run | metrics | in one only | largest relative difference | above 1e-5 |\n|---|---|---|---|---|")
    pairs = (
        zip(old.values(), new.values(), strict=True) if len(old) == len(new) == 1 else ((old[n], new[n]) for n in new)
    )
    for name, (before, after) in zip(new, pairs, strict=True):
        print(row(name, before, after))


if __name__ == "__main__":
    main()

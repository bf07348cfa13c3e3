"""How often good frames are called outliers, and corrupted ones found, in simulated scans of known truth.

    python scripts/outlier_rates_ivim.py [--repeats 40]

Clean scans: three tissues (bi-exponential, tri-exponential, kurtosis: the last two are no bi-exponentials), three SNR
and four protocols, of 8 and 400 voxels, Rician noise; one more is free of noise. Corrupted ones: one frame that keeps
a fraction of its signal, everywhere or in a random half of ten slices; `others` are good frames called outliers beside
it.
"""

import argparse
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from medjax.ivim.outliers import outlier_frames

PROTOCOLS = {
    "16 b, to 800": (0, 10, 20, 30, 40, 50, 75, 100, 150, 200, 250, 300, 400, 500, 600, 800),
    "10 b, to 1000": (0, 10, 30, 50, 75, 100, 200, 400, 700, 1000),
    "8 b, to 800": (0, 20, 50, 100, 200, 400, 600, 800),
    "6 b thrice, to 600": (*(0, 50, 100, 200, 400, 600),) * 3,
}
TISSUES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "bi-exponential": lambda b: 0.7 * np.exp(-b * 1.7e-3) + 0.3 * np.exp(-b * 22e-3),
    "tri-exponential": lambda b: 0.65 * np.exp(-b * 1e-3) + 0.2 * np.exp(-b * 8e-3) + 0.15 * np.exp(-b * 0.15),
    "kurtosis": lambda b: 0.85 * np.exp(-b * 1.2e-3 + (b * 1.2e-3) ** 2 / 6) + 0.15 * np.exp(-b * 20e-3),
}
SNRS = (20.0, 50.0, 200.0)
SLICES = 10
CONSOLE = Console(width=140)


def scan(rng: np.random.Generator, tissue: str, b: np.ndarray, snr: float, voxels: int) -> np.ndarray:
    """Magnitudes (frame, voxel) of a region whose signal at b = 0 varies by 30 % either way."""
    clean = TISSUES[tissue](b)[:, None] * rng.uniform(0.7, 1.3, voxels)
    real, imaginary = rng.normal(size=(2, *clean.shape)) / snr
    return np.hypot(clean + real, imaginary).astype(np.float32)


def false_alarms(repeats: int) -> None:
    """Print the fraction of good frames that are called outliers, in scans without a corrupted one."""
    table = Table("protocol", "voxels", "SNR", *TISSUES, title="good frames called outliers, clean scans")
    total = np.zeros(2, int)
    for name, protocol in PROTOCOLS.items():
        b = np.array(protocol, np.float32)
        for voxels in (8, 400):
            for snr in (*SNRS, np.inf):
                cells = []
                for tissue in TISSUES:
                    rng = np.random.default_rng(0)
                    slices = np.arange(voxels) % SLICES
                    counts = [
                        outlier_frames(scan(rng, tissue, b, snr, voxels), b, slices=slices).sum()
                        for _ in range(repeats if np.isfinite(snr) else 1)
                    ]
                    total += int(np.sum(counts)), len(counts) * len(b)
                    cells.append(f"{np.sum(counts)} of {len(counts) * len(b)}")
                table.add_row(name, str(voxels), f"{snr:g}", *cells)
    CONSOLE.print(table)
    CONSOLE.print(f"in all {total[0]} of {total[1]} good frames: {total[0] / total[1]:.3%}")


def detections(repeats: int, voxels: int = 400) -> None:
    """Print the fraction of corrupted frames that are found, by what is left of their signal, and others called so."""
    left = (0.95, 0.9, 0.85, 0.8, 0.7, 0.5, 1.2, 1.5)
    kinds = {"lowest b": 0, "second b": 1, "middle b": 5, "highest b": 9, "middle b, half of the slices": 5}
    b = np.array(PROTOCOLS["10 b, to 1000"], np.float32)
    slices = np.arange(voxels) % SLICES
    for tissue in TISSUES:
        for snr in (20.0, 50.0):
            table = Table("frame", *(f"× {one:g}" for one in left), "others", title=f"found; {tissue}, SNR {snr:g}")
            for kind, frame in kinds.items():
                rng = np.random.default_rng(1)
                found, others = np.zeros(len(left)), 0
                for column, factor in enumerate(left):
                    for _ in range(repeats):
                        y = scan(rng, tissue, b, snr, voxels)
                        half = np.isin(slices, rng.permutation(SLICES)[: SLICES // 2])
                        y[frame] *= np.where(half, factor, 1.0) if "half" in kind else factor
                        outliers = outlier_frames(y, b, slices=slices)
                        found[column] += outliers[frame]
                        others += int(outliers.sum() - outliers[frame])
                cells = [f"{one / repeats:.0%}" for one in found]
                table.add_row(kind, *cells, f"{others} of {repeats * len(left) * (len(b) - 1)}")
            CONSOLE.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40)
    repeats = parser.parse_args().repeats
    false_alarms(repeats)
    detections(repeats)


if __name__ == "__main__":
    main()

"""How the number of samples and the definition of overlap decide what scan–rescan figures say: no model, no patient.

    python scripts/precision_sample_size.py [--subjects 4000] [--seed 0]

Samples of a scan are normal with standard deviation 1 about a mean that shifts from scan to scan with standard
deviation τ. Printed: fraction of subjects whose 95 % intervals overlap by more than half, and fraction with p < 0.05,
not adjusted; in brackets an earlier, independent simulation of the same model, where there is one. Sample k of both
scans is no common draw here, so pairing means nothing: the paired test stands for comparison.
"""

import argparse

import numpy as np

from medjax.uncertainty.sample_intervals import KINDS, OVERLAPS, interval_overlap, intervals
from medjax.uncertainty.sample_tests import scan_rescan_tests

COLUMNS = [f"{kind}/{overlap}" for kind in KINDS for overlap in OVERLAPS] + ["welch", "mann_whitney", "ks", "paired"]
EARLIER_COLUMNS = "percentile/iou", "percentile/shorter", "percentile/dice", "mean/iou", *COLUMNS[-4:]
EARLIER = {
    (0.0, 5): (0.54, 0.92, 0.81, 0.60, 0.05, 0.03, 0.01, 0.05),
    (0.0, 50): (1.0, 1.0, 1.0, 0.66, 0.05, 0.05, 0.06, 0.05),
    (0.5, 5): (0.42, 0.80, 0.68, 0.47, 0.17, 0.10, 0.04, 0.14),
    (0.5, 50): (0.88, 0.99, 0.98, 0.21, 0.59, 0.58, 0.53, 0.58),
    (1.0, 10): (0.43, 0.71, 0.65, 0.24, 0.53, 0.49, 0.34, 0.51),
    (1.0, 20): (0.52, 0.77, 0.72, 0.16, 0.66, 0.60, 0.56, 0.66),
    (2.0, 20): (0.30, 0.47, 0.43, 0.09, 0.82, 0.78, 0.71, 0.81),
}


def figures(seed: int, subjects: int, tau: float, samples: int) -> dict[str, float]:
    """Fractions of simulated subjects."""
    rng = np.random.default_rng((seed, samples, round(10 * tau)))
    scan, rescan = rng.normal(rng.normal(0, tau, (2, subjects, 1)), 1.0, (2, subjects, samples))
    found = dict[str, float]()
    for kind in KINDS:
        a, b = intervals(scan, kind), intervals(rescan, kind)
        for overlap in OVERLAPS:
            found[f"{kind}/{overlap}"] = float(np.mean(interval_overlap(a, b, overlap) > 0.5))
    tests = scan_rescan_tests(scan, rescan)
    return found | {name: float(np.mean(p < 0.05)) for name, p in tests.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=4000, help="Number of simulated subjects.")
    parser.add_argument("--seed", type=int, default=0, help="Random seed.")
    args = parser.parse_args()
    print("| τ | N | " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * (len(COLUMNS) + 2))
    for (tau, samples), values in EARLIER.items():
        found = figures(args.seed, args.subjects, tau, samples)
        earlier = {name: f" ({value:.2f})" for name, value in zip(EARLIER_COLUMNS, values, strict=True)}
        cells = [f"{found[name]:.2f}{earlier.get(name, '')}" for name in COLUMNS]
        print(f"| {tau:g} | {samples} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

"""Accuracy of bi-exponential fits against references: OSIPI's signals, the Cramér–Rao bound, a published cord's maps.

    python scripts/accuracy_ivim.py [--osipi generic.json] [--cord DIR] [--figure cord.png]

`generic.json`: the saved reference signals of OSIPI's TF2.4 IVIM collection. `DIR`: the human spinal cord of
ivim-toolbox's test data (Lévy et al., MRM 2020): dwi_rl.nii.gz, bval_rl.txt, cord_seg_dilated.nii.gz and
ref_rl_{Fivim,D,Dstar}.nii.gz. Without them only the Monte-Carlo comparison with the Cramér–Rao bound is made.
"""

import argparse
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from medjax.io.bvalues import read_bvalues
from medjax.io.nifti import read_nifti, read_nifti_series
from medjax.ivim.fit import fit
from medjax.ivim.information import cramer_rao
from medjax.ivim.maps import maps, volume
from medjax.ivim.signal import Ivim, signal
from medjax.metrics.agreement import bland_altman
from medjax.report.figures import Scale, montage, write_png

LUNG = (1.0, 0.32, 1.7e-3, 22e-3)
PROTOCOLS = {
    "16 b, to 800": (0, 10, 20, 30, 40, 50, 75, 100, 150, 200, 250, 300, 400, 500, 600, 800),
    "10 b, to 1000": (0, 10, 30, 50, 75, 100, 200, 400, 700, 1000),
    "6 b, to 600": (0, 50, 100, 200, 400, 600),
}
CONSOLE = Console()


def osipi(file: Path) -> None:
    """Print the errors of f, D and D* of each tissue."""
    tissues = json.loads(file.read_text())
    bvalues = jnp.asarray(tissues.pop("config")["bvalues"], jnp.float32)
    y = jnp.asarray(np.stack([one["data"] for one in tissues.values()], 1), jnp.float32)
    found = fit(y, bvalues).parameters
    table = Table("tissue", "f", "error", "D", "error", "D*", "error", title="OSIPI's generic signals")
    for k, (name, one) in enumerate(tissues.items()):
        f, d, fast = (float(p[k]) for p in found[1:])
        off = f"{f - one['f']:+.4f}", f"{d / one['D'] - 1:+.2%}", f"{fast / one['Dp'] - 1:+.2%}"
        table.add_row(name, f"{one['f']:g}", off[0], f"{one['D']:g}", off[1], f"{one['Dp']:g}", off[2])
    CONSOLE.print(table)


def precision(voxels: int = 16_384) -> None:
    """Standard deviation over noise, relative to the bound: half the span of the middle 68 %, and plain."""
    table = Table(
        "protocol", "SNR", *(f"{name} {what}" for name in ("f", "D", "D*") for what in ("CV of bound", "sd/bound"))
    )
    for name, bvalues in PROTOCOLS.items():
        b = jnp.asarray(bvalues, jnp.float32)
        for snr in (20, 50, 200):
            truth = Ivim(*(np.full(voxels, value, np.float32) for value in LUNG))
            noise = np.random.default_rng(0).normal(size=(len(bvalues), voxels)) / snr
            found = fit(jnp.asarray(np.asarray(signal(truth, b)) + noise, jnp.float32), b, steps=40).parameters
            bound = cramer_rao(Ivim(*(p[:1] for p in truth)), b, 1 / snr)
            cells: list[str] = []
            for value, limit, true in zip(found[1:], bound[1:], LUNG[1:], strict=True):
                low, high = np.quantile(np.asarray(value), (0.1587, 0.8413))
                robust, plain = (high - low) / 2 / float(limit[0]), float(np.std(value)) / float(limit[0])
                cells += [f"{float(limit[0]) / true:.0%}", f"{robust:.2f} ({plain:.2f})"]
            table.add_row(name, str(snr), *cells)
    CONSOLE.print(table)


def cord(folder: Path, figure: Path | None) -> None:
    """Compare maps of the cord with the authors', in their mask."""
    series, bvalues = read_nifti_series(folder / "dwi_rl.nii.gz"), read_bvalues(folder / "bval_rl.txt")
    inside = read_nifti(folder / "cord_seg_dilated.nii.gz").array > 0
    names = {"f": "Fivim", "D": "D", "D*": "Dstar"}
    theirs = {name: read_nifti(folder / f"ref_rl_{file}.nii.gz").array for name, file in names.items()}
    table = Table("fit", "map", "ours", "theirs", "r", "ρ", "bias", "limits", title=f"{inside.sum()} voxels")
    images: dict[str, np.ndarray] = {}
    signals = series.array[inside].T
    fits = {
        "segmented, from 500": maps(signals, bvalues, method="segmented", threshold=500.0),
        "full": maps(signals, bvalues),
    }
    for label, one in fits.items():
        found = one.parameters
        for ours, (name, reference) in zip(found[1:], theirs.items(), strict=True):
            x, y = np.asarray(ours, float), reference[inside].astype(float)
            limits = bland_altman(x, y)
            row = [f"{np.median(x):.3g}", f"{np.median(y):.3g}", f"{np.corrcoef(x, y)[0, 1]:.2f}"]
            row += [
                f"{stats.spearmanr(x, y)[0]:.2f}",
                f"{limits.bias:.3g}",
                f"{limits.lower:.3g} to {limits.upper:.3g}",
            ]
            table.add_row(label, name, *row)
            if label != "full":
                images |= {f"{name}, ours": volume(x.astype(np.float32), inside), f"{name}, authors'": reference}
    CONSOLE.print(table)
    if figure:
        scales = {"f": Scale("f", "inferno", 0.0, 1.0), "D": Scale("D, mm²/s", "magma", 0.0, 3e-3)}
        scales["D*"] = Scale("D*, mm²/s", "inferno", 0.0, 0.05)
        chosen = {name: scales[name.split(",")[0]] for name in images}
        first = next(iter(chosen.values()))
        write_png(figure, montage(images, series.affine, scale=first, other_scales=chosen))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--osipi", "--cord", "--figure"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    if options.osipi:
        osipi(options.osipi)
    precision()
    if options.cord:
        cord(options.cord, options.figure)


if __name__ == "__main__":
    main()

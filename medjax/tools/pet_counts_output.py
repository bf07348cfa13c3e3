"""Files of simulated PET counts, by the name's suffix: counts file, Interfile or PETSIRD; and the truth beside them."""

import warnings
from collections.abc import Mapping
from pathlib import Path

from medjax.atomic import replacing_together
from medjax.io.counts import Counts, write_counts
from medjax.io.nifti import Volume, resample, write_nifti
from medjax.io.petsird import write_petsird
from medjax.pet.interfile_counts import interfile_names, write_interfile_counts
from medjax.pet.petsird_simulation import check_petsird, petsird_header, time_blocks
from medjax.pet.plane_metadata import read_michelogram, read_tof
from medjax.pet.scanner import Scanner
from medjax.tools.checks import check_output, check_output_files

LIST_MODE = (".petsird", ".ndjson")
SUFFIXES = (".npz", ".hs", *LIST_MODE)
CORRECTED = ("attenuation", "normalisation")  # what the factors of a simulation hold


def check_counts_output(output: Path) -> list[Path]:
    """Check that counts can be written there; the files that will be.

    Raises:
        DataError, OSError: as `check_output`.
    """
    check_output(output, SUFFIXES)
    files = interfile_names(output) if output.suffix == ".hs" else [output]
    check_output_files(files)
    return files


def write_simulation(
    output: Path | None, truths: Mapping[Path, Volume | None], counts: Counts, scanner: Scanner
) -> tuple[Path, ...]:
    """Write counts, and images of the truth on the grid of their truth, all or none; the files written.

    What else lies in the folder of the truth stays; of an image that this object has not (`None`) but that is there,
    one line says so.

    Args:
        output: file of the counts; None: none.
        truths: images of the truth by the file to write.
        counts: simulated counts.
        scanner: scanner of as many rings as the planes have.

    Raises:
        ConfigError, DataError, OSError: see the writers.
    """
    files = [] if output is None else check_counts_output(output)
    images = {path: volume for path, volume in truths.items() if volume is not None}
    for folder in {path.parent for path in truths}:
        folder.mkdir(parents=True, exist_ok=True)
    with replacing_together(*files, *images) as parts:
        if files:
            _write_counts(parts[0], counts, scanner)
        for part, image in zip(parts[len(files) :], images.values(), strict=True):
            if counts.truth is not None and counts.affine is not None:
                write_nifti(part, resample(image, counts.truth.shape, counts.affine).array, counts.affine)
    for path in truths:
        if path not in images and path.exists():
            warnings.warn(f"{path}: was there before, not of this simulation; it stays", stacklevel=3)
    return (*files, *images)


def reconstruction_command(output: Path, counts: Counts, mu: Path | None) -> list[str]:
    """The command line that reconstructs the image of the counts on the grid of their truth.

    Args:
        output: file of the counts.
        counts: simulated counts.
        mu: μ-map of list mode, which has no factors; None: none.
    """
    command = ["medjax", "pet", "reconstruct", str(output)]
    if output.suffix != ".npz":
        if output.suffix == ".hs":
            command += ["--scanner", counts.scanner]
            for header in interfile_names(output)[2::2]:
                command += [f"--{header.stem.rpartition('_')[2]}", str(header)]
        elif mu is not None:
            command += ["--mu", str(mu)]
        command += [f"--centre={','.join(f'{one:g}' for one in counts.metadata['centre_mm'])}"]
        if counts.truth is not None and counts.affine is not None:
            command += ["--size", str(counts.truth.shape[0]), "--voxel-mm", f"{counts.affine[0, 0]:g}"]
    return [*command, "-o", str(output.with_suffix(".nii.gz"))]


def _write_counts(part: Path, counts: Counts, scanner: Scanner) -> None:
    if part.suffix == ".npz":
        write_counts(part, counts)
        return
    if part.suffix == ".hs":
        write_interfile_counts(part, counts, scanner, corrections=CORRECTED)
        return
    planes = check_petsird(scanner, read_michelogram("counts", counts.metadata, counts.counts.shape[2]))
    tof = read_tof("counts", counts.metadata, counts.counts.shape[3] if counts.counts.ndim == 4 else None)
    header = petsird_header(scanner, planes, tof, float(counts.metadata["scale"]))
    seed = int(counts.metadata["seed"])
    write_petsird(part, header, time_blocks(seed, counts.counts, counts.additive, scanner, planes))

"""PETSIRD list mode of simulated counts: the header of a cylindrical scanner, and time blocks of its coincidences.

Detecting elements are the crystals, virtual ones (in the gaps between blocks) with an efficiency of 0. A module is a
block of crystals around the ring × some rings. The efficiency of a coincidence is calibration · ε₁ ε₂ g; g is 1 for
pairs of crystals that a bin of the sinogram has, else 0. Its time-of-flight bins grow towards the second crystal, and
PETSIRD's t₁ − t₂ does too; the detection bin of the higher number comes first.

Source: the definition of PETSIRD (ETSI), version 0.12.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from medjax.errors import ConfigError
from medjax.io.petsird import Coincidences, TimeBlock, petsird_package
from medjax.memory import check_memory
from medjax.pet.michelogram import Michelogram
from medjax.pet.randoms import bin_crystals
from medjax.pet.scanner import Scanner, real_rings
from medjax.pet.tof import MM_PER_PS, Tof

BLOCKS, BLOCK_MS = 100, 1000  # time blocks of a scan, and their length
SIMULATION = "simulated by medjax"  # in the name of the scanner
MAX_SIDE = 16  # crystals or rings of a module
ENERGY_KEV, ENERGY_RESOLUTION = (430.0, 610.0), 0.145  # window, and full width at half maximum at 511 keV


def check_petsird(scanner: Scanner, michelogram: Michelogram | None) -> Michelogram:
    """The Michelogram of a sinogram each of whose bins is a pair of crystals; `None`: direct planes.

    Raises:
        ConfigError: it sums several.
        DataError: the package petsird is missing.
    """
    if michelogram is None or int(michelogram.ring_pairs.max()) > 1:
        raise ConfigError(
            "PETSIRD list mode has coincidences of single pairs of crystals, which direct planes and planes of a span "
            "above 1 sum; expected --span 1"
        )
    if scanner.mash > 1:
        raise ConfigError(
            f"PETSIRD list mode has coincidences of single pairs of crystals; {scanner.name} sums {scanner.mash} views "
            "into one: expected another --scanner"
        )
    petsird_package()
    return michelogram


def petsird_header(scanner: Scanner, michelogram: Michelogram, tof: Tof | None, calibration: float) -> Any:
    """Header (`petsird.Header`) of a scanner with the lines of response of sinograms of span 1.

    Args:
        scanner: scanner of as many rings as the Michelogram.
        michelogram: pairs of rings in coincidence.
        tof: time-of-flight bins; None: none.
        calibration: counts a line of response, unit of the image and mm.

    Raises:
        ConfigError, DataError: as `check_petsird`.
    """
    check_petsird(scanner, michelogram)
    package = petsird_package()
    own = package.ScannerInformation(
        model_name=f"{scanner.name}, {SIMULATION}",
        scanner_geometry=package.ScannerGeometry(replicated_modules=[_modules(package, scanner)]),
        collimator_type="NONE",
    )
    edges = np.zeros(0) if tof is None else tof.edges_mm
    own.tof_bin_edges = [[package.BinEdges(edges=edges.astype(np.float32))]]
    own.tof_resolution = [[0.0 if tof is None else tof.resolution_ps * MM_PER_PS]]
    own.event_energy_bin_edges = [package.BinEdges(edges=np.asarray(ENERGY_KEV, np.float32))]
    own.energy_resolution_at_511 = [ENERGY_RESOLUTION]
    own.prompt_event_policy = own.delayed_event_policy = package.CoincidencePolicy.REJECT_HIGHER_MULTIPLES
    groups, tables = _pair_efficiencies(scanner, michelogram)
    own.detection_efficiencies = package.DetectionEfficiencies(
        calibration_factor=calibration,
        detection_bin_efficiencies=[_crystal_efficiencies(scanner)],
        module_pair_sgidlut=[[[row[: number + 1].tolist() for number, row in enumerate(groups)]]],
        module_pair_efficiencies_vectors=[
            [[package.ModulePairEfficiencies(values=[*table], sgid=number) for number, table in enumerate(tables)]]
        ],
    )
    return package.Header(scanner=own)


def time_blocks(
    seed: int,
    counts: Float[np.ndarray, "view bin plane *tof"],
    additive: Float[np.ndarray, "view bin plane *tof"],
    scanner: Scanner,
    michelogram: Michelogram,
) -> Iterator[TimeBlock]:
    """Time blocks of the counts of a sinogram of span 1, each count at a time that is uniform over the scan.

    Args:
        seed: random seed of times and delayeds.
        counts: prompts, whole numbers.
        additive: expected randoms; delayeds are drawn from a Poisson distribution of this mean.
        scanner: scanner.
        michelogram: its planes.

    Raises:
        ConfigError, DataError: as `check_petsird`; or the events do not fit into memory.
    """
    check_petsird(scanner, michelogram)
    rng = np.random.default_rng(seed)
    expected = float(counts.sum(dtype=float) + additive.sum(dtype=float))
    check_memory("list mode of the counts", 24 * expected + 8 * counts.size)
    lists = [_shuffle(rng, values) for values in (counts, rng.poisson(additive))]
    ends = [np.cumsum(rng.multinomial(len(own), np.full(BLOCKS, 1 / BLOCKS))) for own in lists]
    for number in range(BLOCKS):
        starts = [0 if number == 0 else stops[number - 1] for stops in ends]
        prompts, delayeds = (
            {(0, 0): _coincidences(own[start : stops[number]], counts.shape, scanner, michelogram)}
            for own, start, stops in zip(lists, starts, ends, strict=True)
        )
        yield TimeBlock(number * BLOCK_MS, (number + 1) * BLOCK_MS, prompts, delayeds)


def _shuffle(rng: np.random.Generator, counts: np.ndarray) -> Int[np.ndarray, " event"]:
    """Number of the sinogram's bin of each event, in random order."""
    flat = counts.ravel()
    bins = np.flatnonzero(flat)
    return rng.permutation(np.repeat(bins, flat[bins].astype(np.int64)))


def _coincidences(
    events: Int[np.ndarray, " event"], shape: tuple[int, ...], scanner: Scanner, michelogram: Michelogram
) -> Coincidences:
    """Detection bins and time-of-flight bin of events, given by the numbers of their bins in a sinogram."""
    view, bin_, plane, *tof = np.unravel_index(events, shape)
    crystals = [one[view, 0, bin_] for one in bin_crystals(scanner)]
    rings = np.rint(michelogram.plane_rings).astype(np.int64)[plane].T
    first, second = (_detection_bins(scanner, crystal, ring) for crystal, ring in zip(crystals, rings, strict=True))
    time = tof[0] if tof else np.zeros_like(view)
    last = shape[3] - 1 if tof else 0
    swapped = first < second
    ordered = (np.maximum(first, second), np.minimum(first, second), np.where(swapped, last - time, time))
    return np.stack(ordered, axis=-1).astype(np.uint32)


def _detection_bins(scanner: Scanner, crystal: np.ndarray, ring: np.ndarray) -> np.ndarray:
    across, along = _module_shape(scanner)
    module = ring // along * (scanner.crystals // across) + crystal // across
    return module * across * along + ring % along * across + crystal % across


def _module_shape(scanner: Scanner) -> tuple[int, int]:
    """Crystals of a module around the ring and along the axis; all modules are equal."""

    def side(number: int) -> int:
        """The largest part of at most 16; the whole where that is 1, as of prime numbers."""
        found = max(part for part in range(1, MAX_SIDE + 1) if number % part == 0)
        return number if found == 1 else found

    return scanner.block if scanner.gaps and scanner.block > 1 else side(scanner.crystals), side(scanner.rings)


def _modules(package: Any, scanner: Scanner) -> Any:
    """Modules around the axis, from the first ring on; a crystal's box lies around its mean point of interaction."""
    across, along = _module_shape(scanner)
    radius, step = scanner.radius_mm + scanner.depth_mm, 2 * np.pi / scanner.crystals
    halves = (scanner.depth_mm or 1.0, radius * step / 2, scanner.ring_spacing_mm / 2)
    signs = np.array(np.meshgrid(*[(-1, 1)] * 3, indexing="ij")).reshape(3, -1).T
    corners = [package.Coordinate(c=np.asarray([radius, 0, 0] + sign * halves, np.float32)) for sign in signs]
    box = package.BoxSolidVolume(shape=package.BoxShape(corners=corners))

    def transformation(angle: float, z: float) -> Any:
        cos, sin = np.cos(angle), np.sin(angle)
        matrix = [[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 1, z]]
        return package.RigidTransformation(matrix=np.asarray(matrix, np.float32))

    spacing, middle = scanner.ring_spacing_mm, (scanner.rings - 1) / 2
    elements = [transformation(crystal * step, ring * spacing) for ring in range(along) for crystal in range(across)]
    modules = [
        transformation(np.pi / 2 + crystal * step, (ring - middle) * spacing)
        for ring in range(0, scanner.rings, along)
        for crystal in range(0, scanner.crystals, across)
    ]
    return package.ReplicatedDetectorModule(
        object=package.DetectorModule(
            detecting_elements=package.ReplicatedBoxSolidVolume(object=box, transforms=elements)
        ),
        transforms=modules,
    )


def _crystal_efficiencies(scanner: Scanner) -> Float[np.ndarray, " bin"]:
    """Efficiency of each detection bin: 0 of virtual crystals and rings, else 1."""
    ring, crystal = np.indices((scanner.rings, scanner.crystals))
    real = real_rings(scanner)[:, None] & (not scanner.gaps or crystal % scanner.block != 0)
    found = np.zeros(ring.size, np.float32)
    found[_detection_bins(scanner, crystal, ring)] = real
    return found


def _pair_efficiencies(
    scanner: Scanner, michelogram: Michelogram
) -> tuple[Int[np.ndarray, "module module"], Bool[np.ndarray, "group element element"]]:
    """Symmetry group of each pair of modules, −1 where no bin of the sinogram has any, and the pairs of each group."""
    across, along = _module_shape(scanner)
    in_ring = np.zeros((scanner.crystals, scanner.crystals), bool)
    first, second = (one.ravel() for one in bin_crystals(scanner))
    in_ring[first, second] = in_ring[second, first] = True
    axial, ring_tables = _patterns(michelogram.plane_of_pair >= 0, along)
    transaxial, crystal_tables = _patterns(in_ring, across)
    kinds = axial[:, None, :, None] * len(crystal_tables) + transaxial[None, :, None, :]
    kinds = kinds.reshape([len(axial) * len(transaxial)] * 2)
    products = (ring_tables[:, None, :, None, :, None] & crystal_tables[None, :, None, :, None, :]).reshape(
        -1, across * along, across * along
    )
    used = np.intersect1d(np.tril(kinds), np.flatnonzero(products.any(axis=(1, 2))))
    number = np.full(len(products), -1)
    number[used] = np.arange(len(used))
    return number[kinds], products[used]


def _patterns(held: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct blocks (side, side) of a matrix, and which of them each block is."""
    parts = len(held) // side
    blocks = held.reshape(parts, side, parts, side).transpose(0, 2, 1, 3).reshape(-1, side * side)
    tables, index = np.unique(blocks, axis=0, return_inverse=True)
    return index.reshape(parts, parts), tables.reshape(-1, side, side)

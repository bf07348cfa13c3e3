"""A small block scanner in PETSIRD: two types of modules with gaps, energy windows, time of flight, delayeds."""

from typing import Any

import numpy as np
import pytest

from medjax.io.petsird import TimeBlock

petsird = pytest.importorskip("petsird", reason="needs the extra petsird")
import petsird.helpers.geometry  # noqa: E402, F811
from petsird.helpers import get_detection_efficiency  # noqa: E402
from petsird.helpers.create import initialize_scanner_information_dimensions  # noqa: E402

MODULES, ELEMENTS, ENERGIES, RADII = (8, 4), ((2, 3), (1, 2)), (2, 1), (40.0, 46.0)
TOF = {(0, 0): (5, 30.0), (1, 0): (1, 0.0), (1, 1): (3, 45.0)}  # bins, full width at half maximum in mm
SHIFT = 7.0  # of the scanner along z in the gantry's coordinates


def _matrix(rotation: np.ndarray, shift: Any) -> Any:
    return petsird.RigidTransformation(matrix=np.column_stack([rotation, shift]).astype(np.float32))


def _module(kind: int) -> Any:
    """Modules around the axis, the second type between those of the first and farther out."""
    across, along = ELEMENTS[kind]
    box = petsird.BoxShape(
        corners=[
            petsird.Coordinate(c=np.array([x, y, z], np.float32)) for x in (0, 9) for y in (-2.5, 2.5) for z in (-2, 2)
        ]
    )
    elements = petsird.ReplicatedBoxSolidVolume(object=petsird.BoxSolidVolume(shape=box))
    for a in range(across):
        for b in range(along):
            at = [RADII[kind], (a - (across - 1) / 2) * 5.5, (b - (along - 1) / 2) * 5 + SHIFT]
            elements.transforms.append(_matrix(np.eye(3), at))
    module = petsird.ReplicatedDetectorModule(object=petsird.DetectorModule(detecting_elements=elements))
    for m in range(MODULES[kind]):
        angle = 2 * np.pi * (m + 0.5 * kind + 0.03) / MODULES[kind]
        cos, sin = np.cos(angle), np.sin(angle)
        module.transforms.append(_matrix(np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]), [0, 0, 0]))
    return module


def header(seed: int = 0) -> Any:
    """Header of the scanner, with random efficiencies; modules next to each other are not in coincidence."""
    rng = np.random.default_rng(seed)
    scanner = petsird.ScannerInformation(
        model_name="blocks", scanner_geometry=petsird.ScannerGeometry(replicated_modules=[_module(0), _module(1)])
    )
    initialize_scanner_information_dimensions(scanner, 2, True, True)
    scanner.prompt_event_policy = scanner.delayed_event_policy = petsird.CoincidencePolicy.REJECT_HIGHER_MULTIPLES
    efficiencies = scanner.detection_efficiencies
    efficiencies.calibration_factor = 0.5
    sizes = [ELEMENTS[k][0] * ELEMENTS[k][1] * ENERGIES[k] for k in range(2)]
    for first in range(2):
        scanner.event_energy_bin_edges[first] = petsird.BinEdges(
            edges=np.linspace(430, 650, ENERGIES[first] + 1, dtype=np.float32)
        )
        efficiencies.detection_bin_efficiencies[first] = (
            rng.uniform(0.5, 1, MODULES[first] * sizes[first]).astype(np.float32).tolist()
        )
        efficiencies.detection_bin_efficiencies[first][3] = 0.0  # a dead crystal
        for second in range(first + 1):
            bins, fwhm = TOF[first, second]
            scanner.tof_bin_edges[first][second] = petsird.BinEdges(
                edges=np.linspace(-75, 75, bins + 1, dtype=np.float32) ** 3 / 75**2  # of unequal width
            )
            scanner.tof_resolution[first][second] = fwhm
            apart = [
                [(a - b) % MODULES[first] if first == second else 1 + (a + b) % 2 for b in range(MODULES[second])]
                for a in range(MODULES[first])
            ]
            table = [
                [-1 if d in (0, 1, MODULES[first] - 1) and first == second else d - 1 for d in row] for row in apart
            ]
            if first == second:
                table = [row[: k + 1] for k, row in enumerate(table)]
            groups = max(map(max, table)) + 1
            efficiencies.module_pair_sgidlut[first][second] = table
            efficiencies.module_pair_efficiencies_vectors[first][second] = [
                petsird.ModulePairEfficiencies(
                    values=rng.uniform(0.5, 1, (sizes[first], sizes[second])).astype(np.float32).tolist(), sgid=k
                )
                for k in range(groups)
            ]
    return petsird.Header(scanner=scanner)


def coincidences(made: Any, number: int, seed: int = 0) -> dict[tuple[int, int], np.ndarray]:
    """Random coincidences of all pairs of types, those of efficiency 0 left out."""
    rng = np.random.default_rng(seed)
    found = {}
    for pair in ((0, 0), (1, 0), (1, 1)):
        most = [MODULES[k] * ELEMENTS[k][0] * ELEMENTS[k][1] * ENERGIES[k] for k in pair]
        bins = np.stack([rng.integers(0, n, 20 * number) for n in most], axis=-1)
        bins = np.sort(bins, axis=-1)[:, ::-1] if pair[0] == pair[1] else bins
        used = [get_detection_efficiency(made.scanner, pair, *map(int, two)) > 0 for two in bins]
        bins = bins[used][:number]
        found[pair] = np.column_stack([bins, rng.integers(0, TOF[pair][0], len(bins))]).astype(np.uint32)
    return found


def time_blocks(made: Any, blocks: int = 4, number: int = 20) -> list[TimeBlock]:
    """Blocks of 10 ms, prompts and half as many delayeds."""
    return [
        TimeBlock(10 * k, 10 * (k + 1), coincidences(made, number, 2 * k), coincidences(made, number // 2, 2 * k + 1))
        for k in range(blocks)
    ]

"""Scanner of a PETSIRD header as arrays: centres of detecting elements, pairs of modules, efficiencies, time of flight.

A scanner has types of modules, of each several modules with the same elements (crystals). A detection bin is (module,
element, energy window) of a type. The efficiency of a coincidence is calibration · ε₁ · ε₂ · g, ε of the detection
bins, g of the pair by the symmetry group of its two modules.

Source: the definition of PETSIRD (ETSI), version 0.12.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from medjax.errors import DataError
from medjax.io.petsird import TypePair
from medjax.memory import check_memory
from medjax.pet.tof import FWHM_PER_SD

MAX_BINS = 2**31  # detection bins of a type


@dataclass(frozen=True)
class Modules:
    """Modules of one type."""

    centers_mm: Float[np.ndarray, "module element 3"]  # of the detecting elements, z from the middle of the scanner
    efficiencies: Float[np.ndarray, "module element energy"]


@dataclass(frozen=True)
class ModulePairs:
    """Pairs of modules of two types, the first type not below the second."""

    group: Int[np.ndarray, "first second"]  # symmetry group of each pair; −1: not in coincidence, or listed reversed
    efficiencies: Float[np.ndarray, "group element1 energy1 element2 energy2"] | None  # None: 1
    tof_edges_mm: Float[np.ndarray, " edge"] | None  # from the middle to the second detector; None: no time of flight
    tof_sd_mm: float  # of the annihilation's position along the line; infinite without time of flight


@dataclass(frozen=True)
class Detectors:
    """All detectors of a scanner."""

    name: str
    types: tuple[Modules, ...]
    pairs: dict[TypePair, ModulePairs]
    calibration: float  # of the efficiencies: counts a line of response and unit of the image
    middle_z_mm: float  # of the scanner, in the gantry's coordinates; 0 in `centers_mm`

    @property
    def tof(self) -> bool:
        """Whether any pair of types measures time of flight."""
        return any(pair.tof_edges_mm is not None for pair in self.pairs.values())


def detectors(header: Any, name: str) -> Detectors:
    """Detectors of a header (`petsird.Header`) of the file `name`.

    An element stands at the centre of its box. A calibration factor of 0 counts as none.

    Raises:
        DataError: an array of the header is not of the size that its geometry gives, or holds values that cannot be.
    """
    scanner = header.scanner
    modules = scanner.scanner_geometry.replicated_modules
    types = len(modules)
    if not types:
        raise DataError(f"{name}: a scanner of no modules; expected one or more")
    for label, found in (
        ("TOF bin edges", scanner.tof_bin_edges),
        ("TOF resolutions", scanner.tof_resolution),
        ("energy bin edges", scanner.event_energy_bin_edges),
    ):
        if len(found) < types or (label != "energy bin edges" and any(len(found[k]) <= k for k in range(types))):
            raise DataError(f"{name}: {label} of {len(found)} types of modules; expected those of all {types}")
    centers = [_centers(own, name) for own in modules]
    z = np.concatenate([own[..., 2].ravel() for own in centers])
    middle = float(z.min() + z.max()) / 2
    own = scanner.detection_efficiencies
    measured = own.detection_bin_efficiencies
    if len(measured) not in (0, types):
        raise DataError(f"{name}: efficiencies of {len(measured)} types of modules; expected those of all {types}")
    kinds = tuple(
        Modules(
            centers[k] - [0, 0, middle],
            _bin_efficiencies(
                measured[k] if measured else (),
                (*centers[k].shape[:2], max(len(scanner.event_energy_bin_edges[k].edges) - 1, 1)),
                f"{name}: detection efficiencies of module type {k}",
            ),
        )
        for k in range(types)
    )
    pairs = {
        (first, second): _pairs(scanner, kinds, (first, second), name)
        for first in range(types)
        for second in range(first + 1)
    }
    calibration = float(own.calibration_factor)
    if not 0 <= calibration < np.inf:
        raise DataError(f"{name}: calibration factor {calibration:g}; expected a number of 0 or more")
    return Detectors(str(scanner.model_name), kinds, pairs, calibration or 1.0, middle)


def expand_bins(
    bins: Int[np.ndarray, " event"], modules: Modules
) -> tuple[Int[np.ndarray, " event"], Int[np.ndarray, " event"], Int[np.ndarray, " event"]]:
    """Module, element and energy window of detection bins."""
    module, rest = np.divmod(bins.astype(np.int64), int(np.prod(modules.efficiencies.shape[1:])))
    element, energy = np.divmod(rest, modules.efficiencies.shape[2])
    return module, element, energy


def coincidence_efficiencies(
    scanner: Detectors, pair: TypePair, bins: Int[np.ndarray, "event 2"]
) -> Float[np.ndarray, " event"]:
    """Efficiency of coincidences of these detection bins; 0 where their modules are not in coincidence."""
    (module1, element1, energy1), (module2, element2, energy2) = (
        expand_bins(bins[:, k], scanner.types[pair[k]]) for k in range(2)
    )
    first, second = (scanner.types[k].efficiencies for k in pair)
    own = scanner.pairs[pair]
    group = own.group[module1, module2]
    found = scanner.calibration * first[module1, element1, energy1] * second[module2, element2, energy2]
    if own.efficiencies is not None:
        found = found * own.efficiencies[group, element1, energy1, element2, energy2]
    return np.where(group >= 0, found, 0)


def _centers(own: Any, name: str) -> np.ndarray:
    elements = own.object.detecting_elements
    corners = np.array([corner.c for corner in elements.object.shape.corners], float)
    lists = [
        np.array([t.matrix for t in part], float).reshape(-1, 3, 4) for part in (own.transforms, elements.transforms)
    ]
    if not min(map(len, lists)) or max(map(len, lists)) * min(map(len, lists)) > MAX_BINS:
        raise DataError(f"{name}: {len(lists[0])} modules of {len(lists[1])} elements; expected 1 or more of each")
    module, element = lists
    check_memory(name, 48 * len(module) * len(element))
    inside = element[:, :, :3] @ corners.mean(axis=0) + element[:, :, 3]
    centers = np.einsum("mij,ej->mei", module[:, :, :3], inside) + module[:, None, :, 3]
    if not np.all(np.isfinite(centers)):
        raise DataError(f"{name}: positions of detecting elements that are not finite")
    return centers


def _bin_efficiencies(values: Any, shape: tuple[int, int, int], what: str) -> np.ndarray:
    check_memory(what, 4 * np.prod(shape, dtype=float))
    found = np.asarray(values, np.float32)
    if not found.size:
        return np.ones(shape, np.float32)
    if found.size != np.prod(shape):
        raise DataError(f"{what}: {found.size} values; expected {shape[0]} modules × {shape[1]} elements × {shape[2]}")
    _check_efficiencies(found, what)
    return found.reshape(shape)


def _check_efficiencies(values: np.ndarray, what: str) -> None:
    bad = ~(np.isfinite(values) & (values >= 0))
    if np.any(bad):
        at = int(np.argmax(bad))
        raise DataError(f"{what}: {values.ravel()[at]:g} at index {at}; expected finite numbers of 0 or more")


def _pairs(scanner: Any, kinds: tuple[Modules, ...], pair: TypePair, name: str) -> ModulePairs:
    own = scanner.detection_efficiencies
    first, second = (kinds[k].efficiencies.shape for k in pair)
    what = f"{name}: module types {pair[0]} and {pair[1]}"
    group = np.zeros((first[0], second[0]), np.int32)
    values = _entry(own.module_pair_efficiencies_vectors, pair, what)
    table = _entry(own.module_pair_sgidlut, pair, what)
    groups = max(len(values), 1)
    if table is not None and len(table):
        group = _group_table(table, group.shape, pair[0] == pair[1], what)
        if len(values) and group.max() >= len(values):
            raise DataError(f"{what}: symmetry group {group.max()}; expected less than {groups}, as have efficiencies")
    elif pair[0] == pair[1]:
        group[np.triu_indices(first[0], 1)] = -1
    edges, sd = _tof(scanner, pair, what)
    if not len(values):
        return ModulePairs(group, None, edges, sd)
    shape = (first[1] * first[2], second[1] * second[2])
    check_memory(what, 4.0 * len(values) * shape[0] * shape[1])
    tables = np.empty((len(values), *shape), np.float32)
    for k, one in enumerate(values):
        if int(one.sgid) != k or len(one.values) != shape[0] or any(len(row) != shape[1] for row in one.values):
            raise DataError(
                f"{what}: efficiencies of symmetry group {k} are not {shape[0]} × {shape[1]} and of its number"
            )
        tables[k] = np.asarray(one.values, np.float32)
    _check_efficiencies(tables, f"{what}: efficiencies of pairs")
    return ModulePairs(group, tables.reshape(-1, *first[1:], *second[1:]), edges, sd)


def _entry(matrix: Any, pair: TypePair, what: str) -> Any:
    """Entry of a lower triangular matrix, which may be absent as a whole."""
    if not len(matrix):
        return ()
    if len(matrix) <= pair[0] or len(matrix[pair[0]]) <= pair[1]:
        raise DataError(f"{what}: have no entry among the efficiencies; expected one for each pair of types")
    return matrix[pair[0]][pair[1]]


def _group_table(table: Any, shape: tuple[int, ...], triangular: bool, what: str) -> np.ndarray:
    group = np.full(shape, -1, np.int32)
    if len(table) != shape[0]:
        raise DataError(f"{what}: symmetry groups of {len(table)} modules; expected {shape[0]}")
    for k, row in enumerate(table):
        expected = k + 1 if triangular else shape[1]
        if len(row) != expected:
            raise DataError(f"{what}: symmetry groups of module {k} with {len(row)}; expected with {expected}")
        group[k, :expected] = row
    return np.maximum(group, -1)


def _tof(scanner: Any, pair: TypePair, what: str) -> tuple[np.ndarray | None, float]:
    edges = np.asarray(scanner.tof_bin_edges[pair[0]][pair[1]].edges, float)
    if edges.size <= 2:
        return None, np.inf
    fwhm = float(scanner.tof_resolution[pair[0]][pair[1]])
    if not np.all(np.isfinite(edges)) or np.any(np.diff(edges) <= 0):
        raise DataError(f"{what}: TOF bin edges that do not grow, or are not finite")
    if not 0 < fwhm < np.inf:
        raise DataError(f"{what}: a TOF resolution of {fwhm:g} mm; expected the full width at half maximum, above 0")
    return edges, fwhm / FWHM_PER_SD

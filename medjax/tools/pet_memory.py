"""Memory of a PET reconstruction, planned from the sizes of its arrays before it starts.

    plan = sinogram_plan(bins, grid, subsets, method)
    require(plan)                        a line that says what it needs, or an error where that is not free

The numbers of arrays are those of XLA's memory analysis of the projectors, up to the mMR's size, rounded up.
"""

from typing import NamedTuple

from medjax.memory import available_memory, check_memory
from medjax.pet.grid import Grid
from medjax.running.progress import say

WORTH_A_LINE = 2**29  # bytes: what needs less goes without saying
_MARGIN = 1.25  # copies at the ends of programs, fragments: the mMR's OSEM in span 11 took 6.4 to 6.9 GiB
_PROGRAMS = 2**29  # bytes of the process with JAX and its compiled programs
_BLOCKS = 2**26  # bytes of what projectors prepare at once
_BYTES_AN_EVENT = 500  # its line in float64 while it is prepared, then a dozen float32
_NEIGHBORS = 39  # images: weights of the 13 pairs of a voxel, in float64 and in float32
_SIMILAR = 80  # images: weights and indices of the kernel of kernel EM
_IMAGES_A_SUBSET = {"svrg": 3}  # sensitivities as they are computed and kept, and gradients; of other methods 2
_PENALIZED = ("map-em", "bsrem", "svrg")


class MemoryPlan(NamedTuple):
    """Bytes that a reconstruction takes at its largest."""

    data: float  # counts, factors and background, whole and in subsets
    images: float  # sensitivities of the subsets, images of the method, weights of a penalty
    projection: float  # what the largest projection works with

    @property
    def total(self) -> float:
        """Bytes of the whole process."""
        return _MARGIN * sum(self) + _PROGRAMS

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {one / 2**30:.1f}" for name, one in self._asdict().items())
        return f"memory: about {self.total / 2**30:.1f} GiB ({parts}) of {available_memory() / 2**30:.1f} free"


def sinogram_plan(bins: int, grid: Grid, subsets: int, method: str) -> MemoryPlan:
    """Plan of a reconstruction from sinograms.

    Args:
        bins: number of the sinograms' bins, time of flight included.
        grid: image grid.
        subsets: number of subsets.
        method: its method.
    """
    sinogram, image = 4.0 * bins, _image(grid)
    whole = 3 * sinogram + 6 * image  # the sensitivity, before there are subsets
    update = 4 * sinogram / subsets + 8 * image
    return MemoryPlan(6 * sinogram, _images(image, subsets, method), max(whole, update) + _BLOCKS)


def event_plan(events: int, grid: Grid, subsets: int, method: str) -> MemoryPlan:
    """Plan of a reconstruction of single events: see `sinogram_plan`."""
    image = _image(grid)
    return MemoryPlan(_BYTES_AN_EVENT * events, _images(image, subsets, method), 12 * image + _BLOCKS)


def require(plan: MemoryPlan) -> None:
    """Say what a reconstruction needs, where that is much.

    Raises:
        DataError: it is more than is free.
    """
    check_memory("reconstruction", plan.total, "use a smaller --size, a larger --span or fewer --subsets")
    if plan.total > _PROGRAMS + WORTH_A_LINE:
        say(str(plan))


def _image(grid: Grid) -> float:
    x, y, z = grid.shape
    return 4.0 * x * y * z


def _images(image: float, subsets: int, method: str) -> float:
    more = _NEIGHBORS if method in _PENALIZED else _SIMILAR if method == "kernel-em" else 0
    return image * (_IMAGES_A_SUBSET.get(method, 2) * subsets + 4 + more)

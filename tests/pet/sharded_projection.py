"""Program of a test: projection in 3-D with the views split over all devices of one or several processes.

    python -m tests.pet.sharded_projection [COORDINATOR PROCESSES PROCESS]

Ends with an error unless both projections equal those of one device to 1e-5 of their maximum.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from medjax.pet.grid import Grid
from medjax.pet.michelogram import michelogram
from medjax.pet.projector3d import backproject, project
from medjax.pet.scanner import Scanner, lors
from medjax.pet.system3d import build_system3d, subsets3d

SCANNER = Scanner("test", 128, 3, 80.0, 4.0, 15, 2.0)
GRID = Grid((12, 12, 5), (6.0, 6.0, 2.0))


def on_mesh(mesh: jax.sharding.Mesh, spec: PartitionSpec, array: np.ndarray) -> jax.Array:
    """An array of which each process holds its devices' part."""
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, NamedSharding(mesh, spec), lambda index: host[index])


def main() -> None:
    """Compare."""
    if len(sys.argv) > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    whole = build_system3d(lors(SCANNER), michelogram(3), 4.0, GRID)
    parts, views = subsets3d(whole, jax.device_count())
    rng = np.random.default_rng(0)
    image = rng.random(GRID.shape, dtype=np.float32)
    sinogram = rng.random(whole.sinogram_shape, dtype=np.float32)
    mesh = jax.make_mesh((jax.device_count(),), ("view",), axis_types=(jax.sharding.AxisType.Auto,))
    split, same = PartitionSpec("view"), PartitionSpec()

    def both(part, x, y):
        part = jax.tree.map(lambda a: a[0], part)
        return project(part, x)[None], jax.lax.psum(backproject(part, y[0]), "view")

    sharded = jax.jit(jax.shard_map(both, mesh=mesh, in_specs=(split, same, split), out_specs=(split, same)))
    there, back = sharded(
        jax.tree.map(lambda a: on_mesh(mesh, split, a), parts),
        on_mesh(mesh, same, image),
        on_mesh(mesh, split, sinogram[views]),
    )
    want = np.asarray(jax.jit(project)(whole, jnp.asarray(image)))[views]
    for shard in there.addressable_shards:
        assert np.abs(np.asarray(shard.data) - want[shard.index]).max() <= 1e-5 * want.max()
    want = np.asarray(jax.jit(backproject)(whole, jnp.asarray(sinogram)))
    assert np.abs(np.asarray(back.addressable_data(0)) - want).max() <= 1e-5 * want.max()
    print(f"{jax.device_count()} devices, {jax.process_count()} processes: the same to 1e-5")


if __name__ == "__main__":
    main()

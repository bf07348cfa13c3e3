"""What `medjax run NAME --plan` is off by, on this machine's processor: a training step that is planned, then run.

    python scripts/plan_error.py [SIDE ...]            the U-Net of label_flips, batches of images of SIDE² pixels

Each size runs in a process of its own: FLOPs and bytes of the plan beside XLA's of the compiled program, its memory
beside the increase of the peak resident memory, and the processor seconds of a step beside those predicted from the
last size's by the plan's FLOPs, and by its bytes.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from medjax.report.html import Table
from medjax.report.terminal import print_table
from medjax.running.config import load_config
from medjax.running.modules import load_module
from medjax.running.plan import cost_of

ROOT = Path(__file__).resolve().parents[1]
SIDES, STEPS = ("32", "64", "96"), 3
OVERRIDES = ("model.widths=(16,32,64)", "training.batch=32", "methods=('erm',)")


def peak() -> int:
    """Peak resident memory of this process, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def filled(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """An array of this shape: random numbers, zeros, or a key."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key(0)
    if jnp.issubdtype(leaf.dtype, jnp.integer):
        return jnp.zeros(leaf.shape, leaf.dtype)
    return jnp.asarray(0.1 * np.random.default_rng(0).normal(size=leaf.shape), leaf.dtype)


def measure(side: str) -> dict[str, float]:
    """Planned and measured numbers of a training step with images of this side."""
    config = load_config(ROOT / "configs" / "label_flips.py", "small", [f"scenes.side={side}", *OVERRIDES])
    module = load_module(ROOT / "experiments" / "label_flips.py", "experiments.label_flips")
    [stage, *_] = module.plan(config)
    plan = cost_of(stage)
    compiled = jax.jit(stage.step).lower(*stage.arguments).compile()
    analysis = compiled.cost_analysis() or {}
    before = peak()
    state, batch = jax.tree.map(filled, stage.arguments)
    seconds = []
    for _ in range(STEPS):
        start = time.process_time()
        state, _ = jax.block_until_ready(compiled(state, batch))
        seconds.append(time.process_time() - start)
    return {
        "side": int(side), "flops": plan.flops, "xla_flops": analysis.get("flops", 0.0), "bytes": plan.bytes,
        "xla_bytes": analysis.get("bytes accessed", 0.0), "memory": plan.memory,
        "resident": peak() - before, "seconds": min(seconds),
    }  # fmt: skip


def main(sides: list[str]) -> None:
    """Measure every size and print the table."""
    command = [sys.executable, __file__, "--one"]
    rows = [
        json.loads(subprocess.run([*command, side], capture_output=True, text=True, check=True).stdout)
        for side in sides
    ]
    last = rows[-1]
    table = [
        [
            row["side"], f"{row['flops'] / 1e9:.3g}", f"{row['flops'] / row['xla_flops'] - 1:+.0%}",
            f"{row['bytes'] / 1e9:.3g}", f"{row['bytes'] / row['xla_bytes'] - 1:+.0%}", f"{row['memory'] / 1e6:.0f}",
            f"{row['resident'] / 1e6:.0f}", f"{row['memory'] / row['resident'] - 1:+.0%}", f"{row['seconds']:.3g}",
            *(f"{last['seconds'] * row[of] / last[of] / row['seconds'] - 1:+.0%}" for of in ("flops", "bytes")),
        ]
        for row in rows
    ]  # fmt: skip
    header = (
        "pixels", "GFLOP", "error to XLA's", "GB", "error to XLA's", "MB", "MB resident", "error",
        "processor s", "error by FLOPs", "by bytes",
    )  # fmt: skip
    print_table(Table(header, table))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2])))
    else:
        main(sys.argv[1:] or list(SIDES))

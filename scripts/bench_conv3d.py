"""3-D convolution and nnU-Net's network on the CPU: folded, XLA's own and PyTorch, in one process, in turn.

    python scripts/bench_conv3d.py [widths …]      network of these widths, 16 32 64 128 unless given

PyTorch (`pip install torch`) is compared where it can be imported; medjax does not need it. Its network is written from
medjax's parameters, and is checked to give the same logits before anything is timed. Least of several times.
"""

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from medjax.models.layers import conv3d
from medjax.models.plain_unet import plain_unet
from medjax.training.losses import cross_entropy, deep_supervision
from medjax.training.state import trainer

torch: Any = None
try:
    torch = importlib.import_module("torch")
except ImportError:
    print("PyTorch cannot be imported: medjax's forms alone are compared")

CLASSES, BATCH, PATCH = 3, 2, (32, 64, 64)
RATE, MOMENTUM = 0.01, 0.99


def fastest(calls: dict[str, Callable[[], Any]], rounds: int = 6) -> dict[str, float]:
    """Seconds of the fastest run of each call, taken in turn; the first round is not counted."""
    seconds = dict.fromkeys(calls, np.inf)
    for turn in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn > 0:
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def convolutions(strides: tuple[int, int, int], side: int = 32, width: int = 32) -> None:
    """One row: forward and gradient (of x and kernel) of a 3×3×3 convolution."""
    x = jax.random.normal(jax.random.key(0), (1, side, side, side, width))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, width, width))
    calls: dict[str, Callable[[], Any]] = {}
    for form in ("native", "folded"):

        def forward(x: jax.Array, kernel: jax.Array, form: str = form) -> jax.Array:
            return conv3d(x, kernel, strides, form)

        def gradient(x: jax.Array, kernel: jax.Array, forward: Any = forward) -> Any:
            return jax.grad(lambda x, kernel: jnp.sum(forward(x, kernel) ** 2), (0, 1))(x, kernel)

        for name, f in ((f"{form} forward", jax.jit(forward)), (f"{form} gradient", jax.jit(gradient))):
            calls[name] = lambda f=f: jax.block_until_ready(f(x, kernel))
    seconds = fastest(calls)
    work = 2 * calls["native forward"]().size * 27 * width / 1e9  # a gradient is this three times: forward, x, kernel
    for what, times in (("forward", 1), ("gradient", 3)):
        native, folded = seconds[f"native {what}"], seconds[f"folded {what}"]
        rate = f"{times * work / native:.1f} | {times * work / folded:.1f}"
        print(f"| {strides[0]} | {what} | {1000 * native:.0f} | {1000 * folded:.0f} | {rate} | {native / folded:.1f} |")


def torch_levels(params: Any, x: Any, strides: tuple[tuple[int, int, int], ...]) -> list[Any]:
    """`plain_unet` in PyTorch: logits of every level, finest first, from parameters of medjax's names."""
    p, F = params["features"], torch.nn.functional

    def block(x: Any, name: str, step: tuple[int, int, int]) -> Any:
        for k in range(2):
            conv, norm = p[f"{name}_conv_{k}"], p[f"{name}_norm_{k}"]
            x = F.conv3d(x, conv["kernel"], conv["bias"], step if k == 0 else 1, 1)
            x = F.leaky_relu(F.instance_norm(x, weight=norm["scale"], bias=norm["bias"], eps=1e-5), 0.01)
        return x

    skips: list[Any] = []
    levels: list[Any] = []
    for stage, step in enumerate(strides):
        x = block(x, f"down_{stage}", step)
        skips.append(x)
    for stage in reversed(range(len(strides) - 1)):
        widen, step = p[f"widen_{stage}"], strides[stage + 1]
        wide = F.conv_transpose3d(x, widen["kernel"], widen["bias"], step)
        x = block(torch.cat([wide, skips[stage]], 1), f"up_{stage}", (1, 1, 1))
        levels.append(x)
    heads = [params[f"head_{depth}"] for depth in range(len(levels))]
    return [F.conv3d(y, head["kernel"], head["bias"]) for y, head in zip(levels[::-1], heads, strict=True)]


def torch_params(params: Any, layout: Any) -> Any:
    """medjax's parameters as PyTorch's, axes in its order."""

    def tensor(path: Any, leaf: Any) -> Any:
        weight = np.asarray(leaf)
        if weight.ndim == 5:
            ahead = (-2, -1) if any("widen" in str(part) for part in path) else (-1, -2)
            weight = np.moveaxis(weight, ahead, (0, 1))
        found = torch.tensor(np.ascontiguousarray(weight))
        return (found.to(memory_format=layout) if weight.ndim == 5 else found).requires_grad_()

    return jax.tree_util.tree_map_with_path(tensor, params)


def torch_step(params: Any, images: Any, labels: Any, strides: Any, layout: Any) -> tuple[Callable[[], Any], Any]:
    """(a training step, logits of the finest level before any) in PyTorch."""
    ours = torch_params(params, layout)
    x = torch.tensor(np.asarray(images)).permute(0, 4, 1, 2, 3).contiguous(memory_format=layout)
    y = torch.tensor(np.asarray(labels)).long()
    sgd = torch.optim.SGD(jax.tree.leaves(ours), RATE, MOMENTUM, nesterov=True)

    def one() -> None:
        sgd.zero_grad()
        total, weights = torch.zeros(()), [0.5**depth for depth in range(max(len(strides) - 2, 1))]
        for weight, level in zip(weights, torch_levels(ours, x, strides), strict=False):
            f = [a // b for a, b in zip(y.shape[1:], level.shape[2:], strict=True)]
            total = total + weight / sum(weights) * torch.nn.functional.cross_entropy(
                level, y[:, :: f[0], :: f[1], :: f[2]]
            )
        total.backward()
        sgd.step()

    with torch.no_grad():
        return one, torch_levels(ours, x, strides)[0].permute(0, 2, 3, 4, 1).numpy()


def networks(widths: tuple[int, ...]) -> None:
    """One row: a step of training (forward, backward, update) with deep supervision."""
    strides = ((1, 1, 1), *((2, 2, 2),) * (len(widths) - 1))
    settings = (CLASSES, widths, ((3, 3, 3),) * len(widths), strides)
    images = jax.random.normal(jax.random.key(0), (BATCH, *PATCH, 1))
    labels = jax.random.randint(jax.random.key(1), (BATCH, *PATCH), 0, CLASSES)
    params = plain_unet(*settings).init(jax.random.key(2), images)
    optimizer = optax.sgd(RATE, MOMENTUM, nesterov=True)
    calls: dict[str, Callable[[], Any]] = {}
    for form in ("native", "folded"):
        apply = plain_unet(*settings, form=form).apply

        def loss(params: Any, batch: Any, key: jax.Array, apply: Any = apply) -> jax.Array:
            return jnp.mean(deep_supervision(apply(params, batch[0]), batch[1], loss=cross_entropy))

        algorithm = trainer(loss, optimizer)
        state, step = algorithm.init(params, jax.random.key(3)), jax.jit(algorithm.step)
        calls[form] = lambda step=step, state=state: jax.block_until_ready(step(state, (images, labels)))
    apart = 0.0
    if torch is not None:
        finest = np.asarray(jax.jit(plain_unet(*settings, deep=False).apply)(params, images))
        for name in ("contiguous_format", "channels_last_3d"):
            calls[name], found = torch_step(params, images, labels, strides, getattr(torch, name))
            apart = max(apart, float(np.abs(found - finest).max()))
    seconds = fastest({"native": calls.pop("native")}, 3) | fastest(calls, 12)  # the first takes several times as long
    ms = {name: f"{1000 * value:.0f}" for name, value in seconds.items()}
    number = sum(leaf.size for leaf in jax.tree.leaves(params))
    row = f"| {widths} | {number:,} | {ms['native']} | {ms['folded']} | {seconds['native'] / seconds['folded']:.1f} |"
    if torch is not None:
        both = [ms["contiguous_format"], ms["channels_last_3d"]]
        better = min(seconds["contiguous_format"], seconds["channels_last_3d"])
        row += f" {both[0]} | {both[1]} | {seconds['folded'] / better:.2f} | {apart:.0e} |"
    print(row, flush=True)


def main(widths: tuple[int, ...]) -> None:
    """Compare and print."""
    print(f"jax {jax.__version__}, {jax.default_backend()}; 3×3×3, 32 channels, 32³ voxels, one example")
    print("| stride | what | native ms | folded ms | native GFLOP/s | folded GFLOP/s | native / folded |")
    print("|---|---|---|---|---|---|---|")
    for strides in ((1, 1, 1), (2, 2, 2)):
        convolutions(strides)
    told = "not installed, left out" if torch is None else f"{torch.__version__}, {torch.get_num_threads()} threads"
    print(f"\na training step, batch {BATCH} of {PATCH}; PyTorch {told}")
    more = "" if torch is None else " PyTorch ms | channels last | folded / the better | logits apart |"
    print(f"| widths | parameters | native ms | folded ms | native / folded |{more}")
    print("|---|---|---|---|---|" + "---|" * more.count("|"))
    networks(widths)


if __name__ == "__main__":
    main(tuple(int(width) for width in sys.argv[1:]) or (16, 32, 64, 128))

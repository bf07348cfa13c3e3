"""A training step of medjax's U-Net against the same network in PyTorch, on the CPU, in one process and in turn.

Needs PyTorch (`pip install torch`), which medjax does not. Same layers, widths, batch and loss (cross-entropy), Adam;
the forward pass is checked to be the same with the same weights before anything is timed.
"""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch  # pyrefly: ignore[missing-import]
from torch import nn  # pyrefly: ignore[missing-import]
from torch.nn import functional as F  # pyrefly: ignore[missing-import]

from medjax.models.unet import unet
from medjax.training.losses import cross_entropy
from medjax.training.state import trainer

BATCH, CLASSES = 8, 4
CASES = (((8, 16, 32, 48), 64), ((16, 32, 64, 96), 64), ((32, 64, 128, 256), 128))  # widths, side


class Block(nn.Module):
    """Two convolutions, each with GroupNorm of 8 groups and a leaky ReLU."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(c, width, 3, padding=1, bias=False) for c in (before, width)])
        self.norms = nn.ModuleList([nn.GroupNorm(8, width, eps=1e-6) for _ in range(2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)))
        return x


class UNet(nn.Module):
    """medjax's U-Net, layer by layer."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.down = nn.ModuleList([Block(a, b) for a, b in zip((1, *widths[:-1]), widths, strict=True)])
        self.narrow = nn.ModuleList([nn.Conv2d(b, a, 1) for a, b in pairwise(widths)])
        self.up = nn.ModuleList([Block(2 * w, w) for w in widths[:-1]])
        self.head = nn.Conv2d(widths[0], CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        skips: list[torch.Tensor] = []
        for depth, block in enumerate(self.down):
            x = block(x if depth == 0 else F.avg_pool2d(x, 2))
            skips.append(x)
        for depth in reversed(range(len(self.up))):
            wide = F.interpolate(self.narrow[depth](x), scale_factor=2)
            x = self.up[depth](torch.cat([wide, skips[depth]], 1))
        return self.head(x)


def copied(params: Any, net: UNet) -> None:
    """Give the PyTorch network medjax's weights."""

    def put(layer: Any, values: Any) -> None:
        weight = np.asarray(values["kernel"] if "kernel" in values else values["scale"])
        layer.weight.data = torch.tensor(np.moveaxis(weight, (-1, -2), (0, 1)) if weight.ndim > 1 else weight)
        if "bias" in values:
            layer.bias.data = torch.tensor(np.asarray(values["bias"]))

    features = params["features"]
    for name, blocks in (("down", net.down), ("up", net.up)):
        for depth, block in enumerate(blocks):
            for k in range(2):
                put(block.convs[k], features[f"{name}_{depth}_conv_{k}"])
                put(block.norms[k], features[f"{name}_{depth}_norm_{k}"])
    for depth, layer in enumerate(net.narrow):
        put(layer, features[f"narrow_{depth}"])
    put(net.head, params["head_0"])


def fastest(calls: dict[str, Callable[[], Any]], rounds: int = 12) -> dict[str, float]:
    """Seconds of the fastest run of each call, taken in turn."""
    seconds = dict.fromkeys(calls, np.inf)
    for turn in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn > 1:
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def main() -> None:
    """Compare and print."""
    print(f"jax {jax.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads, batch {BATCH}")
    print("| widths, side | parameters | same to | medjax ms | PyTorch ms | channels last | ratio to the better |")
    print("|---|---|---|---|---|---|---|")
    for widths, side in CASES:
        compare(widths, side)


def compare(widths: tuple[int, ...], side: int) -> None:
    """One row."""
    model = unet(CLASSES, widths)
    apply = model.apply
    images = jax.random.normal(jax.random.key(0), (BATCH, side, side, 1))
    labels = jax.random.randint(jax.random.key(1), (BATCH, side, side), 0, CLASSES)
    params = model.init(jax.random.key(2), images)
    net = UNet(widths)
    copied(params, net)
    x, y = torch.tensor(np.asarray(images)).permute(0, 3, 1, 2), torch.tensor(np.asarray(labels)).long()
    with torch.no_grad():
        apart = float(np.abs(net(x).permute(0, 2, 3, 1).numpy() - np.asarray(apply(params, images))).max())

    def loss(params: Any, batch: Any, key: jax.Array) -> jax.Array:
        return jnp.mean(cross_entropy(apply(params, batch[0]), batch[1]))

    algorithm = trainer(loss, optax.adam(1e-3))
    state, step = algorithm.init(params, jax.random.key(3)), jax.jit(algorithm.step)

    def torch_step(net: UNet, x: torch.Tensor) -> Callable[[], Any]:
        adam = torch.optim.Adam(net.parameters(), 1e-3)

        def one() -> None:
            adam.zero_grad()
            F.cross_entropy(net(x), y).backward()
            adam.step()

        return one

    last = UNet(widths).to(memory_format=torch.channels_last)
    found = fastest(
        {
            "medjax": lambda: jax.block_until_ready(step(state, (images, labels))),
            "torch": torch_step(net, x),
            "last": torch_step(last, x.contiguous(memory_format=torch.channels_last)),
        }
    )
    ms = {name: 1000 * value for name, value in found.items()}
    number = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(
        f"| {widths}, {side}² | {number:,} | {apart:.0e} | {ms['medjax']:.0f} | {ms['torch']:.0f} | {ms['last']:.0f} | "
        f"{ms['medjax'] / min(ms['torch'], ms['last']):.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()

"""How far IVIM fits move when every signal changes by one unit in its last place: what rounding alone does to maps.

python scripts/rounding_ivim.py
"""

import jax.numpy as jnp
import numpy as np

from medjax.ivim.fit import fit
from medjax.ivim.signal import Ivim, signal

BVALUES = np.array([0, 10, 30, 50, 75, 100, 200, 400, 700, 1000], np.float32)  # s/mm²
VOXELS, SNR = 500, 20


def main() -> None:
    """Print quantiles of the relative change of each parameter over voxels."""
    rng = np.random.default_rng(0)
    truth = Ivim(*(np.full(VOXELS, value, np.float32) for value in (100.0, 0.3, 1.7e-3, 22e-3)))
    clean = np.asarray(signal(truth, BVALUES))
    signals = (clean + 100 / SNR * rng.normal(size=clean.shape)).astype(np.float32)
    nudged = (signals * (1 + 1e-7 * rng.choice([-1, 1], size=signals.shape))).astype(np.float32)
    before, after = (fit(jnp.asarray(each), jnp.asarray(BVALUES), steps=40).parameters for each in (signals, nudged))
    for name in ("f", "d", "d_star"):
        one, other = (np.asarray(getattr(each, name)) for each in (before, after))
        median, most = np.quantile(np.abs(other / np.maximum(one, 1e-9) - 1), (0.5, 0.9))
        print(f"{name:7s} relative change: median {median:.1e}, 90 % of the voxels below {most:.1e}")


if __name__ == "__main__":
    main()

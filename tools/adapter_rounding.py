"""What rounding a weight plus an adapter to bfloat16 leaves of the adapter (docs/lora.md).

python tools/adapter_rounding.py
"""

import ml_dtypes
import numpy as np

SIZE, RANK = 1024, 16


def main() -> None:
    rng = np.random.default_rng(0)
    weight = rounded(0.02 * rng.normal(size=(SIZE, SIZE)))
    product = rng.uniform(-1, 1, (SIZE, RANK)) @ rng.normal(size=(RANK, SIZE))
    product *= weight.std() / product.std()
    for size in (1e-4, 1e-3, 1e-2, 3e-2):
        added = rounded(weight + size * product) - weight
        error = np.linalg.norm(added - size * product) / np.linalg.norm(size * product)
        print(f"{size:g}: {(added == 0).mean():.0%} as they were, error {error:.2f}")


def rounded(x: np.ndarray) -> np.ndarray:
    return x.astype(ml_dtypes.bfloat16).astype(np.float64)


if __name__ == "__main__":
    main()

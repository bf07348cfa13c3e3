"""Reweighting: weights of training examples under which label and attribute are independent.

    w(y, a) = P(y) P(a) / P(y, a)        from the fractions of the training set

    weights = reweighting(label, attribute)
    loss = jnp.mean(weights[batch] * cross_entropy(logits, label[batch]))

The weighted fractions of labels and of attributes are those of the data; weights are 1 on average, and large where a
group is rare: one of 25 in 5,000 weighs about 100 times as much as others.

Source: Kamiran & Calders, Knowledge and Information Systems 33, 2012.
"""

import numpy as np
from jaxtyping import Float

from medjax.errors import DataError
from medjax.shortcuts.imbalance import Codes, class_numbers, group_counts


def reweighting(label: Codes, attribute: Codes) -> Float[np.ndarray, " case"]:
    """Weight w(y, a) of each example.

    Raises:
        DataError: a group of label and attribute is empty, of which no weights can make up for, or as `group_counts`.
    """
    counts = group_counts(label, attribute)
    y, a = np.nonzero(counts == 0)
    if not counts.size or y.size:
        found = f"label {y[0]}, attribute {a[0]}: no example" if y.size else "no example"
        raise DataError(f"{found}; expected some of each, or no weights make label and attribute independent")
    weights = counts.sum(1)[:, None] * counts.sum(0) / (counts.sum() * counts)
    return weights[class_numbers("label", label), class_numbers("attribute", attribute)].astype(np.float32)

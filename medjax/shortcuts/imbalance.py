"""Subject-disjoint splits, and training sets with an exact fraction of anti-correlated cases.

Label y and attribute a are class numbers from 0. A case is *anti-correlated* if its attribute is not `majority[y]`, the
one that the training set ties to its label. All functions give indices of cases, so they chain:

    train, test = subject_split(key, subject, (0.8, 0.2), label, attribute)
    chosen = train[biased_subset(key, label[train], attribute[train], size=400, anti_fraction=0.05)]
    fair = test[balanced_subset(key, label[test], attribute[test], size=100)]

or, of one pool, a test set first and training sets from all other subjects:

    fair = balanced_subset(key, label, attribute, 1000)
    rest = other_subjects(subject, fair)

Source: the designs of the published code of OSCAR and ShortMR (Achara et al., 2025): fixed numbers of anti-correlated
cases for each label, and `swap_pools`.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray, Real, Shaped

from medjax.errors import ConfigError, DataError

AnyArray = Array | np.ndarray
Codes = Real[AnyArray, " case"] | Bool[AnyArray, " case"]  # class numbers: integers, whole floats, bool
Indices = Int[np.ndarray, "_"]  # of the cases chosen, as many as there are
Column = Shaped[AnyArray, " case"] | Sequence[str] | Sequence[int]  # names or numbers of subjects, sites, age bins
TOLERANCE = 1e-6  # of what should be a whole number of cases


def group_counts(label: Codes, attribute: Codes) -> Int[np.ndarray, "label attribute"]:
    """Number of cases of each label and attribute.

    Raises:
        DataError: values that are no class numbers, or different lengths.
    """
    y, a = _codes(label, attribute)
    counts = np.zeros((y.max(initial=-1) + 1, a.max(initial=-1) + 1), int)
    np.add.at(counts, (y, a), 1)
    return counts


def class_numbers(name: str, values: Codes) -> Int[np.ndarray, " case"]:
    """Class numbers as integers: whole numbers of any type, and bool; `name` is named in messages.

    Raises:
        DataError: text, or numbers that are not whole.
    """
    array = np.asarray(values)
    numeric = array.dtype.kind in "biuf"
    whole = np.isfinite(array) & (array == np.rint(array.astype(float))) if numeric else np.zeros(array.shape, bool)
    if not whole.all():
        raise DataError(f"{name}: {array[~whole][0]}; expected class numbers, such as 0 and 1")
    return array.astype(int)


def subject_split(
    key: PRNGKeyArray, subject: Column, fractions: Sequence[float | int], *strata: Column
) -> tuple[Indices, ...]:
    """Random split into parts of the given fractions of subjects, stratified: no subject is in two parts.

    A stratum is the subjects that have the same combinations of `strata` (label, attribute, age bin, …) among their
    cases. In each one a part differs from its fraction of the subjects by less than one; what rounding leaves goes to
    the part that lacks most so far, so that small strata add up.

    Args:
        key: random key.
        subject: subject of each case, of which there may be several.
        fractions: fraction of the subjects in each part; they add up to 1.
        strata: columns to stratify by.

    Raises:
        ConfigError: fractions that are negative or do not add up to 1.
        DataError: columns of different lengths, or no case.
    """
    parts = np.asarray(fractions, float)
    if not (parts >= 0).all() or abs(parts.sum() - 1) > TOLERANCE:
        raise ConfigError(f"fractions {tuple(fractions)}; expected fractions of the subjects that add up to 1")
    number, stratum = _subjects_and_strata(subject, strata)
    generator, behind = _generator(key), np.zeros(len(parts))
    part_of = np.zeros(len(stratum), int)
    for one in np.unique(stratum):
        members = generator.permutation(np.flatnonzero(stratum == one))
        sizes = np.floor(len(members) * parts + TOLERANCE).astype(int)
        behind += len(members) * parts - sizes
        lacking = np.argsort(-behind, kind="stable")[: len(members) - sizes.sum()]
        sizes[lacking] += 1
        behind[lacking] -= 1
        part_of[members] = np.repeat(np.arange(len(parts)), sizes)
    return tuple(np.flatnonzero(part_of[number] == part) for part in range(len(parts)))


def draw_groups(key: PRNGKeyArray, label: Codes, attribute: Codes, counts: Int[AnyArray, "label attribute"]) -> Indices:
    """Random cases, without replacement, of which exactly `counts[y, a]` have label y and attribute a; in random order.

    Raises:
        DataError: a group has fewer cases, a label or attribute is beyond the table of counts, or as `group_counts`.
    """
    y, a = _codes(label, attribute)
    wanted = np.asarray(counts)
    if len(y) and (y.max() >= wanted.shape[0] or a.max() >= wanted.shape[1]):
        found = f"up to {y.max()} and {a.max()}"
        raise DataError(f"label, attribute: {found}; expected {wanted.shape[0]} and {wanted.shape[1]} classes from 0")
    members = [[np.flatnonzero((y == i) & (a == j)) for j in range(wanted.shape[1])] for i in range(wanted.shape[0])]
    short = [
        f"label {i}, attribute {j}: {len(members[i][j])} cases of {wanted[i, j]} needed"
        for i, j in np.ndindex(wanted.shape)
        if len(members[i][j]) < wanted[i, j]
    ]
    if short or (wanted < 0).any():
        raise DataError(f"too few cases: {'; '.join(short) or wanted.tolist()}; expected at least those in each group")
    generator = _generator(key)
    chosen = [generator.permutation(members[i][j])[: wanted[i, j]] for i, j in np.ndindex(wanted.shape)]
    return generator.permutation(np.concatenate(chosen))


def balanced_subset(key: PRNGKeyArray, label: Codes, attribute: Codes, size: int) -> Indices:
    """Random cases, of which equally many are of each label and attribute; `size` in all.

    Raises:
        ConfigError: `size` is not a multiple of the number of groups.
        DataError: a group has too few cases: the message says how many it has and needs; or as `group_counts`.
    """
    shape = group_counts(label, attribute).shape
    groups = shape[0] * shape[1]
    if size < 1 or groups == 0 or size % groups:
        raise ConfigError(f"size {size}; expected a multiple of {groups}, the number of labels × attributes")
    return draw_groups(key, label, attribute, np.full(shape, size // groups))


def biased_counts(
    size: int, anti_fraction: float | int, majority: Sequence[int] = (1, 0), attributes: int = 2
) -> Int[np.ndarray, "label attribute"]:
    """Number of cases of each label and attribute in a training set of which `anti_fraction` is anti-correlated.

    Labels are equally frequent, and so are the anti-correlated attributes of each. 1 / attributes is no bias.

    Args:
        size: number of cases.
        anti_fraction: fraction of anti-correlated cases, of each label.
        majority: attribute that is tied to each label.
        attributes: number of attributes.

    Raises:
        ConfigError: a group's number of cases is not whole; a fraction outside 0–1; or labels with equal attributes.
    """
    labels = len(majority)
    if not 0 <= anti_fraction <= 1 or attributes < 2:
        raise ConfigError(f"anti_fraction {anti_fraction}, attributes {attributes}; expected 0 to 1, and 2 or more")
    if len({*majority}) < labels or not all(0 <= one < attributes for one in majority):
        raise ConfigError(f"majority {tuple(majority)}; expected another attribute for each label, below {attributes}")
    each = size / labels
    anti = each * anti_fraction / (attributes - 1)
    if size < labels or size % labels or abs(anti - round(anti)) > TOLERANCE * max(anti, 1):
        found = f"{each:g} cases a label, of which {anti:g} in each anti-correlated group"
        raise ConfigError(f"size {size}, anti_fraction {anti_fraction:g}: {found}; expected whole numbers")
    counts = np.full((labels, attributes), round(anti))
    counts[range(labels), list(majority)] = round(each) - (attributes - 1) * round(anti)
    return counts


def biased_subset(
    key: PRNGKeyArray,
    label: Codes,
    attribute: Codes,
    size: int,
    anti_fraction: float | int,
    majority: Sequence[int] = (1, 0),
) -> Indices:
    """Random training set with exactly the `biased_counts` of each label and attribute.

    Subsets of one `size` and several fractions differ in the strength of the tie alone. 0.5 of a binary attribute is
    a balanced set; `majority` exchanged gives the opposite tie.

    Raises:
        ConfigError: as `biased_counts`.
        DataError: a group has too few cases: the message says how many it has and needs; or as `group_counts`.
    """
    attributes = max(group_counts(label, attribute).shape[1], 2, *(one + 1 for one in majority))
    return draw_groups(key, label, attribute, biased_counts(size, anti_fraction, majority, attributes))


def swap_pools(
    key: PRNGKeyArray,
    subject: Column,
    label: Codes,
    attribute: Codes,
    fraction: float | int,
    majority: Sequence[int] = (1, 0),
    strata: Sequence[Column] = (),
) -> tuple[Indices, Indices]:
    """Two pools of cases, tied and anti-correlated, after a fraction of the subjects of each went to the other one.

    The pools are all cases with attribute = majority[label] and all others; subjects are exchanged at random within
    each label, attribute and combination of `strata`. A fraction of 0.02 is an extreme bias, 0.5 none. The published
    design trains on the larger pool. All cases are in one of the pools, so group sizes are those of the data: the
    first one has an exact fraction of anti-correlated subjects only where both pools are equally large.

    Args:
        key: random key.
        subject: subject of each case.
        label: label of each case.
        attribute: attribute of each case.
        fraction: fraction of the subjects that change pools.
        majority: attribute that is tied to each label.
        strata: columns to stratify by, besides label and attribute: age bins, say.

    Raises:
        ConfigError: a fraction outside 0–1, or fewer attributes in `majority` than labels.
        DataError: a subject has cases of both pools (its label changes), or as `subject_split`.
    """
    y, a = _codes(label, attribute)
    if not 0 <= fraction <= 1 or y.max(initial=0) >= len(majority):
        found = f"fraction {fraction}, majority {tuple(majority)}"
        raise ConfigError(f"{found}; expected a fraction from 0 to 1, and an attribute for each label")
    tied = np.asarray(majority)[y] == a
    names = _column("subject", subject, len(y))
    both = np.intersect1d(names[tied], names[~tied])
    if both.size:
        raise DataError(f"subject {both[0]}: cases in both pools; expected one label and attribute for each subject")
    pools = []
    for part, pool_key in zip((tied, ~tied), jax.random.split(key), strict=True):
        pool = np.flatnonzero(part)
        columns = [_column("strata", one, len(y))[pool] for one in (y, a, *strata)]
        parts = subject_split(pool_key, names[pool], (1 - fraction, fraction), *columns) if pool.size else (pool, pool)
        pools.append([pool[one] for one in parts])
    (tied_stay, tied_leave), (anti_stay, anti_leave) = pools
    return np.sort(np.append(tied_stay, anti_leave)), np.sort(np.append(anti_stay, tied_leave))


def other_subjects(subject: Column, chosen: Int[AnyArray, "_"]) -> Indices:
    """Indices of the cases of all subjects that have none among the `chosen` ones."""
    names = _column("subject", subject)
    return np.flatnonzero(~np.isin(names, names[np.asarray(chosen, int)]))


def one_case_per_subject(key: PRNGKeyArray, subject: Column) -> Indices:
    """Index of one random case of each subject, in the order of the cases."""
    names = _column("subject", subject)
    order = _generator(key).permutation(len(names))
    return np.sort(order[np.unique(names[order], return_index=True)[1]])


def _generator(key: PRNGKeyArray) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())


def _codes(label: Codes, attribute: Codes) -> tuple[np.ndarray, np.ndarray]:
    y, a = np.asarray(label), np.asarray(attribute)
    if y.shape != a.shape or y.ndim != 1:
        raise DataError(f"label, attribute: shapes {y.shape}, {a.shape}; expected one of each per case")
    y, a = class_numbers("label", y), class_numbers("attribute", a)
    for name, values in (("label", y), ("attribute", a)):
        if (values < 0).any():
            raise DataError(f"{name}: {values.min()}; expected class numbers from 0; drop unknown ones")
    return y, a


def _column(name: str, values: Column, cases: int | None = None) -> np.ndarray:
    column = np.asarray(values)
    if column.ndim != 1 or (cases is not None and len(column) != cases):
        raise DataError(f"{name}: shape {column.shape}; expected one value for each of the {cases or ''} cases")
    return column


def _subjects_and_strata(subject: Column, strata: Sequence[Column]) -> tuple[np.ndarray, np.ndarray]:
    """Number of each case's subject, and the stratum of each subject: the set of combinations that its cases have."""
    names = _column("subject", subject)
    if not names.size:
        raise DataError("subject: no case; expected at least one")
    number = np.unique(names, return_inverse=True)[1]
    code = np.zeros(len(names), int)
    for column in strata:
        _, values = np.unique(_column("strata", column, len(names)), return_inverse=True)
        code = code * (values.max() + 1) + values
    combinations: list[set[int]] = [set() for _ in range(number.max() + 1)]
    for one, value in zip(number.tolist(), code.tolist(), strict=True):
        combinations[one].add(value)
    ordered = sorted({frozenset(one) for one in combinations}, key=sorted)
    known = {one: k for k, one in enumerate(ordered)}
    return number, np.array([known[frozenset(one)] for one in combinations])

"""Public names, help and metrics are in the field's words: what this project once called otherwise does not come back.

A word is looked for in identifiers (split at underscores and capitals), a phrase in docstrings, help and messages.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What not to write, and what to write instead.
WORDS = {
    "estimator": "denoiser",
    "unconditional": "denoiser",
    "move": "solver step, update",
    "conditioning": "guidance, or classifier-free guidance, or MR-guided",
    "landed": "reached_target",
    "landing": "target",
    "goal": "target",
    "even": "EDM loss weight",
    "earliest": "t_min",
    "law": "log mean coefficient",
    "across": "slice-wise",
    "ascend": "update",
    "lines": "lors",
    "lanes": "symmetric views",
    "lane": "symmetric view",
    "candidates": "LOR look-up table",
    "alike": "Bowsher weights",
    "knob": "hyperparameter",
    "knobs": "hyperparameters",
    "passes": "iterations",
    "share": "fraction",
    "shares": "fractions",
    "place": "voxel, pixel, location",
    "places": "voxels, pixels, locations",
    "made": "a noun of what it is",
    "bench": "Setup",
    "ready": "to_device, prepared",
    "picture": "plot, image",
    "pictures": "plots, images",
    "optimiser": "optimizer",
    "descended": "apply_gradients",
    "watch": "training dynamics",
    "moment": "snapshot",
    "turned": "memorization",
    "cut": "truncation",
    "bad": "corrupted",
    "grown": "dilated",
    "recipe": "nnunet",
    "adopted": "postprocessing",
    "said": "prediction",
    "told": "a noun of what it is",
    "given": "a noun of what it is",
    "found": "a noun of what it is",
    "moved": "a noun of what it is",
    "judged": "a noun of what it is",
    "shown": "a noun of what it is",
    "doubt": "least confidence",
    "spoilt": "outlier",
    "rejection": "outliers",
    "directions": "averaging",
    "shrunk": "hierarchical (empirical Bayes)",
    "shrinkage": "hierarchical (empirical Bayes)",
    "slopes": "jacobian",
    "easier": "damping factor",
    "harder": "damping factor",
    "formats": "nifti",
    "projections": "projector calls",
    "spread": "sd",
    "fewest": "min",
    "least": "min",
    "most": "max",
    "longest": "max",
    "greatest": "max",
    # identifiers are spelt as the libraries around them spell
    "centre": "center",
    "grey": "gray",
    "colour": "color",
    "colours": "colors",
    "neighbours": "neighbors",
    "normalised": "normalized",
    "summarise": "summarize",
    "realisations": "realizations",
}
PHRASES = {
    r"\b(the|a|an|its|their|own|each|same|what|in) shares?\b(?! (the|what|a|one)\b)": "fraction",
    r"\bshare of\b": "fraction of",
    r"\bknobs?\b": "hyper-parameter",
    r"\bspoilt\b": "outlier, corrupted",
    r"\bshrunk\b": "hierarchical",
    r"\bsurvives? a kill\b": "resumes after interruption",
    r"\brooms are open\b": "available",
    r"\bfor trying things\b": "for demonstration",
    r"\bwhat it was given\b": "its input",
    r"\bof what emits\b": "of emission volume",
    r"\bvoxels? (that |which )?helps? each other\b": "hierarchical fit",
    r"\bnear lines\b": "LOR look-up table",
    r"\bno trues\b": "background",
    r"\bleast standard deviation\b": "Cramér–Rao lower bound",
    r"\b(says?|said|told)\b (of|from) the (labels?|network)": "prediction",
}
# identifier → why it keeps its word
EXCEPTIONS: dict[str, str] = {
    "preserve_adopted_names": "Flax's own name of a field of its modules",
    "least_confidence": "the field's name of 1 − max p",
}
# functions and classes that end like a participle, and are none
PARTICIPLES: dict[str, str] = {
    "average_distance_pooled": "a distance",
    "check_seed": "a verb and its object",
    "drop_corrupted": "a verb and its object",
    "drop_flagged": "a verb and its object",
    "hausdorff_percentile_pooled": "a percentile",
    "read_labeled": "a verb and its object",
    "read_trusted": "a verb and its object",
    "refurbish_flagged": "a verb and its object",
}


def words(identifier: str) -> list[str]:
    """The words of an identifier, lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)]


def public_names(file: Path) -> Iterator[str]:
    """The module's name, its functions and their parameters, its classes and their fields, its constants."""
    yield file.stem
    for node in ast.parse(file.read_text()).body:
        yield from _names(node)


def _names(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name.startswith("__")):
        arguments = node.args
        yield from (node.name, *(each.arg for each in arguments.posonlyargs + arguments.args + arguments.kwonlyargs))
    elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
        yield node.name
        for inner in node.body:
            yield from _names(inner)
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id
    elif isinstance(node, ast.Assign):
        yield from (
            name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
        )


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """Every string of a module that is more than one word: docstrings, help, messages, columns."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, " ".join(node.value.split())


def unfit(identifier: str) -> list[str]:
    """What is wrong with an identifier: each word that has a better one."""
    if identifier.startswith("_"):
        return []
    rest = re.sub("|".join(EXCEPTIONS), "", identifier)  # least_confidence_auroc
    return [f"{identifier}: not {word!r} but {WORDS[word]}" for word in words(rest) if word in WORDS]


def files() -> list[Path]:
    return [file for room in ("medjax", "experiments", "configs") for file in sorted((ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("room", sorted({str(file.relative_to(ROOT).parent) for file in files()}))
def test_public_names_are_the_fields_words(room):
    here = [file for file in files() if str(file.relative_to(ROOT).parent) == room]
    wrong = {f"{file.name}: {remark}" for file in here for name in public_names(file) for remark in unfit(name)}
    assert not wrong, "\n" + "\n".join(sorted(wrong))


@pytest.mark.parametrize("room", sorted({str(file.relative_to(ROOT).parent) for file in files()}))
def test_texts_are_the_fields_words(room):
    wrong = {
        f"{file.relative_to(ROOT)}:{line}: {match[0]!r}; write {better}"
        for file in files()
        if str(file.relative_to(ROOT).parent) == room
        for line, text in texts(file)
        for phrase, better in PHRASES.items()
        for match in [re.search(phrase, text)]
        if match
    }
    assert not wrong, "\n" + "\n".join(sorted(wrong))


@pytest.mark.parametrize("room", sorted({str(file.relative_to(ROOT).parent) for file in files()}))
def test_functions_are_verbs_or_nouns(room):
    here = [file for file in files() if str(file.relative_to(ROOT).parent) == room]
    functions = {
        (file.name, node.name)
        for file in here
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    }
    wrong = {
        f"{file}: {name}" for file, name in functions if words(name)[-1].endswith("ed") and name not in PARTICIPLES
    }
    assert not wrong, "\n" + "\n".join(sorted(wrong))


def test_metrics_are_the_fields_words():
    names = {
        name
        for metrics in json.loads((ROOT / "scripts" / "tiny_metrics.json").read_text()).values()
        for name in metrics
    }
    wrong = {remark for name in names for part in name.split("/") for remark in unfit(part)}
    assert not wrong, "\n" + "\n".join(sorted(wrong))


def test_every_exception_is_needed():
    everything = {name for file in files() for name in public_names(file)}
    assert set(EXCEPTIONS) <= everything
    assert set(PARTICIPLES) <= everything
    assert all(any(word in WORDS for word in words(name)) for name in EXCEPTIONS)


def test_what_would_be_found():
    assert words("LEAST_ZOOM") == ["least", "zoom"] and words("GroupLosses") == ["group", "losses"]
    assert unfit("tissue_shares") and unfit("MostClasses") and not unfit("fraction")

"""Docstrings for Sphinx: plain sentences with `code` and equations become reStructuredText.

Characters that mean something there (* | _) are escaped outside of `code`, indented examples become blocks of code, and
a field of a dataclass or NamedTuple is described by the comment behind it in the source.
"""

import ast
import inspect
import re
import textwrap
from itertools import pairwise
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

SECTIONS = re.compile(r"(Raises|Args|Returns|Yields|Attributes):\s*$")  # napoleon reads what is indented under them

ITEM = re.compile(r"- |\d+\. |  ")  # what goes on with an indented line


def to_rst(lines: list[str]) -> list[str]:
    """The same text as reStructuredText.

    `a *b` → ``a *b``, and outside of code * → \\*; what is indented is a block of code, but in a section or a list.
    """
    out: list[str] = []
    block = section = False
    for previous, line in pairwise(["", *lines]):
        if line.strip() and not line.startswith("  "):
            out += [""] if block else []
            block, section = False, bool(SECTIONS.match(line))
        elif line.strip() and not (block or section or ITEM.match(previous)):
            out += ["", "::", ""]
            block = True
        out.append(line if block else escape(line))
    return out


def escape(line: str) -> str:
    """One line of text: code in double quotes, and an escaped space where no space or bracket is; the rest escaped."""
    text = ""
    for index, piece in enumerate(re.split(r"(`[^`]+`)", line)):
        if index % 2:
            text += ("\\ " if re.search(r"""[^\s'"([{<:/-]$""", text) else "") + f"`{piece}`"
        else:
            text += ("\\ " if index and re.match(r"""[^\s'")\]}>:/.,;!?-]""", piece) else "") + plain(piece)
    return text


def plain(text: str) -> str:
    """Text without code, with the characters escaped that mean something."""
    return re.sub(r"(?<=\w)_(?!\w)", r"\\_", re.sub(r"([\\*|`])", r"\\\1", text))


def comments(owner: type) -> dict[str, str]:
    """Comments behind the fields of a class in its source, by field."""
    try:
        source = textwrap.dedent(inspect.getsource(owner))
    except (OSError, TypeError):
        return {}
    lines = source.splitlines()
    fields = [node for node in ast.parse(source).body[0].body if isinstance(node, ast.AnnAssign)]  # type: ignore[attr-defined]
    found = {}
    for node in fields:
        _, mark, comment = lines[(node.end_lineno or node.lineno) - 1][node.end_col_offset or 0 :].partition("# ")
        if mark:
            found[ast.unparse(node.target)] = comment.strip()
    return found


def describe_field(module: str, name: str) -> str:
    """What the source says of a field such as medjax.pet.em.Info.deviance; nothing where it says nothing."""
    owner: Any = __import__(module, fromlist=["_"])
    *path, field = name.removeprefix(f"{module}.").split(".")
    for part in path:
        owner = getattr(owner, part, None)
    return comments(owner).get(field, "") if inspect.isclass(owner) else ""


def process_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Autodoc's event: change the lines in place. A field's default, such as jax.nn.relu, is not described here."""
    ours = str(getattr(obj, "__module__", "medjax")).startswith(("medjax", "experiments"))
    lines[:] = to_rst(lines) if ours else []


def process_field(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """The same event behind napoleon, which would take what stands before a colon for a type."""
    if what in ("attribute", "property") and (not lines or lines[0].startswith("Alias for field number")):
        module = app.env.ref_context.get("py:module") or app.env.current_document.autodoc_module
        lines[:] = [escape(describe_field(module, name))] if module else []


def process_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Arrays by the name that everybody knows them by."""
    return signature and short(signature), returns and short(returns)


def short(text: str | None) -> str:
    """`Float[jaxlib._jax.Array, 'x y']` → `Float[Array, 'x y']`, and a scalar is Scalar."""
    return re.sub(r"Shaped\[Array, ''\]", "Scalar", (text or "").replace("jaxlib._jax.Array", "Array"))


def shorten_annotations(app: Sphinx, tree: nodes.document) -> None:
    """The same names in the annotations of fields, which have no event of their own."""
    for text in [*tree.findall(nodes.Text)]:
        if "jaxlib._jax.Array" in text and text.parent is not None:
            text.parent.replace(text, nodes.Text(short(str(text))))


def setup(app: Sphinx) -> dict[str, bool]:
    """Docstrings before napoleon (500), which reads Raises, fields after it."""
    app.connect("autodoc-process-docstring", process_docstring, priority=400)
    app.connect("autodoc-process-docstring", process_field, priority=600)
    app.connect("autodoc-process-signature", process_signature)
    app.connect("doctree-read", shorten_annotations)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""The contents of the site are the lists of links on docs/index.md: every list under a bold line is a part of the menu.

Links to the gallery's and the modules' sources lead to the pages that are generated of them.
"""

import re

from sphinx.application import Sphinx

GENERATED = {
    "gallery/README.rst)": "auto/gallery/index.rst)",
    "../medjax/__init__.py)": "auto/api/medjax.md)",
}


def lead_to_generated(text: str) -> str:
    """The text with links to the pages that are generated."""
    for source, page in GENERATED.items():
        text = text.replace(source, page)
    return text


def contents(text: str) -> str:
    """Tables of contents, hidden, of a page's lists of links."""
    tables = ""
    for caption, block in re.findall(r"^\*\*(.+)\*\*\n\n((?:- .*\n)+)", text, re.MULTILINE):
        pages = "\n".join(re.findall(r"^- \[[^\]]*\]\(([^)#]+)\.(?:md|rst)\)", block, re.MULTILINE))
        tables += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```\n"
    return tables


def change_source(app: Sphinx, docname: str, source: list[str]) -> None:
    """Sphinx's event: change the page's text in place."""
    source[0] = lead_to_generated(source[0])
    if docname == app.config.root_doc:
        source[0] += contents(source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """While pages are read."""
    app.connect("source-read", change_source)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

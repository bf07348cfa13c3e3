"""Settings of the site (Sphinx). The source folder is the checkout, so that a link holds there and on the site.

    scripts/docs    # builds it in build/site

The contents are the lists of docs/index.md (docs/extensions/contents.py).
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "extensions")]

from medjax import __version__  # noqa: E402

project = "medjax"
author = copyright = "The medjax developers"
release = version = __version__
language = "en"

extensions = [
    "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery", "api_pages", "contents", "docstrings", "mathml",
]  # fmt: skip
root_doc = "docs/index"
include_patterns = [
    "docs/**.md", "docs/**.rst", "README.md", "RESULTS.md", "CHANGELOG.md", "CONTRIBUTING.md",
    "medjax/diffusion/weights/*.md", "tests/campaign/README.md",
]  # fmt: skip
exclude_patterns = [".*", "build", "dist", "runs", "docs/gallery/README*"]

sphinx_gallery_conf = {
    "examples_dirs": "docs/gallery",
    "gallery_dirs": "docs/auto/gallery",
    "filename_pattern": "/plot_",  # those that are run; scripts/docs --part runs some
    "within_subsection_order": "FileNameSortKey",
    "remove_config_comments": True,
    "show_signature": False,
    "parallel": True,  # as many at once as -j says, each in a process
    "write_computation_times": False,
}

myst_heading_anchors = 6
myst_enable_extensions = ["dollarmath"]
html_math_renderer = "mathml"

viewcode_follow_imported_members = False  # the source's page would link names of another module
suppress_warnings = ["ref.python"]  # fields and types of one name, such as `bytes`
autodoc_inherit_docstrings = False  # those of other packages are not written for this site
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100

html_theme = "furo"
templates_path = ["templates"]
html_additional_pages = {"index": "redirect.html"}
html_title = f"medjax {version}"
html_copy_source = False
html_show_sphinx = False

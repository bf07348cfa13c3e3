"""The site, where `scripts/docs` has built it: links and anchors lead somewhere, pages read well in a browser."""

import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.browser import SIZES, chromium, faults

SITE = Path(__file__).parents[1] / "build" / "site"
LOOKED_AT = [
    "docs/index.html", "README.html", "docs/pet.html", "docs/papers/pet_likelihood_schedule.html",
    "docs/auto/gallery/index.html", "docs/auto/api/medjax.pet.em.html", "RESULTS.html",
]  # fmt: skip
ROOT = SITE.parents[1]
SOURCES = [page for folder in ("", "docs/", "docs/papers/") for page in ROOT.glob(f"{folder}*.md")]
MADE = (SITE / "index.html").stat().st_mtime if (SITE / "index.html").exists() else 0.0
built = pytest.mark.skipif(
    max(page.stat().st_mtime for page in SOURCES) > MADE, reason="scripts/docs has not built the site from these pages"
)


class Page(HTMLParser):
    """Ids of a page, and what it links to or shows."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.targets = set[str](), list[str]()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids |= {name for name in (given.get("id"), given.get("name")) if name}
        self.targets += [value for key in ("href", "src") if (value := given.get(key))]


@cache
def page(path: Path) -> Page:
    return Page(path)


@cache
def leads_somewhere(folder: Path, target: str) -> bool:
    """Whether a link of a page in this folder is to another site, or to what exists; the menu's are in every page."""
    if re.match(r"\w+:", target) or target.startswith("//"):
        return True
    place, _, anchor = unquote(target).partition("#")
    file = (folder / place.partition("?")[0]).resolve()
    if file.is_dir():
        file /= "index.html"
    return file.exists() and (not anchor or file.suffix != ".html" or anchor in page(file).ids)


@built
def test_links_lead_somewhere():
    broken = []
    for path in SITE.resolve().rglob("*.html"):
        targets = [one if one[:1] != "#" else path.name + one for one in page(path).targets]
        broken += [f"{path.name}: {target}" for target in targets if not leads_somewhere(path.parent, target)]
    assert broken == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@built
@pytest.mark.parametrize("page", LOOKED_AT)
@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_a_page_reads_well(browser: Any, page: str, width: int, scheme: str):
    assert faults(browser, SITE / page, width, scheme) == []

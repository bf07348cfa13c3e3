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
built = pytest.mark.skipif(not (SITE / "index.html").exists(), reason="scripts/docs has not built the site")


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
def ids(path: Path) -> set[str]:
    return Page(path).ids


@built
def test_links_lead_somewhere():
    broken = []
    for path in SITE.rglob("*.html"):
        for target in Page(path).targets:
            if re.match(r"\w+:", target) or target.startswith("//"):
                continue
            place, _, anchor = unquote(target).partition("#")
            file = (path.parent / place.partition("?")[0]).resolve() if place else path
            if file.is_dir():
                file /= "index.html"
            if not file.exists() or (anchor and file.suffix == ".html" and anchor not in ids(file)):
                broken.append(f"{path.relative_to(SITE)}: {target}")
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

"""Pages in a real browser: the distribution's Chromium, without a window; tests skip where there is none."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SIZES = [(width, scheme) for width in (390, 1440) for scheme in ("light", "dark")]  # a phone, a desk

# Text is readable where its contrast is at least 4.5 (3 where it is large): Web Content Accessibility Guidelines 2.2,
# 1.4.3. Colours behind it are those of the nearest element that has one.
FAULTS = """() => {
    const faults = [];
    for (const image of document.images) {
        const decoration = image.getAttribute("alt") === "" && !image.closest("figure");  // its title stands beside it
        if (!image.alt.trim() && !decoration) faults.push("an image without a text: " + image.src.slice(-60));
        if (!image.naturalWidth) faults.push("a broken image: " + image.src.slice(-60));
    }
    for (const link of document.querySelectorAll("a[href^='#']")) {
        const id = decodeURIComponent(link.getAttribute("href").slice(1));
        if (id && !document.getElementById(id)) faults.push("a link to nowhere: #" + id);
    }
    if (document.documentElement.scrollWidth > window.innerWidth) faults.push("wider than the window");
    if (!document.documentElement.lang) faults.push("no language");
    const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
    const behind = element => {
        for (; element; element = element.parentElement) {
            const colour = numbers(getComputedStyle(element).backgroundColor);
            if (colour.length < 4 || colour[3] > 0.99) return colour;
        }
        return [255, 255, 255];
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement, style = getComputedStyle(element);
        const shown = element.getClientRects().length && style.visibility != "hidden";
        if (!shown || !texts.currentNode.textContent.trim()) continue;
        const [dark, light] = [luminance(numbers(style.color)), luminance(behind(element))].sort((a, b) => a - b);
        const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
        const contrast = (light + 0.05) / (dark + 0.05);
        if (contrast < (large ? 3 : 4.5))
            faults.push(`contrast ${contrast.toFixed(1)}: ${texts.currentNode.textContent.trim().slice(0, 40)}`);
    }
    return faults;
}"""


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser; the test that needs it is skipped where it or its driver is not installed."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    driver = pytest.importorskip("playwright.sync_api")
    with driver.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def faults(browser: Any, path: Path, width: int, scheme: str) -> list[str]:
    """What is wrong with a page: errors in the console, what is missing, what cannot be read or reached by keyboard."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, found = context.new_page(), []
    page.on("console", lambda message: found.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("requestfailed", lambda request: found.append(f"cannot be loaded: {request.url[-80:]}"))
    page.on(
        "request", lambda request: None if request.url.startswith(("file:", "data:")) else found.append(request.url)
    )
    page.goto(path.as_uri())
    found += page.evaluate(FAULTS)
    found += unreachable(page)
    context.close()
    return found


def unreachable(page: Any, most: int = 25) -> list[str]:
    """Of the first links, fields and summaries of the text, those that the Tab key does not come to or that hide it."""
    wanted = page.evaluate(
        """most => {
            const root = document.querySelector("main, article") || document.body;
            root.tabIndex = -1;
            root.focus();  // the Tab key goes on from here
            window.wanted = [...root.querySelectorAll("a[href], summary, input")]
                .filter(e => e.getClientRects().length && getComputedStyle(e).visibility != "hidden").slice(0, most);
            return window.wanted.map(e => (e.textContent || e.id || e.outerHTML).trim().slice(0, 40));
        }""",
        most,
    )
    seen, hidden = set[int](), set[int]()
    for _ in range(len(wanted) + 100):  # buttons and wide tables, which scroll, are between them
        if len(seen - {-1}) == len(wanted):
            break
        page.keyboard.press("Tab")
        number, shown = page.evaluate(
            """() => {
                const e = document.activeElement, style = getComputedStyle(e);
                return [window.wanted.indexOf(e), e.matches(":focus-visible")
                    && (e.matches("input") || style.outlineStyle != "none" || style.boxShadow != "none")];
            }"""
        )
        seen.add(number)
        hidden |= set() if shown else {number}
    found = [f"the Tab key does not come to: {text}" for k, text in enumerate(wanted) if k not in seen]
    return found + [f"without an outline when the Tab key comes to it: {wanted[k]}" for k in sorted(hidden - {-1})]

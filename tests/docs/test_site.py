"""The site of docs/ is built, and read as a reader's browser would: without a network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.support.browser import running_browser

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def pages(site: Path) -> dict[str, str]:
    return {str(path.relative_to(site)): path.read_text() for path in site.rglob("*.html")}


def article(page: str) -> str:
    (found,) = re.findall(r"<article.*?</article>", page, re.DOTALL)
    return found


def test_every_document_has_its_page(site: Path) -> None:
    documents = {str(path.relative_to(ROOT / "docs").with_suffix("")) for path in ROOT.glob("docs/**/*.md")}
    generated = {"index", "security", "changelog", "rendered", "model-card", "adr/index"}
    found = {name.removesuffix(".html") for name in pages(site)} - {"404"}
    assert found == documents | generated


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    for name, page in pages(site).items():
        loaded = re.findall(r"<(?:script|img|iframe)\b[^>]*?\bsrc=\"?([^\"\s>]+)", page)
        loaded += re.findall(r"<link\b[^>]*?\bhref=\"?([^\"\s>]+)", page)
        assert len(loaded) > 3
        assert [url for url in loaded if re.match(r"\w+:|//", url)] == [], name
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:|//)|@import", style.read_text()), style


def test_what_a_page_loads_is_there(site: Path) -> None:
    for name, page in pages(site).items():
        for url in re.findall(r"<(?:script|img)\b[^>]*?\bsrc=\"([^\"]+)", page):
            start = site if url.startswith("/") else (site / name).parent
            assert (start / url.lstrip("/")).is_file(), (name, url)


def test_the_search_knows_every_page(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())
    assert {entry["location"].partition("#")[0] for entry in index["docs"]} == {
        name for name in pages(site) if name != "404.html"
    }


def test_lists_and_tables_are_lists_and_tables(site: Path) -> None:
    for name, page in pages(site).items():
        if name == "404.html":
            continue
        for paragraph in re.findall(r"<p>(.*?)</p>", article(page), re.DOTALL):
            assert not re.search(r"^([-*] |\d+\. |\||#)", paragraph, re.MULTILINE), (name, paragraph)
        assert "\\|" not in article(page), name


async def test_a_folder_of_pages_is_enough_to_search_and_asks_for_nothing_else(site: Path) -> None:
    async with running_browser() as browser:
        page = await browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.goto((site / "index.html").as_uri())
        await page.get_by_role("textbox", name="Search").fill("ArchExtProcNobodyDrivesRollouts")
        found = page.locator("a.md-search-result__link[href*=runbook]").first
        await expect(found).to_be_visible()
        await found.click()
        await expect(page.get_by_role("heading", name="Runbook")).to_be_visible()
        strangers = [url for url in asked if not url.startswith((site.as_uri(), "data:", "blob:"))]
        assert strangers == []


def test_every_alert_links_to_its_section(site: Path) -> None:
    alerts = (ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text()
    links = re.findall(r"runbook_url: https?://\S+/([\w.]+)#(\w+)$", alerts, re.MULTILINE)
    assert len(links) == alerts.count("- alert: ")
    for page, anchor in links:
        assert re.search(rf'<h\d id="?{anchor}\b', article((site / page).read_text())), anchor

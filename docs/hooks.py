"""What the site has beyond docs/: pages of the repository's other folders, and the decisions' list.

In the repository links go to files. Here those to documents lead to their pages, and the others become the
file's path, so that the site stands alone.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "envoy/README.md": "rendered.md",
    "ext_proc/router/embedded/weights/MODEL_CARD.md": "model-card.md",
}
"""Documents by their path in the repository, and where the site has them."""

ADR = "adr/index.md"
SHIM = "https://unpkg.com/iframe-worker/shim"
"""What the theme loads from elsewhere, so that its search runs from a folder. The site has a copy."""

_LINK = re.compile(r"\[((?:[^][]|\[[^][]*\])*)\]\(([^()\s:#]+)(#[^()\s]*)?\)")
_SOURCES = {site: repository for repository, site in ELSEWHERE.items()}


def decisions() -> list[Path]:
    return sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for repository, site in ELSEWHERE.items():
        files.append(File.generated(config, site, content=(ROOT / repository).read_text()))
    files.append(File.generated(config, ADR, content=_list_of_decisions()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    here = page.file.src_uri
    source = _SOURCES.get(here, f"docs/{here}")

    def linked(match: re.Match[str]) -> str:
        text, path, fragment = match[1], normpath(join(dirname(source), match[2])), match[3] or ""
        site = ELSEWHERE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if site is None:
            return f"`{path}`" if text.strip("`") in path else f"{text} (`{path}`)"
        if re.fullmatch(r"[\w/-]+\.md", text):
            # "reload.md" tells a reader of files where to look, and a reader of pages nothing.
            target = files.get_file_from_path(site)
            text = str(target.page.title) if target and target.page else text
        return f"[{text}]({relpath(site, dirname(here) or '.')}{fragment})"

    return _LINK.sub(linked, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    up = "../" * page.file.dest_uri.count("/")
    return output.replace(SHIM, f"{up}javascripts/iframe-worker.js")


def on_post_template(output: str, template_name: str, config: MkDocsConfig) -> str:
    return output.replace(SHIM, "/javascripts/iframe-worker.js")


def _list_of_decisions() -> str:
    lines = [
        "# Decisions",
        "",
        "Why things are as they are: each with its context, the choice, what follows, and what was rejected.",
        "",
    ]
    for path in decisions():
        number, _, title = path.read_text().partition("\n")[0].removeprefix("# ").partition(": ")
        lines.append(f"- {number}: [{title}]({path.name})")
    return "\n".join(lines) + "\n"

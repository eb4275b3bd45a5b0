"""What mkdocs does besides: the pages outside `docs/`, and the words after a block's language."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}


def on_files(files: Any, config: Any, **_: Any) -> None:
    """Add the pages that lie above the folder."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Have links lead within the site, and keep of a code block's first line what mkdocs reads."""
    markdown = re.sub(r"\]\(([^):#\s]+)", lambda link: f"]({moved(link[1])}", markdown)
    return re.sub(r"^(```\w+)\b.+$", r"\1", markdown, flags=re.MULTILINE)


def moved(link: str) -> str:
    """Where a file of the repository is in the site."""
    plain = link.removeprefix("../")
    return PAGES.get(plain, plain.removeprefix("docs/"))

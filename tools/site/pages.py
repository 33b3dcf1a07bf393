"""The pages of the site in one folder: docs/ as it is, what is made here, and links that lead to pages alone."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from tools.site.markdown import outside_code
from tools.site.reference import modules_page, python_page
from tools.site.settings import settings_page

CHECKOUT = Path(__file__).resolve().parents[2]
DOCS, ZOO = CHECKOUT / "docs", CHECKOUT / "src" / "icm_pipeline" / "zoo"
NOTEBOOK = CHECKOUT / "notebooks" / "tour.ipynb"
MADE: dict[str, Callable[[], str]] = {
    "reference.md": python_page,
    "settings.md": settings_page,
    "modules.md": modules_page,
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")


def write_pages(folder: Path) -> None:
    """Write all pages but the notebook's, in place of what is there; raises ValueError for a link to nothing."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "models").mkdir(parents=True)
    for source in sorted(DOCS.iterdir()):
        if source.suffix == ".md":
            (folder / source.name).write_text(relinked(source.read_text("utf-8"), source), "utf-8")
        else:
            shutil.copy(source, folder / source.name)
    for name, made in MADE.items():
        (folder / name).write_text(made(), "utf-8")
    for card in sorted(ZOO.glob("*/README.md")):
        (folder / "models" / f"{card.parent.name}.md").write_text(card.read_text("utf-8"), "utf-8")


def relinked(text: str, source: Path) -> str:
    """Return a page's text with links for the site: a model's card is a page of it, a file of code is only named."""

    def link(found: re.Match[str]) -> str:
        label, target, anchor = found[2], found[3], found[4] or ""
        if not target or "://" in target or target in MADE:
            return found[0]
        path = (source.parent / target).resolve()
        if path == NOTEBOOK:
            return f"[{label}](tour.md)"
        if path.parent.parent == ZOO and path.name == "README.md":
            return f"[{label}](models/{path.parent.name}.md{anchor})"
        if path == CHECKOUT / "README.md":
            return f"[{label}](index.md)"
        if path.parent == DOCS and path.exists():
            return found[0]
        if not path.exists():
            raise ValueError(f"{source} links to {target}, which is not there.")
        return f"{label} (`{path.relative_to(CHECKOUT)}`)"

    return outside_code(text, lambda part: LINK.sub(link, part))

"""Build the docs site: python -m tools.site [--no-notebook]. `make docs` does it, and leaves build/site/index.html."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from tools.site.notebook import write_notebook
from tools.site.pages import CHECKOUT, NOTEBOOK, write_pages

PAGES, SITE = CHECKOUT / "build" / "pages", CHECKOUT / "build" / "site"
NOT_RUN = "# A tour\n\nThis site was built with `--no-notebook`: `notebooks/tour.ipynb` was not run.\n"
LOADED = re.compile(r"<(?:script|img|iframe)[^>]* src=\"?(https?://[^\s\">]+)|<link[^>]* href=\"?(https?://[^\s\">]+)")


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the docs site.")
    parser.add_argument("--no-notebook", action="store_true", help="leave the tour out, which takes minutes")
    arguments = parser.parse_args()
    write_pages(PAGES)
    if arguments.no_notebook:
        (PAGES / "tour.md").write_text(NOT_RUN, "utf-8")
    else:
        print(f"Running {NOTEBOOK.relative_to(CHECKOUT)} (two minutes on two idle cores) ...", flush=True)
        print(f"  {write_notebook(NOTEBOOK, PAGES):.0f} s", flush=True)
    code = subprocess.run([sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=CHECKOUT).returncode
    if code:
        return code
    if elsewhere := loaded_from_elsewhere(SITE):
        print("error: pages load from a network, which they must not:", *elsewhere, sep="\n  ", file=sys.stderr)
        return 1
    print(
        f"The site: {SITE / 'index.html'}; with search: python -m http.server --directory {SITE.relative_to(CHECKOUT)}"
    )
    return 0


def loaded_from_elsewhere(site: Path) -> list[str]:
    """Return what pages load from other hosts when they are read; links that a reader may follow do not count."""
    found = {one or other for page in site.rglob("*.html") for one, other in LOADED.findall(page.read_text("utf-8"))}
    return sorted(found)


if __name__ == "__main__":
    sys.exit(main())

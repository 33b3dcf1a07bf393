"""The names of extras are ones that old and new pips agree on."""

import re
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def test_an_extra_is_called_what_its_metadata_calls_it() -> None:
    """pip 23.2, Python 3.11's own, looks an extra up as it was typed, and metadata holds it with dashes: PEP 685."""
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [name for name in extras if name != re.sub(r"[-_.]+", "-", name).lower()] == []


def test_every_extra_that_a_message_or_page_names_exists() -> None:
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pages = [CHECKOUT / "README.md", CHECKOUT / "Makefile", *(CHECKOUT / "docs").glob("*.md")]
    texts = [path.read_text() for path in (*pages, *(CHECKOUT / "src").rglob("*.py"))]
    named = {name for text in texts for group in re.findall(r"(?:icm_pipeline|-e '\.)\[([\w,-]+)\]", text)
             for name in group.split(",")}  # fmt: skip
    assert named - extras.keys() == set()
    assert "pretrain" in named

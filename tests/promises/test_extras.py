"""The names of extras are ones that old and new pips agree on."""

import re
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def test_the_name_of_an_extra_can_be_typed_in_one_way_only() -> None:
    """Metadata holds dashes for underscores (PEP 685), and pip 23.2, Python 3.11's own, finds only what is typed so."""
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [name for name in extras if not re.fullmatch("[a-z0-9]+", name)] == []


def test_every_extra_that_a_message_or_page_names_exists() -> None:
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pages = [CHECKOUT / "README.md", CHECKOUT / "Makefile", *(CHECKOUT / "docs").glob("*.md")]
    texts = [path.read_text() for path in (*pages, *(CHECKOUT / "src").rglob("*.py"))]
    naming = r"""(?:icm_pipeline\[|--extras |installing\(["'])([\w,-]+)"""
    named = {name for text in texts for group in re.findall(naming, text) for name in group.split(",")}
    assert named - extras.keys() == set()
    assert {"pretrain", "bench"} <= named  # the latter in a message alone

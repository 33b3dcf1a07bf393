"""`icm models`: the families that are known, with their pipelines, sites, guidance, formats and what was tested.

Those of installed packages are known by their entry points, a user's own by the module that registers them.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from rich import box
from rich.console import Console
from rich.table import Table

from icm_pipeline.backbones.base import BackboneError, Family
from icm_pipeline.backbones.proofs import Proof, proofs, trained
from icm_pipeline.backbones.registry import FAMILIES, OWN, known_families
from icm_pipeline.config.choices import KIND_NAMES
from icm_pipeline.text import did_you_mean

TITLES = ("family", "pipelines", "with a picture", "sites", "rows of a call", "image tokens", "in runs", "tested as")
PROVED = "tested on random weights (by what: `icm models <family>`); tiny... are trained models, shipped here"
ROOMY = ("with a picture", "in runs")
MOST_WIDE = 10_000  # characters, where nothing is to be wrapped: what is not a terminal is searched


def run_models(words: Sequence[str]) -> int:
    """Print the families, or one with its patterns, and return the exit code."""
    parser = argparse.ArgumentParser("icm models", description="List the families of pipelines that are known.")
    parser.add_argument("family", nargs="?", help="one of them, or a pipeline's class: its sites and tests")
    parser.add_argument("--markdown", action="store_true", help="as a table of Markdown, which docs/families.md has")
    add_module(parser)
    arguments = parser.parse_args(words)
    try:
        import_own(arguments.module)
    except BackboneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    known = {family.name: family for family in known_families()}
    of_class = {name: family for family in known.values() for name in (*family.also, *family.pipelines)}
    chosen = known.get(arguments.family) or of_class.get(arguments.family)
    if arguments.family is not None and chosen is None:
        near = did_you_mean(arguments.family, [*known, *of_class])
        said = f"{arguments.family!r} is no family, and no class of one.{near} `icm models` lists them."
        print(f"error: {said}", file=sys.stderr)
        return 1
    if arguments.markdown:
        print(markdown_table([chosen] if chosen else FAMILIES))
        return 0
    console = Console() if sys.stdout.isatty() else Console(width=MOST_WIDE)
    with console.capture() as captured:
        if chosen:
            _print_one(console, chosen)
        else:
            console.print(_table(FAMILIES, console.width, PROVED))
        if OWN and not chosen:
            console.print(_table(OWN, console.width, "registered; `icm check-model` tries them"))
    for line in captured.get().splitlines():
        print(line.rstrip())
    return 0


def _table(families: Sequence[Family], width: int, caption: str) -> Table:
    """Return a table of families; in a terminal without columns that a family's own view has, as there is no room."""
    titles = [title for title in TITLES if width == MOST_WIDE or title not in ROOMY]
    table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left")
    for title in titles:
        table.add_column(
            title,
            no_wrap=title == "family",
            overflow="fold",
            min_width=16 if title == "sites" and width >= 100 else None,
        )
    for family in families:
        said = dict(zip(TITLES, row_of(family), strict=True))
        table.add_row(*(said[title] for title in titles))
    return table


def add_module(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--module",
        action="append",
        default=[],
        metavar="NAME",
        help="a module, also of this folder, that registers families",
    )


def import_own(names: Sequence[str]) -> list[ModuleType]:
    """Import the modules that register a user's families; raises BackboneError for what cannot be imported."""
    sys.path.insert(0, "")
    try:
        return list(map(_imported, names))
    finally:
        sys.path.remove("")


def _imported(name: str) -> ModuleType:
    try:
        return import_module(name)
    except (Exception, SystemExit) as error:  # somebody else's code, which may raise anything
        kind = "" if isinstance(error, (ImportError, BackboneError)) else f"{type(error).__name__}: "
        raise BackboneError(f"--module {name} cannot be imported: {kind}{str(error).rstrip('.')}.") from error


def row_of(family: Family) -> tuple[str, ...]:
    """Return what the table says of a family."""
    return (
        family.name,
        ", ".join(name.removesuffix("Pipeline") for name in family.pipelines) or "-",
        ", ".join(name.removesuffix("Pipeline") for name in family.also) or "-",
        ", ".join(KIND_NAMES[kind] for kind in family.sites),
        family.rows,
        "; ".join(dict.fromkeys(family.orders.values())),
        "yes" if family.to_pixels else "no",
        _tested_as(family),
    )


def _tested_as(family: Family) -> str:
    classes = (*family.pipelines, *family.also)
    kinds = dict.fromkeys(proof.kind for name in classes for proof in proofs().get(name, ()))
    return ", ".join([*kinds, *(trained()[name] for name in classes if name in trained())]) or "-"


def markdown_table(families: Sequence[Family] = FAMILIES) -> str:
    """Return the table of families in Markdown."""
    rows = [TITLES, ("---",) * len(TITLES), *map(row_of, families)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _print_one(console: Console, family: Family) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for title, value in zip(TITLES, row_of(family), strict=True):
        table.add_row(title, value)
    table.add_row("denoiser", family.denoiser)
    for kind, pattern in family.sites.items():
        table.add_row(f"model.sites.{kind}", pattern)
    by_tests: dict[Proof, list[str]] = {}
    for name in (*family.pipelines, *family.also):
        for proof in proofs().get(name, ()):
            by_tests.setdefault(proof, []).append(name.removesuffix("Pipeline"))
    for (kind, tests), names in by_tests.items():
        table.add_row(f"tested as {kind}", "\n".join([", ".join(names), *(f"- {test}" for test in tests)]))
    console.print(table, markup=False, soft_wrap=True)

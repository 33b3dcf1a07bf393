"""`icm show`, `icm ls`, `icm gc`, `icm verify`: what made an artifact, what there is, what can go, what was changed."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from icm_pipeline.cli.artifact_tables import artifact_table, print_artifact
from icm_pipeline.pipeline.table import STAGES, kinds_of_stages
from icm_pipeline.store.artifacts import Artifact, ArtifactError
from icm_pipeline.store.building import locked_or_skip
from icm_pipeline.store.garbage import Waste, find_caches, find_stale_caches, find_waste, last_change
from icm_pipeline.store.partial import OLD, artifact_folder
from icm_pipeline.store.shelf import Shelf, changed_files, read_shelf
from icm_pipeline.text import count_text, size_text

YOUNG_HOURS = 24.0


def run_command(words: Sequence[str]) -> int:
    """Run one of the commands and return its exit code; what cannot be done is told in one line and returns 1."""
    arguments = _parser().parse_args(words)
    console = Console() if sys.stdout.isatty() else Console(width=200)  # no table is cut in a file or a pipe
    try:
        return arguments.run(arguments, read_shelf(Path(arguments.outputs), kinds_of_stages()), console)
    except (ArtifactError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("icm", description="Look after the artifacts of the pipeline.")
    commands = parser.add_subparsers(required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--outputs", default="outputs", metavar="FOLDER", help="the outputs folder (default: outputs)")

    show = commands.add_parser("show", parents=[shared], help="what made an artifact, up to the roots")
    show.add_argument("artifact", help="its folder, its key or the beginning of its key")
    show.add_argument("--files", action="store_true", help="list every file with its size")
    show.set_defaults(run=_show)

    listing = commands.add_parser("ls", parents=[shared], help="all artifacts, and which a result was made from")
    listing.add_argument("--stage", help="only this stage's")
    listing.set_defaults(run=_list)

    collect = commands.add_parser("gc", parents=[shared], help="remove what nothing needs; asks first")
    collect.add_argument("--yes", action="store_true", help="do not ask")
    collect.add_argument("--dry-run", action="store_true", help="only say what would go")
    collect.add_argument("--caches", action="store_true", help="all caches as well; what they held is computed again")
    collect.add_argument(
        "--older-than", type=float, default=YOUNG_HOURS, metavar="HOURS",
        help=f"leave artifacts and half-made work that are younger (default: {YOUNG_HOURS:g})",
    )  # fmt: skip
    collect.set_defaults(run=_collect)

    check = commands.add_parser("verify", parents=[shared], help="hash every file again; exit code 1 if one differs")
    check.add_argument("artifacts", nargs="*", help="folders or keys; none: all")
    check.set_defaults(run=_verify)
    return parser


def _show(arguments: argparse.Namespace, shelf: Shelf, console: Console) -> int:
    print_artifact(console, shelf, shelf.find(arguments.artifact), arguments.files)
    return 0


def _list(arguments: argparse.Namespace, shelf: Shelf, console: Console) -> int:
    if arguments.stage not in (None, *STAGES):
        raise ArtifactError(f"There is no stage {arguments.stage!r}; there are: {', '.join(STAGES)}.")
    chosen = [a for a in shelf.artifacts.values() if arguments.stage in (None, a.stage)]
    console.print(artifact_table(shelf, chosen))
    for damaged in shelf.damaged:
        console.print(damaged.problem, markup=False)
    for folder in shelf.half_made:
        if arguments.stage in (None, folder.parent.name):
            console.print(f"half-made: {folder}", markup=False, soft_wrap=True)
    return 0


def _collect(arguments: argparse.Namespace, shelf: Shelf, console: Console) -> int:
    refused = _warn_of_untraceable(shelf)
    caches = find_caches(shelf)
    waste = find_waste(shelf, arguments.older_than)
    stale = caches if arguments.caches else find_stale_caches(shelf, arguments.older_than, waste)
    waste += stale
    sizes = {item.path: _bytes_below(item.path) for item in (*waste, *caches)}
    for item in waste:
        console.print(f"{size_text(sizes[item.path]):>10}  {item.path}  ({item.reason})", markup=False, soft_wrap=True)
    if left := sum(sizes[item.path] for item in caches) - sum(sizes[item.path] for item in stale):
        console.print(f"{size_text(left):>10}  in caches (--caches: remove them too)", markup=False)
    if not waste:
        console.print("Nothing can go." if not refused else "Nothing else can go.")
        return refused
    total = f"{count_text(len(waste), 'folder')}, {size_text(sum(sizes[item.path] for item in waste))}"
    if arguments.dry_run:
        console.print(f"{total} would go.")
        return refused
    if not arguments.yes and not _confirmed(f"Remove {total}? [y/N] "):
        console.print("Nothing was removed.")
        return refused
    removed = [item for item in waste if _remove(item)]
    console.print(
        f"Removed {count_text(len(removed), 'folder')}, {size_text(sum(sizes[item.path] for item in removed))}."
    )
    return refused


def _warn_of_untraceable(shelf: Shelf) -> int:
    """Say why no whole artifact can go, if a damaged one hides what it needs; return the command's exit code."""
    if not shelf.untraceable:
        return 0
    folders = ", ".join(str(damaged.folder) for damaged in shelf.untraceable)
    print(
        f"error: what {folders} was made from cannot be read, and it may be needed: whole artifacts stay. To go on, "
        "delete that folder; if you want its result, run the command that made it again before the next icm gc.",
        file=sys.stderr,
    )
    return 1


def _confirmed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _remove(item: Waste) -> bool:
    """Remove a folder unless a job took it up since it was listed; by a rename first, so that none is half there."""
    if item.changed is None:  # a cache; a job that uses it computes what is missing
        shutil.rmtree(item.path) if item.path.is_dir() else item.path.unlink()
        return True
    with locked_or_skip(artifact_folder(item.path)) as is_locked:
        if not is_locked or last_change(item.path) != item.changed:
            return False
        going = item.path if item.path.name.endswith(OLD) else item.path.with_name(item.path.name + OLD)
        if going != item.path:
            shutil.rmtree(going, ignore_errors=True)
            item.path.rename(going)
        shutil.rmtree(going)
    return True


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder, *folder.rglob("*")) if path.is_file())


def _verify(arguments: argparse.Namespace, shelf: Shelf, console: Console) -> int:
    chosen: list[Artifact] = [shelf.find(word) for word in arguments.artifacts] or list(shelf.artifacts.values())
    problems = [problem for artifact in chosen if (problem := changed_files(artifact))]
    unread = [] if arguments.artifacts else shelf.damaged
    problems += [damaged.problem for damaged in unread]
    for problem in problems:
        console.print(problem, markup=False, soft_wrap=True)
    size = size_text(sum(artifact.manifest.size for artifact in chosen))
    console.print(
        f"{count_text(len(chosen) + len(unread), 'artifact')}, {size}: {len(problems) or 'none'} changed or damaged."
    )
    return 1 if problems else 0

"""Artifacts on the terminal: one with all that made it, and the list of what there is."""

from collections import Counter
from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.manifest import FileEntry
from icm_pipeline.store.shelf import Shelf
from icm_pipeline.text import count_text, setting_text, size_text


def artifact_table(shelf: Shelf, artifacts: Iterable[Artifact]) -> Table:
    """Return the table of artifacts, oldest first, with a mark at those from which a result was made."""
    table = Table(box=box.SIMPLE_HEAD, caption="* a result, or what one was made from")
    for title in ("", "stage", "model", "attribute", "key", "size", "made (UTC)"):
        table.add_column(title, no_wrap=True, justify="right" if title == "size" else "left")
    for artifact in sorted(artifacts, key=lambda a: (a.manifest.created, len(shelf.ancestors([a.key])))):
        model, attribute = artifact.manifest.model, artifact.manifest.attribute
        mark = "*" if artifact.key in shelf.needed else ""
        made = artifact.manifest.created.replace("T", " ").removesuffix("Z")
        size = size_text(artifact.manifest.size)
        table.add_row(mark, artifact.stage, escape(model), escape(attribute), artifact.key, size, made)
    return table


def print_artifact(console: Console, shelf: Shelf, artifact: Artifact, all_files: bool) -> None:
    """Print what made an artifact: settings, parents up to the roots, code, libraries, device; and its files."""
    console.print(_pairs(_facts(artifact)))
    console.print("\n[bold]settings that its key stands for[/bold]")
    console.print(_pairs({name: setting_text(value) for name, value in artifact.manifest.config.items()}))
    tree = Tree(f"[bold]made from[/bold]{'' if artifact.manifest.parents else ': nothing else'}")
    _grow(tree, shelf, artifact, set())
    console.print()
    console.print(tree)
    console.print("\n[bold]files[/bold]")
    console.print(_files(artifact.manifest.files, all_files))


def _pairs(rows: dict[str, str]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(escape(name), escape(value))
    return table


def _facts(artifact: Artifact) -> dict[str, str]:
    manifest = artifact.manifest
    device, name, weights = manifest.device, manifest.device_name, manifest.settings.get("weights", {})
    facts = {
        "stage": artifact.stage,
        "model, attribute": f"{manifest.model}, {manifest.attribute}",
        "key": artifact.key,
        "folder": str(artifact.folder),
        "made": f"{manifest.created or 'unknown'} in {manifest.seconds} s",
        "device": f"{device} ({name})" if name else device,
        "code": manifest.code_text,
        "libraries": ", ".join(f"{library} {version}" for library, version in manifest.libraries.items()),
        "python": f"{manifest.python} on {manifest.machine}",
        "weights": ", ".join(f"{setting} {digest}" for setting, digest in weights.items()) or "none on this disk",
    }
    if rounding := {name: value for name, value in manifest.rounding.items() if value not in (None, False)}:
        facts["rounding"] = ", ".join(f"{name} {value}" for name, value in rounding.items())
    for setting, folder in manifest.folders.items():
        facts[setting] = f"{folder} (content {manifest.settings['images'][setting]})"
    if manifest.shares:
        devices = Counter(share.device_name for share in manifest.shares).items()
        shares = ", ".join(f"{count} x {name}" for name, count in devices)
        facts["shared"] = f"{count_text(len(manifest.shares), 'job')}: {shares}"
    return facts


def _grow(branch: Tree, shelf: Shelf, artifact: Artifact, shown: set[str]) -> None:
    for stage, key in artifact.manifest.parents.items():
        parent = shelf.artifacts.get(key)
        if parent is None:
            branch.add(f"{stage} {key} (no longer there)")
        elif key in shown:
            branch.add(f"{stage} {key} (above)")
        else:
            shown.add(key)
            _grow(branch.add(f"{stage} {key}  {escape(str(parent.folder))}"), shelf, parent, shown)


def _files(files: dict[str, FileEntry], all_files: bool) -> Table:
    """Return the table of files; those of a folder as one line unless all are asked for."""
    sizes: dict[str, list[int]] = {}
    for name, entry in files.items():
        folder = f"{name.split('/')[0]}/" if "/" in name and not all_files else name
        sizes.setdefault(folder, []).append(entry.size)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, found in sizes.items():
        count = count_text(len(found), "file") if name.endswith("/") else ""
        table.add_row(escape(name), count, size_text(sum(found)))
    return table

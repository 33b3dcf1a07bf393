"""The notebook: run from beginning to end, and made a page with its pictures."""

import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

LONGEST = 3600  # seconds that a cell, and the kernel's start, may take on a machine that does other things too


def write_notebook(source: Path, folder: Path) -> float:
    """Run a notebook and write it as <name>.md, with pictures beside it; return the seconds that it took.

    Raises nbclient's CellExecutionError, which shows the cell and its traceback, where one fails.
    """
    notebook = nbformat.read(source, as_version=4)
    began = time.monotonic()
    patience = {"timeout": LONGEST, "startup_timeout": LONGEST}
    where = {"metadata": {"path": str(source.parent)}}
    NotebookClient(notebook, kernel_name="python3", resources=where, **patience).execute()
    seconds = time.monotonic() - began
    exporter = MarkdownExporter()
    text, resources = exporter.from_notebook_node(notebook, {"output_files_dir": f"{source.stem}_files"})
    for name, content in resources["outputs"].items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / f"{source.stem}.md").write_text(text.replace("](../docs/", "]("), "utf-8")
    return seconds

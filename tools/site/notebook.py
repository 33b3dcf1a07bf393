"""The notebook: run from beginning to end, and made a page with its pictures."""

import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbformat import NotebookNode

LONGEST = 3600  # seconds that a cell, and the kernel's start, may take on a machine that does other things too


def write_notebook(source: Path, folder: Path) -> float:
    """Run a notebook and write it as <name>.md, with pictures beside it; return the seconds that it took.

    Progress bars and warnings, which go to stderr, are left out.

    Raises nbclient's CellExecutionError, which shows the cell and its traceback, where one fails.
    """
    notebook = nbformat.read(source, as_version=4)
    began = time.monotonic()
    patience = {"timeout": LONGEST, "startup_timeout": LONGEST}
    where = {"metadata": {"path": str(source.parent)}}
    NotebookClient(notebook, kernel_name="python3", resources=where, **patience).execute()
    seconds = time.monotonic() - began
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        cell.outputs = [shown(output) for output in cell.outputs if output.get("name") != "stderr"]
    exporter = MarkdownExporter()
    text, resources = exporter.from_notebook_node(notebook, {"output_files_dir": f"{source.stem}_files"})
    for name, content in resources["outputs"].items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / f"{source.stem}.md").write_text(text.replace("](../docs/", "]("), "utf-8")
    return seconds


def shown(output: NotebookNode) -> NotebookNode:
    """Return an output without what the page has no use for: a picture's second encoding."""
    if "image/png" in output.get("data", {}):
        output["data"].pop("image/jpeg", None)
    return output

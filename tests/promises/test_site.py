"""The docs: all settings and names are in them, links lead somewhere, the notebook and the README are short."""

import ast
import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

import icm_pipeline
from tools.site.markdown import outside_code
from tools.site.pages import DOCS, LINK, MADE, NOTEBOOK, relinked
from tools.site.reference import modules_page, python_page
from tools.site.settings import Setting, all_settings, comments_of, settings_page

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = [CHECKOUT / "README.md", *sorted(DOCS.glob("*.md"))]


@pytest.fixture(scope="module")
def settings() -> list[Setting]:
    return list(all_settings())


def test_every_setting_is_on_the_page_with_what_it_means(settings: list[Setting]) -> None:
    page = settings_page()
    assert len(settings) > 150
    assert [setting.name for setting in settings if f"| `{setting.name}` |" not in page] == []
    by_name = {setting.name: setting for setting in settings}
    assert by_name["generate.record"] == Setting(
        "generate.record", "true", "pool activations in the denoising pass that makes the images", ""
    )
    assert by_name["probe.solver"].may_be == "`batched`, `scikit_learn`"
    assert by_name["judge.faces"].meaning == by_name["labeler.faces"].meaning != ""
    assert by_name["timesteps.count"].may_be == "at least 1; null: every step"


def test_an_attributes_words_are_told_by_what_they_are_for(settings: list[Setting]) -> None:
    (words,) = (setting for setting in settings if setting.name == "attribute.words")
    assert words.meaning.startswith("of each option: a prompt with one of them names it")


def test_no_setting_is_left_to_its_name_alone(settings: list[Setting]) -> None:
    bare = [setting.name for setting in settings if not setting.meaning]
    assert bare == []


@pytest.mark.parametrize(
    ("text", "comments"),
    [
        ("# about the file\na: 1   # one\n", {"a": "one"}),
        ("a: 1   # one\n       # and more\nb: 2\n", {"a": "one and more"}),
        ("a:      # a group\n  b: '#1'\n  c: {x: 1}  # inner\n", {"a": "a group", "a.c": "inner"}),
        ("a: 1\n# of b\nb: 2\n", {"b": "of b"}),
        ('a: "# none"\n', {}),
    ],
)
def test_a_comment_goes_with_its_setting(text: str, comments: dict[str, str]) -> None:
    assert comments_of(text) == comments


def test_every_public_name_is_in_the_reference() -> None:
    page = python_page()
    assert [name for name in icm_pipeline.__all__ if f"### `{name}`" not in page] == []
    assert '    images = pipe("a face of a doctor", num_images_per_prompt=4).images\n' in page.replace("```", "")
    assert "`SteeringVectors.push_to_hub`" in page
    assert "_packed" not in page


def test_every_module_is_on_the_page_of_modules() -> None:
    page = modules_page()
    modules = (CHECKOUT / "src" / "icm_pipeline").rglob("*.py")
    assert [path.stem for path in modules if path.stem != "__init__" and f"- `{path.stem}`: " not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    dead = []
    for found in LINK.finditer(outside_code(page.read_text("utf-8"), str, code=lambda _: "")):
        target, anchor = found[3], (found[4] or "")[1:]
        if "://" in target or (page.name == "index.md" and target in MADE):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in headings(path)):
            dead.append(found[0])
    assert dead == []


def headings(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as both GitHub and the site make them."""
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def test_every_page_is_in_the_sites_menu() -> None:
    menu = str(yaml.safe_load((CHECKOUT / "mkdocs.yml").read_text("utf-8"))["nav"])
    assert [name for name in [*(path.name for path in DOCS.glob("*.md")), *MADE] if f"'{name}'" not in menu] == []


def test_links_of_the_site_lead_to_pages_of_it_alone() -> None:
    source = DOCS / "some.md"
    for text, there in (
        ("[a](metrics.md#fairness)", "[a](metrics.md#fairness)"),
        ("[card](../src/icm_pipeline/zoo/tiny/README.md)", "[card](models/tiny.md)"),
        ("[tour](../notebooks/tour.ipynb)", "[tour](tour.md)"),
        ("[base](../src/icm_pipeline/methods/base.py)", "base (`src/icm_pipeline/methods/base.py`)"),
        ("`[a](nothing.md)`", "`[a](nothing.md)`"),
    ):
        assert relinked(text, source) == there
    with pytest.raises(ValueError, match=r"some\.md links to nothing\.md, which is not there"):
        relinked("[a](nothing.md)", source)


def test_the_notebook_has_twenty_cells_without_outputs_whose_names_exist() -> None:
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(cells) == 20
    assert not any(cell["outputs"] for cell in cells if cell["cell_type"] == "code")
    for imported in (node for text in code for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)):
        if (imported.module or "").startswith("icm_pipeline"):
            module = import_module(str(imported.module))
            assert all(hasattr(module, name.name) for name in imported.names), ast.unparse(imported)


def test_the_notebooks_links_lead_to_pages() -> None:
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    found = [link for text in texts for link in LINK.finditer(text)]
    assert len(found) > 4
    for link in found:
        page = (NOTEBOOK.parent / link[3]).resolve()
        assert page.parent == DOCS
        assert not link[4] or link[4][1:] in headings(page), link[0]


@pytest.mark.slow
def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As make docs runs it, without the packages that takes."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, Any] = {}
    for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["result"]["best three"].shape == (32, 2)
    discrepancy = {name: names["fairness_discrepancy"](found) for name, found in names["result"].items()}
    assert discrepancy["best three"] < discrepancy["worst three"]
    assert names["kept"].layers == names["best"].layers


def test_no_line_of_the_readme_is_long_outside_of_tables() -> None:
    lines = (CHECKOUT / "README.md").read_text("utf-8").splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []
    assert len(lines) < 100

"""The reference of Python, from docstrings: signatures and texts, an `Example:` as code; nothing is imported for it."""

import ast
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from tools.site.markdown import outside_code

SRC = Path(__file__).resolve().parents[2] / "src"
PACKAGE = SRC / "icm_pipeline"
Definition = ast.FunctionDef | ast.ClassDef
# What a reader of results or a writer of judges and methods needs beside the package's own names: {module: names}.
BESIDE = {
    "hooks.recording": ["Recorded", "Recording"],
    "methods.looking": ["Look"],
    "methods.strength": ["Strength"],
    "methods.folding": ["Folded"],
    "methods.publishing": ["HubError"],
    "backbones.base": ["Backbone", "Site"],
    "labelers.base": ["Labeler"],
    "methods.base": [],
    "results.evaluation": ["Evaluation", "Fairness", "Figure"],
    "results.verdicts": ["Verdicts", "Claim", "Finding"],
    "results.scores": ["Scores", "LayerScores"],
}


def python_page() -> str:
    """Return the page: what `import icm_pipeline` has, then the types around it."""
    parts = [
        "# Python",
        "Made from the docstrings. [In your own code](python.md) is the guide to these names.",
        "## `icm_pipeline`",
        *(_definition(module, name, 3) for name, module in public_names().items()),
    ]
    for module, names in BESIDE.items():
        parts.append(f"## `icm_pipeline.{module}`")
        tree = _tree(module)
        parts.append(_text(ast.get_docstring(tree) or ""))
        parts += [_definition(module, name, 3) for name in names or _classes(tree)]
    return "\n\n".join(part for part in parts if part) + "\n"


def modules_page() -> str:
    """Return the page that says what lies where: each room of the package with its modules, from their first lines."""
    parts = [
        "# Modules",
        "Made from the modules' first lines. [The map of the code](code.md) says how the rooms stand to one another.",
    ]
    for room in [PACKAGE, *sorted(path.parent for path in PACKAGE.glob("*/**/__init__.py"))]:
        name = room.relative_to(SRC).as_posix().replace("/", ".")
        rows = [
            f"- `{path.stem}`: {_first_line(path)}" for path in sorted(room.glob("*.py")) if path.stem != "__init__"
        ]
        parts += [f"## `{name}`", _first_line(room / "__init__.py"), "\n".join(rows)]
    return "\n\n".join(part for part in parts if part) + "\n"


def public_names() -> dict[str, str]:
    """Return {name: module} of what the package offers, as its __init__ lists it."""
    for node in _tree("__init__").body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "_MODULES":
            found: dict[str, str] = ast.literal_eval(node.value)
            return found
    raise ValueError("icm_pipeline/__init__.py has no _MODULES, from which the reference takes the public names.")


def _tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text("utf-8"))


def _classes(tree: ast.Module) -> list[str]:
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]


def _definition(module: str, name: str, level: int) -> str:
    """Return a function or a class with its fields, properties and methods; raises ValueError if it is not there."""
    found = [node for node in _tree(module).body if isinstance(node, Definition) and node.name == name]
    if not found:
        raise ValueError(f"icm_pipeline.{module} has no {name}; mend BESIDE in tools/site/reference.py.")
    node = found[-1]
    parts = [f"{'#' * level} `{name}`", _code(_signature(node)), _text(ast.get_docstring(node) or "")]
    if isinstance(node, ast.ClassDef):
        parts += [_fields(node), *(_method(name, each, level + 1) for each in _methods(node))]
    return "\n\n".join(part for part in parts if part)


def _methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    return [each for each in node.body if isinstance(each, ast.FunctionDef) and not each.name.startswith("_")]


def _method(owner: str, node: ast.FunctionDef, level: int) -> str:
    text = _text(ast.get_docstring(node) or "")
    return f"{'#' * level} `{owner}.{node.name}`\n\n{_code(_signature(node))}" + (f"\n\n{text}" if text else "")


def _fields(node: ast.ClassDef) -> str:
    """Return a list of a class's fields with their types and texts."""
    lines = []
    for field, after in zip(node.body, [*node.body[1:], None], strict=True):
        if (
            not isinstance(field, ast.AnnAssign)
            or not isinstance(field.target, ast.Name)
            or field.target.id.startswith("_")
        ):
            continue
        has_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        said = f": {' '.join(str(after.value.value).split())}" if has_text else ""  # type: ignore[union-attr]
        lines.append(f"- `{field.target.id}: {ast.unparse(field.annotation)}`{said}")
    return "\n".join(lines)


@dataclass(frozen=True)
class _Call:
    """A function's head, wrapped where it is too long for a line."""

    name: str
    arguments: list[str]
    returns: str

    def __str__(self) -> str:
        line = f"{self.name}({', '.join(self.arguments)}){self.returns}"
        if len(line) <= 100:
            return line
        return "\n".join([f"{self.name}(", *(f"    {argument}," for argument in self.arguments), f"){self.returns}"])


def _signature(node: Definition) -> str:
    if isinstance(node, ast.ClassDef):
        makes = next(
            (each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None
        )
        if makes is not None:
            return str(_Call(f"class {node.name}", _arguments(makes.args), ""))
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"class {node.name}" + (f"({bases})" if bases else "")
    decorators = [ast.unparse(each) for each in node.decorator_list]
    kind = "".join(f"@{each}\n" for each in decorators if each in ("property", "classmethod", "contextmanager"))
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return kind + str(_Call(node.name, _arguments(node.args), returns))


def _arguments(given: ast.arguments) -> list[str]:
    plain = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(plain) - len(given.defaults)) + list(given.defaults)
    shown = [
        _argument(one, default) for one, default in zip(plain, defaults, strict=True) if one.arg not in ("self", "cls")
    ]
    if given.vararg:
        shown.append(f"*{_argument(given.vararg, None)}")
    elif given.kwonlyargs:
        shown.append("*")
    shown += [_argument(one, default) for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return shown + ([f"**{_argument(given.kwarg, None)}"] if given.kwarg else [])


def _argument(one: ast.arg, default: ast.expr | None) -> str:
    typed = f"{one.arg}: {ast.unparse(one.annotation)}" if one.annotation else one.arg
    return typed if default is None else f"{typed} = {ast.unparse(default)}"


def _text(docstring: str) -> str:
    """Return a docstring as Markdown: what is indented below `Example...:` or by itself is code."""
    parts: list[str] = []
    for block in re.split(r"\n\s*\n", docstring):
        head, _, rest = block.partition("\n")
        indented = rest.startswith("    ") or (parts and block.startswith("    "))
        if head.rstrip(":").startswith("Example") and head.endswith(":"):
            parts += [head.replace("::", ":"), *([_code(textwrap.dedent(rest))] if rest else [])]
        elif block.startswith("    "):
            parts.append(_code(textwrap.dedent(block)))
        elif head == "References:":
            parts += ["References:", " ".join(rest.split())]
        elif indented:
            parts += [head, _code(textwrap.dedent(rest))]
        else:
            parts.append(_plain(block))
    return "\n\n".join(_joined(parts))


def _joined(parts: list[str]) -> list[str]:
    """Put code blocks that follow one another into one, as a blank line in an example splits them."""
    joined: list[str] = []
    for part in parts:
        if joined and joined[-1].endswith("\n```") and part.startswith("```python\n"):
            joined[-1] = joined[-1].removesuffix("\n```") + "\n\n" + part.removeprefix("```python\n")
        else:
            joined.append(part)
    return joined


def _code(text: str) -> str:
    return f"```python\n{text.rstrip()}\n```"


def _plain(text: str) -> str:
    """Return a paragraph on one line, its angle brackets shown as they are."""
    return outside_code(" ".join(text.split()), lambda part: part.replace("<", "&lt;"))


def _first_line(path: Path) -> str:
    return _plain((ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n\n")[0])

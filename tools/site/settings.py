"""The page of settings, from conf/ and the schema: every setting with its default, its comment and what it may be."""

import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from icm_pipeline.config.bounds import MAY_BE, Bounds
from icm_pipeline.config.conf_folder import conf_path, register_schema
from icm_pipeline.config.help_page import GROUPS, choices_of
from icm_pipeline.config.schema import Settings
from tools.site.markdown import outside_code

KEY = re.compile(r"( *)([\w.]+):(?= |$)(.*)")
SAME_AS = {"judge": "labeler", "evaluate.clip": "labeler"}  # groups that the files of another one fill
LONGEST = 60
GENERAL = "general"  # what stands in conf/config.yaml itself


@dataclass(frozen=True)
class Setting:
    """A setting as the page has it."""

    name: str
    default: str
    meaning: str
    may_be: str

    @property
    def group(self) -> str:
        return self.name.partition(".")[0] if "." in self.name else GENERAL


def settings_page() -> str:
    """Return the page as Markdown: what stands in config.yaml, then each group with its choices and their files."""
    found = list(all_settings())
    parts = [
        "# Settings",
        "Made from `conf/` and the schema. A setting is given on the command line as `name=value`, a group's choice as "
        "`group=choice`; `python -m icm_pipeline --help` lists groups and choices, `--cfg job` prints the whole "
        "configuration of a command without running it. Defaults are those of `python -m icm_pipeline`; `${...}` takes "
        "the value of another setting.",
    ]
    groups = dict.fromkeys([GENERAL, *GROUPS, *(setting.group for setting in found)])
    return "\n\n".join([*parts, *(_section(group, [s for s in found if s.group == group]) for group in groups)]) + "\n"


def all_settings() -> Iterator[Setting]:
    """Return every setting of the schema, in its order."""
    comments = all_comments()
    register_schema()
    with initialize_config_dir(str(conf_path()), version_base="1.3"):
        defaults = OmegaConf.to_container(compose("config"), resolve=False)
    for name, about, docstring in _leaves(Settings):
        comment = next((comments[key] for key in _looked_up(name) if comments.get(key)), docstring)
        yield Setting(name, _shown(_at(defaults, name)), comment, may_be(about))


def all_comments() -> dict[str, str]:
    """Return the comment of each setting in conf/, by dotted name: of config.yaml, then of a group's first file."""
    found = comments_of((conf_path() / "config.yaml").read_text("utf-8"))
    for group in sorted(path for path in conf_path().iterdir() if path.is_dir() and path.name != "hydra"):
        files = sorted(group.glob("*.yaml"), key=lambda path: (path.stem not in ("base", "default", "icm"), path.name))
        for file in files:
            text = file.read_text("utf-8")
            package = re.search(r"^# @package (\S+)", text)
            prefix = group.name if package is None else package[1].replace("_global_", "")
            for name, comment in comments_of(text).items():
                found.setdefault(f"{prefix}.{name}".lstrip("."), comment)
    return found


def comments_of(text: str) -> dict[str, str]:
    """Return {dotted name: comment} of a YAML file: behind a setting, on lines of their own below it, or above it."""
    comments, keys, before, last = dict[str, str](), list[tuple[int, str]](), "", ""
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            said = line.strip().lstrip("# ")
            if line.startswith("#"):
                before = f"{before} {said}".strip() if last else ""
            elif last:
                comments[last] = f"{comments.get(last, '')} {said}".strip()
            continue
        if (found := KEY.match(line)) is None:
            continue
        indent, key, rest = len(found[1]), found[2], found[3]
        keys = [*((column, name) for column, name in keys if column < indent), (indent, key)]
        last = ".".join(name for _, name in keys)
        if said := " ".join(part for part in (before, _trailing(rest)) if part):
            comments[last] = said
        before = ""
    return comments


def _trailing(rest: str) -> str:
    """Return the comment behind a value; a # inside of quotes is none."""
    bare = re.sub(r"\"[^\"]*\"|'[^']*'", lambda quoted: "x" * len(quoted[0]), rest)
    found = re.search(r"(^|\s)#\s*", bare)
    return rest[found.end() :].strip() if found else ""


def _leaves(kind: type, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Return the dotted name, what it may be, and the docstring of every field that is no dataclass."""
    hints, docstrings = get_type_hints(kind), _field_docstrings(kind)
    for item in fields(kind):
        own = hints[item.name]
        parts = [part for part in (own, *getattr(own, "__args__", ())) if isinstance(part, type) and is_dataclass(part)]
        if parts and getattr(own, "__origin__", None) is not dict:
            yield from _leaves(parts[0], f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", item.metadata.get(MAY_BE), docstrings.get(item.name, "")


def _field_docstrings(kind: type) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }  # fmt: skip


def _looked_up(name: str) -> list[str]:
    """Return the names under which a setting's comment may stand: its own, and that of the group that fills it."""
    filled = [f"{by}{name.removeprefix(group)}" for group, by in SAME_AS.items() if name.startswith(f"{group}.")]
    return [name, *filled]


def _at(content: Any, name: str) -> Any:
    for part in name.split("."):
        content = content.get(part) if isinstance(content, Mapping) else None
    return content


def _shown(value: Any) -> str:
    """Return a value as the command line takes it; what is too long for a table, or is empty, as a word."""
    if isinstance(value, dict | list):
        text = (
            OmegaConf.to_yaml(OmegaConf.create({"x": value}), resolve=False).partition(":")[2].strip()
            if not value
            else ""
        )
        return text or ("see the files" if value else "")
    text = (
        {None: "null", True: "true", False: "false"}.get(value, str(value))
        if not isinstance(value, int | float) or isinstance(value, bool)
        else str(value)
    )
    return text if len(text) <= LONGEST else "see the files"


def may_be(about: Any) -> str:
    """Return in words what a field's metadata lets it be."""
    if about is None:
        return ""
    if not isinstance(about, Bounds):
        return ", ".join(f"`{name}`" for name in about.names)
    limits = " and ".join(f"{words} {limit}" for words, limit in about.limits.items())
    texts = [limits, f"`{about.word}`" if about.word else "", f"null: {about.null}" if about.null else ""]
    return "; ".join(text for text in texts if text)


def _section(group: str, settings: list[Setting]) -> str:
    about, example = GROUPS.get(group, ("", ""))
    title = "Of every run" if group == GENERAL else f"`{group}`"
    lines = [f"## {title}"]
    if about:
        lines.append(f"{about[0].upper()}{about[1:]}. Example: `{example}`.")
    if settings:
        rows = [f"| `{s.name}` | {_code(s.default)} | {_cell(s.may_be)} | {_cell(s.meaning)} |" for s in settings]
        lines.append("\n".join(["| setting | default | may be | meaning |", "|---|---|---|---|", *rows]))
    folder = conf_path() / group
    if folder.is_dir():
        lines.append(
            "\n\n".join(
                _choice(folder / f"{name}.yaml")
                for name in ["base", *choices_of(group)]
                if (folder / f"{name}.yaml").exists()
            )
        )
    return "\n\n".join(lines)


def _choice(file: Path) -> str:
    """Return a choice's file, folded away behind its name and first line."""
    text = file.read_text("utf-8").rstrip()
    said = next(
        (line.lstrip("# ") for line in text.splitlines() if line.startswith("# ") and "@package" not in line), ""
    )
    title = f"{file.stem}: {said}" if said else file.stem
    body = textwrap.indent(f"```yaml\n{text}\n```", "    ")
    return f'??? note "{title.replace(chr(34), chr(39))}"\n\n{body}'


def _code(text: str) -> str:
    return f"`{text}`" if text and text != "see the files" else text


def _cell(text: str) -> str:
    """Return a text for a table's cell, its angle brackets and braces shown as they are."""
    escaped = outside_code(text, lambda part: part.replace("<", "&lt;").replace("{", "&#123;"))
    return escaped.replace("|", "\\|")

"""The page: controls, and what each of them changes. What is made and shown of a setting is said elsewhere."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from html import escape
from typing import Any
from urllib.parse import quote

import gradio as gr

from icm_pipeline.explore.ahead import Ahead, next_places
from icm_pipeline.explore.chart import chart_html
from icm_pipeline.explore.making import Tell
from icm_pipeline.explore.material import Material
from icm_pipeline.explore.rendering import map_html, shown_html, strip_html
from icm_pipeline.explore.scripts import IN_RANGE, ON_CLICK
from icm_pipeline.explore.setting import (
    NOTCHES,
    REACH,
    Setting,
    at_position,
    command_of,
    first_setting,
    own_setting,
    position_of,
    ways_of,
)
from icm_pipeline.explore.studio import USER_ERRORS, Studio
from icm_pipeline.report.figures.style import short_names

VECTORS_ROUTE = "vectors.safetensors"
MADE_BY_TURNS = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
MOST_WAITING = 16  # requests of all users; one more is told to come again


class Page:
    """The components of the page and their events."""

    def __init__(self, studio: Studio) -> None:
        self._studio, self._ahead = studio, Ahead(studio)
        self._first = next(iter(studio.materials.values()))
        setting = first_setting(self._first)
        with gr.Blocks(title="icm explore", analytics_enabled=False, fill_width=True) as self.blocks:
            gr.Markdown(f"## Steer {self._first.settings.model.name}: see the choice, and change it")
            with gr.Row():
                with gr.Column(scale=3, min_width=320):
                    self._lay_pictures(setting)
                with gr.Column(scale=2, min_width=320):
                    self._lay_means(setting)
            self._bind()
        self.blocks.queue(max_size=MOST_WAITING, default_concurrency_limit=4)

    def _lay_pictures(self, setting: Setting) -> None:
        material, options = self._first, list(self._first.options)
        left, right = _ends(material, setting)
        with gr.Row():
            self.prompt = gr.Dropdown(
                material.prompts, value=setting.prompt, label="Prompt", allow_custom_value=True, scale=3, min_width=220
            )
            self.attribute = gr.Dropdown(
                list(self._studio.materials), value=material.name, label="Attribute", min_width=140
            )
            self.seed = gr.Number(setting.seed, label="First seed", min_width=90)
            self.num_images = gr.Number(setting.num_images, label="Images", min_width=70)
        self.shown = gr.HTML(apply_default_css=False, elem_id="icm-shown")
        self.position = gr.Slider(
            **_slider(material, left, right), value=position_of(setting, left), elem_id="icm-position", buttons=[]
        )
        with gr.Row(visible=len(options) > 2) as self.ends:
            self.left = gr.Dropdown(options, value=left, label="To the left", min_width=110)
            self.right = gr.Dropdown(options, value=right, label="To the right", min_width=110)
        self.make_strip = gr.Button("Show the first picture along the slider", size="sm")
        self.strip = gr.HTML(apply_default_css=False, elem_id="icm-strip")
        self.strip_of = gr.State()
        self.chart = gr.HTML(apply_default_css=False, elem_id="icm-chart")
        self.note = gr.HTML(apply_default_css=False)

    def _lay_means(self, setting: Setting) -> None:
        material = self._first
        self.way = gr.Radio(_choices(ways_of(material)), value=setting.way, label="Who is steered, and how")
        self.balanced = gr.Checkbox(setting.balanced, label="equal shares of all options, not one for all images")
        self.map = gr.HTML(
            map_html(material, setting), apply_default_css=False, js_on_load=ON_CLICK, elem_id="icm-map-box"
        )
        self.layers = gr.Dropdown(
            _layer_choices(material),
            value=list(setting.layers),
            multiselect=True,
            label="Steered layers",
            elem_id="icm-layers",
        )
        with gr.Row():
            last = material.num_steps - 1
            self.first_step = gr.Slider(
                0, last, setting.first_step, step=1, label="First steered step", min_width=130, buttons=[],
                elem_id="icm-first-step",
            )  # fmt: skip
            self.last_step = gr.Slider(
                0, last, setting.last_step, step=1, label="Last steered step", min_width=130, buttons=[],
                elem_id="icm-last-step",
            )  # fmt: skip
        self.command = gr.Textbox(
            label="Makes these pictures again", lines=3, max_lines=9, buttons=["copy"], interactive=False
        )
        self.save = gr.HTML(apply_default_css=False, elem_id="icm-save")

    def _bind(self) -> None:
        """Say what is done when a user changes a control; what the page itself changes is no such event."""
        asked = [
            self.attribute, self.prompt, self.seed, self.num_images, self.way, self.balanced, self.left, self.right,
            self.position, self.layers, self.first_step, self.last_step, self.strip_of,
        ]  # fmt: skip
        results = [
            self.shown, self.chart, self.map, self.note, self.command, self.save, self.strip, self.make_strip,
            self.seed, self.num_images, self.first_step, self.last_step,
        ]  # fmt: skip
        how: dict[str, Any] = {
            **MADE_BY_TURNS, "trigger_mode": "always_last", "show_progress_on": [self.shown], "js": IN_RANGE,
        }  # fmt: skip
        sliders = [self.position, self.first_step, self.last_step]
        changes = [self.blocks.load, self.prompt.change, self.balanced.change]
        changes += [each.input for each in (self.seed, self.num_images, self.way, self.layers, *sliders)]
        gr.on([*changes, *(each.release for each in sliders)], self._show, asked, results, **how)
        described = [
            self.prompt, self.way, self.left, self.right, self.ends, self.position, self.layers, self.first_step,
            self.last_step,
        ]  # fmt: skip
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        window = [self.layers, self.first_step, self.last_step]
        ends = [self.left, self.right]
        before = [
            self.attribute.input(self._describe, self.attribute, described, **private),
            self.left.input(self._end_moved(0), [self.attribute, *ends], [self.position, *ends], **private),
            self.right.input(self._end_moved(1), [self.attribute, *ends], [self.position, *ends], **private),
            self.map.click(_clicked, None, window, trigger_mode="always_last", **private),
        ]
        for each in before:
            each.then(self._show, asked, results, **how)
        strip = {**how, "trigger_mode": "once", "show_progress_on": [self.strip]}
        self.make_strip.click(self._show_strip, asked, [self.strip, self.strip_of], **strip)

    def _show(self, *asked: Any, progress: gr.Progress = gr.Progress()) -> Iterator[tuple[Any, ...]]:  # noqa: B008
        material, setting, ends = self._read(*asked[:-1])
        used = setting.seed, setting.num_images, setting.first_step, setting.last_step
        told = asked[2], asked[3], asked[10], asked[11]
        with _told():
            for shown in self._studio.show(material, setting, _teller(progress)):
                yield (
                    shown_html(shown, material),
                    chart_html(shown, material),
                    map_html(material, setting),
                    _note(material, setting),
                    command_of(setting, material),
                    _save_link(material, setting),
                    gr.skip() if asked[-1] == _strip_key(material, setting, ends) else "",
                    gr.update(visible=material.has_strength(setting.way)),
                    *(gr.skip() if same == own else own for own, same in zip(used, told, strict=True)),
                )
        self._ahead.tell(material, next_places(setting, material, *ends))

    def _show_strip(self, *asked: Any, progress: gr.Progress = gr.Progress()) -> tuple[str, str]:  # noqa: B008
        material, setting, ends = self._read(*asked[:-1])
        with _told():
            pictures = self._studio.strip(material, setting, *ends, _teller(progress))
            return strip_html(pictures, material), _strip_key(material, setting, ends)

    def _read(self, *asked: Any) -> tuple[Material, Setting, tuple[str, str]]:
        """Return what the controls ask for; raises gr.Error for an empty one, and for what no control sends."""
        name, prompt, seed, num_images, way, balanced, left, right, position, layers, first, last = asked
        try:
            material, (start, end) = self._studio.materials[name], sorted((int(first), int(last)))
            seed, num_images = _whole("The first seed", seed), _whole("The number of images", num_images)
            setting = Setting(
                str(prompt or "").strip(), seed, num_images, str(way), left, 0.0, tuple(layers or ()), start, end,
                bool(balanced),
            )  # fmt: skip
            return material, at_position(setting, float(position), left, right), (left, right)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except (KeyError, TypeError, OverflowError) as error:
            raise gr.Error(f"A control has no value that can be used ({error}).", print_exception=False) from error

    def _describe(self, name: str) -> list[Any]:
        """Return what the controls become for another attribute."""
        material = self._studio.materials[name]
        setting = own_setting(material)
        left, right = _ends(material, setting)
        options = list(material.options)
        return [
            gr.update(choices=material.prompts),
            gr.update(choices=_choices(ways_of(material)), value=setting.way),
            gr.update(choices=options, value=left),
            gr.update(choices=options, value=right),
            gr.update(visible=len(options) > 2),
            gr.update(**_slider(material, left, right), value=position_of(setting, left)),
            gr.update(choices=_layer_choices(material), value=list(setting.layers)),
            gr.update(maximum=material.num_steps - 1, value=setting.first_step),
            gr.update(maximum=material.num_steps - 1, value=setting.last_step),
        ]

    def _end_moved(self, moved: int) -> Callable[[str, str, str], list[Any]]:
        """Return what the slider and its ends become after one of them, 0 or 1, was moved: they stay different."""

        def ends_of(name: str, left: str, right: str) -> list[Any]:
            material, ends = self._studio.materials[name], [left, right]
            if left == right:
                place = material.options.index(left)
                ends[1 - moved] = material.options[(place + 1) % len(material.options)]
            return [gr.update(label=_slider(material, *ends)["label"]), *ends]

        return ends_of


def _clicked(event: gr.EventData) -> tuple[list[str], int, int]:
    """Return the layers and the window that clicks in the map have come to."""
    return list(event.layers), int(event.first), int(event.last)


def _whole(what: str, value: float | None) -> int:
    """Return the whole number that is nearest to what a control says; raises ValueError where it says nothing."""
    if value is None:
        raise ValueError(f"{what} is empty: give a whole number.")
    return round(value)


def _strip_key(material: Material, setting: Setting, ends: tuple[str, str]) -> str:
    """Return all that the pictures along the slider depend on, so not where it stands."""
    return repr((material.name, replace(setting, option="", alpha=0.0), ends))


def _ends(material: Material, setting: Setting) -> tuple[str, str]:
    """Return the options at the slider's two ends."""
    options = material.options
    if len(options) == 2:
        return options[0], options[1]
    place = options.index(setting.option)
    return setting.option, options[(place + 1) % len(options)]


def _slider(material: Material, left: str, right: str) -> dict[str, Any]:
    most = REACH * material.alpha
    return {
        "minimum": -most,
        "maximum": most,
        "step": most / NOTCHES,
        "label": f"{left}  \u2190  none  \u2192  {right}",
    }


def _layer_choices(material: Material) -> list[tuple[str, str]]:
    return list(zip(short_names(material.layers), material.layers, strict=True))


def _choices(ways: dict[str, str]) -> list[tuple[str, str]]:
    return [(words, name) for name, words in ways.items()]


def _note(material: Material, setting: Setting) -> str:
    """Return what there is not, and what the controls do not do."""
    told = []
    if material.reading is None:
        told.append("There is no chart, as a file of vectors holds no probes.")
    if setting.way in material.rivals:
        told.append("Layers and steps are those of this method's own run; the slider scales how strong it was there.")
    if material.judge_problem:
        told.append(f"Nobody says what the pictures show: {material.judge_problem}")
    return f'<p class="icm-note">{escape(" ".join(told))}</p>'


def _save_link(material: Material, setting: Setting) -> str:
    if setting.way in material.rivals:  # which steers without these vectors
        return ""
    asked = quote(json.dumps({"name": material.name, **asdict(setting)}))
    link = f'<a href="{VECTORS_ROUTE}?setting={asked}" download="{VECTORS_ROUTE}">Save the vectors of this setting</a>'
    return f'<p class="icm-note">{link}: icm_pipeline.steer takes the file.</p>'


def _teller(progress: gr.Progress) -> Tell:
    def tell(done: int, total: int) -> None:
        progress((done, total), desc="denoising", unit="steps")

    return tell


@contextmanager
def _told() -> Iterator[None]:
    """Show an error that a user can mend."""
    try:
        yield
    except USER_ERRORS as error:
        raise gr.Error(str(error), print_exception=False) from error

"""Another prompt and nothing else: an appeal to fairness, or the drawn option itself, the upper row of a table.

`text=none` generates the prompt as it is, `ethical` the prompt and an appeal, for which no option is drawn, `option`
the prompt with the option said of its subject: "a face of a doctor", "a face of a woman doctor", "a face of a doctor
without glasses". `option_words` says how: what the attribute has as `said` or else as `named`, as a mere name ("a light
doctor", "a none doctor") need not name anything; null for the name. Of gender that is the name, as it always was, and
no key changed; of an attribute whose words are other ones the key has them.

References:
    How well can Text-to-Image Generative Models understand Ethical Natural Language Interventions?, 2022,
    https://arxiv.org/abs/2210.15230, section 3 (the appeal)
Departures: the subject is what follows the last "of" of a prompt, and the appeal names the attribute whatever it is.
"""

from contextlib import nullcontext

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.methods.base import DRAWN, Method, MethodInputs
from icm_pipeline.methods.concepts import option_words, subject_of, with_option

TEXTS = ("none", "ethical", "option")


def _text(settings: Settings) -> str:
    text = str(settings.method.params.get("text"))
    if text not in TEXTS:
        raise ConfigError(f"method.params.text={text} is not known; choose from {', '.join(TEXTS)}.")
    return text


def with_appeal(prompt: str, appeal: str, attribute: str) -> str:
    """Return a prompt followed by an appeal, in which {subject} and {attribute} are filled in."""
    return f"{prompt} {appeal.format(subject=subject_of(prompt), attribute=attribute)}"


def _prompt_of(job: Job, inputs: MethodInputs) -> str:
    settings, text = inputs.settings, _text(inputs.settings)
    if text == "option":
        return with_option(job.prompt, option_words(settings)[inputs.option_of[job.image_id]])
    if text == "ethical":
        return with_appeal(job.prompt, settings.method.params["appeal"], settings.attribute.name.replace("_", " "))
    return job.prompt


METHOD = Method(
    name="prompt",
    applied=lambda backbone, inputs, jobs: nullcontext(),
    words=lambda steering: [{"none": "the same prompt"}.get(text := steering.params["text"], f"{text} prompt")],
    reads=(*DRAWN, "attribute.options"),
    params=("text", "appeal", "option_words"),
    draws=lambda settings: _text(settings) == "option",
    prompt_of=_prompt_of,
    asks_for="nothing",
)

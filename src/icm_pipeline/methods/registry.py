"""Methods by name. A method is a module of this package that defines METHOD, imported when it is asked for."""

import logging
from importlib import import_module
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from icm_pipeline import methods
from icm_pipeline.config.conf_folder import params_written
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.mistakes import KINDS
from icm_pipeline.config.schema import AUTO, Settings
from icm_pipeline.methods.base import Method
from icm_pipeline.text import setting_text

log = logging.getLogger(__name__)

SHIPPED = frozenset({
    "casteer", "difflens", "equisteer", "fair_finetuning", "h_distribution", "icm", "latent_direction",
    "latent_editing", "leace", "linear_act", "lora", "midsteer", "none", "pairs", "prompt", "respodiff", "sega",
    "slider", "time", "uce",
})  # fmt: skip


def find_method(name: str) -> Method | None:
    """Return a method, None for a name that is not known."""
    module = f"{methods.__name__}.{name}"
    found = import_module(module) if name.isidentifier() and find_spec(module) else None
    method: Method | None = getattr(found, "METHOD", None)
    return method


def method_named(name: str) -> Method:
    """Return a method; raises ConfigError listing all for another name."""
    method = find_method(name)
    if method is None:
        known = [module.name for module in iter_modules(methods.__path__) if find_method(module.name)]
        raise ConfigError(f"method.name={name} is not known. Choose one of: {', '.join(sorted(known))}.")
    return method


def words_of(steering: Any) -> list[str]:
    """Return how a page calls a way of steering, results.steering.Steering, in a few words each.

    A result may be of a method whose file is gone, of another branch or somebody else's: it is called by its name.
    """
    method = find_method(steering.method)
    return [steering.method] if method is None else method.words(steering)


def own_file(name: str) -> Path | None:
    """Return the file of a method that is not this package's own, whose code a key stands for; None for a shipped one.

    What such a file imports counts for nothing.
    """
    found = find_spec(f"{methods.__name__}.{name}") if name.isidentifier() and name not in SHIPPED else None
    return Path(found.origin) if found is not None and found.origin else None


def log_choice(choice: str, name: str) -> None:
    """Say which method a choice of conf/method/ is where its file gives none of its own name."""
    own = choice.rpartition("/")[2]
    if own == name:
        return
    if find_method(own) is not None:
        log.warning(
            "method=%s: conf/method/%s.yaml has no `name:` of its own, so this is method.name=%s and not "
            "methods/%s.py: add `name: %s`.", choice, choice, name, own, own,
        )  # fmt: skip
    else:
        log.info("method=%s is method.name=%s with settings of its own", choice, name)


def check_method(settings: Settings) -> None:
    """Raise ConfigError for a method that is not known, or a setting of it that does not go with it."""
    method = method_named(settings.method.name)
    if method.whole_prompts and settings.method.assignment == "least_change":
        raise ConfigError(
            f"method={method.name} makes all images of a prompt together, so none can be left as it is: "
            "method.assignment=least_change does not go with it."
        )
    if not method.draws(settings) and settings.method.assignment == "least_change":
        raise ConfigError(
            f"method={method.name} draws no option for an image: method.assignment=least_change does not go with it."
        )
    if settings.method.shares_by_prompt and method.fit and "method.target_shares" in method.fit.reads:
        raise ConfigError(
            f"method={method.name} learns one set of shares for all prompts: method.shares_by_prompt and its table "
            "do not go with it. Give method.target_shares."
        )
    for unknown in settings.method.params.keys() - set(method.params):
        raise ConfigError(
            f"method.params.{unknown} is no parameter of method={method.name}. It has: "
            f"{', '.join(method.params) or 'none'}."
        )
    for name, written in params_written(method.name).items():
        value = settings.method.params.get(name, written)
        if not _is_like(value, written):
            kind = KINDS[float if isinstance(written, int) and not isinstance(written, bool) else type(written)]
            raise ConfigError(
                f"method.params.{name}={setting_text(value)} must be {kind}; conf/method/{method.name}.yaml has "
                f"{setting_text(written)}."
            )


def _is_like(value: Any, written: Any) -> bool:
    """Say whether a value is of the kind of that in a YAML file; what refers to others, or is null, may be anything."""
    if written is None or (isinstance(written, str) and written.startswith("${")):
        return True
    return type(value) is type(written) or {type(value), type(written)} <= {int, float}


def check_strength(settings: Settings) -> None:
    """Raise ConfigError for a strength that cannot be chosen: nothing that steering reads, or what changes a fit."""
    chosen, method = settings.method, method_named(settings.method.name)
    name, values = chosen.strength, chosen.strengths
    of_params = [f"params.{each}" for each in method.params]
    known = [*(["alpha"] if "alpha" in method.reads else []), *of_params]
    if name not in known:
        raise ConfigError(
            f"method.strength={name} is nothing that method={method.name} reads when it steers. Choose one of: "
            f"{', '.join(known) or 'null'}; null for none, so that the method is taken as it is."
        )
    setting = name if name == "alpha" else f"method.{name}"
    if method.fit and {setting, "method", "method.params" if name in of_params else setting} & set(method.fit.reads):
        raise ConfigError(
            f"method.strength={name}: {setting} changes what method={method.name} learns (Fit.reads), so that every "
            "value would need a fit of its own. Choose a setting that acts when images are steered, or null."
        )
    if not values or len(set(values)) < len(values):
        raise ConfigError(f"method.strengths={values} must be the different values of {setting} to try, at least one.")
    if not all(map(isfinite, values)):
        raise ConfigError(f"method.strengths={values} must be finite numbers: nothing can be steered by the others.")
    if "alpha" in known and settings.alpha == AUTO:
        raise ConfigError(
            "alpha=auto searches each option's alpha, and the bench chooses one for all: leave alpha alone, or set "
            "method.strength=null, which takes the method as it is."
        )
    if chosen.assignment == "least_change":
        raise ConfigError(
            "method.assignment=least_change steers by what images show, which tuning images are not asked: set "
            "method.strength=null, which takes alpha as it is."
        )

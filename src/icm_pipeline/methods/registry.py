"""Methods by name. A method is a module of this package that defines METHOD, imported when it is asked for."""

from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules

from icm_pipeline import methods
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.methods.base import Method


def method_named(name: str) -> Method:
    """Return a method; raises ConfigError listing all for another name."""
    method = _method_of(name)
    if method is None:
        known = [module.name for module in iter_modules(methods.__path__) if _method_of(module.name)]
        raise ConfigError(f"method.name={name} is not known. Choose one of: {', '.join(sorted(known))}.")
    return method


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
    for unknown in settings.method.params.keys() - set(method.params):
        raise ConfigError(
            f"method.params.{unknown} is no parameter of method={method.name}. It has: "
            f"{', '.join(method.params) or 'none'}."
        )


def _method_of(name: str) -> Method | None:
    module = f"{methods.__name__}.{name}"
    found = import_module(module) if name.isidentifier() and find_spec(module) else None
    method: Method | None = getattr(found, "METHOD", None)
    return method

"""What a model path means: a local folder, a hub id, or `embedded:<name>` for what the package ships."""

from pathlib import Path

from icm_pipeline.config.choices import EMBEDDED

LOCAL_MODEL = "local-dir:"
ZOO = Path(__file__).resolve().parent


def local_folder(path: str) -> Path | None:
    """Return the folder or file a path means, None for a hub id or tag; raises ValueError."""
    if path.startswith(EMBEDDED):
        return embedded_folder(path.removeprefix(EMBEDDED))
    local = Path(path).expanduser()
    if local.is_absolute() or local.exists() or path.startswith("."):
        return local
    return None


def bundled_weights(model: str) -> Path | None:
    """Return the folder of a model called `local-dir:<folder>`, as open_clip names one that brings its weights."""
    return Path(model.removeprefix(LOCAL_MODEL)).expanduser() if model.startswith(LOCAL_MODEL) else None


def embedded_folder(name: str) -> Path:
    """Return the folder of an embedded model or judge; raises ValueError listing what the package ships."""
    shipped = sorted(path.name for path in ZOO.iterdir() if path.is_dir() and path.name != "__pycache__")
    if name not in shipped:
        raise ValueError(f"No embedded model is called {name!r}; the package ships: {', '.join(shipped) or 'none'}.")
    return ZOO / name

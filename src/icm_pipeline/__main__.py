"""`python -m icm_pipeline` and `icm`: a job through Hydra, or a command that looks after its artifacts."""

import sys

from icm_pipeline.cli.stopping import stopping_cleanly
from icm_pipeline.store.versions import library_versions

HOUSEKEEPING = ("show", "ls", "gc", "verify")
# Options of Hydra's whose value may be the next word.
VALUED = ("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--package", "-p")


def flags_first(words: list[str]) -> list[str]:
    """Return a command line's words with its settings at the end: argparse takes them in one run only."""
    settings, others = list[str](), list[str]()
    for before, word in zip(["", *words], words, strict=False):
        is_setting = "=" in word and not word.startswith("-") and before not in VALUED
        (settings if is_setting else others).append(word)
    return others + settings


def run() -> None:
    """Entry point of the `icm` command; each part is imported when it is asked for, and under its watch for signals."""
    words = sys.argv[1:]
    if words[:1] == ["--version"]:
        print(", ".join(f"{package} {version}" for package, version in library_versions().items()))
        return
    with stopping_cleanly(words):
        if words and words[0] in HOUSEKEEPING:
            from icm_pipeline.cli.housekeeping import run_command

            sys.exit(run_command(words))
        if words[:1] == ["export"]:
            from icm_pipeline.cli.export import run_export

            sys.exit(run_export(words[1:]))
        if words[:1] == ["models"]:
            from icm_pipeline.cli.models import run_models

            sys.exit(run_models(words[1:]))
        if words[:1] == ["push"]:
            from icm_pipeline.cli.publishing import run_push

            sys.exit(run_push(words[1:]))
        if words[:1] == ["check-model"]:
            from icm_pipeline.cli.check_model import run_check

            sys.exit(run_check(words[1:]))
        from icm_pipeline.cli.job import run as run_job

        if words[:1] == ["explore"]:
            from icm_pipeline.cli.exploring import words_or_end

            words = words_or_end(words[1:])
        sys.argv[1:] = flags_first(words)
        run_job()


if __name__ == "__main__":
    run()

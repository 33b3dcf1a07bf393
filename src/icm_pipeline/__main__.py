"""`python -m icm_pipeline` and `icm`: a job through Hydra, or a command that looks after its artifacts."""

import sys

from icm_pipeline.stopping import stopping_cleanly

COMMANDS = ("show", "ls", "gc", "verify")


def run() -> None:
    """Entry point of the `icm` command; each part is imported when it is asked for, and under its watch for signals."""
    words = sys.argv[1:]
    with stopping_cleanly(words):
        if words and words[0] in COMMANDS:
            from icm_pipeline.housekeeping import run_command

            sys.exit(run_command(words))
        from icm_pipeline.job import run as run_job

        run_job()


if __name__ == "__main__":
    run()

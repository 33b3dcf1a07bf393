"""The hub without a network: what its cache holds is taken at once, what it lacks is missed at once."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

SECONDS = 5  # that an answer of the hub may take


@cache
def hub_answers() -> bool:
    """Say whether the hub can be reached from here, through a proxy or a mirror if the environment names one."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=SECONDS).close()
    except HTTPError:
        return True
    except URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # its client may trust other certificates
    except OSError:
        return False
    return True


@contextmanager
def asked_once() -> Iterator[None]:
    """Keep the hub's client, while the hub cannot be reached, from asking five times and half a minute for a file."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not hub_answers()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before

"""What may be asked for: fixed paths below a secret one, with whole numbers in them and nothing else."""

import hmac
import ipaddress
import re
from dataclasses import dataclass

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
ALL_ADDRESSES = ("0.0.0.0", "::")
PAGES = {
    "": "text/html; charset=utf-8",
    "viewer.css": "text/css; charset=utf-8",
    "viewer.js": "text/javascript; charset=utf-8",
    "world.js": "text/javascript; charset=utf-8",
    "marks.js": "text/javascript; charset=utf-8",
    "panel.js": "text/javascript; charset=utf-8",
    "openseadragon.min.js": "text/javascript; charset=utf-8",
}
"""Files of the page, and their types."""

_NUMBER = r"(0|[1-9][0-9]{0,8})"
_ROUTES = {
    "tile": re.compile(rf"tiles/([a-z]+)/{'/'.join([_NUMBER] * 4)}"),  # layer, revision, level, row, column
    "row": re.compile(rf"tile/{_NUMBER}/{_NUMBER}"),  # row, column
    "shown": re.compile(rf"shown/{'/'.join([_NUMBER] * 4)}"),  # top, left, height, width
    "facts": re.compile("facts"),
    "status": re.compile("status"),
}
_TOKEN = re.compile(r"/([A-Za-z0-9_-]{1,64})/(.*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Route:
    """Something that is there to be asked for."""

    name: str
    """One of tile, row, shown, facts, status, page."""
    word: str = ""
    """The layer of a tile, or the file of a page."""
    numbers: tuple[int, ...] = ()


def below(target: str, token: str) -> str | None:
    """What is asked for below the secret path; None for whoever does not know it."""
    found = _TOKEN.fullmatch(target)
    if found is None or not hmac.compare_digest(found[1], token):
        return None
    return found[2]


def parse(path: str) -> Route | None:
    """The route of a path below the secret one; None for anything else.

    >>> parse("tiles/mask/1/0/2/3")
    Route(name='tile', word='mask', numbers=(1, 0, 2, 3))
    """
    if path in PAGES:
        return Route("page", path)
    for name, pattern in _ROUTES.items():
        found = pattern.fullmatch(path)
        if found is not None:
            words = found.groups()
            word, numbers = (words[0], words[1:]) if name == "tile" else ("", words)
            return Route(name, word, tuple(map(int, numbers)))
    return None


def host_is_ours(header: str | None, host: str) -> bool:
    """Whether a request's Host is this machine as it was asked to be known, on whatever port.

    A page elsewhere whose name is made to point here (DNS rebinding) comes with its own name. The port may be
    another: that of a tunnel. A server on all addresses goes by any address, and by no name.
    """
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?", header or "")
    if found is None:
        return False
    name = found[1].strip("[]").lower()
    if name in (*LOCAL_NAMES, host.lower()):
        return True
    return host in ALL_ADDRESSES and _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

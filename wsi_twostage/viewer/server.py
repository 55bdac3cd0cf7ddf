"""The server of one scene: a few fixed routes behind a token; no path of a file ever comes from a request."""

import json
import socket
import sys
from dataclasses import asdict
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from socketserver import TCPServer
from typing import Any

from wsi_twostage.errors import StoreError, WsiError
from wsi_twostage.tiles import Box, Tile
from wsi_twostage.viewer.pictures import Pictures
from wsi_twostage.viewer.refiner import Refiner
from wsi_twostage.viewer.routes import PAGES, Route, below, host_is_ours, parse
from wsi_twostage.viewer.scene import Scene

LONGEST_BODY = 256  # bytes
PATIENCE_S = 60  # with a silent connection

_EMPTY = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"  # what stands in for OpenSeadragon's own
_POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' {_EMPTY}; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the token is in the path
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"
_STAYS, _CHANGES = "private, max-age=3600, immutable", "no-store"


class Server(ThreadingHTTPServer):
    """Listens, and holds what the handlers of all requests share."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, token: str, *, scene: Scene, refiner: Refiner) -> None:
        self.token, self.host = token, host
        self.scene, self.refiner = scene, refiner
        self.pictures = Pictures(scene)
        self.tickets: set[str] = set()
        """Tokens for one use, for a command line that others may see: each leads to the page once."""
        self.ended = False
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def server_close(self) -> None:
        """Also for connections that are open: their next request is refused."""
        self.ended = True
        super().server_close()

    def server_bind(self) -> None:
        """Without asking a name server who we are."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "wsi-seg", ""
    timeout = PATIENCE_S
    wbufsize = -1  # a reply leaves as a whole, not its headers first
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        path = self._admitted()
        if path is None:
            return
        route = parse(path)
        try:
            found = None if route is None else self._get(route)
        except WsiError as error:
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
            return
        if found is None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such thing")
        else:
            self._reply(HTTPStatus.OK, *found)

    def do_POST(self) -> None:
        path = self._admitted()
        if path is None:
            return
        if path == "stop":
            self.server.refiner.stop()
        elif path == "refine":
            box = self._box_of_body()
            if box is None:
                return
            try:
                self.server.refiner.start(box)
            except StoreError as error:
                self._refuse(HTTPStatus.CONFLICT, str(error))
                return
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such thing")
            return
        try:
            told = _json(self._status())
        except WsiError as error:
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
            return
        self.close_connection = True  # whatever body is left is not taken for the next request
        self._reply(HTTPStatus.ACCEPTED, told, _JSON, _CHANGES, {"Connection": "close"})

    def _admitted(self) -> str | None:
        """What a request that may ask asks for; else it is refused, and its connection ends."""
        hosts = self.headers.get_all("Host", [])
        origin = self.headers.get("Origin")
        if self.server.ended:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "the viewer has ended")
        elif len(hosts) != 1 or not host_is_ours(hosts[0], self.server.host):
            self._refuse(HTTPStatus.FORBIDDEN, "this server is known by another name")
        elif origin is not None and origin != f"http://{hosts[0]}":
            self._refuse(HTTPStatus.FORBIDDEN, "a page of another origin asks")
        elif self.path.removeprefix("/ticket/") in self.server.tickets:
            self.server.tickets.clear()
            self._reply(HTTPStatus.SEE_OTHER, b"", _TEXT, _CHANGES, {"Location": f"/{self.server.token}/"})
        elif (path := below(self.path, self.server.token)) is None:
            self._refuse(HTTPStatus.FORBIDDEN, "open the address that wsi-seg view printed")
        else:
            return path
        return None

    def _get(self, route: Route) -> tuple[bytes, str, str] | None:
        """Body, type and how long it may be kept; None where there is nothing."""
        scene = self.server.scene
        if route.name == "page":
            return _page(route.word), PAGES[route.word], _CHANGES
        if route.name == "tile":
            revision, level, row, col = route.numbers
            tile = self.server.pictures.tile(route.word, level, Tile(row, col), revision=revision)
            kind = "image/jpeg" if route.word == "slide" else "image/png"
            return None if tile is None else (tile.content, kind, _STAYS if tile.stays else _CHANGES)
        if route.name == "row":
            told = scene.tile(Tile(*route.numbers))
        elif route.name == "shown":
            told = {"left": scene.shown(Box(*route.numbers)).left}
        else:
            told = scene.facts() if route.name == "facts" else self._status()
        return None if told is None else (_json(told), _JSON, _CHANGES)

    def _status(self) -> dict[str, Any]:
        return {"revision": self.server.scene.look(), "refining": asdict(self.server.refiner.progress)}

    def _box_of_body(self) -> Box | None:
        """A box in the request's body, as JSON; else it is refused."""
        if self.headers.get_content_type() != _JSON:
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"give {_JSON}")
            return None
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "say how long the body is")
            return None
        if len(length) > 9 or int(length) > LONGEST_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {LONGEST_BODY} bytes")
            return None
        spec = self.server.scene.store.spec
        try:
            told = json.loads(self.rfile.read(int(length)))
            numbers = [told[name] for name in ("top", "left", "height", "width")]
        except (ValueError, TypeError, KeyError, RecursionError):
            numbers = []
        whole = len(numbers) == 4 and all(type(number) is int for number in numbers)
        if not whole or (box := Box(*numbers).clip(spec.height, spec.width)).area == 0:
            self._refuse(HTTPStatus.BAD_REQUEST, "give top, left, height and width of a part of the slide")
            return None
        return box

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        """Say no, and end the connection: what it still sends was not read."""
        self.close_connection = True
        self._reply(status, why.encode(errors="backslashreplace"), _TEXT, _CHANGES, {"Connection": "close"})

    def _reply(
        self,
        status: HTTPStatus,
        body: bytes,
        kind: str,
        keep: str,
        more: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": keep}
        for name, value in (headers | _HEADERS | (more or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What is no request at all is refused like the others."""
        self._refuse(HTTPStatus(code), message or HTTPStatus(code).phrase)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the token is in every line."""


def _json(told: dict[str, Any]) -> bytes:
    return json.dumps(told).encode()


@cache
def _page(name: str) -> bytes:
    """A file of the page, one of `PAGES`."""
    return files("wsi_twostage.viewer").joinpath("page", name or "index.html").read_bytes()

"""Serve results to viewers that run in the browser, such as Vizarr: to pages of one origin, on this machine.

python examples/serve.py [FOLDER] [--port 8000] [--origin https://hms-dbmi.github.io]

Python's own ``http.server`` sends whole files only; a store on zarr v3 has many chunks in one file, and
viewers ask for parts of it.
"""

import argparse
import io
import re
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO


class PartsOfFiles(SimpleHTTPRequestHandler):
    """Answers requests for a range of bytes (RFC 9110, section 14), one range at a time."""

    protocol_version = "HTTP/1.1"
    origin = ""

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        name = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if name not in ("127.0.0.1", "localhost"):  # a page elsewhere, whose name was made to point here
            self.send_error(HTTPStatus.FORBIDDEN)
            return None
        path = Path(self.translate_path(self.path))
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked is None or not path.is_file():
            return super().send_head()
        size = path.stat().st_size
        first, last = asked.groups()
        begin = int(first) if first else max(size - int(last or 0), 0)
        end = min(int(last), size - 1) if first and last else size - 1
        if begin > end:
            self.send_error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            return None
        with path.open("rb") as file:
            file.seek(begin)
            part = file.read(end - begin + 1)
        self.send_response(HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {begin}-{end}/{size}")
        self.end_headers()
        return io.BytesIO(part)

    def do_OPTIONS(self) -> None:
        self.send_response(HTTPStatus.NO_CONTENT)
        self.send_header("Access-Control-Allow-Headers", "Range")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def end_headers(self) -> None:
        self.send_header("Accept-Ranges", "bytes")
        if self.origin:
            self.send_header("Access-Control-Allow-Origin", self.origin)
            self.send_header("Access-Control-Expose-Headers", "Content-Range, Content-Length")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: a viewer asks for thousands of chunks."""


def server_of(folder: Path, *, port: int = 0, origin: str = "") -> ThreadingHTTPServer:
    """A server of what is in a folder, not yet at work; port 0 takes a free one."""
    handler = type("Handler", (PartsOfFiles,), {"origin": origin})
    return ThreadingHTTPServer(("127.0.0.1", port), partial(handler, directory=str(folder)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a folder of results to viewers in the browser.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("out"))
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--origin", default="https://hms-dbmi.github.io", help="whose pages may read it")
    given = parser.parse_args()
    with server_of(given.folder, port=given.port, origin=given.origin) as server:
        print(f"http://127.0.0.1:{server.server_port}/ for pages of {given.origin}; Ctrl-C ends it")
        for store in sorted(given.folder.glob("*.zarr")):
            print(f"  http://127.0.0.1:{server.server_port}/{store.name}")
        with suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()

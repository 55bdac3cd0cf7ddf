"""open_viewer(): a result served to the browser of this machine."""

import os
import secrets
import signal
import sys
import threading
import webbrowser
from collections.abc import Callable
from urllib.parse import urlsplit

from wsi_twostage import stopping
from wsi_twostage.errors import ConfigError
from wsi_twostage.viewer.refiner import Refiner, Tools
from wsi_twostage.viewer.routes import ALL_ADDRESSES, LOCAL_NAMES
from wsi_twostage.viewer.scene import Scene
from wsi_twostage.viewer.server import Server

HOST = "127.0.0.1"


class Viewer:
    """A server that listens; `run` or `start` makes it answer."""

    def __init__(self, scene: Scene, refiner: Refiner, server: Server) -> None:
        self.scene, self.refiner, self._server = scene, refiner, server
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where the page is; who knows it may look."""
        return f"{self._origin}/{self._server.token}/"

    @property
    def _origin(self) -> str:
        host = self._server.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know, a line each."""
        host = self._server.host
        open_to_all = f"everyone who can reach {host} and knows the address can look, and refine"
        instead = f"from elsewhere, put a number of this machine (no name) in the place of {host}"
        return (
            *self.scene.notes,
            *(() if host in LOCAL_NAMES else (open_to_all,)),
            *((instead,) if host in ALL_ADDRESSES else ()),
        )

    def browse(self, at: str = "") -> bool:
        """Open a browser, if there is one with a screen; on a ticket, since all users see command lines.

        ``at`` is what follows # in a link.
        """
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            return False
        ticket = secrets.token_urlsafe(24)
        self._server.tickets.add(ticket)
        link = f"{self._origin}/ticket/{ticket}{at}"
        # Some browsers are waited for until they are closed, and would wait for an answer.
        threading.Thread(target=webbrowser.open, args=(link,), name="browser", daemon=True).start()
        return True

    def run(
        self, ready: Callable[[], object] = lambda: None, ending: Callable[[], object] = lambda: None
    ) -> None:
        """Answer until SIGINT or SIGTERM; then Model 2, if it is at work, ends what it has begun.

        ``ready`` is called when the first request can be answered, ``ending`` if Model 2 is waited for.
        """
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            ready()
            self._server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGTERM, before)
            self._server.server_close()
            if self.refiner.progress.busy:
                ending()
                self.refiner.stop()
                with stopping.on_signals():  # it was asked to: one more ends the process, whatever hangs
                    self.refiner.wait()

    def start(self) -> None:
        """Answer from a thread of its own, until `close`."""
        self._thread = threading.Thread(target=self._server.serve_forever, name="viewer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End what `start` began, if it did, and let go of the port."""
        self.refiner.stop()
        self.refiner.wait()
        if self._thread is not None:  # else there is nobody to be waited for
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


def open_viewer(
    output: str | os.PathLike[str],
    *,
    slide: str | os.PathLike[str] | None = None,
    host: str = HOST,
    port: int = 0,
    tools: Tools | None = None,
) -> Viewer:
    """Open a result and listen.

    Parameters
    ----------
    slide
        Where it is now; None: where it was, or the overview in the store.
    host, port
        To listen on; port 0: any that is free.
    tools
        What refines.

    Raises
    ------
    StoreError, SlideError
        As `Scene.open`.
    ConfigError
        Nobody can listen there.
    """
    if not host:  # a socket would take it for all addresses
        raise ConfigError("host='': give an address to listen on, such as 127.0.0.1")
    scene = Scene.open(output, slide)
    refiner = Refiner(scene, tools)
    try:
        server = Server(host, port, secrets.token_urlsafe(24), scene=scene, refiner=refiner)
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{host}:{port} cannot be listened on ({said}); give another --host or --port"
        ) from error
    return Viewer(scene, refiner, server)


def place_in(link: str) -> str:
    """The part of a copied link that restores its view, with its #; empty for no link.

    Raises
    ------
    ConfigError
        It has no such part.
    """
    fragment = urlsplit(link).fragment
    if link and not fragment:
        raise ConfigError(f"--at {link!r}: names no view; a link that the viewer copies does, behind its #")
    return f"#{fragment}" if fragment else ""

"""Who may ask the viewer's server, and for what; the rest is refused, and no file is ever reached."""

import errno
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from conftest import small_bundle, tiny_model
from hypothesis import given
from hypothesis import strategies as st
from slides import pyramid, texture, write_slide

from wsi_twostage.errors import ConfigError
from wsi_twostage.mask import MaskPyramid
from wsi_twostage.pipeline import segment
from wsi_twostage.selection import Fraction
from wsi_twostage.settings import Settings
from wsi_twostage.verification import verify
from wsi_twostage.viewer import Viewer, open_viewer, scene
from wsi_twostage.viewer.refiner import Progress
from wsi_twostage.viewer.routes import host_is_ours, parse
from wsi_twostage.viewer.viewer import place_in


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> MaskPyramid:
    folder = tmp_path_factory.mktemp("made")
    slide = write_slide(folder / "slide.tiff", pyramid(texture(700, 900), 2))
    settings = Settings(tissue="none", workers=2)
    return segment(
        slide, folder / "o.zarr", bundle=small_bundle(), rule=Fraction(0.2), settings=settings
    ).store


@pytest.fixture(scope="module")
def viewer(store: MaskPyramid) -> Iterator[Viewer]:
    viewer = open_viewer(store.path)
    viewer.start()
    yield viewer
    viewer.close()


@pytest.fixture
def token(viewer: Viewer) -> str:
    return viewer.url.rstrip("/").rsplit("/", 1)[1]


class Reply:
    def __init__(self, reply: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = reply.status, reply.headers, reply.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    viewer: Viewer,
    path: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> Reply:
    """As a browser would, but with any path as it is."""
    all_headers = {"Host": f"127.0.0.1:{viewer.port}"} | (headers or {})
    if body is not None:
        all_headers["Content-Length"] = str(len(body))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in all_headers.items())]
    with socket.create_connection(("127.0.0.1", viewer.port), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + (body or b""))
        with http.client.HTTPResponse(connection, method=method) as reply:
            reply.begin()
            return Reply(reply)


def say(viewer: Viewer, text: bytes) -> bytes:
    """What comes back for bytes as they are."""
    with socket.create_connection(("127.0.0.1", viewer.port), timeout=30) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while part := connection.recv(65536):
            found += part
        return found


def test_the_page_and_its_files_are_there(viewer: Viewer, token: str) -> None:
    page = ask(viewer, f"/{token}/")
    assert page.status == 200
    assert b"<!DOCTYPE html>" in page.body
    for name in ("viewer.css", "viewer.js", "world.js", "marks.js", "panel.js", "openseadragon.min.js"):
        assert ask(viewer, f"/{token}/{name}").status == 200


def test_the_page_may_load_nothing_from_elsewhere(viewer: Viewer, token: str) -> None:
    page = ask(viewer, f"/{token}/")
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert b"://" not in page.body.replace(b"http://www.w3.org/2000/svg", b"")  # a name, not an address


@pytest.mark.parametrize("layer", ["slide", "mask", "outlines", "uncertainty", "source"])
def test_tiles_of_every_layer_come_and_may_be_kept(viewer: Viewer, token: str, layer: str) -> None:
    tile = ask(viewer, f"/{token}/tiles/{layer}/1/0/0/0")
    assert tile.status == 200
    assert tile.headers["Content-Type"] == ("image/jpeg" if layer == "slide" else "image/png")
    assert "immutable" in tile.headers["Cache-Control"]


def test_what_a_share_does_not_give_now_may_come_the_next_time(
    store: MaskPyramid, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with closing(open_viewer(store.path)) as viewer:
        viewer.start()
        place = f"/{viewer.url.rstrip('/').rsplit('/', 1)[1]}/tiles/slide/1/0/1/1"
        with monkeypatch.context() as away:
            away.setattr(os, "pread", fail)
            hole = ask(viewer, place)
        found = ask(viewer, place)
    assert hole.status == found.status == 200
    assert hole.headers["Cache-Control"] == "no-store"
    assert "immutable" in found.headers["Cache-Control"]
    assert hole.body != found.body


def test_a_file_system_that_fails_is_a_line(store: MaskPyramid, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(*_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with closing(open_viewer(store.path)) as viewer:
        viewer.start()
        monkeypatch.setattr(scene, "_stamp", stale)
        refused = ask(viewer, f"/{viewer.url.rstrip('/').rsplit('/', 1)[1]}/status")
    assert refused.status == 422
    assert b"cannot be read (OSError" in refused.body


def test_a_path_that_is_no_utf_8_is_said_all_the_same(store: MaskPyramid, tmp_path: Path) -> None:
    place = tmp_path / "M\udcfcller" / "o.zarr"
    shutil.copytree(store.path, place)
    with closing(open_viewer(place)) as viewer:
        viewer.start()
        place.rename(tmp_path / "elsewhere")
        refused = ask(viewer, f"/{viewer.url.rstrip('/').rsplit('/', 1)[1]}/facts")
    assert refused.status == 422
    assert rb"M\udcfcller/o.zarr" in refused.body


def test_facts_rows_and_counts_come_as_json(viewer: Viewer, token: str, store: MaskPyramid) -> None:
    facts = ask(viewer, f"/{token}/facts").json
    assert (facts["height"], facts["width"]) == (store.spec.height, store.spec.width)
    assert facts["counts"]["refined"] == int((store.read_source() == 2).sum())
    assert ask(viewer, f"/{token}/tile/1/2").json["col"] == 2
    assert ask(viewer, f"/{token}/shown/0/0/700/900").json["left"] > 0
    assert ask(viewer, f"/{token}/status").json["refining"]["busy"] is False


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/facts",
        "//facts",
        "/wrong/facts",
        "/wrong/tiles/mask/1/0/0/0",
        "/?token=wrong",
        "/ticket/",
        "/ticket/wrong",
        "/etc/passwd",
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "http://127.0.0.1/facts",
        "*",
        "/é",
    ],
)
def test_whoever_does_not_know_the_token_gets_nothing(viewer: Viewer, path: str) -> None:
    reply = ask(viewer, path)
    assert reply.status == 403
    assert b"open the address" in reply.body


@pytest.mark.parametrize(
    "change", [str.upper, str.swapcase, lambda t: t[:-1], lambda t: t + "A", lambda t: "." + t]
)
def test_a_token_that_is_almost_right_is_wrong(viewer: Viewer, token: str, change: Any) -> None:
    assert ask(viewer, f"/{change(token)}/facts").status == 403


@pytest.mark.parametrize(
    "path",
    [
        "../../../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/etc/passwd",
        "....//....//etc/passwd",
        "..\\..\\windows\\win.ini",
        "/etc/passwd",
        "//etc/passwd",
        "file:///etc/passwd",
        "index.html",
        "openseadragon.LICENSE.txt",
        "../server.py",
        "viewer.js/../../server.py",
        "viewer.js%00.css",
        "viewer.js?x=1",
        "tiles/mask/1/0/0",
        "tiles/mask/1/0/0/0/0",
        "tiles/mask/1/0/0/0.png",
        "tiles/mask/1/-1/0/0",
        "tiles/mask/1/0/-1/0",
        "tiles/mask/1/0/+1/0",
        "tiles/mask/1/0/0x1/0",
        "tiles/mask/1/0/1e3/0",
        "tiles/mask/1/0/1.5/0",
        "tiles/mask/1/0/٣/0",
        "tiles/mask/1/0/00/0",
        "tiles/mask/1/0/%30/0",
        "tiles/mask/1/0/0%00/0",
        "tiles/mask/1/0/99999999/0",
        "tiles/mask/1/0/0/99999999999999999999999999",
        "tiles/mask/1/64/0/0",
        "tiles/mask/1/999999999/0/0",
        "tiles/../1/0/0/0",
        "tiles/labels/1/0/0/0",
        "tiles/__class__/1/0/0/0",
        "tiles/MASK/1/0/0/0",
        "tile/-1/0",
        "tile/99/0",
        "tile/0/0/",
        "shown/0/0/0",
        "shown/0/0/0/-5",
        "FACTS",
        "facts/",
        "facts%20",
        "status#",
        "refine",
        "stop",
    ],
)
def test_only_what_is_there_can_be_asked_for(viewer: Viewer, token: str, path: str) -> None:
    reply = ask(viewer, f"/{token}/{path}")
    assert (reply.status, reply.body) == (404, b"there is no such thing")


@pytest.mark.parametrize("part", [b"\x00", b"\x00facts", b"facts\x00", b"tiles/mask/1/0/0/\x000"])
def test_a_nul_in_a_path_finds_nothing(viewer: Viewer, token: str, part: bytes) -> None:
    host = f"Host: 127.0.0.1:{viewer.port}\r\n\r\n".encode()
    found = say(viewer, b"GET /" + token.encode() + b"/" + part + b" HTTP/1.1\r\n" + host)
    assert found.split(b" ", 2)[1] in (b"400", b"404")


@given(st.text(max_size=60))
def test_a_route_is_a_known_name_and_whole_numbers(path: str) -> None:
    route = parse(path)
    assert route is None or path == ""
    assert route is None or all(type(number) is int for number in route.numbers)


@given(st.lists(st.integers(0, 10**9 - 1), min_size=4, max_size=4))
def test_numbers_of_a_route_are_those_of_its_path(numbers: list[int]) -> None:
    route = parse("tiles/mask/" + "/".join(map(str, numbers)))
    assert route is not None
    assert (route.name, route.word, list(route.numbers)) == ("tile", "mask", numbers)


@pytest.mark.parametrize(
    ("header", "host", "ours"),
    [
        ("127.0.0.1:8000", "127.0.0.1", True),
        ("localhost:9000", "127.0.0.1", True),  # through a tunnel
        ("LOCALHOST", "127.0.0.1", True),
        ("[::1]:8000", "::1", True),
        ("evil.example", "127.0.0.1", False),
        ("evil.example:8000", "127.0.0.1", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("localhost.evil.example:8000", "127.0.0.1", False),
        ("10.0.0.7:8000", "127.0.0.1", False),
        ("10.0.0.7:8000", "0.0.0.0", True),
        ("evil.example:8000", "0.0.0.0", False),  # DNS rebinding
        ("node7:8000", "node7", True),
        ("127.0.0.1:8000@evil.example", "127.0.0.1", False),
        ("127.0.0.1 evil", "127.0.0.1", False),
        ("", "127.0.0.1", False),
        (None, "127.0.0.1", False),
    ],
)
def test_a_host_is_ours_by_its_own_names_only(header: str | None, host: str, ours: bool) -> None:
    assert host_is_ours(header, host) is ours


def test_a_page_that_points_its_name_here_gets_nothing(viewer: Viewer, token: str) -> None:
    assert ask(viewer, f"/{token}/facts", headers={"Host": "evil.example"}).status == 403


def test_two_hosts_are_one_too_many(viewer: Viewer, token: str) -> None:
    request = f"GET /{token}/facts HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    assert say(viewer, request.encode()).startswith(b"HTTP/1.1 403")


def test_a_page_of_another_origin_may_not_ask(viewer: Viewer, token: str) -> None:
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{viewer.port + 1}"):
        assert ask(viewer, f"/{token}/facts", headers={"Origin": origin}).status == 403
    ours = {"Origin": f"http://127.0.0.1:{viewer.port}"}
    assert ask(viewer, f"/{token}/facts", headers=ours).status == 200


def test_a_ticket_leads_to_the_page_once(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setenv("DISPLAY", ":0")
    closed, fetched = threading.Event(), threading.Event()

    def browser(url: str) -> None:  # that waits until it is closed
        opened.append(url)
        fetched.set()
        closed.wait(60)

    monkeypatch.setattr("webbrowser.open", browser)
    assert viewer.browse("#row=1")
    assert fetched.wait(10)
    path = "/" + opened[0].split("/", 3)[3].removesuffix("#row=1")
    assert viewer.url not in opened[0]
    first = ask(viewer, path)
    assert first.status == 303
    assert viewer.url.endswith(first.headers["Location"])
    assert ask(viewer, path).status == 403
    closed.set()


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "PATCH", "CONNECT"])
def test_other_methods_do_nothing(viewer: Viewer, token: str, method: str) -> None:
    assert ask(viewer, f"/{token}/facts", method=method).status == 501


JSON = {"Content-Type": "application/json"}
BOX = b'{"top": 0, "left": 0, "height": 9, "width": 9}'


def test_refining_needs_the_token_too(viewer: Viewer) -> None:
    assert ask(viewer, "/wrong/refine", method="POST", body=BOX, headers=JSON).status == 403


@pytest.mark.parametrize("path", ["facts", "", "tiles/mask/1/0/0/0", "refine/", "../refine", "stop/"])
def test_nothing_else_takes_a_post(viewer: Viewer, token: str, path: str) -> None:
    assert ask(viewer, f"/{token}/{path}", method="POST", body=BOX, headers=JSON).status == 404


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (BOX, {"Content-Type": "text/plain"}, 415),  # what a form of another page could send
        (BOX, {}, 415),
        (None, JSON, 411),
        (b" " * 300 + BOX, JSON, 413),
        (b"", JSON, 400),
        (b"hello", JSON, 400),
        (b"[" * 200, JSON, 400),
        (b"[1, 2, 3, 4]", JSON, 400),
        (b"\xff\xfe", JSON, 400),
        (b'{"top": 0, "left": 0, "height": 9}', JSON, 400),
        (b'{"top": 0, "left": 0, "height": "9", "width": 9}', JSON, 400),
        (b'{"top": 0, "left": 0, "height": 1.5, "width": 9}', JSON, 400),
        (b'{"top": 0, "left": 0, "height": true, "width": 9}', JSON, 400),
        (b'{"top": 0, "left": 0, "height": NaN, "width": 9}', JSON, 400),
        (b'{"top": 0, "left": 0, "height": 0, "width": 9}', JSON, 400),
        (b'{"top": 0, "left": 0, "height": -9, "width": 9}', JSON, 400),
        (b'{"top": 99999999, "left": 0, "height": 9, "width": 9}', JSON, 400),
    ],
)
def test_what_is_no_part_of_the_slide_is_refused(
    viewer: Viewer, token: str, body: bytes | None, headers: dict[str, str], status: int
) -> None:
    assert ask(viewer, f"/{token}/refine", method="POST", body=body, headers=headers).status == status


@pytest.mark.parametrize("length", ["99999999999999999999", "257"])
def test_a_body_that_claims_to_be_long_is_not_read(viewer: Viewer, token: str, length: str) -> None:
    head = f"POST /{token}/refine HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    found = say(viewer, f"{head}Content-Length: {length}\r\n\r\n".encode())
    assert found.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("length", ["-1", "+5", "1_0", "0x10", "five"])
def test_a_length_that_is_no_number_is_refused(viewer: Viewer, token: str, length: str) -> None:
    head = f"POST /{token}/refine HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert say(viewer, f"{head}Content-Length: {length}\r\n\r\n".encode()).startswith(b"HTTP/1.1 411")


def test_what_follows_a_refused_request_is_not_taken_for_another(viewer: Viewer, token: str) -> None:
    second = f"GET /{token}/facts HTTP/1.1\r\nHost: localhost\r\n\r\n"
    first = f"POST /wrong/refine HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(second)}\r\n\r\n"
    assert say(viewer, (first + second).encode()).count(b"HTTP/1.1 ") == 1


def test_while_model_2_is_at_work_it_is_not_begun_again(viewer: Viewer, token: str) -> None:
    viewer.refiner.progress = Progress(busy=True)
    try:
        reply = ask(viewer, f"/{token}/refine", method="POST", body=BOX, headers=JSON)
    finally:
        viewer.refiner.progress = Progress()
    assert reply.status == 409
    assert b"at work already" in reply.body


def test_many_may_look_at_once(viewer: Viewer, token: str) -> None:
    found: list[int] = []
    paths = [
        f"/{token}/tiles/{layer}/1/0/{row}/{col}"
        for layer in ("slide", "mask")
        for row in (0, 1)
        for col in (0, 1)
    ]
    threads = [threading.Thread(target=lambda p=p: found.append(ask(viewer, p).status)) for p in paths * 4]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [200] * len(threads)


def test_what_is_no_http_is_refused_like_all_else(viewer: Viewer) -> None:
    for text in (
        b"\x16\x03\x01\x02\r\n\r\n",
        b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ):
        assert b"<" not in say(viewer, text)


@pytest.mark.parametrize("lost", ["damaged", "gone"])
def test_a_result_that_is_lost_while_it_is_shown_is_one_line(
    store: MaskPyramid, tmp_path: Path, lost: str, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(store.path, tmp_path / "o.zarr"))
    viewer = open_viewer(copy)
    viewer.start()
    asked = ["status", "facts"]
    if lost == "gone":
        shutil.rmtree(copy)
    else:
        asked += [f"tiles/{layer}/1/0/0/0" for layer in ("mask", "outlines", "uncertainty")]
        for chunk in copy.rglob("c/**/*"):
            if chunk.is_file():
                chunk.write_bytes(b"hello")
    replies = [ask(viewer, f"{urlsplit(viewer.url).path}{path}") for path in asked]
    viewer.close()
    for path, reply in zip(asked, replies, strict=True):
        assert reply.status == 422
        what = b"labels of rows" if path.startswith("tiles/") else b"the tile table cannot be read"
        what = b"Model 1's answer" if "uncertainty" in path else what
        assert (b"o.zarr does not exist" if lost == "gone" else b"o.zarr: " + what) in reply.body
        assert b"\n" not in reply.body
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("change", ["size", "classes", "slide"])
def test_a_result_that_is_replaced_while_it_is_shown_is_not_drawn_over_the_old_slide(
    tmp_path: Path, change: str
) -> None:
    slide, out = tmp_path / "slide.tiff", tmp_path / "o.zarr"
    settings = Settings(tissue="none", workers=1, overwrite=True)
    write_slide(slide, [texture(500, 400)])
    segment(slide, out, bundle=small_bundle(), rule=Fraction(0.5), settings=settings)
    viewer = open_viewer(out)
    viewer.start()
    path = urlsplit(viewer.url).path
    assert ask(viewer, f"{path}facts").status == 200
    segment(slide, out, bundle=small_bundle(), rule=Fraction(0.5), settings=settings)  # the same, anew
    assert ask(viewer, f"{path}facts").status == 200
    bundle = small_bundle(classes=3 if change == "classes" else 1)
    if change != "classes":
        height = 300 if change == "size" else 500
        write_slide(slide, [texture(height, 400, seed=1)])
    segment(slide, out, bundle=bundle, rule=Fraction(0.5), settings=settings)
    replies = [ask(viewer, f"{path}{name}") for name in ("facts", "status")]
    replies.append(ask(viewer, f"{path}stop", method="POST"))
    viewer.close()
    for reply in replies:
        assert reply.status == 422
        assert b"is another result by now; start wsi-seg view again" in reply.body


def test_a_viewer_that_never_answered_can_be_closed(store: MaskPyramid) -> None:
    open_viewer(store.path).close()


def test_a_port_that_is_taken_is_one_clear_line(viewer: Viewer, store: MaskPyramid) -> None:
    with pytest.raises(ConfigError, match=f"127.0.0.1:{viewer.port} cannot be listened on"):
        open_viewer(store.path, port=viewer.port)


def test_no_host_is_not_all_hosts(store: MaskPyramid) -> None:
    with pytest.raises(ConfigError, match="give an address to listen on"):
        open_viewer(store.path, host="")


def test_a_link_gives_its_place() -> None:
    assert place_in("http://127.0.0.1:1/abc/#row=1&col=2") == "#row=1&col=2"
    assert place_in("#row=1") == "#row=1"
    assert place_in("") == ""
    with pytest.raises(ConfigError, match="names no view"):
        place_in("nonsense")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_where_it_is_and_ends_with_0(store: MaskPyramid, number: signal.Signals) -> None:
    script = Path(sys.executable).with_name("wsi-seg")
    command = [script, "view", store.path, "--no-browser", "--at", "http://x/y/#row=7"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline()
        assert url.startswith("http://127.0.0.1:")
        assert url.endswith("/#row=7\n")
        os.kill(process.pid, number)
        said = process.communicate(timeout=30)
    assert (process.returncode, *said) == (0, "", "")


def test_listening_to_others_is_said_aloud(store: MaskPyramid) -> None:
    viewer = open_viewer(store.path, host="0.0.0.0")
    viewer.start()
    viewer.close()
    assert "everyone who can reach 0.0.0.0" in viewer.notes[0]
    assert "in the place of 0.0.0.0" in viewer.notes[1]


def test_ctrl_c_while_model_2_is_at_work_leaves_a_sound_result(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(2100, 4200)])
    model, settings = tiny_model(tmp_path / "tiny.safetensors"), Settings(tissue="none", workers=2)
    store = segment(slide, tmp_path / "o.zarr", bundle=model, rule=Fraction(0), settings=settings).store
    script = Path(sys.executable).with_name("wsi-seg")
    command = [script, "view", store.path, "--no-browser", "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        place = urlsplit(process.stdout.readline().strip())
        connection = http.client.HTTPConnection(place.netloc)
        body = '{"top": 0, "left": 0, "height": 2100, "width": 4200}'
        connection.request("POST", f"{place.path}refine", body, {"Content-Type": "application/json"})
        assert connection.getresponse().status == 202
        connection.close()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "finished first" in said
    assert not verify(store.path).problems

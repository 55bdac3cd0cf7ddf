"""How long the viewer lets one wait: for the first view, and for a tile once it is warm.

    python tests/benchmarks/viewer.py [SLIDE] [--mpp 0.25] [--output RESULT] [--side 14000] [--tiles 200]

Without a slide one of 14,000 px a side is made (`memory.repeated_slide`); without a result Model 1 makes its
mask. `first view` is, at the median of three, from the start of the command to the last tile of slide, mask
and outlines at the zoom that shows the whole slide in a window of 1280 x 800 px, over six connections as a
browser has them; `in Chromium`, if there is one, to the finished picture in a browser that runs already. Then
come tiles of tissue of all levels in random order, each for the first time, over one connection: `warm`; and
once more: `again`. Last, the slide's tiles are made beside those of OpenSlide's DeepZoomGenerator, in turn,
as JPEG of one quality, in this process and without a network.
"""

import argparse
import http.client
import io
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import openslide
from measure import SCRIPT, run
from memory import repeated_slide
from openslide.deepzoom import DeepZoomGenerator

from wsi_twostage.tiles import Tile
from wsi_twostage.viewer import Pictures, Scene, paint
from wsi_twostage.viewer.pyramid import TILE
from wsi_twostage.viewer.server import PAGES

sys.path.insert(0, str(Path(__file__).parents[1]))
from browser import chromium, has_chromium, wait_for_picture

WINDOW = (800, 1280 - 312)  # px, height and width beside the panel
CONNECTIONS = 6
REPEAT = 3
FIRST = ("slide", "mask", "outlines")
LAYERS = ("slide", "mask", "outlines", "uncertainty", "source")


class Asked(NamedTuple):
    """A tile of a layer."""

    layer: str
    level: int
    tile: Tile

    @property
    def path(self) -> str:
        return f"tiles/{self.layer}/1/{self.level}/{self.tile.row}/{self.tile.col}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--mpp", type=float)
    parser.add_argument("--output", type=Path, help="a result of the slide")
    parser.add_argument("--side", type=int, default=14_000)
    parser.add_argument("--tiles", type=int, default=200, help="of each layer, at most")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        slide = arguments.slide or repeated_slide(Path(folder) / "made.tiff", arguments.side)
        output = arguments.output
        if output is None:
            mpp = ["--mpp", str(arguments.mpp)] if arguments.mpp else []
            output = run(slide, Path(folder) / "o.zarr", "--refine", "none", *mpp).store.path
        measure(Scene.open(output, slide), output, slide, arguments.tiles)


def measure(scene: Scene, output: Path, slide: Path, tiles: int) -> None:
    spec = scene.store.spec
    print(f"{slide.name}: {spec.width} x {spec.height} px")
    wanted = first_view(scene)
    first = statistics.median(over_http(output, slide, wanted) for _ in range(REPEAT))
    print(f"first view          {first:.2f} s, {len(wanted)} tiles")
    if has_chromium():
        print(f"  in Chromium       {in_browser(output, slide):.2f} s")
    print("                    warm: median, 95 %     again: median   ms")
    choice = random.Random(1)
    with serving(output, slide) as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc)
        fetch(connection, url, "facts")
        for layer in LAYERS:
            asked = tissue_tiles(scene, layer)
            asked = choice.sample(asked, min(tiles, len(asked)))
            cold = [timed(fetch, connection, url, one.path) for one in asked]
            again = [timed(fetch, connection, url, one.path) for one in asked]
            late = statistics.quantiles(cold, n=20)[-1]
            print(
                f"  {layer:<16}  {1e3 * statistics.median(cold):12.1f} {1e3 * late:8.1f} "
                f"{1e3 * statistics.median(again):18.1f}      {len(asked)} tiles"
            )
    compare(scene, slide, choice, tiles)


def first_view(scene: Scene) -> list[Asked]:
    """The tiles that a window needs to show the whole slide."""
    spec = scene.store.spec
    fine = max(spec.height / WINDOW[0], spec.width / WINDOW[1])  # fine pixels per pixel of the window
    found = []
    for layer in FIRST:
        pyramid = scene.pyramids[layer]
        level = max(n for n in range(pyramid.levels) if n == 0 or pyramid.size * 2**n <= fine)
        found += [Asked(layer, level, tile) for tile in pyramid.grid(level)]
    return found


def tissue_tiles(scene: Scene, layer: str) -> list[Asked]:
    """Of all levels."""
    tissue, pyramid, size = scene.ledger.tissue, scene.pyramids[layer], scene.store.spec.tile
    found = []
    for level in range(pyramid.levels):
        for tile in pyramid.grid(level):
            box = pyramid.box(level, tile)
            assert box is not None
            fine = [round(n * pyramid.size * 2**level) for n in (box.top, box.bottom, box.left, box.right)]
            part = tissue[fine[0] // size : -(-fine[1] // size), fine[2] // size : -(-fine[3] // size)]
            if part.mean() > 0.5:
                found.append(Asked(layer, level, tile))
    return found


def over_http(output: Path, slide: Path, wanted: list[Asked]) -> float:
    """Seconds from the command's start to the last tile."""
    start = time.perf_counter()
    with serving(output, slide) as url:
        netloc = urlsplit(url).netloc
        connections = [http.client.HTTPConnection(netloc) for _ in range(CONNECTIONS)]
        for name in (*PAGES, "facts", "status"):
            fetch(connections[0], url, name)

        def work(index: int) -> None:
            for one in wanted[index::CONNECTIONS]:
                fetch(connections[index], url, one.path)

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(work, range(CONNECTIONS)))
        return time.perf_counter() - start


def in_browser(output: Path, slide: Path) -> float:
    """The same, as a browser draws it."""
    found = []
    with chromium() as driver:
        for _ in range(REPEAT):
            driver.get("about:blank")
            start = time.perf_counter()
            with serving(output, slide) as url:
                driver.get(url)
                wait_for_picture(driver)
                found.append(time.perf_counter() - start)
    return statistics.median(found)


@contextmanager
def serving(output: Path, slide: Path) -> Iterator[str]:
    """The command; gives where it is."""
    command = [str(SCRIPT), "view", str(output), "--slide", str(slide), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


def fetch(connection: http.client.HTTPConnection, url: str, path: str) -> None:
    connection.request("GET", urlsplit(url).path + path)
    reply = connection.getresponse()
    reply.read()
    if reply.status != 200:
        raise SystemExit(f"{path}: {reply.status}")


def timed(call: Any, *arguments: Any) -> float:
    """Seconds."""
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def compare(scene: Scene, slide: Path, choice: random.Random, tiles: int) -> None:
    """The same tiles of the slide, by us and by OpenSlide."""
    other = DeepZoomGenerator(openslide.OpenSlide(slide), tile_size=TILE, overlap=0)
    pictures, asked = Pictures(scene), tissue_tiles(scene, "slide")
    ours, theirs = [], []
    for one in choice.sample(asked, min(tiles, len(asked))):
        ours.append(timed(pictures.tile, one.layer, one.level, one.tile))
        theirs.append(timed(deep_zoom, other, one))
    ratio = statistics.median(theirs) / statistics.median(ours)
    print(
        f"OpenSlide's tile    {1e3 * statistics.median(theirs):.1f} ms at the median, ours "
        f"{1e3 * statistics.median(ours):.1f} ms: {ratio:.1f} times as fast; on the whole "
        f"{sum(theirs) / sum(ours):.1f} times"
    )


def deep_zoom(generator: DeepZoomGenerator, one: Asked) -> bytes:
    image = generator.get_tile(generator.level_count - 1 - one.level, (one.tile.col, one.tile.row))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=paint.JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


if __name__ == "__main__":
    main()

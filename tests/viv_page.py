"""Viv, built from its packages, with a page that opens one result; needs ``npm ci`` in tests/viv.

    npm ci --prefix tests/viv
    wsi-seg examples/data/CMU-1-Small-Region.svs -o out
    python tests/viv_page.py out/CMU-1-Small-Region.seg.ome.zarr docs/images/viv.jpg

makes the picture in the documentation.
"""

import importlib.util
import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from browser import chromium, wait
from PIL import Image

HERE = Path(__file__).parent / "viv"
ESBUILD = HERE / "node_modules" / ".bin" / "esbuild"
WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
"""Without a graphics card."""

needs_viv = pytest.mark.skipif(
    not (shutil.which("node") and ESBUILD.exists()), reason="no node, or no `npm ci --prefix tests/viv`"
)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder, served as examples/serve.py does."""
    spec = importlib.util.spec_from_file_location("serve", HERE.parents[1] / "examples" / "serve.py")
    assert spec is not None
    assert spec.loader is not None
    serve = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(serve)
    server = serve.server_of(folder)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def build(folder: Path) -> None:
    """The page, in one file of JavaScript, into a folder."""
    shutil.copy(HERE / "index.html", folder)
    bundle = f"--outfile={folder / 'page.bundle.js'}"
    command = [ESBUILD, HERE / "page.js", "--bundle", "--format=esm", "--log-level=error", bundle]
    subprocess.run(command, check=True)


@contextmanager
def webgl(width: int = 1000, height: int = 760) -> Iterator[Any]:
    with chromium(width, height, *WEBGL) as driver:
        yield driver


def picture(driver: Any, address: str, name: str, *, show: str = "both") -> Image.Image:
    """What Viv draws of the store ``name``; ``show``: image, or both it and the labels."""
    driver.get(f"{address}/index.html?source={name}&show={show}")
    wait(driver, "window.drawn || window.failed")
    assert driver.execute_script("return window.failed") is None
    return Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")


def main(output: Path, path: Path) -> None:
    with tempfile.TemporaryDirectory() as name, webgl() as driver:
        folder = Path(name)
        build(folder)
        (folder / "store.zarr").symlink_to(output.resolve())
        with served(folder) as address:
            picture(driver, address, "store.zarr").save(path, quality=88)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

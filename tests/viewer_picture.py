"""The picture of the viewer in its documentation.

    wsi-seg examples/data/CMU-1-Small-Region.svs -o out
    python tests/viewer_picture.py out/CMU-1-Small-Region.seg.ome.zarr docs/images/viewer.jpg

Shows the border of the refined tiles, and the row of one of them.
"""

import io
import sys
from pathlib import Path

import numpy as np
from browser import chromium, wait, wait_for_picture
from PIL import Image

from wsi_twostage.mask import Source
from wsi_twostage.viewer import open_viewer


def main(output: Path, picture: Path) -> None:
    viewer = open_viewer(output)
    spec, table = viewer.scene.store.spec, viewer.scene.store.tiles()
    best = int(np.argmax(table["uncertainty"] * (table["source"] == Source.MODEL_2)))
    row, col = int(table["row"][best]), int(table["col"][best])
    middle = f"row={row * spec.tile}&col={round((col + 0.4) * spec.tile)}"
    viewer.start()
    try:
        with chromium(1280, 800) as driver:
            layers = "slide:100,mask:25,outlines:100,source:80"
            driver.get(f"{viewer.url}#{middle}&mpp=0.55&layers={layers}&tile={row},{col}")
            wait_for_picture(driver)
            wait(driver, "document.getElementById('shown').textContent")
            wait(driver, "document.getElementById('row').children.length")
            driver.execute_async_script("setTimeout(arguments[0], 1000)")  # the small picture of the whole
            seen = Image.open(io.BytesIO(driver.get_screenshot_as_png()))
            seen.convert("RGB").save(picture, quality=88)
    finally:
        viewer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

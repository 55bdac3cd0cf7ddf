"""Segment the example slide from Python and look at the result.

python examples/segment_slide.py [FOLDER]
"""

import sys
from pathlib import Path

from wsi_twostage import Fraction, Settings, segment, write_preview

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
slide = Path(__file__).parent / "data" / "CMU-1-Small-Region.svs"

result = segment(slide, folder / "cmu.zarr", rule=Fraction(0.05), settings=Settings(overwrite=True))
print(f"refined {result.counts.refined} of {result.counts.tissue} tissue tiles")

mask = result.mask(mpp=2.0)  # a lazy dask array
print(f"{mask.shape} px; nuclei cover {float((mask > 0).mean()):.1%} of the slide")

tiles = result.tiles
worst = tiles["uncertainty"].argmax()
print(f"most uncertain tile: row {tiles['row'][worst]}, col {tiles['col'][worst]}")

write_preview(result.store, folder / "cmu.preview.png", overwrite=True)

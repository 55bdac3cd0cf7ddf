"""Make the picture of `Result.plot` in docs/elsewhere.md from the example slide.

python examples/picture_of_plot.py [PICTURE]
"""

import sys
import tempfile
from pathlib import Path

import matplotlib as mpl

from wsi_twostage import Fraction, segment

ROOT = Path(__file__).parent.parent


def main(picture: Path) -> None:
    mpl.use("Agg")
    slide = ROOT / "examples" / "data" / "CMU-1-Small-Region.svs"
    with tempfile.TemporaryDirectory() as folder:
        result = segment(slide, Path(folder) / "cmu.seg.ome.zarr", rule=Fraction(0.2))
        figure = result.plot()[0].figure
        picture.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(picture, dpi=90)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images" / "plot.png")

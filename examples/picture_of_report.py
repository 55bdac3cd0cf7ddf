"""Make the picture of docs/report.md: segment the example slide, report on it, and look at it in Chromium.

python examples/picture_of_report.py [PICTURE]
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from wsi_twostage import Fraction, Settings, segment, write_report

ROOT = Path(__file__).parent.parent
SIZE = (1180, 1450)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")


def main(picture: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("Chromium is needed to look at the report")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = Settings(audit=16)
        slide = ROOT / "examples" / "data" / "CMU-1-Small-Region.svs"
        result = segment(slide, folder / "cmu.seg.ome.zarr", rule=Fraction(0.2), settings=settings)
        page = write_report([result.store.path], folder / "report.html")
        shot = folder / "shot.png"
        window = f"--window-size={SIZE[0]},{SIZE[1]}"
        command = [browser, *FLAGS, window, f"--user-data-dir={folder / 'profile'}", f"--screenshot={shot}"]
        subprocess.run([*command, page.as_uri()], check=True, capture_output=True, timeout=120)
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.open(shot).convert("RGB").save(picture, quality=86, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images" / "report.jpg")

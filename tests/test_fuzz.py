"""Damaged slides: an error of ours in one line, or pixels; never a crash, a hang, or memory without end.

    pytest -m fuzz

Each batch runs in a process of its own with a limit on its memory. A seed makes the same damage again:
``python tests/test_fuzz.py SEED`` shows it.
"""

import random
import resource
import shutil
import subprocess
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import tifffile
from PIL import Image
from slides import CMU, pyramid, texture, write_slide

from wsi_twostage.conversion import convert
from wsi_twostage.errors import WsiError
from wsi_twostage.slide import open_slide
from wsi_twostage.tiles import Box

BATCH, SEEDS = 100, 1200
_MEMORY = 6 * 2**30
_PIXELS = 2**24  # of a slide that is read as a whole; of a larger one its first rows
_VALUES = (0, 1, 2, 3, 127, 128, 255)


def damaged_tiff(folder: Path, chance: random.Random) -> Path:
    """Its directories, mostly."""
    path = write_slide(folder / "a.tiff", pyramid(texture(200, 150), 2))
    with tifffile.TiffFile(path) as tiff:
        places = [range(page.offset, page.offset + 2 + 12 * len(page.tags)) for page in tiff.pages]
    return _spoil(path, chance, [*places, *places, range(path.stat().st_size)])


def damaged_svs(folder: Path, chance: random.Random) -> Path:
    """A real one: its directories, and what they point to."""
    path = Path(shutil.copy(CMU, folder / "a.svs"))
    with tifffile.TiffFile(path) as tiff:
        pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage)]
        places = [range(page.offset, page.offset + 2 + 12 * len(page.tags)) for page in pages]
        places += [range(tag.valueoffset, tag.valueoffset + 64) for page in pages for tag in page.tags]
    return _spoil(path, chance, places)


def damaged_image(folder: Path, chance: random.Random) -> Path:
    """A PNG or a JPEG: its first bytes, mostly."""
    path = folder / chance.choice(["a.png", "a.jpg"])
    Image.fromarray(texture(120, 90)).save(path)
    return _spoil(path, chance, [range(200), range(path.stat().st_size)])


def damaged_zarr(folder: Path, chance: random.Random) -> Path:
    """A pyramid: its descriptions and its shards."""
    slide = open_slide(write_slide(folder / "b.tiff", [texture(200, 150)]))
    root = convert(slide, folder / "a.zarr", workers=1)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    path = chance.choice(files)
    _spoil(path, chance, [range(path.stat().st_size)])
    return root


DAMAGES: tuple[Callable[[Path, random.Random], Path], ...] = (
    damaged_tiff,
    damaged_svs,
    damaged_image,
    damaged_zarr,
)


def _spoil(path: Path, chance: random.Random, places: list[range]) -> Path:
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = min(chance.choice(chance.choice(places)), len(data) - 1)
        data[at] = chance.choice((*_VALUES, chance.randrange(256)))
    if chance.random() < 0.1:
        del data[chance.randrange(len(data)) :]
    path.write_bytes(data)
    return path


def look(seed: int) -> str:
    """What became of one damaged slide; raises what a user should never see."""
    chance = random.Random(seed)
    with TemporaryDirectory() as folder:
        path = DAMAGES[seed % len(DAMAGES)](Path(folder), chance)
        try:
            slide = open_slide(path, 0.5)
            rows = min(slide.height, max(_PIXELS // slide.width, 1))
            slide.view(1).read(Box(0, 0, rows, min(slide.width, _PIXELS)))
            slide.view(3.7).read(Box(0, 0, min(rows, 300), min(slide.width, 300)))
        except WsiError as error:
            said = error
        else:
            return "read"
    assert "\n" not in str(said), said
    return type(said).__name__


@pytest.mark.fuzz
@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_a_damaged_slide_is_an_error_in_a_line_or_pixels(first: int) -> None:
    command = [sys.executable, __file__, *map(str, range(first, first + BATCH))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def main(seeds: list[int]) -> None:
    """Look at some, and say what became of them."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    warnings.simplefilter("error")
    ended, escaped = Counter[str](), 0
    for seed in seeds:
        try:
            ended[look(seed)] += 1
        except Exception:
            escaped += 1
            print(f"seed {seed}:\n{traceback.format_exc()}")
    print(dict(ended), f"{escaped} escaped")
    sys.exit(bool(escaped))


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]])

"""The blocks of the pages run, one after the other, in this process where they can: imports take seconds."""

import glob
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tifffile
from conftest import ROOT, SVS
from pages import blocks, page

from wsi_seg.main import main
from wsi_twostage import Fraction, open_slide, segment
from wsi_twostage.summary import Line, write_summary

LONG = [pytest.param(name, marks=pytest.mark.pages) for name in ("start", "choosing", "training")]
RUN = ("method", "python", "runs", "store", "slides", "report", "exports", "viewer", *LONG)

CANNOT = {
    "wsi-seg view": "stays until Ctrl-C",
    "python3 -m venv": "installs",
    "pip install": "installs",
    "/.venv/bin/": "the environment that the line before makes",
    ".venv/bin/": "the environment that the line before makes",
    "napari": "a window",
    "ssh ": "another machine",
    "/elsewhere/": "another machine's path",
    "pathologyatlas": "a slide of 244 million pixels",
    "tests/benchmarks/": "takes minutes",
    "DATA": "data sets that are downloaded",
    "wsi-seg tables 3 runs": "reports of trainings",
    "wsi-seg convert slide.svs slide.ome.zarr --compression": "another conversion of that name is there",
}
"""What a command or a block holds that is not run here, and why."""
if importlib.util.find_spec("pandas") is None:
    CANNOT["pandas"] = "not installed"


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that pages name: slides, lists, regions, and one result."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "examples").symlink_to(ROOT / "examples")
    slide = open_slide(SVS)
    pixels = slide.pyramid()[0][:1800, 1200:2000].compute()
    (folder / "slides").mkdir()
    for name, top, side in (
        ("slide.svs", 0, 800),
        ("slides/a.svs", 1000, 500),
        ("slides/b.svs", 1300, 400),
    ):
        tifffile.imwrite(
            folder / name,
            pixels[top : top + side, :side],
            tile=(256, 256),
            photometric="rgb",
            resolution=(1e4 / slide.mpp, 1e4 / slide.mpp),
            resolutionunit="CENTIMETER",
        )
    for name in ("one", "two"):
        (folder / "cohort" / name).mkdir(parents=True)
        (folder / "cohort" / name / f"{name}.svs").symlink_to(folder / "slides" / "b.svs")
    (folder / "cohort.csv").write_text("wsi,output\nslides/a.svs,results/a.seg.ome.zarr\n")
    square = "[[[100, 100], [500, 100], [500, 500], [100, 500], [100, 100]]]"
    for name in ("roi", "tumour"):
        (folder / f"{name}.geojson").write_text(f'{{"type": "Polygon", "coordinates": {square}}}')
    segment(folder / "slide.svs", folder / "slide.seg.ome.zarr", rule=Fraction(0.1))
    shutil.copytree(folder / "slide.seg.ome.zarr", folder / "results" / "slide.seg.ome.zarr")
    write_summary(folder / "results", [Line("slide.svs", "results/slide.seg.ome.zarr", "ok")])
    return folder


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", RUN)
def test_the_blocks_of_a_page_run_one_after_the_other(
    sample: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / name
    shutil.copytree(sample, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for block in blocks(page(name)):
        if block.reason is not None or block.language not in ("bash", "python"):
            continue
        if block.language == "bash" and all(line.startswith("wsi-seg ") for line in block.lines):
            for line in block.lines:
                if not _cannot(line):
                    _typed(line, monkeypatch)
        elif not _cannot(block.text):
            if block.language == "python":
                exec(compile(block.text, f"{name}.md", "exec"), {"__name__": "__main__"})
            else:
                subprocess.run(["bash", "-euo", "pipefail", "-c", block.text], check=True)


def _cannot(text: str) -> bool:
    return any(part in text for part in CANNOT)


def _typed(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command as a shell gives it to the program."""
    words = []
    lexer = shlex.shlex(line, posix=False, punctuation_chars=False)
    lexer.whitespace_split = True
    for word in lexer:
        quoted = word[0] in "'\""
        found = [] if quoted or not set("*?[") & set(word) else sorted(glob.glob(word))
        words += found or [word.strip("'\"")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None), line

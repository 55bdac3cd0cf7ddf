"""Nothing here is of POSIX alone: the commands by Windows' rules, as far as Linux can imitate them."""

import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = """\
{slide} -o out --mpp 0.25 --model {model} --budget 20%
{slide} -o out --mpp 0.25 --model {model} --budget 20%
refine out/slide.seg.ome.zarr --budget 40%
{slide} -o out --mpp 0.25 --model {model} --budget 10% --overwrite
verify out/slide.seg.ome.zarr
report out/slide.seg.ome.zarr --overwrite
export out/slide.seg.ome.zarr -o objects.geojson
export out/slide.seg.ome.zarr -o objects.geojson --overwrite
export out/slide.seg.ome.zarr -o mask.ome.tif
convert {slide} slide.ome.zarr --mpp 0.25
convert {slide} slide.ome.zarr --mpp 0.25 --overwrite
slide.ome.zarr -o zarr --model {model} --budget 10%
calibrate {slide} --mpp 0.25 --model {model} -o mine.safetensors
{slide} -o mine --mpp 0.25 --model mine.safetensors
plan {slide} --mpp 0.25 --model mine.safetensors
doctor --output out
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what is open")
def test_the_commands_by_the_rules_of_windows(tmp_path: Path, slide: Path, model: Path) -> None:
    imitation = subprocess.run(
        [sys.executable, Path(__file__).with_name("like_windows.py")],
        input=COMMANDS.format(slide=slide, model=model),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    ends = [line for line in imitation.stdout.splitlines() if line.startswith("exit code ")]
    assert len(ends) == len(COMMANDS.splitlines()), imitation.stderr
    assert [line for line in ends if not line.startswith("exit code 0")] == [], imitation.stdout
    assert "no flock" in imitation.stdout

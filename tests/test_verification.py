"""A result that is sound, unfinished or damaged, and what is said of it."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zarr
from click.testing import CliRunner
from conftest import small_bundle
from slides import texture, write_slide

from wsi_seg.main import commands
from wsi_twostage import stopping
from wsi_twostage.errors import Busy, StoreError
from wsi_twostage.events import Event, TilesDone
from wsi_twostage.lock import locked
from wsi_twostage.mask import MaskPyramid, Shard
from wsi_twostage.pipeline import segment
from wsi_twostage.selection import Fraction
from wsi_twostage.settings import Settings
from wsi_twostage.verification import verify

EVERYWHERE = Settings(tissue="none", workers=2)


@pytest.fixture
def store(tmp_path: Path) -> MaskPyramid:
    slide = write_slide(tmp_path / "slide.tiff", [texture(1200, 2300)])
    rule = Fraction(0.2)
    return segment(slide, tmp_path / "o.zarr", bundle=small_bundle(), rule=rule, settings=EVERYWHERE).store


def test_a_finished_result_is_sound(store: MaskPyramid) -> None:
    events: list[Event] = []
    verdict = verify(store.path, listener=events.append)
    assert (verdict.problems, verdict.unfinished, verdict.advice) == ((), "", "")
    assert sum(isinstance(event, TilesDone) for event in events) == sum(
        len(store.shards(level)) for level in range(store.levels)
    )


def shard_file(store: MaskPyramid, level: int = 0) -> Path:
    return max((store.path / "labels" / "segmentation" / str(level) / "c").rglob("*"), key=Path.is_file)


def spoil(path: Path) -> None:
    """Some bytes in the middle; a single bit may be one that compression does not use."""
    data = bytearray(path.read_bytes())
    middle = slice(len(data) // 3, len(data) // 3 + 64)
    data[middle] = bytes(255 - value for value in data[middle])
    path.write_bytes(data)


def forget_a_class(store: MaskPyramid) -> None:
    group = zarr.open_group(store.path, path="labels/segmentation", mode="r+")
    group.attrs["ome"] = {**dict(group.attrs)["ome"], "image-label": {}}


def double_a_tile(store: MaskPyramid) -> None:
    rows = store.tiles()["row"]
    cols = store.tiles()["col"]
    rows[1], cols[1] = rows[0], cols[0]
    store.write_tile_column("row", rows)
    store.write_tile_column("col", cols)


def change_a_level(store: MaskPyramid) -> None:
    box = store.box(Shard(1, 0, 0))
    store.write(Shard(1, 0, 0), 1 - store.read(box, 1))


def lose(store: MaskPyramid, name: str) -> None:
    """A chunk that is gone is read as zeros."""
    next(path for path in sorted((store.path / name / "c").rglob("*")) if path.is_file()).unlink()


def swap(store: MaskPyramid, name: str) -> None:
    one, two = (path for path in sorted((store.path / name / "c").rglob("*")) if path.is_file())
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def change_metadata(store: MaskPyramid, name: str, **changes: object) -> None:
    path = store.path / name / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def spoil_probability(store: MaskPyramid) -> None:
    """Beside a table of which nothing can be said."""
    spoil(store.path / "wsi_twostage" / "probability" / "c" / "0" / "0" / "0")
    lose(store, "wsi_twostage/tiles/rank")


MASK = "labels/segmentation"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda store: spoil(shard_file(store)), r"shard \(0, [01]\) of level 0 cannot be read"),
        (
            lambda store: shard_file(store).write_bytes(b"hello"),
            r"shard \(0, [01]\) of level 0 cannot be read",
        ),
        (change_a_level, r"shard \(0, 0\) of level 1 is not what it must be"),
        (forget_a_class, "the OME-Zarr metadata is not what it must be"),
        (double_a_tile, "the tile table is not what it must be"),
        (
            lambda store: (store.path / "0" / "c" / "0" / "0" / "0").write_bytes(b"hello"),
            "the overview cannot be read",
        ),
        (lambda store: lose(store, f"{MASK}/0"), r"shard \(0, 0\) of level 1 is not what it must be"),
        (lambda store: lose(store, f"{MASK}/1"), r"shard \(0, 0\) of level 1 is not what it must be"),
        (lambda store: lose(store, "0"), "the overview is not what it must be"),
        (lambda store: lose(store, "1"), "the overview is not what it must be"),
        (lambda store: spoil(store.path / "1" / "c" / "0" / "0" / "0"), "the overview cannot be read"),
        (lambda store: lose(store, "wsi_twostage/tissue"), "the tissue is not what it must be"),
        (
            lambda store: lose(store, "wsi_twostage/probability"),
            r"probability under shard \(0, 0\) of level 0",
        ),
        (
            lambda store: swap(store, "wsi_twostage/probability"),
            r"probability under shard \(0, 1\) of level 0",
        ),
        (spoil_probability, r"probability under shard \(0, 0\) of level 0 cannot be read"),
        (lambda store: lose(store, "wsi_twostage/source"), "the tile table is not what it must be"),
        (lambda store: lose(store, "wsi_twostage/tiles/uncertainty"), r"probability under shard \(0, 0\) of"),
        (lambda store: lose(store, "wsi_twostage/tiles/round"), "the tile table is not what it must be"),
        (lambda store: lose(store, "wsi_twostage/tiles/rank"), "the tile table is not what it must be"),
        (lambda store: lose(store, "wsi_twostage/tiles/disagreement"), "the tile table is not what"),
        (lambda store: lose(store, "wsi_twostage/tiles/milliseconds"), "the tile table is not what"),
        (lambda store: change_metadata(store, f"{MASK}/0", fill_value=1), "the OME-Zarr metadata is not"),
        (lambda store: change_metadata(store, "1", dimension_names=None), "the OME-Zarr metadata is not"),
        (lambda store: (store.path / MASK / "1" / "zarr.json").unlink(), "the OME-Zarr metadata cannot be"),
    ],
)
def test_damage_is_found_and_named(
    store: MaskPyramid, damage: Callable[[MaskPyramid], None], message: str
) -> None:
    damage(store)
    verdict = verify(store.path)
    assert any(re.search(message, problem) for problem in verdict.problems), verdict.problems
    assert "--overwrite" in verdict.advice


def test_a_result_that_another_run_writes_is_not_called_damaged(store: MaskPyramid) -> None:
    change_a_level(store)  # as it is while tiles are refined
    with locked(store.path), pytest.raises(Busy, match="is being written by another run; wait for it"):
        verify(store.path)
    noted = iter([True])

    def note(event: Event) -> None:
        if next(noted, False):
            store.note(levels=False)

    with pytest.raises(Busy, match="was changed by another run while it was read"):
        verify(store.path, listener=note)
    with locked(store.path):
        store.note(levels=True)
    assert verify(store.path).problems


def test_what_another_version_tells_of_a_codec_is_no_damage(store: MaskPyramid) -> None:
    """How hard zstd tried is nothing that a reader needs to know."""
    codecs = json.loads((store.path / "0" / "zarr.json").read_text())["codecs"]
    assert codecs[1]["configuration"]["level"] != 5
    codecs[1]["configuration"]["level"] = 5
    change_metadata(store, "0", codecs=codecs)
    assert not verify(store.path).problems


def test_an_unfinished_run_is_told_from_damage(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(2200, 4400)])
    found = []
    for stage in ("stage 1", "stage 2"):

        def ask(event: Event, stage: str = stage) -> None:
            if isinstance(event, TilesDone) and event.stage == stage:
                stopping.ASKED.set()

        settings = Settings(tissue="none", workers=1)
        try:
            out = tmp_path / f"{stage}.zarr"
            segment(slide, out, bundle=small_bundle(), rule=Fraction(1), settings=settings, listener=ask)
        finally:
            stopping.ASKED.clear()
        verdict = verify(out)
        assert not verdict.problems
        found.append(verdict.unfinished)
        assert "goes on where it was" in verdict.advice
    assert "that Model 1 has not seen" in found[0]
    assert "chosen tiles that Model 2 has not seen" in found[1]


def test_what_is_no_result_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a wsi_twostage result"):
        verify(tmp_path)


def test_tiles_that_could_not_be_read_are_said(store: MaskPyramid) -> None:
    store.note(counts={"unreadable": 2, "crashed": 1})
    assert verify(store.path).unreadable == 3
    done = CliRunner().invoke(commands, ["verify", str(store.path), "-q"])
    assert "3 tiles have no answer of Model 2" in done.output


def test_the_command_ends_as_it_found(store: MaskPyramid) -> None:
    script = Path(sys.executable).with_name("wsi-seg")
    done = subprocess.run([script, "verify", store.path, "-q"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{store.path}: sound and complete\n")
    spoil(shard_file(store))
    done = subprocess.run([script, "verify", store.path, "-q"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot be read" in done.stdout

"""A slide as an OME-Zarr pyramid."""

import importlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaozarrs
import zarr
from conftest import small_bundle
from faults import Killed
from ome_zarr_models.v05.image import Image
from slides import CMU, change_tile, pyramid, texture, write_slide

from wsi_twostage.conversion import convert, levels
from wsi_twostage.errors import ConfigError, LostSlide, SlideError, StoreError, UnreadableRegion
from wsi_twostage.events import Event, Finished, TilesDone
from wsi_twostage.mask import MaskPyramid
from wsi_twostage.pipeline import segment
from wsi_twostage.selection import Fraction
from wsi_twostage.settings import Settings
from wsi_twostage.slide import open_slide
from wsi_twostage.tiles import Box

convert_module = importlib.import_module("wsi_twostage.conversion.convert")  # the function has its name
IMAGE = texture(801, 1207)  # 4 x 5 blocks, 6 levels


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small slide has many."""
    monkeypatch.setattr(levels, "BLOCK", 256)
    monkeypatch.setattr(levels, "CHUNK", 64)
    monkeypatch.setattr("wsi_twostage.slide.slide.COARSEST_PX", 64)


def pixels(root: Path, level: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(zarr.open_array(root, path=str(level), mode="r")[...]).transpose(1, 2, 0)


@pytest.mark.parametrize("stored", [1, 2, 3])
def test_every_level_is_the_slides_view(tmp_path: Path, stored: int) -> None:
    """Whether it comes from level 0, from its sums, or from another stored level."""
    levels = pyramid(IMAGE, 5)[:: 2 if stored == 2 else 1][:stored]
    slide = open_slide(write_slide(tmp_path / "slide.tiff", levels))
    root = convert(slide, tmp_path / "a.ome.zarr", workers=3)
    converted = open_slide(root)
    assert (converted.mpp, len(converted.levels), converted.levels[0].tile) == (0.5, 6, (64, 64))
    for index, level in enumerate(converted.levels):
        view = slide.view(2**index)
        assert level.downsample == (2**index, 2**index)
        np.testing.assert_array_equal(
            pixels(root, index), view.read(Box(0, 0, view.height, view.width)), strict=True
        )


def test_a_slide_gives_the_same_mask_in_every_container(tmp_path: Path) -> None:
    """SVS with its levels as pages, OME-TIFF with levels as SubIFDs, and both as converted OME-Zarr."""
    svs, ome = tmp_path / "slide.svs", tmp_path / "slide.ome.tif"
    first, *coarser = pyramid(IMAGE, 3)
    shared: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "compression": "deflate"}
    with tifffile.TiffWriter(svs) as tiff:
        for level in (first, *coarser):
            tiff.write(level, description="Aperio Image Library |MPP = 0.5", metadata=None, **shared)
    scale = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    with tifffile.TiffWriter(ome, ome=True) as tiff:
        tiff.write(first, subifds=len(coarser), metadata={"axes": "YXS", **scale}, **shared)
        for level in coarser:
            tiff.write(level, subfiletype=1, **shared)
    places = [svs, ome, *(convert(slide, tmp_path / f"{slide.name}.zarr") for slide in (svs, ome))]
    slides = [open_slide(place) for place in places]
    assert [(slide.format, slide.mpp) for slide in slides] == [
        ("Aperio SVS", 0.5),
        ("OME-TIFF", 0.5),
        ("OME-Zarr 0.5", 0.5),
        ("OME-Zarr 0.5", 0.5),
    ]
    assert [len(slide.levels) for slide in slides[:2]] == [3, 3]
    masks = []
    for i, place in enumerate(places):
        store = segment(
            place,
            tmp_path / f"{i}.out",
            bundle=small_bundle(),
            rule=Fraction(0.3),
            settings=Settings(workers=2),
        ).store
        masks.append(store.read(Box(0, 0, store.spec.height, store.spec.width)))
    assert masks[0].any()
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])


def test_the_metadata_is_valid(tmp_path: Path) -> None:
    root = convert(write_slide(tmp_path / "slide.tiff", [IMAGE]), tmp_path / "a.ome.zarr")
    yaozarrs.validate_zarr_store(str(root))
    image = Image.from_zarr(zarr.open_group(root, mode="r"))
    scale = image.ome_attributes.multiscales[0].datasets[2].coordinateTransformations
    assert scale[0].scale == [1.0, 2.0, 2.0]
    assert scale[1].translation == [0.0, 0.75, 0.75]  # type: ignore[union-attr]


def test_jpeg_is_smaller_and_near(tmp_path: Path) -> None:
    exact, near = (convert(CMU, tmp_path / f"{name}.zarr", compression=name) for name in ("zstd", "jpeg:80"))
    bytes_of = [sum(f.stat().st_size for f in root.rglob("*") if f.is_file()) for root in (exact, near)]
    assert bytes_of[1] < 0.3 * bytes_of[0]
    assert open_slide(near).compression == "jpeg"
    difference = pixels(exact, 0).astype(int) - open_slide(near).view(1).read(Box(0, 0, 2967, 2220))
    assert abs(difference).mean() < 4


@pytest.mark.parametrize("blocks", [3, 20])
def test_an_interrupted_conversion_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int
) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [IMAGE])
    whole = convert(slide, tmp_path / "whole.zarr")
    seen: list[Event] = []

    def kill(event: Event) -> None:
        seen.append(event)
        if sum(isinstance(e, TilesDone) for e in seen) == blocks + 1:
            raise Killed

    with pytest.raises(Killed):
        convert(slide, tmp_path / "a.zarr", workers=1, listener=kill)
    again: list[Event] = []
    root = convert(slide, tmp_path / "a.zarr", listener=again.append)
    first = next(i for i, e in enumerate(again) if isinstance(e, Finished))
    assert sum(isinstance(e, TilesDone) for e in again[:first]) <= 20 - blocks
    for level in range(6):
        np.testing.assert_array_equal(pixels(root, level), pixels(whole, level))
    assert sorted(p.name for p in (root / "wsi_twostage").iterdir()) == ["zarr.json"]
    third: list[Event] = []
    convert(slide, root, listener=third.append)
    assert not third


def test_a_second_conversion_to_the_same_place_waits_its_turn(tmp_path: Path) -> None:
    slide, root = write_slide(tmp_path / "slide.tiff", [IMAGE]), tmp_path / "a.zarr"
    second: list[str] = []

    def meanwhile(_: Event) -> None:
        for overwrite in (False, True):
            with pytest.raises(StoreError, match="is being written by another run; wait for it") as refused:
                convert(slide, root, overwrite=overwrite)
            second.append(str(refused.value))

    convert(slide, root, listener=meanwhile)
    assert second
    np.testing.assert_array_equal(pixels(root, 0), IMAGE)


@pytest.mark.parametrize("blocks", [3, 20], ids=["finest levels", "coarser levels"])
def test_another_slide_of_the_same_shape_leaves_no_pixels(tmp_path: Path, blocks: int) -> None:
    stored = pyramid(IMAGE, 4)[::3]  # a level of 1/8 that blocks do not write
    slide, root = write_slide(tmp_path / "slide.tiff", stored), tmp_path / "a.zarr"
    other = write_slide(tmp_path / "other.tiff", pyramid(texture(801, 1207, seed=7), 4)[::3])
    assert open_slide(other).levels == open_slide(slide).levels
    first, done = shutil.copy(slide, tmp_path / "first.tiff"), 0

    def swap(event: Event) -> None:
        nonlocal done
        done += isinstance(event, TilesDone)
        if done == blocks and other.exists():
            other.replace(slide)  # at once: a thread may be reading

    with pytest.raises(LostSlide, match=r"slide\.tiff: not the slide that the run was started with"):
        convert(slide, root, workers=1, listener=swap)
    with pytest.raises(StoreError, match="is not this conversion"):
        convert(slide, root)
    shutil.copy(first, slide)
    convert(slide, root)
    for index, view in enumerate(open_slide(slide).views()):
        np.testing.assert_array_equal(pixels(root, index), view.read(Box(0, 0, view.height, view.width)))


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("came", ["copy", "foreign"])
def test_what_came_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, came: str, overwrite: bool
) -> None:
    """Between the look at the place and the turn to write there."""
    slide, root = write_slide(tmp_path / "slide.tiff", [IMAGE[:200, :200]]), tmp_path / "a.zarr"
    other = write_slide(tmp_path / "other.tiff", [IMAGE[200:400, :200]])
    if overwrite:
        convert(slide, root, compression="jpeg")
    write_empty = convert_module._write_empty

    def slow(*what: Any) -> None:
        write_empty(*what)
        monkeypatch.setattr(convert_module, "_write_empty", write_empty)
        shutil.rmtree(root, ignore_errors=True)
        if came == "copy":
            convert(other, root)
        else:
            root.mkdir()
            (root / "kept").touch()

    monkeypatch.setattr(convert_module, "_write_empty", slow)
    if came == "copy" and overwrite:  # given up by its user, whichever it was
        convert(slide, root, overwrite=True)
        np.testing.assert_array_equal(pixels(root, 0), IMAGE[:200, :200])
        return
    with pytest.raises(StoreError, match=r"a\.zarr exists, and is not this conversion"):
        convert(slide, root, overwrite=overwrite)
    assert (root / "kept").exists() or (pixels(root, 0) == IMAGE[200:400, :200]).all()
    assert not list(tmp_path.glob(".*"))


def test_a_copy_of_another_slide_that_came_before_the_turn_to_write_is_not_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide, root = write_slide(tmp_path / "slide.tiff", [IMAGE[:200, :200]]), tmp_path / "a.zarr"
    other = write_slide(tmp_path / "other.tiff", [IMAGE[200:400, :200]])
    locked = convert_module.locked

    def late(folder: Path) -> Any:
        monkeypatch.setattr(convert_module, "locked", locked)
        convert(other, root, overwrite=True)
        return locked(folder)

    monkeypatch.setattr(convert_module, "locked", late)
    with pytest.raises(StoreError, match=r"a\.zarr exists, and is not this conversion"):
        convert(slide, root)


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [IMAGE[:200, :200]])
    other = write_slide(tmp_path / "other.tiff", [IMAGE[200:400, :200]])
    root = convert(slide, tmp_path / "a.zarr")
    with pytest.raises(StoreError, match="exists, and is not this conversion"):
        convert(other, root)
    convert(other, root, overwrite=True)
    np.testing.assert_array_equal(pixels(root, 0), IMAGE[200:400, :200])
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "kept").touch()
    with pytest.raises(StoreError, match="exists"):
        convert(slide, foreign, overwrite=True)
    assert (foreign / "kept").exists()
    mask = tmp_path / "mask.zarr"
    segment(slide, mask, bundle=small_bundle())
    with pytest.raises(StoreError, match="exists"):
        convert(slide, mask, overwrite=True)
    with pytest.raises(StoreError):
        segment(slide, root, bundle=small_bundle(), settings=Settings(overwrite=True))
    assert MaskPyramid.open(mask).manifest["complete"]
    assert pixels(root, 0).any()


def test_what_was_put_into_a_copy_is_not_overwritten_with_it(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [IMAGE[:200, :200]])
    root = convert(slide, tmp_path / "a.zarr")
    note = root / "labels" / "mine" / "note.txt"
    note.parent.mkdir(parents=True)
    note.write_text("precious")
    with pytest.raises(StoreError, match=r"a\.zarr/labels was put into what is to be overwritten"):
        convert(slide, root, overwrite=True)
    assert note.read_text() == "precious"
    shutil.rmtree(root / "labels")
    (root / ".DS_Store").touch()
    convert(slide, root, overwrite=True)
    (tmp_path / "link.zarr").symlink_to(root)
    with pytest.raises(StoreError, match=r"is a link to .*a\.zarr; give that as the output"):
        convert(slide, tmp_path / "link.zarr", overwrite=True)
    assert pixels(root, 0).any()


@pytest.mark.parametrize("output", ["s3://bucket/a.ome.zarr", "https://host/a.ome.zarr"])
def test_a_url_is_no_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [IMAGE[:200, :200]])
    monkeypatch.chdir(tmp_path)
    for make in (convert, segment):
        with pytest.raises(StoreError, match="outputs are files and folders of this machine"):
            make(slide, output)
    assert list(tmp_path.iterdir()) == [slide]


def test_what_cannot_be_read_is_no_pixels(tmp_path: Path) -> None:
    """Nor are the blanks of what was written before it."""
    slide = write_slide(tmp_path / "slide.tiff", [IMAGE])
    change_tile(slide, 40, lambda data: b"\0" * len(data))
    with pytest.raises(UnreadableRegion, match=r"tile \(\d+, \d+\) of level 0"):
        convert(slide, tmp_path / "a.zarr")
    with pytest.raises(SlideError, match="an unfinished conversion"):
        open_slide(tmp_path / "a.zarr")


@pytest.mark.parametrize("place", ["a.zarr", "a.zarr/inner.zarr", "."])
def test_a_slide_is_not_converted_onto_itself(tmp_path: Path, place: str) -> None:
    root = convert(write_slide(tmp_path / "slide.tiff", [IMAGE]), tmp_path / "a.zarr")
    before = pixels(root, 0)
    for slide in (root, f"file://{root}"):
        with pytest.raises(StoreError, match="the slide itself lies there"):
            convert(slide, tmp_path / place, compression="jpeg", overwrite=True)
    np.testing.assert_array_equal(pixels(root, 0), before)


def test_a_full_disk_is_an_error_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [IMAGE])

    def put(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(levels, "_put", put)
    with pytest.raises(StoreError, match=r"a.zarr: cannot be written \(No space left"):
        convert(slide, tmp_path / "a.zarr")


@pytest.mark.parametrize("compression", ["gzip", "jpeg:0", "jpeg:101", "jpeg:x", "zstd:3"])
def test_an_unknown_compression_is_refused(tmp_path: Path, compression: str) -> None:
    with pytest.raises(ConfigError, match="use zstd, jpeg"):
        convert(CMU, tmp_path / "a.zarr", compression=compression)
    assert not (tmp_path / "a.zarr").exists()

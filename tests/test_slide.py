"""Slides: the same pixels by both readers and in every box, physical scale, lazy, and clear errors."""

import builtins
import errno
import io
import os
import pickle
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import dask
import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from slides import CMU, change_tile, halve, pyramid, real_slide, set_tag, texture, write_slide

from wsi_twostage.errors import ConfigError, SlideError, UnreadableRegion
from wsi_twostage.slide import Slide, View, open_slide, openslide_reader, tiff
from wsi_twostage.slide.contents import FileKey, Size, stored_downsample
from wsi_twostage.slide.openslide_reader import _spans
from wsi_twostage.slide.tile_cache import TileCache
from wsi_twostage.slide.view import READERS
from wsi_twostage.tiles import Box

IMAGE = texture(397, 533)


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """397 x 533 px at 0.5 um, halved twice with odd edges cut off."""
    return write_slide(tmp_path_factory.mktemp("slides") / "halved.tiff", pyramid(IMAGE, 3))


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """397 x 533 px and a level 2.5 times smaller, 159 x 213 px."""
    return write_slide(tmp_path_factory.mktemp("slides") / "uneven.tiff", [IMAGE, texture(159, 213, seed=1)])


def whole(view: View) -> NDArray[np.uint8]:
    return view.read(Box(0, 0, view.height, view.width))


def stored(slide: Slide, index: int, box: Box | None = None) -> NDArray[np.uint8]:
    level = slide.levels[index]
    return READERS[slide.reader](slide.path, level, box or Box(0, 0, level.height, level.width))


# Pixels


def test_level_0_is_what_was_written(halved: Path) -> None:
    np.testing.assert_array_equal(whole(open_slide(halved).view(1.0)), IMAGE)


@pytest.mark.parametrize("name", ["CMU", "halved", "uneven", "TCGA-CR-7395-01A-01-TS1.svs", "BS9"])
def test_both_readers_give_the_same_pixels(name: str, request: pytest.FixtureRequest) -> None:
    if name in ("halved", "uneven"):
        path = request.getfixturevalue(name)
    elif name == "BS9":
        path = real_slide("pathologyatlas_BS9_HE2_duodenum.tiff")
    else:
        path = CMU if name == "CMU" else real_slide(name)
    native, other = (open_slide(path, 0.25, reader=reader) for reader in ("tiff", "openslide"))
    assert [(level.height, level.width, level.downsample) for level in native.levels] == [
        (level.height, level.width, level.downsample) for level in other.levels
    ]
    for level in native.levels:
        box = Box(level.height // 3, level.width // 5, 301, 517).clip(level.height, level.width)
        a, b = (stored(slide, level.index, box) for slide in (native, other))
        if (
            name == "BS9" and level.index == 1
        ):  # beyond what OpenSlide can address: blended by 0.25 px at most
            assert box.top + box.height < 4096
        np.testing.assert_array_equal(a, b, err_msg=f"level {level.index}")


@pytest.mark.parametrize("downsample", [1.0, 2.0, 2.5, 3.0, 4.0, 7.3, 0.6])
@pytest.mark.parametrize("reader", ["tiff", "openslide"])
def test_any_box_equals_a_slice_of_the_whole(uneven: Path, reader: str, downsample: float) -> None:
    view = open_slide(uneven, reader=reader).view(downsample)
    full = np.pad(whole(view), ((30, 30), (30, 30), (0, 0)), constant_values=255)

    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.nested_given])
    @given(top=st.integers(-20, view.height), left=st.integers(-20, view.width), size=st.integers(1, 30))
    def check(top: int, left: int, size: int) -> None:
        expected = full[top + 30 : top + 30 + size, left + 30 : left + 30 + size]
        found = view.read(Box(top, left, size, size))
        np.testing.assert_array_equal(found[: len(expected), : expected.shape[1]], expected)
        assert found.shape == (size, size, 3)

    check()


def test_parts_of_a_large_read_fit_together(halved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = open_slide(halved).view(3.0)
    full = whole(view)
    monkeypatch.setattr("wsi_twostage.slide.view._SOURCE_PX", 100)
    np.testing.assert_array_equal(whole(view), full)


def test_what_was_not_scanned_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The part begins at a whole pixel of every level, and every level shows the same place."""
    path = write_slide(tmp_path / "slide.tiff", pyramid(texture(400, 536), 3))
    canvas = open_slide(path, reader="openslide")
    everything = [stored(canvas, level.index) for level in canvas.levels]
    said = {"openslide.bounds-y": "101", "openslide.bounds-x": "70"}
    said |= {"openslide.bounds-height": "150", "openslide.bounds-width": "200"}
    known = openslide.OpenSlide.properties.fget
    monkeypatch.setattr(openslide.OpenSlide, "properties", property(lambda self: {**known(self), **said}))
    openslide_reader._open.cache_clear()
    slide = open_slide(path, reader="openslide")
    top, left = 100, 68  # multiples of 4, the coarsest level's downsample
    assert slide.origin == (top, left)
    assert (slide.height, slide.width) == (101 + 150 - top, 70 + 200 - left)
    for level, pixels in zip(slide.levels, everything, strict=True):
        ratio = int(level.downsample[0])
        assert ratio == 2**level.index
        there = pixels[top // ratio :, left // ratio :][: level.height, : level.width]
        np.testing.assert_array_equal(stored(slide, level.index), there)
    openslide_reader._open.cache_clear()


def test_a_tile_that_two_reads_cut_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = open_slide(write_slide(tmp_path / "slide.tiff", [IMAGE]), reader="tiff").view(1)
    decoded: list[int] = []
    decode = tiff._decode_tile

    def count(file: tiff._OpenTiff, stored: tiff._StoredLevel, index: int) -> NDArray[np.uint8]:
        decoded.append(index)
        return decode(file, stored, index)

    monkeypatch.setattr(tiff, "_decode_tile", count)
    for box in (Box(0, 0, 64, 100), Box(0, 100, 64, 28), Box(0, 0, 64, 64)):
        np.testing.assert_array_equal(view.read(box), IMAGE[box.slices])
    assert decoded == [0, 1, 0]  # a whole tile is not kept: nobody comes back for a part of it


def test_threads_that_want_one_tile_decode_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = open_slide(write_slide(tmp_path / "slide.tiff", [IMAGE]), reader="tiff").view(1)
    decoded: list[int] = []
    decode = tiff._decode_tile

    def slow(file: tiff._OpenTiff, stored: tiff._StoredLevel, index: int) -> NDArray[np.uint8]:
        decoded.append(index)
        time.sleep(0.05)
        return decode(file, stored, index)

    monkeypatch.setattr(tiff, "_decode_tile", slow)
    boxes = [Box(5, 5, 100, 100), Box(9, 7, 100, 100), Box(11, 3, 90, 99), Box(2, 8, 80, 80)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(view.read, boxes))
    for box, pixels in zip(boxes, found, strict=True):
        np.testing.assert_array_equal(pixels, IMAGE[box.slices])
    assert sorted(decoded) == [0, 1, 9, 10]


def test_the_cache_of_tiles_forgets_what_was_not_used_for_the_longest_time() -> None:
    cache, tile = TileCache(250), np.zeros(100, np.uint8)
    for key in "aab":
        cache.put(key, tile)
    assert cache.get("a") is tile
    cache.put("c", tile)
    assert (cache.held, cache.get("b"), cache.get("c")) == (200, None, tile)
    cache.put("large", np.zeros(251, np.uint8))
    assert cache.get("large") is None
    cache.clear()
    assert (cache.held, cache.get("a")) == (0, None)


def test_a_tile_that_another_thread_is_at_work_on_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = texture(128, 192)
    slide = open_slide(write_slide(tmp_path / "slide.tiff", [image]), reader="tiff")  # 2 x 3 tiles
    decode, decoded, begun, done = tiff._decode_tile, list[int](), Event(), Event()

    def slow(file: Any, stored: Any, index: int) -> NDArray[np.uint8]:
        if index == 0:
            begun.set()
            assert done.wait(30)
        decoded.append(index)
        done.set() if len(decoded) == 5 else None
        return decode(file, stored, index)

    monkeypatch.setattr(tiff, "_decode_tile", slow)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(slide.view(1).read, Box(0, 0, 40, 40))  # of tile 0 alone
        assert begun.wait(30)
        mine = slide.view(1).read(Box(1, 1, 126, 190))
        assert np.array_equal(other.result(), image[:40, :40])
    assert decoded == [1, 2, 3, 4, 5, 0]
    assert np.array_equal(mine, image[1:127, 1:191])


def test_outside_of_the_slide_is_white(halved: Path) -> None:
    assert (open_slide(halved).view(2.0).read(Box(-50, 1000, 20, 20)) == 255).all()


def test_a_stored_level_is_used_as_it_is_with_its_cut_edge_repeated(halved: Path) -> None:
    view, level = open_slide(halved).view(2.0), halve(IMAGE)  # 198 x 266 px stored, 199 x 267 px seen
    np.testing.assert_array_equal(whole(view), np.pad(level, ((0, 1), (0, 1), (0, 0)), mode="edge"))


def test_a_missing_level_is_averaged_from_the_next_finer_one(halved: Path) -> None:
    view = open_slide(halved).view(8.0)
    assert view.level.index == 2
    np.testing.assert_array_equal(whole(view)[:49, :66], halve(halve(halve(IMAGE)))[:49, :66])


@pytest.mark.parametrize(
    ("full", "small", "expected"),
    [
        pytest.param((3567, 4443), (1783, 2221), (2, 2), id="odd edge cut off"),
        pytest.param((16783, 14486), (525, 453), (32, 32), id="odd edge filled up, five times"),
        pytest.param((250, 300), (31, 37), (8, 8), id="small level"),
        pytest.param((250, 500), (100, 200), (2.5, 2.5), id="not whole"),
        pytest.param((1000, 1000), (300, 300), (1000 / 300, 1000 / 300), id="never rounded"),
    ],
)
def test_downsample_is_whole_where_that_explains_the_sizes(
    full: tuple[int, int], small: tuple[int, int], expected: tuple[float, float]
) -> None:
    assert stored_downsample(Size(*full), Size(*small)) == expected


@given(first=st.integers(0, 30_000), length=st.integers(1, 9000), other=st.integers(0, 30_000))
def test_openslide_reads_a_pixel_from_the_same_place_in_every_box(
    first: int, length: int, other: int
) -> None:
    starts = np.array([0, 1, 2, 9_000, 9_001, 25_000])

    def origins(begin: int) -> dict[int, int]:
        last, spans = first + length, list(_spans(begin, first + length, starts))
        assert [span[1] for span in spans] == [begin, *[span[2] for span in spans[:-1]]]
        assert spans[-1][2] == last
        assert all(start <= low < high <= start + 4096 for start, low, high in spans)
        exact = set(starts.tolist())
        return {low: -1 if start in exact else start for start, low, _ in spans}

    near = origins(first)
    if first < other < first + length:
        below = max(low for low in near if low <= other)
        assert origins(other)[other] == near[below]


@pytest.mark.parametrize("channels", [1, 4])
def test_gray_is_repeated_and_alpha_lies_on_white(tmp_path: Path, channels: int) -> None:
    image = texture(70, 90, channels=channels)
    path = write_slide(tmp_path / "slide.tiff", [image[..., 0] if channels == 1 else image])
    found = whole(open_slide(path).view(1.0)).astype(float)
    alpha = image[..., 3:] / 255 if channels == 4 else 1.0
    expected = image[..., :3] * alpha + 255 * (1 - alpha) if channels == 4 else image.repeat(3, axis=2)
    assert np.abs(found - expected).max() <= 1


def test_planes_and_fewer_bits_are_read_by_openslide(tmp_path: Path) -> None:
    planes, gray = texture(100, 120).transpose(2, 0, 1), texture(100, 120, channels=1)[..., 0] & 0xF0
    path = tmp_path / "slide.tiff"
    tifffile.imwrite(path, planes, tile=(64, 64), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(whole(open_slide(path, 0.5).view(1)), planes.transpose(1, 2, 0))
    tifffile.imwrite(path, gray >> 4, tile=(64, 64), photometric="minisblack", bitspersample=4)
    expected = (gray | gray >> 4)[..., None].repeat(3, axis=2)
    np.testing.assert_array_equal(whole(open_slide(path, 0.5).view(1)), expected)


def test_what_openslide_reads_of_a_plain_tiff_is_its_largest_image_at_its_scale(tmp_path: Path) -> None:
    planes = texture(200, 240).transpose(2, 0, 1)
    path, how = (
        tmp_path / "slide.ome.tiff",
        {"tile": (64, 64), "photometric": "rgb", "planarconfig": "separate"},
    )
    told = {"axes": "CYX"} | {f"PhysicalSize{axis}": 0.25 for axis in "XY"}
    tifffile.imwrite(
        path, planes, ome=True, metadata=told, resolution=(1e4, 1e4), resolutionunit="CENTIMETER", **how
    )
    slide = open_slide(path)
    assert (slide.reader, slide.mpp) == ("openslide", 0.25)
    with tifffile.TiffWriter(path) as file:
        for image in (planes[:, :64, :64], planes):
            file.write(image, metadata=None, **how)
    with pytest.raises(SlideError, match="first image, of 64 x 64 px, is not the largest, of 200 x 240 px"):
        open_slide(path, 0.5)


@pytest.mark.parametrize("channels", [3, 4])
def test_channels_of_gray_are_no_colours(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "slide.tiff"
    tifffile.imwrite(
        path, texture(100, 120, channels=channels), tile=(64, 64), photometric="minisblack",
        planarconfig="contig", metadata=None,
    )  # fmt: skip
    with pytest.raises(SlideError, match=f"its pixels are {channels} channels of gray; one colour image"):
        open_slide(path, 0.5)


def test_a_tile_that_was_never_written_is_white(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tiff", [IMAGE])
    change_tile(path, 1, lambda data: b"")
    found = whole(open_slide(path).view(1.0))
    assert (found[:64, 64:128] == 255).all()
    np.testing.assert_array_equal(found[64:], IMAGE[64:])


def test_a_tile_that_aperio_left_out_is_made_of_the_finer_level(tmp_path: Path) -> None:
    path, image = tmp_path / "slide.svs", texture(512, 512)
    with tifffile.TiffWriter(path) as file:
        for level in (image, image[:64, :64], image[::2, ::2]):  # the second is the thumbnail
            told = f"Aperio Image Library v12\r\n{level.shape[1]}x{level.shape[0]} |MPP = 0.5"
            tiles = {} if len(level) == 64 else {"tile": (128, 128)}
            file.write(level, **tiles, compression="jpeg", photometric="rgb", description=told, metadata=None)
    assert open_slide(path).reader == "tiff"
    with tifffile.TiffFile(path, mode="r+") as file:
        page = file.pages[2]
        page.tags["TileByteCounts"].overwrite([0, *page.databytecounts[1:]])
    slide = open_slide(path)
    assert slide.reader == "openslide"
    found = whole(slide.view(2.0))[:128, :128]
    assert np.abs(found.astype(int).mean() - image[:256, :256].mean()) < 5


def test_a_tile_of_more_bytes_than_it_can_be_is_not_read(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tiff", [IMAGE])
    with tifffile.TiffFile(path, mode="r+") as tiff_file:
        page = tiff_file.pages[0]
        page.tags["TileByteCounts"].overwrite([2**31, *page.databytecounts[1:]])
    with path.open("r+b") as file:
        file.truncate(2**33)
    with pytest.raises(UnreadableRegion, match="2,147,483,648 bytes, more than the 90,112"):
        open_slide(path).view(1).read(Box(0, 0, 8, 8))


def test_pixels_that_are_stored_turned_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "slide.tiff"
    tifffile.imwrite(path, IMAGE, tile=(64, 64), photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    with pytest.raises(SlideError, match=r"turned or mirrored \(Orientation 6\)"):
        open_slide(path, 0.5)


@pytest.mark.parametrize("software", ["MedScan 1.0", "Philips IntelliSite"])
def test_a_vendors_tiff_is_left_to_openslide(tmp_path: Path, software: str) -> None:
    path = tmp_path / "slide.tiff"
    tifffile.imwrite(path, IMAGE, tile=(64, 64), photometric="rgb", software=software, metadata=None)
    with pytest.raises(SlideError, match="a vendor's TIFF that OpenSlide reads"):
        open_slide(path, 0.5, reader="tiff")


# Physical scale


def test_at_takes_a_stored_level_within_ten_percent_else_makes_one(halved: Path) -> None:
    slide = open_slide(halved)  # stored: 0.5, 1 and 2 um
    assert [slide.view_at(mpp).mpp for mpp in (0.5, 1.09, 0.92, 1.2)] == [0.5, 1.0, 1.0, 1.2]
    assert slide.view_at(1.2).level.index == 1
    assert slide.at(1.2).shape == (166, 223, 3)  # 397 * 0.5 / 1.2 = 165.4


@pytest.mark.parametrize(
    ("path", "mpp"), [(CMU, 0.499), ("OS-1-detail.ome.tif", 0.2271), ("test3-DAPI-2-387.ndpi", 0.2282)]
)
def test_mpp_comes_from_the_file(path: Path | str, mpp: float) -> None:
    slide = open_slide(path if isinstance(path, Path) else real_slide(path))
    assert (round(slide.mpp, 4), slide.mpp_source) == (mpp, "file")


def test_warnings_name_a_scale_that_contradicts_the_file_and_missing_levels(tmp_path: Path) -> None:
    sparse = write_slide(tmp_path / "slide.tiff", [IMAGE, texture(49, 66)])
    assert open_slide(CMU).warnings == ()
    assert [text[:36] for text in open_slide(sparse, 0.25).warnings] == [
        "0.25 um/px was given; the file says ",
        "no stored level between 1/1 and 1/8:",
    ]


def test_given_mpp_wins() -> None:
    slide = open_slide(CMU, 0.25)
    assert (slide.mpp, slide.mpp_source) == (0.25, "given")


@pytest.mark.parametrize(
    ("stated", "given", "message"),
    [
        pytest.param(None, None, "no micrometres per pixel in the file.*--mpp", id="none"),
        pytest.param(25400 / 96, None, "264.6 x 264.6 um.*resolution.*--mpp", id="96 dpi"),
        pytest.param(0.5, 250.0, "--mpp 250 is outside", id="given in nanometres"),
    ],
)
def test_mpp_is_never_guessed(
    tmp_path: Path, stated: float | None, given: float | None, message: str
) -> None:
    path = write_slide(tmp_path / "slide.tiff", [IMAGE], mpp=stated)
    with pytest.raises(SlideError, match=message):
        open_slide(path, given)


# Lazy


def test_nothing_is_read_until_computed(halved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("pixels were read")

    with monkeypatch.context() as patch, dask.config.set(scheduler=refuse):
        patch.setattr(tiff, "_decode_tile", refuse)
        slide = open_slide(halved)
        array = slide.at(1.5)[10:100, ::2]
    np.testing.assert_array_equal(array.compute(scheduler="sync"), whole(slide.view_at(1.5))[10:100, ::2])


def test_chunks_are_whole_native_tiles() -> None:
    slide = open_slide(CMU)  # tiles of 240 px
    assert slide.view(1.0).array().chunksize == (960, 960, 3)
    assert slide.view(2.0).array().chunksize == (9 * 240 // 2, 9 * 240 // 2, 3)


@pytest.mark.parametrize("key", [np.s_[3], np.s_[-5:, 7], np.s_[20:2:-3, ::40, 1], np.s_[5:5]])
def test_a_view_is_indexed_like_an_array(halved: Path, key: Any) -> None:
    view = open_slide(halved).view(2.0)
    np.testing.assert_array_equal(view[key], whole(view)[key])


def test_a_view_is_small_when_sent_and_reads_the_same(halved: Path) -> None:
    view = open_slide(halved).view(3.0)
    sent = pickle.dumps(view)
    assert len(sent) < 800
    assert hash(pickle.loads(sent)) == hash(view)
    np.testing.assert_array_equal(whole(pickle.loads(sent)), whole(view))


def test_a_file_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "slide.tiff"
    first = open_slide(write_slide(path, [IMAGE]))
    print_before = first.fingerprint
    whole(first.view(1.0))
    second = open_slide(write_slide(path, [255 - IMAGE[:300]]))
    np.testing.assert_array_equal(whole(second.view(1.0)), 255 - IMAGE[:300])
    assert second.fingerprint != print_before


# Errors


@pytest.mark.parametrize("reader", ["auto", "tiff", "openslide"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "cannot be opened", id="missing"),
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"hello" * 999, "cannot be read as a slide", id="not a slide"),
        pytest.param(b"II*\0\xff\xff\0\0" + bytes(99), "trunc|OpenSlide cannot", id="only a header"),
    ],
)
def test_what_is_no_slide_is_one_clear_line(
    tmp_path: Path, reader: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / "x.tiff"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SlideError, match=f"x.tiff: .*({message})") as error:
        open_slide(path, reader=reader)
    assert "\n" not in str(error.value)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "slide.svs")
    with pytest.raises(SlideError, match=r"slide\.svs: neither a file nor a folder"):
        open_slide(tmp_path / "slide.svs")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=r"directory that holds no zarr group.*any one file"):
        open_slide(tmp_path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.8, 0.99])
def test_a_truncated_slide_is_refused(tmp_path: Path, part: float) -> None:
    path, data = tmp_path / "cut.svs", CMU.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(SlideError, match=r"cut.svs: truncated"):
        open_slide(path)


def test_a_slide_whose_last_tiles_are_cut_off_is_refused(halved: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.tiff"
    path.write_bytes(halved.read_bytes()[:-50])
    with pytest.raises(SlideError, match="truncated; 1 of 6 tiles of level 2 lie beyond"):
        open_slide(path)


def test_an_error_of_several_lines_is_one_line(halved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_in_two_lines(*args: Any) -> None:
        raise openslide.OpenSlideError("Improper JPEG sampling factors 2,2\nApparently should be 1,1.")

    slide = open_slide(halved, reader="openslide")
    monkeypatch.setattr(openslide.OpenSlide, "read_region", refuse_in_two_lines)
    with pytest.raises(UnreadableRegion, match=r"factors 2,2 Apparently should be 1,1\.\)$"):
        whole(slide.view(1))


CORRUPT = Box(70, 70, 10, 10)  # in the tile that `corrupt` spoils


@pytest.fixture
def corrupt(tmp_path: Path) -> Path:
    """A slide whose tile (1, 1) cannot be decoded."""
    path = write_slide(tmp_path / "slide.tiff", [IMAGE])
    change_tile(path, 10, lambda data: b"\xff" * len(data))  # 9 tiles across
    return path


def refuse(error: int, path: Path, real: Callable[..., Any]) -> Callable[..., Any]:
    """An ``open`` that the system refuses for ``path`` only; the tests may run as root, who may read all."""

    def refusing(file: Any, *args: Any, **kwargs: Any) -> Any:
        if str(file) == str(path):
            raise OSError(error, os.strerror(error))
        return real(file, *args, **kwargs)

    return refusing


@pytest.mark.parametrize("reader", ["tiff", "openslide"])
def test_a_corrupt_tile_is_an_error_of_its_region_only(corrupt: Path, reader: str) -> None:
    view = open_slide(corrupt, reader=reader).view(1.0)
    where = r"slide.tiff: (tile \(1, 1\) of level 0|rows 70\.\.80, columns 70\.\.80 of level 0)"
    for _ in range(2):
        with pytest.raises(UnreadableRegion, match=where):
            view.read(CORRUPT)
        np.testing.assert_array_equal(view.read(Box(0, 0, 64, 64)), IMAGE[:64, :64])


@pytest.mark.parametrize("reader", ["tiff", "openslide"])
def test_a_corrupt_region_in_one_thread_spares_the_sound_ones_of_others(corrupt: Path, reader: str) -> None:
    view = open_slide(corrupt, reader=reader).view(1.0)

    def read(box: Box) -> NDArray[np.uint8] | None:
        try:
            return view.read(box)
        except UnreadableRegion:
            return None

    sound = [Box(top, 128, 64, 300) for top in range(0, 320, 16)]
    boxes = [box for pair in zip([CORRUPT] * 20, sound, strict=True) for box in pair]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, boxes))
    assert found[::2] == [None] * 20
    for box, pixels in zip(sound, found[1::2], strict=True):
        assert pixels is not None
        np.testing.assert_array_equal(pixels, IMAGE[box.slices])


def test_a_handle_that_another_thread_broke_is_replaced_and_no_other_slides(
    corrupt: Path, halved: Path
) -> None:
    def shared(path: Path) -> openslide_reader._OpenSlide:
        return openslide_reader._open(FileKey.of(str(path)), os.getpid())

    view = open_slide(corrupt, reader="openslide").view(1.0)
    open_slide(halved, reader="openslide")
    broken, other = shared(corrupt)._handle, shared(halved)._handle
    assert broken is not None
    with pytest.raises(openslide.OpenSlideError):
        broken.read_region((70, 70), 0, (10, 10))  # as between another thread's error and its retry
    np.testing.assert_array_equal(view.read(Box(0, 0, 64, 64)), IMAGE[:64, :64])
    assert shared(corrupt)._handle is not broken
    assert shared(halved)._handle is other


@pytest.mark.parametrize("failure", ["input/output error", "short"])
def test_a_tile_that_the_disk_does_not_give_is_an_unreadable_region(
    halved: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    def pread(descriptor: int, count: int, offset: int) -> bytes:
        if failure == "short":
            return bytes(count - 1)
        raise OSError(errno.EIO, "Input/output error")

    view = open_slide(halved, reader="tiff").view(1.0)
    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(UnreadableRegion, match=r"tile \(0, 0\) of level 0 .*(output error|bytes read)"):
        view.read(Box(0, 0, 10, 10))


@pytest.mark.parametrize("reader", ["tiff", "openslide"])
@pytest.mark.parametrize("change", ["replaced", "gone"])
def test_a_slide_that_changed_is_not_an_unreadable_region(tmp_path: Path, reader: str, change: str) -> None:
    path = write_slide(tmp_path / "slide.tiff", [IMAGE])
    view = open_slide(path, reader=reader).view(1.0)
    path.unlink()
    if change == "replaced":
        write_slide(path, [IMAGE[:300]])
    with pytest.raises(SlideError, match=r"slide.tiff: (has been replaced|cannot be opened)") as error:
        view.read(Box(0, 0, 10, 10))
    assert type(error.value) is SlideError


@pytest.mark.parametrize("reader", ["tiff", "openslide"])
def test_a_slide_that_is_replaced_during_a_read_is_not_an_unreadable_region(
    corrupt: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    view = open_slide(corrupt, reader=reader).view(1.0)
    before = FileKey.of(str(corrupt))
    keys = iter([before, before._replace(mtime_ns=1)])  # as the read begins, after it failed
    monkeypatch.setattr(FileKey, "of", lambda path: next(keys))
    with pytest.raises(SlideError, match="has been replaced") as error:
        view.read(CORRUPT)
    assert type(error.value) is SlideError


@pytest.mark.parametrize(
    ("reader", "module"),
    [("auto", builtins), ("tiff", builtins), ("openslide", builtins), ("auto", os), ("tiff", os)],
)
@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_slide_that_the_system_does_not_open_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, code: int, module: Any
) -> None:
    path = write_slide(tmp_path / "slide.tiff", [IMAGE])
    monkeypatch.setattr(module, "open", refuse(code, path, module.open))
    with pytest.raises(SlideError) as error:
        open_slide(path, reader=reader)
    assert str(error.value) == f"{path}: cannot be opened ({os.strerror(code)})"
    assert type(error.value) is SlideError


def test_a_fingerprint_that_cannot_be_read_is_one_clear_line(
    halved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = open_slide(halved)
    monkeypatch.setattr(builtins, "open", refuse(errno.EACCES, slide.path, open))
    with pytest.raises(SlideError, match=r"halved.tiff: cannot be opened \(Permission denied\)"):
        _ = slide.fingerprint

    class Failing(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(builtins, "open", lambda *_: Failing())
    with pytest.raises(SlideError, match=r"halved.tiff: cannot be read \(Input/output error\)"):
        _ = slide.fingerprint


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        pytest.param([IMAGE.astype(np.uint16)], "uint16; 8-bit", id="16 bits"),
        pytest.param([np.zeros((3, 1, 64, 64), np.uint8)], "axes", id="planes"),
    ],
)
def test_images_that_are_not_8_bit_colour_are_refused(
    tmp_path: Path, levels: list[NDArray[np.generic]], message: str
) -> None:
    if levels[0].ndim == 4:
        path = tmp_path / "slide.ome.tiff"
        tiff.tifffile.imwrite(path, levels[0][:, 0], tile=(64, 64), metadata={"axes": "CYX"})
    else:
        path = write_slide(tmp_path / "slide.tiff", levels)
    with pytest.raises(SlideError, match=message):
        open_slide(path)


def test_colours_that_no_reader_converts_are_refused_by_both(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tiff", [IMAGE])
    set_tag(path, 259, 33003)  # JPEG 2000 in YCbCr; OpenSlide takes it from real SVS files only
    with pytest.raises(SlideError, match="tiff: colours RGB in compression APERIO_JP2000_YCBC; openslide: "):
        open_slide(path)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_views_need_a_positive_scale(value: float) -> None:
    with pytest.raises(ConfigError, match="positive"):
        open_slide(CMU).view_at(value)


def test_an_unknown_reader_is_refused() -> None:
    with pytest.raises(ConfigError, match="auto, tiff, openslide, zarr, image"):
        open_slide(CMU, reader="bioformats")

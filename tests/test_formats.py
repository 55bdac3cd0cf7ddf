"""Formats beside TIFF and what OpenSlide reads: OME-Zarr in folders and over HTTP, plain images."""

import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from ome_zarr_models.v05.image import Image as OmeImage
from PIL import Image
from slides import change_tile, halve, pyramid, texture, write_slide

from wsi_twostage.errors import SlideError, UnreadableRegion
from wsi_twostage.slide import SlideStore, open_slide, plain_image
from wsi_twostage.slide.ome_zarr import read
from wsi_twostage.tiles import Box

IMAGE = texture(331, 517)
LEVELS = pyramid(IMAGE, 3)


def write_ome_zarr(
    path: Path,
    levels: list[NDArray[np.uint8]] = LEVELS,
    *,
    version: str = "0.5",
    axes: str = "tczyx",
    mpp: float | None = 0.5,
    unit: str = "micrometer",
    chunk: int = 64,
    shard: int | None = None,
) -> Path:
    """An image pyramid with these axes; levels are (rows, cols, channels)."""
    group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for index, level in enumerate(levels):
        known = {"y": level.shape[0], "x": level.shape[1], "c": level.shape[2]}
        shape = tuple(known.get(axis, 1) for axis in axes)
        sized = {"y": chunk, "x": chunk}
        chunks = tuple(sized.get(axis, known.get(axis, 1)) for axis in axes)
        more = {"shards": tuple(n * shard // chunk if n == chunk else n for n in chunks)} if shard else {}
        array = group.create_array(str(index), shape=shape, chunks=chunks, dtype="u1", **more)
        array[...] = np.einsum(f"yxc->{''.join(a for a in axes if a in 'yxc')}", level).reshape(shape)
        steps = [(mpp or 2) * 2.0**index / 2 if axis in "yx" else 1.0 for axis in axes]
        scale = {"type": "scale", "scale": steps}
        datasets.append({"path": str(index), "coordinateTransformations": [scale]})
    told: dict[str, Any] = {
        "axes": [{"name": axis} | ({"unit": unit} if axis in "yx" and mpp else {}) for axis in axes],
        "datasets": datasets,
    }
    if mpp:  # half of it here, to see that both are multiplied
        whole = [2.0 if axis in "yx" else 1.0 for axis in axes]
        told["coordinateTransformations"] = [{"type": "scale", "scale": whole}]
    if version == "0.4":
        group.attrs["multiscales"] = [{**told, "version": "0.4"}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [told]}
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["tczyx", "cyx", "yxc"])
def test_every_level_of_an_ome_zarr_is_what_was_written(tmp_path: Path, version: str, axes: str) -> None:
    slide = open_slide(write_ome_zarr(tmp_path / "a.ome.zarr", version=version, axes=axes))
    assert (slide.reader, slide.format, slide.mpp) == ("zarr", f"OME-Zarr {version}", 0.5)
    assert [level.downsample for level in slide.levels] == [(1, 1), (2, 2), (4, 4)]
    assert slide.levels[0].tile == (64, 64)
    for level, stored in zip(slide.levels, LEVELS, strict=True):
        for box in (Box(0, 0, *stored.shape[:2]), Box(30, 60, 41, 17)):
            np.testing.assert_array_equal(read(slide.path, level, box), stored[box.slices])


def test_shards_are_read_by_their_chunks(tmp_path: Path) -> None:
    slide = open_slide(write_ome_zarr(tmp_path / "a.zarr", shard=256))
    assert slide.levels[0].tile == (64, 64)
    np.testing.assert_array_equal(slide.view(1).read(Box(100, 200, 90, 90)), IMAGE[100:190, 200:290])


def test_gray_is_repeated_and_alpha_lies_on_white(tmp_path: Path) -> None:
    gray = open_slide(write_ome_zarr(tmp_path / "gray.zarr", [IMAGE[..., :1]], axes="yxc"))
    np.testing.assert_array_equal(gray.view(1).read(Box(0, 0, 9, 9)), IMAGE[:9, :9, :1].repeat(3, 2))
    flat = open_slide(write_ome_zarr(tmp_path / "flat.zarr", [IMAGE[..., :1]], axes="yx"))
    np.testing.assert_array_equal(flat.view(1).read(Box(0, 0, 9, 9)), IMAGE[:9, :9, :1].repeat(3, 2))
    clear = np.concatenate([IMAGE, np.zeros_like(IMAGE[..., :1])], 2)
    clear[:5, :, 3] = 255
    slide = open_slide(write_ome_zarr(tmp_path / "clear.zarr", [clear], axes="cyx"))
    expected = np.concatenate([IMAGE[:5], np.full_like(IMAGE[5:], 255)])
    np.testing.assert_array_equal(slide.view(1).read(Box(0, 0, *IMAGE.shape[:2])), expected)


def test_units_are_converted_and_none_is_no_scale(tmp_path: Path) -> None:
    write_ome_zarr(tmp_path / "nm.zarr", mpp=250.0, unit="nanometer")
    assert open_slide(tmp_path / "nm.zarr").mpp == 0.25
    write_ome_zarr(tmp_path / "none.zarr", mpp=None)
    with pytest.raises(SlideError, match="no micrometres per pixel"):
        open_slide(tmp_path / "none.zarr")


def test_the_first_image_of_a_converted_collection_is_taken(tmp_path: Path) -> None:
    root = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    write_ome_zarr(tmp_path / "a.zarr" / "0", version="0.4")
    assert open_slide(tmp_path / "a.zarr").width == IMAGE.shape[1]


def test_a_damaged_chunk_is_an_error_of_its_region_only(tmp_path: Path) -> None:
    slide = open_slide(write_ome_zarr(tmp_path / "a.zarr", axes="cyx"))
    (tmp_path / "a.zarr" / "0" / "c" / "0" / "1" / "1").write_bytes(b"not zstd")
    view = slide.view(1)
    with pytest.raises(UnreadableRegion, match=r"rows 70..80, columns 70..90 of level 0"):
        view.read(Box(70, 70, 10, 20))
    np.testing.assert_array_equal(view.read(Box(0, 0, 64, 64)), IMAGE[:64, :64])


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ([IMAGE[..., :2]], "one colour image is needed"),
        ([IMAGE.astype(np.uint16)], "uint16; 8-bit"),
    ],
)
def test_arrays_that_are_no_8_bit_colour_image_are_refused(
    tmp_path: Path, levels: list[NDArray[np.uint8]], said: str
) -> None:
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("0", data=levels[0].transpose(2, 0, 1))
    axes = [{"name": axis} for axis in "cyx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    with pytest.raises(SlideError, match=said):
        open_slide(tmp_path / "a.zarr", 0.5)


@pytest.mark.parametrize(
    ("chunk", "said"),
    [
        ((3, 1, 1), r"\(3, 1, 1\); they are too small"),
        ((3, 2**15, 2**15), r"\(3, 32768, 32768\); they are too large"),
    ],
)
def test_chunks_of_no_sensible_size_are_refused(tmp_path: Path, chunk: tuple[int, ...], said: str) -> None:
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("0", shape=(3, 10**5, 10**5), chunks=chunk, dtype="uint8")
    axes = [{"name": axis} for axis in "cyx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    with pytest.raises(SlideError, match=said):
        open_slide(tmp_path / "a.zarr", 0.5)


@pytest.mark.parametrize(
    "told", [{}, {"multiscales": []}, {"multiscales": [{"axes": [], "datasets": []}]}, {"multiscales": 3}]
)
def test_a_group_without_an_image_is_refused_in_a_line(tmp_path: Path, told: dict[str, Any]) -> None:
    zarr.create_group(tmp_path / "a.zarr").attrs["ome"] = told
    with pytest.raises(SlideError, match=r"OME-Zarr image|multiscales") as error:
        open_slide(tmp_path / "a.zarr", 0.5)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change", [None, [{"type": "scale", "path": "x"}], [{"type": "scale", "scale": [1.0]}]]
)
def test_odd_transformations_are_passed_over_or_refused_in_a_line(tmp_path: Path, change: Any) -> None:
    group = zarr.open_group(write_ome_zarr(tmp_path / "a.zarr"))
    told: Any = group.attrs.asdict()["ome"]
    told["multiscales"][0]["coordinateTransformations"] = change
    group.attrs["ome"] = told
    if change and "scale" in change[0]:
        with pytest.raises(SlideError, match="no OME-Zarr image"):
            open_slide(tmp_path / "a.zarr")
    else:
        assert open_slide(tmp_path / "a.zarr").mpp == 0.25  # what the first array says


def test_the_fingerprint_tells_one_pyramid_from_another(tmp_path: Path) -> None:
    one = open_slide(write_ome_zarr(tmp_path / "a.zarr"))
    other = open_slide(write_ome_zarr(tmp_path / "b.zarr", chunk=32))
    assert one.fingerprint == one.fingerprint != other.fingerprint


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_ome_zarr_is_read_over_http(tmp_path: Path, served: str, version: str) -> None:
    write_ome_zarr(tmp_path / "a.zarr", version=version)
    slide = open_slide(f"{served}/a.zarr")
    np.testing.assert_array_equal(slide.at(1.0)[20:90, 5:66].compute(), LEVELS[1][20:90, 5:66])
    with pytest.raises(SlideError, match=f"{served}/none.zarr: .*; at a URL only OME-Zarr is read"):
        open_slide(f"{served}/none.zarr")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("remote", [False, True])
def test_an_array_that_went_away_is_no_pixels(
    tmp_path: Path, served: str, version: str, remote: bool
) -> None:
    place = write_ome_zarr(tmp_path / "a.zarr", version=version)
    view = open_slide(f"{served}/a.zarr" if remote else place).view(1)
    view.read(Box(0, 0, 64, 64))
    (place / "0").rename(place / "elsewhere")
    with pytest.raises(SlideError, match=r"a\.zarr: level 0 went away while it was read") as told:
        view.read(Box(0, 0, 64, 64))
    assert not isinstance(told.value, UnreadableRegion)  # the whole slide is in question


def test_a_chunk_that_was_never_written_is_blank(tmp_path: Path) -> None:
    place = write_ome_zarr(tmp_path / "a.zarr", axes="yxc")
    (place / "0" / "c" / "0" / "0" / "0").unlink()
    found = open_slide(place).view(1).read(Box(0, 0, 64, 128))
    assert not found[:, :64].any()
    np.testing.assert_array_equal(found[:, 64:], IMAGE[:64, 64:128])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_chunk_that_is_a_link_to_nowhere_is_no_pixels(tmp_path: Path, version: str) -> None:
    place = write_ome_zarr(tmp_path / "a.zarr", axes="yxc", version=version)
    chunk = place / "0" / ("0.0.0" if version == "0.4" else "c/0/0/0")
    chunk.unlink()
    view = open_slide(place).view(1)
    assert not view.read(Box(0, 0, 64, 64)).any()
    chunk.symlink_to(tmp_path / "not fetched")
    with pytest.raises(UnreadableRegion, match="no file, nor a link to one"):
        view.read(Box(10, 10, 64, 64))
    np.testing.assert_array_equal(view.read(Box(0, 64, 64, 64)), IMAGE[:64, 64:128])


def test_an_array_without_a_fill_value_that_went_away_is_no_pixels(tmp_path: Path) -> None:
    place = write_ome_zarr(tmp_path / "a.zarr", version="0.4")
    told = place / "0" / ".zarray"
    told.write_text(told.read_text().replace('"fill_value": 0', '"fill_value": null'))
    view = open_slide(place).view(1)
    assert view.read(Box(0, 0, 64, 64)).any()
    (place / "0").rename(place / "elsewhere")
    with pytest.raises(SlideError, match="level 0 went away"):
        view.read(Box(0, 0, 64, 64))


RGB, DYES = ("FF0000", "00FF00", "0000FF"), ("DAPI", "GFP", "Cy3", "Cy5")


@pytest.mark.parametrize(
    ("channels", "sound"),
    [
        ([{"label": "Channel 0", "color": colour} for colour in RGB], True),
        ([{"label": name, "color": "FFFFFF"} for name in ("Red", "Green", "Blue")], True),
        ([{"label": "R"}, {"label": "G"}, {"label": "B"}], True),
        ([{"label": f"Channel {i}", "color": c} for i, c in enumerate((*RGB, "FFFFFF"))], True),
        ([{"label": "H&E", "color": int(c, 16)} for c in RGB], True),
        ([{"label": n, "color": f"{80 << 8 * i:06x}"} for i, n in enumerate("rgb")], True),
        ([{}, {}, {}, {}], True),
        ({"no": "list"}, True),
        ([{"label": "gray", "color": "FFFFFF"}], True),
        ([{"label": name} for name in ("Red", "Green", "Blue", "Alpha")], True),
        ([{"label": dye, "color": c} for dye, c in zip(DYES[:3], RGB[::-1], strict=True)], False),
        ([{"label": dye, "color": "FFFFFF"} for dye in DYES], False),
    ],
)  # fmt: skip
def test_channels_of_dyes_are_no_colours(tmp_path: Path, channels: Any, sound: bool) -> None:
    image = texture(128, 128, channels=max(len(channels), 3) if len(channels) > 1 else 1)
    place = write_ome_zarr(tmp_path / "a.zarr", [image], axes="cyx")
    group = zarr.open_group(place)
    group.attrs["ome"] = {**group.attrs.asdict()["ome"], "omero": {"channels": channels}}  # type: ignore[dict-item]
    if sound:
        assert open_slide(place).height == 128
    else:
        with pytest.raises(SlideError, match=r"its channels are dapi, gfp, cy3(, cy5)?; one colour image"):
            open_slide(place)


def test_an_ome_zarr_is_read_from_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in (
            ("ACCESS_KEY_ID", "any"),
            ("SECRET_ACCESS_KEY", "any"),
            ("DEFAULT_REGION", "us-east-1"),
        ):
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        store = fsspec.filesystem("s3")
        store.mkdir("slides")
        store.put(str(write_ome_zarr(tmp_path / "a.zarr")), "slides/a.zarr", recursive=True)
        slide = open_slide("s3://slides/a.zarr")
        np.testing.assert_array_equal(slide.at(1.0)[20:90, 5:66].compute(), LEVELS[1][20:90, 5:66])
        with pytest.raises(SlideError, match=r"s3://slides/none\.zarr: "):
            open_slide("s3://slides/none.zarr")
    finally:
        server.stop()


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_a_plain_image_is_read_as_it_is(tmp_path: Path, name: str) -> None:
    Image.fromarray(IMAGE).save(tmp_path / name)
    slide = open_slide(tmp_path / name, 0.5)
    expected = np.asarray(Image.open(tmp_path / name))
    assert (slide.reader, len(slide.levels)) == ("image", 1)
    box = Box(100, 200, 131, 300)
    np.testing.assert_array_equal(slide.view(1).read(box), expected[box.slices])
    np.testing.assert_array_equal(slide.at(1.0)[:50, :50].compute(), halve(expected)[:50, :50])


def test_gray_palette_and_alpha_of_a_plain_image(tmp_path: Path) -> None:
    image = Image.fromarray(IMAGE)
    image.convert("L").save(tmp_path / "gray.png")
    image.quantize(64).save(tmp_path / "palette.png")
    image.putalpha(0)
    image.save(tmp_path / "clear.png")
    for name, expected in (
        ("gray", np.asarray(Image.fromarray(IMAGE).convert("L"))[..., None].repeat(3, 2)),
        ("palette", np.asarray(Image.fromarray(IMAGE).quantize(64).convert("RGB"))),
        ("clear", np.full_like(IMAGE, 255)),
    ):
        read = open_slide(tmp_path / f"{name}.png", 0.5).view(1).read(Box(0, 0, *IMAGE.shape[:2]))
        np.testing.assert_array_equal(read, expected)
        assert read.flags.writeable  # torch warns of what is not


def test_the_scale_of_a_plain_image_is_not_that_of_a_screen(tmp_path: Path) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "screen.png", dpi=(96, 96))
    with pytest.raises(SlideError, match="no micrometres per pixel"):
        open_slide(tmp_path / "screen.png")
    Image.fromarray(IMAGE).save(tmp_path / "scanner.png", dpi=(50800, 50800))
    assert open_slide(tmp_path / "scanner.png").mpp == pytest.approx(0.5, rel=1e-3)
    for unit, size in (("µm", 0.25), ("Å", 2500)):
        told = {"axes": "YXS", "PhysicalSizeX": size, "PhysicalSizeY": size}
        units = {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
        tifffile.imwrite(
            tmp_path / "a.ome.tif", IMAGE, photometric="rgb", metadata=told | units, resolution=(1e4, 1e4)
        )
        assert open_slide(tmp_path / "a.ome.tif").mpp == pytest.approx(0.25)


def test_a_plain_image_that_is_cut_off_is_unreadable_and_not_black(tmp_path: Path) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    view = open_slide(tmp_path / "a.png", 0.5).view(1)
    before = plain_image._decode.cache_info().misses
    for left in (0, 10):  # as a whole it is decoded once
        with pytest.raises(UnreadableRegion, match=r"a.png: cannot be decoded"):
            view.read(Box(0, left, 10, 10))
    assert plain_image._decode.cache_info().misses == before + 1
    assert plain_image._decode.cache_info().hits > 0


@pytest.mark.parametrize("compression", [None, "deflate", "lzw", "packbits", "zstd", "lzma", "jpeg"])
def test_a_damaged_strip_is_no_pixels(tmp_path: Path, compression: str | None) -> None:
    """libtiff would fill what is missing, and libjpeg too."""
    path = tmp_path / "a.tif"

    def write() -> tuple[int, int]:
        tifffile.imwrite(path, IMAGE, rowsperstrip=64, compression=compression, photometric="rgb")
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            return page.dataoffsets[1], page.databytecounts[1]

    write()
    found = open_slide(path, 0.5).view(1).read(Box(0, 0, 200, 200)).astype(int)
    assert np.abs(found - IMAGE[:200, :200]).mean() < (20 if compression == "jpeg" else 0.1)
    offset, count = write()
    data = bytearray(path.read_bytes())
    data[offset + count // 2 : offset + count] = bytes(count - count // 2)
    if compression not in (None, "zstd"):  # which has noise as it is
        path.write_bytes(data)
        with pytest.raises(UnreadableRegion, match=r"a\.tif: cannot be decoded"):
            open_slide(path, 0.5).view(1).read(Box(0, 0, 10, 10))
    for lost in (0, count // 2):
        write()
        with tifffile.TiffFile(path, mode="r+") as tiff:
            page = tiff.pages.first
            page.tags["StripByteCounts"].overwrite([count, lost, *page.databytecounts[2:]])
        with pytest.raises(UnreadableRegion, match=r"a\.tif: cannot be decoded"):
            open_slide(path, 0.5).view(1).read(Box(0, 0, 10, 10))


@pytest.mark.parametrize("compression", [None, "deflate", "lzw", "packbits", "zstd", "lzma"])
def test_a_last_strip_of_more_rows_than_there_are_is_sound(tmp_path: Path, compression: str | None) -> None:
    path, rows = tmp_path / "a.tif", 64 * (IMAGE.shape[0] // 64) - 10
    tifffile.imwrite(path, IMAGE[: rows + 10], rowsperstrip=64, compression=compression, photometric="rgb")
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages.first.tags["ImageLength"].overwrite(rows)
    found = open_slide(path, 0.5).view(1).read(Box(0, 0, rows, IMAGE.shape[1]))
    np.testing.assert_array_equal(found, IMAGE[:rows])
    if compression is None:  # and of more bytes than the file has
        path.write_bytes(path.read_bytes()[: -10 * 3 * IMAGE.shape[1]])
        found = open_slide(path, 0.5).view(1).read(Box(0, 0, rows, IMAGE.shape[1]))
        np.testing.assert_array_equal(found, IMAGE[:rows])


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_an_image_that_is_to_be_turned_is_refused(tmp_path: Path, name: str) -> None:
    """Viewers would show it turned, and the mask as it is stored."""
    exif = Image.Exif()
    for orientation in (1, 9, 6):  # the second says nothing
        exif[274] = orientation
        Image.fromarray(IMAGE).save(tmp_path / name, exif=exif)
        if orientation != 6:
            assert open_slide(tmp_path / name, 0.5).height == IMAGE.shape[0]
    with pytest.raises(SlideError, match=r"turned or mirrored \(Orientation 6\); 1 is needed"):
        open_slide(tmp_path / name, 0.5)


def test_plain_images_that_cannot_be_slides_are_refused(tmp_path: Path) -> None:
    Image.fromarray(IMAGE[..., 0].astype(np.uint16)).save(tmp_path / "deep.png")
    imagecodecs.imwrite(tmp_path / "deep colour.png", IMAGE.astype(np.uint16) << 4)
    tifffile.imwrite(tmp_path / "deep.tif", IMAGE.astype(np.uint16), photometric="rgb")
    tifffile.imwrite(tmp_path / "two.tif", np.stack([IMAGE, IMAGE]), photometric="rgb")
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (10**6).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    (tmp_path / "huge.png").write_bytes(header + bytes(99))
    for name, said in (
        ("deep.png", "8-bit"),
        ("deep colour.png", "of 16 bits; 8-bit"),
        ("deep.tif", "8-bit"),
        ("huge.png", "in one piece|not a PNG"),
        ("two.tif", "axes"),
    ):
        with pytest.raises(SlideError, match=said):
            open_slide(tmp_path / name, 0.5)


def test_a_slide_is_a_zarr_store(tmp_path: Path) -> None:
    """Its levels are its views; nothing but what is asked for is read; nothing can be written."""
    slide = open_slide(write_slide(tmp_path / "slide.tiff", pyramid(texture(1500, 2100), 2)))
    store = SlideStore(slide)
    group = zarr.open_group(store, mode="r")
    image = OmeImage.from_zarr(group)
    assert len(image.ome_attributes.multiscales[0].datasets) == len(slide.views()) == 4
    for index, (view, level) in enumerate(zip(slide.views(), slide.pyramid(), strict=True)):
        array = group[str(index)]
        assert isinstance(array, zarr.Array)
        assert array.chunks == (3, *view.chunk)
        np.testing.assert_array_equal(np.asarray(array[...]).transpose(1, 2, 0), level.compute())
    assert pickle.loads(pickle.dumps(store)) == store
    with pytest.raises(ValueError, match="read-only"):
        zarr.create_array(store, name="new", shape=(1,), dtype="u1")
    assert sorted(group.array_keys()) == ["0", "1", "2", "3"]


def test_a_damaged_chunk_of_the_store_is_no_pixels(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tiff", [texture(300, 300)])
    change_tile(path, 7, lambda data: b"\0" * len(data))
    array = zarr.open_group(SlideStore(open_slide(path)), mode="r")["0"]
    assert isinstance(array, zarr.Array)
    with pytest.raises(UnreadableRegion):
        array[...]

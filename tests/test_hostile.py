"""Files made to cost memory: one clear line, and nothing spent."""

import gzip
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from slides import change_tile, texture, write_slide
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from wsi_twostage.conversion import convert
from wsi_twostage.errors import SlideError, UnreadableRegion
from wsi_twostage.slide import bounded, open_slide
from wsi_twostage.tiles import Box

SIDE = 60_000  # px that a tile claims; 10.8 GB of RGB
LIMIT = 32 * 2**20  # bytes that may be spent on finding out


@contextmanager
def costs_little() -> Iterator[None]:
    """What is done in the block takes less memory than LIMIT at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < LIMIT
    finally:
        tracemalloc.stop()


def claim_jpeg(data: bytes) -> bytes:
    """Its frame header says SIDE (ITU T.81, B.2.2)."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">2H", SIDE, SIDE) + data[at + 4 :]


def claim_jpeg_2000(data: bytes) -> bytes:
    """Its image and its one tile say SIDE (ISO/IEC 15444-1, A.5.1)."""
    at = data.index(b"\xff\x4f\xff\x51") + 8
    sides = struct.pack(">6I", SIDE, SIDE, 0, 0, SIDE, SIDE)
    return data[:at] + sides + data[at + len(sides) :]


def claim_webp(data: bytes) -> bytes:
    """Its canvas says 2**14 px, which is all that it can say (RFC 9649, 2.7)."""
    canvas = b"VP8X" + struct.pack("<2I", 10, 0) + b"\xff\x3f\x00" * 2
    return data[:12] + canvas + data[12 : -len(canvas)]


def inflate(data: bytes) -> bytes:
    """256 MiB of zeros."""
    bomb = zlib.compress(bytes(2**28), 9)
    assert len(bomb) <= len(data)
    return bomb


@pytest.mark.parametrize(
    ("compression", "spoil", "message"),
    [
        ("jpeg", claim_jpeg, f"height={SIDE}"),
        ("jpeg2000", claim_jpeg_2000, f"height={SIDE}"),
        ("webp", claim_webp, f"height={2**14}"),
        ("deflate", inflate, ""),
    ],
)
def test_a_tile_that_claims_too_much_is_not_decoded(
    tmp_path: Path, compression: str, spoil: Callable[[bytes], bytes], message: str
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1024, 512, 3), dtype=np.uint8)
    path = write_slide(tmp_path / "slide.tiff", [noise], tile=512, compression=compression)
    change_tile(path, 0, spoil)
    view = open_slide(path).view(1)
    with (
        costs_little(),
        pytest.raises(UnreadableRegion, match=rf"tile \(0, 0\) of level 0 cannot be decoded.*{message}"),
    ):
        view.read(Box(0, 0, 512, 512))
    assert view.read(Box(512, 0, 512, 512)).any()  # the others are sound


MUCH = 2**26  # bytes in a chunk that may hold 12,288
BLOCKS = b"".join((2**17 << 3 | 1 << 1 | last).to_bytes(3, "little") + b"\0" for last in (0,) * 511 + (1,))
NEW = {"zstd": ZstdCodec(), "blosc": BloscCodec(), "gzip": GzipCodec()}  # the same as zarr 3 has them
UNSAID = b"\x28\xb5\x2f\xfd\0\x58" + BLOCKS  # zstd's frame without its size, 512 runs of 2**17 zeros


@pytest.mark.parametrize(
    ("version", "codec"),
    [(2, codec) for codec in ("zlib", "gzip", "blosc", "zstd", "lz4", "bz2", "lzma")]
    + [(3, codec) for codec in ("zstd", "blosc", "gzip", "unsaid", "sharded")],
)
def test_a_chunk_of_a_zarr_that_holds_too_much_is_not_decoded(
    tmp_path: Path, version: int, codec: str
) -> None:
    name = {"unsaid": "zstd", "sharded": "zstd"}.get(codec, codec)
    compressor = numcodecs.get_codec({"id": name})
    bomb = UNSAID if codec == "unsaid" else bytes(compressor.encode(bytes(MUCH)))
    root, pixels = zarr.create_group(tmp_path / "a.zarr", zarr_format=version), texture(128, 128)
    axes = [{"name": axis, "type": "space"} for axis in "yxc"]
    told = {"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}
    root.attrs.update({"multiscales": [told]} if version == 2 else {"ome": {"multiscales": [told]}})
    array = root.create_array(
        "0",
        shape=pixels.shape,
        dtype=np.uint8,
        chunks=(64, 64, 3),
        shards=(128, 128, 3) if codec == "sharded" else None,
        compressors=compressor if version == 2 else NEW[name],
    )
    array[...] = pixels
    if codec == "sharded":  # the first of four chunks: its bytes, and where they are
        file = tmp_path / "a.zarr" / "0" / "c" / "0" / "0" / "0"
        kept = file.read_bytes()
        index = struct.pack("<2Q", len(kept), len(bomb)) + kept[-68 + 16 : -4]
        crc = numcodecs.get_codec({"id": "crc32c"}).encode(index)
        file.write_bytes(kept + bomb + bytes(crc))
    else:
        (tmp_path / "a.zarr" / "0" / ("0.0.0" if version == 2 else "c/0/0/0")).write_bytes(bomb)
    view = open_slide(tmp_path / "a.zarr", 0.5).view(1)
    with costs_little(), pytest.raises(UnreadableRegion, match=r"rows 0\.\.64, columns 0\.\.64 of level 0"):
        view.read(Box(0, 0, 64, 64))
    np.testing.assert_array_equal(view.read(Box(64, 0, 64, 128)), pixels[64:])  # the others are sound


@pytest.mark.parametrize("compression", ["png", "jpegxl", "jpegxr", "lerc"])
def test_compressions_without_a_bound_are_refused(tmp_path: Path, compression: str) -> None:
    path = write_slide(tmp_path / "slide.tiff", [texture(64, 64)], compression=compression)
    with pytest.raises(SlideError, match=rf"compression {compression.upper()} is not one that is read"):
        open_slide(path)


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "webp", "zstd", "lzw"])
@pytest.mark.parametrize("part", [0.1, 0.999])
def test_a_tile_that_is_cut_off_is_no_pixels(tmp_path: Path, compression: str, part: float) -> None:
    path = write_slide(tmp_path / "slide.tiff", [texture(128, 64)], compression=compression)
    change_tile(path, 0, lambda data: data[: int(len(data) * part)])
    with pytest.raises(UnreadableRegion, match=r"tile \(0, 0\) of level 0 cannot be decoded"):
        open_slide(path).view(1).read(Box(0, 0, 64, 64))


@pytest.mark.parametrize("reader", ["tiff", "openslide"])
def test_no_reader_takes_a_jpeg_without_its_end(tmp_path: Path, reader: str) -> None:
    path = write_slide(tmp_path / "slide.tiff", [texture(128, 64)], compression="jpeg")
    change_tile(path, 0, lambda data: data.removesuffix(b"\xff\xd9"))
    with pytest.raises(UnreadableRegion):
        open_slide(path, reader=reader).view(1).read(Box(0, 0, 64, 64))


@pytest.mark.parametrize("sums_to", [2**63, 2**64])
def test_places_beyond_64_bits_are_beyond_the_file(tmp_path: Path, sums_to: int) -> None:
    path = tmp_path / "slide.tiff"
    tifffile.imwrite(path, texture(128, 64), bigtiff=True, tile=(64, 64), photometric="rgb")
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for name in ("TileOffsets", "TileByteCounts"):
            tiff.pages[0].aspage().tags[name].overwrite([sums_to // 2] * 2, dtype="Q")
    with pytest.raises(SlideError, match=r"slide\.tiff: "):
        open_slide(path, 0.5).view(1).read(Box(0, 0, 64, 64))


@pytest.mark.parametrize(
    "lie", ['SizeZ="999999999"', 'SizeX="999999999999999"', 'SizeC="3" SizeT="99999999"']
)
def test_ome_xml_that_tells_of_too_many_planes_is_refused(tmp_path: Path, lie: str) -> None:
    pixels = f'<Pixels DimensionOrder="XYCZT" {lie}><TiffData IFD="0"/></Pixels>'
    told = f"<OME><Image>{pixels}</Image></OME>"
    path = tmp_path / "slide.ome.tif"
    tifffile.imwrite(path, texture(64, 64), tile=(64, 64), description=told, metadata=None)
    with pytest.raises(
        SlideError, match=r"slide\.ome\.tif: tells of [\d,]+ pages; a slide has at most 16,384"
    ):
        open_slide(path, 0.5)


def test_a_list_of_a_million_levels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "slide.tiff"
    levels = (65000, "I", 2**20, [8] * 2**20, True)
    tifffile.imwrite(path, texture(64, 64), tile=(64, 64), metadata=None, extratags=[levels])
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.filehandle.seek(tiff.pages[0].aspage().tags[65000].offset)
        tiff.filehandle.write(struct.pack("<H", 330))  # SubIFDs
    with pytest.raises(SlideError, match=r"slide\.tiff: tells of 1,048,576 pages"):
        open_slide(path, 0.5)


def test_a_chunk_that_claims_too_much_is_not_decoded(tmp_path: Path) -> None:
    root = convert(
        write_slide(tmp_path / "a.tiff", [texture(64, 64)]), tmp_path / "a.zarr", compression="jpeg"
    )
    shard = max((root / "0").rglob("0"), key=lambda path: path.is_file())
    data = shard.read_bytes()
    shard.write_bytes(claim_jpeg(data))
    with pytest.raises(UnreadableRegion, match=f"JPEG of {SIDE} x {SIDE} px in a chunk"):
        open_slide(root).view(1).read(Box(0, 0, 64, 64))


def test_an_image_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(texture(8, 8)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">2I", SIDE, SIDE)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    with pytest.raises(SlideError, match=r"a\.png: more than 178,956,970 px in one piece"):
        open_slide(path, 0.5)


def test_a_link_to_itself_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    path.symlink_to(path)
    with pytest.raises(SlideError, match=r"slide.svs: cannot be opened \(Too many levels"):
        open_slide(path)


def test_a_chunk_of_endless_empty_members_is_too_much() -> None:
    with pytest.raises(ValueError, match="which is too much"):
        bounded._ensure("gzip", gzip.compress(b"") * 20_000, 10**6)

"""Small slides in scanners' own formats, written from arrays; a reader has to find those arrays again.

What each format demands is on OpenSlide's pages on the formats and in its source (src/openslide-vendor-*.c).
"""

import re
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]  # (rows, cols, 3)

MPP = 0.25  # um per pixel of level 0, of every slide here
MAGNIFICATION = 40
TILE = 64  # px, rows and columns

_APERIO = f"Aperio Image Library v12\r\n |AppMag = {MAGNIFICATION}|MPP = {MPP}"
_CENTIMETRE: dict[str, Any] = {"resolution": (1e4 / MPP, 1e4 / MPP), "resolutionunit": "CENTIMETER"}


@dataclass(frozen=True, slots=True)
class Written:
    """A slide on the disk and what it shows."""

    path: Path
    """The file to open; all others of the slide are beside or below it."""
    levels: tuple[Pixels, ...]
    """What a reader has to find, finest first: after JPEG, stitched, cut to what was scanned."""
    origin: tuple[int, int] = (0, 0)
    """Where level 0 begins on the scanner's canvas, (row, col)."""


# Compression, tiles


def jpeg(image: Pixels, *, restart: int = 0) -> bytes:
    """4:4:4, since decoders differ in how they enlarge colours; a marker every ``restart`` blocks of 8 px."""
    return _encoded(image, "JPEG", quality=90, subsampling=0, restart_marker_blocks=restart)


def png(image: Pixels) -> bytes:
    return _encoded(image, "PNG")


def _encoded(image: Pixels, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def decoded(data: bytes, *, shrink: int = 1) -> Pixels:
    """Of JPEG or PNG; JPEG can be shrunk while it is decoded."""
    image = Image.open(BytesIO(data))
    image.draft("RGB", (image.width // shrink, image.height // shrink))
    return np.asarray(image)


def _blocks(level: Pixels) -> Iterator[tuple[slice, slice]]:
    """Where the tiles of a level are, row by row; those at its end are cut."""
    for top in range(0, level.shape[0], TILE):
        for left in range(0, level.shape[1], TILE):
            yield slice(top, top + TILE), slice(left, left + TILE)


def _tiles(level: Pixels) -> Iterator[Pixels]:
    """In full: at the level's end its last pixels are repeated."""
    for block in _blocks(level):
        tile = level[block]
        fill = (0, TILE - tile.shape[0]), (0, TILE - tile.shape[1]), (0, 0)
        yield np.pad(tile, fill, mode="edge")


def _joined(tiles: Iterable[Pixels], shape: tuple[int, ...]) -> Pixels:
    """The level that these tiles make."""
    level = np.empty(shape, np.uint8)
    for block, tile in zip(_blocks(level), tiles, strict=True):
        level[block] = tile[: level[block].shape[0], : level[block].shape[1]]
    return level


def _stitched(packed: Pixels, scanned: NDArray[np.bool_], *, overlap: int, shrink: int) -> Pixels:
    """Camera fields side by side -> as they lie on the slide, where each overlaps the one before.

    The one below or to the right lies on top, as OpenSlide draws them. ``overlap`` is in pixels of level 0,
    of which the fields here have ``shrink`` times fewer.
    """
    field, step = TILE // shrink, (TILE - overlap) // shrink
    rows, cols = scanned.shape
    canvas = np.full(((rows - 1) * step + field, (cols - 1) * step + field, 3), 255, np.uint8)
    for row, col in np.argwhere(scanned):
        pixels = packed[row * field : (row + 1) * field, col * field : (col + 1) * field]
        canvas[row * step : row * step + field, col * step : col * step + field] = pixels
    return canvas


# TIFF


def _tiled(level: Pixels) -> dict[str, Any]:
    """How tifffile is told that it gets a level tile by tile, compressed."""
    return {"shape": level.shape, "dtype": "u1", "tile": (TILE, TILE), "metadata": None}


def _write_jpeg_level(
    tiff: tifffile.TiffWriter, level: Pixels, *, missing: Collection[int] = (), **tags: Any
) -> Pixels:
    """One tiled page; returns what its tiles decode to, white where one is missing."""
    data = [b"" if index in missing else jpeg(tile) for index, tile in enumerate(_tiles(level))]
    colours = {"photometric": "ycbcr", "subsampling": (1, 1)}
    tiff.write(iter(data), **_tiled(level), compression="jpeg", **colours, **tags)
    white = np.full((TILE, TILE, 3), 255, np.uint8)
    return _joined((decoded(tile) if tile else white for tile in data), level.shape)


def write_scn(folder: Path, levels: Sequence[Pixels], *, origin: tuple[int, int] = (48, 100)) -> Written:
    """Leica SCN: BigTIFF, whose XML says in nanometres where on the slide the image lies."""
    nm = round(MPP * 1000)
    height, width = levels[0].shape[:2]
    sizes = "".join(
        f'<dimension sizeX="{level.shape[1]}" sizeY="{level.shape[0]}" r="{index}" ifd="{index}"/>'
        for index, level in enumerate(levels)
    )
    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="slide" sizeX="{nm * 2 * width}" sizeY="{nm * 2 * height}"><image name="main">'
        f"<pixels>{sizes}</pixels>"
        f'<view sizeX="{nm * width}" sizeY="{nm * height}" '
        f'offsetX="{nm * origin[1]}" offsetY="{nm * origin[0]}"/>'
        f"<scanSettings><objectiveSettings><objective>{MAGNIFICATION}</objective></objectiveSettings>"
        "<illuminationSettings><illuminationSource>brightfield</illuminationSource></illuminationSettings>"
        "</scanSettings></image></collection></scn>"
    )
    path = folder / "slide.scn"
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        found = [_write_jpeg_level(tiff, levels[0], description=xml, **_CENTIMETRE)]
        found += [_write_jpeg_level(tiff, level) for level in levels[1:]]
    return Written(path, tuple(found), origin)


def write_philips(folder: Path, levels: Sequence[Pixels], *, missing: Collection[int] = (4,)) -> Written:
    """Philips TIFF: levels are filled up to whole tiles, XML says how much they are reduced.

    ``missing`` are tiles of level 0 that were not scanned. Of the other levels, OpenSlide cuts the filling.
    """

    def attribute(name: str, value: str) -> str:
        return f'<Attribute Name="{name}">{value}</Attribute>'

    def array(kind: str, items: Iterable[str]) -> str:
        objects = (f'<DataObject ObjectType="{kind}">{item}</DataObject>' for item in items)
        return f"<Array>{''.join(objects)}</Array>"

    mm = (f"&quot;{MPP / 1000 * 2**index:g}&quot;" for index in range(len(levels)))
    spacings = [attribute("DICOM_PIXEL_SPACING", f"{size} {size}") for size in mm]
    stored = attribute("PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE", array("PixelDataRepresentation", spacings))
    image = attribute("PIM_DP_IMAGE_TYPE", "WSI") + spacings[0] + stored
    images = attribute("PIM_DP_SCANNED_IMAGES", array("DPScannedImage", [image]))
    xml = f'<?xml version="1.0"?><DataObject ObjectType="DPUfsImport">{images}</DataObject>'
    path = folder / "slide.tiff"
    filled = [np.pad(level, [(0, -size % TILE) for size in level.shape[:2]] + [(0, 0)]) for level in levels]
    height, width = filled[0].shape[:2]
    with tifffile.TiffWriter(path) as tiff:
        told = {"description": xml, "software": "Philips DP v1.0"}
        found = [_write_jpeg_level(tiff, filled[0], missing=missing, **told)]
        for index, level in enumerate(filled[1:], 1):
            full = _write_jpeg_level(tiff, level, subfiletype=1)
            found.append(full[: height >> index, : width >> index])
    return Written(path, tuple(found))


def write_bif(folder: Path, levels: Sequence[Pixels], *, overlap: int = 0) -> Written:
    """Ventana BIF: an area of camera fields, packed side by side; XML says by how much they overlap.

    Fields are numbered from the bottom, to the right and to the left in turn.
    """
    rows, cols = (int(size) // TILE for size in levels[0].shape[:2])

    def number(row: int, col: int) -> int:
        up = rows - 1 - row
        return 1 + up * cols + (cols - 1 - col if up % 2 else col)

    def joint(direction: str, first: int, second: int) -> str:
        return (
            f'<TileJointInfo FlagJoined="1" Confidence="99" Direction="{direction}" Tile1="{first}" '
            f'Tile2="{second}" OverlapX="{overlap * (direction == "RIGHT")}" '
            f'OverlapY="{overlap * (direction == "UP")}"/>'
        )

    joints = [joint("RIGHT", number(r, c), number(r, c + 1)) for r, c in np.ndindex(rows, cols - 1)]
    joints += [joint("UP", number(r + 1, c), number(r, c)) for r, c in np.ndindex(rows - 1, cols)]
    stitching = (
        f'<EncodeInfo Ver="2"><SlideStitchInfo><ImageInfo AOIScanned="1" AOIIndex="0" Width="{TILE}" '
        f'Height="{TILE}" NumRows="{rows}" NumCols="{cols}" Pos-X="0" Pos-Y="0">{"".join(joints)}</ImageInfo>'
        '</SlideStitchInfo><AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>'
    )
    scan = f'<iScan Magnification="{MAGNIFICATION}" ScanRes="{MPP}" UnitNumber="1"/>'

    def xmp(text: str) -> tuple[int, str, int, bytes, bool]:
        return 700, "B", len(text), text.encode(), True

    path = folder / "slide.bif"
    found = []
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        label = np.zeros((TILE, TILE, 3), np.uint8)
        tiff.write(label, photometric="rgb", metadata=None, description="Label_Image", extratags=[xmp(scan)])
        for index, level in enumerate(levels):
            packed = _write_jpeg_level(
                tiff,
                level,
                description=f"level={index} mag={MAGNIFICATION / 2**index:g} quality=90",
                extratags=[xmp(stitching)] if index == 0 else [],
            )
            found.append(_stitched(packed, np.ones((rows, cols), bool), overlap=overlap, shrink=2**index))
    return Written(path, tuple(found))


def write_svs_jp2k(folder: Path, levels: Sequence[Pixels], *, compression: int = 33005) -> Written:
    """Aperio SVS in lossless JPEG 2000: of RGB (33005), or of YCbCr (33003), which loses a little."""
    path = folder / "slide.svs"
    found = []
    with tifffile.TiffWriter(path) as tiff:
        for index, level in enumerate(levels):
            stored, shown = level, level
            if compression == 33003:
                image = Image.fromarray(level).convert("YCbCr")
                stored, shown = np.asarray(image), np.asarray(image.convert("RGB"))
            data = [
                imagecodecs.jpeg2k_encode(tile, codecformat="j2k", reversible=True, mct=False)
                for tile in _tiles(stored)
            ]
            told = {"photometric": "rgb", "description": _APERIO}
            tiff.write(iter(data), **_tiled(level), compression=compression, **told)
            found.append(shown)
            if index == 0:
                tiff.write(levels[-1], metadata=None, **told)  # the thumbnail, always the second page
    return Written(path, tuple(found))


# Hamamatsu


def write_ndpi(folder: Path, levels: Sequence[Pixels], *, start: int = 12) -> Written:
    """Hamamatsu NDPI: each level one JPEG, a quarter of the one before; OpenSlide halves each as it decodes.

    All but the last are cut at restart markers: their sides must be multiples of 8 and 40 px. The first
    byte of level 0 lies at ``start``: beyond 4 GiB, the file is sparse.
    """
    path = folder / "slide.ndpi"
    found: list[Pixels] = []
    with open(path, "wb") as file:
        file.write(b"II*\0" + bytes(8))
        link, at = 4, start
        for index, level in enumerate(levels):
            data = jpeg(level, restart=0 if index == len(levels) - 1 else 5)
            found += [decoded(data), decoded(data, shrink=2)]
            tags = _ndpi_tags(level, data, at, lens=MAGNIFICATION / 4**index)
            values, directory, highs = _ndpi_directory(tags, at + len(data))
            file.seek(at)
            file.write(data + values + directory + bytes(8) + highs)
            here, at = at + len(data) + len(values), file.tell()
            file.seek(link)
            file.write(struct.pack("<Q", here))
            link = here + len(directory)
    return Written(path, tuple(found))


_STRIP_OFFSETS = 273


@dataclass(frozen=True, slots=True)
class _Tag:
    """A value of a TIFF's directory."""

    kind: int  # TIFF's number for its type
    count: int
    data: bytes

    @classmethod
    def of(cls, letter: str, *values: float) -> Self:
        """Of numbers, by the letter that `struct` has for their type."""
        data = struct.pack(f"<{len(values)}{letter}", *values)
        return cls({"H": 3, "I": 4, "i": 9, "f": 11}[letter], len(values), data)


def _ndpi_tags(level: Pixels, data: bytes, at: int, *, lens: float) -> dict[int, _Tag]:
    """By their codes. The last is where in the JPEG each run of blocks between two markers begins."""
    scan = data.index(b"\xff\xda")
    first = scan + 2 + int.from_bytes(data[scan + 2 : scan + 4])
    starts = [first, *(mark.end() for mark in re.compile(rb"\xff[\xd0-\xd7]").finditer(data, first))]
    height, width = level.shape[:2]
    per_cm = _Tag(5, 1, struct.pack("<2I", round(1e4 / MPP), 1))
    tags = {
        256: _Tag.of("I", width),
        257: _Tag.of("I", height),
        258: _Tag.of("H", 8, 8, 8),
        259: _Tag.of("H", 7),  # JPEG
        262: _Tag.of("H", 6),  # YCbCr
        271: _Tag(2, 10, b"Hamamatsu\0"),
        _STRIP_OFFSETS: _Tag(4, 1, struct.pack("<Q", at)),
        277: _Tag.of("H", 3),
        278: _Tag.of("I", height),  # rows per strip
        279: _Tag.of("I", len(data)),
        282: per_cm,
        283: per_cm,
        296: _Tag.of("H", 3),  # centimetre
        65420: _Tag.of("I", 1),  # this is an NDPI
        65421: _Tag.of("f", lens),
        65422: _Tag.of("i", 0),  # offsets from the slide's centre, in nm
        65423: _Tag.of("i", 0),
        65424: _Tag.of("i", 0),  # focal plane
    }
    return tags | ({65426: _Tag.of("I", *starts)} if len(starts) > 1 else {})


def _ndpi_directory(tags: dict[int, _Tag], at: int) -> tuple[bytes, bytes, bytes]:
    """What does not fit into 4 bytes, for ``at``; the directory; the high halves of its values.

    Between the last two comes the next directory's place, in 8 bytes. OpenSlide does not read the high
    halves: it takes values to lie before their directory, by less than 4 GiB.
    """
    values, directory, highs = b"", struct.pack("<H", len(tags)), b""
    for code, tag in tags.items():
        value = tag.data.ljust(8, b"\0")
        if len(tag.data) > 4 and code != _STRIP_OFFSETS:
            value = struct.pack("<Q", at + len(values))
            values += tag.data
        directory += struct.pack("<HHI", code, tag.kind, tag.count) + value[:4]
        highs += value[4:]
    return values, directory, highs


# 3DHISTECH


def write_mrxs(
    folder: Path,
    levels: Sequence[Pixels],
    *,
    image_format: str = "PNG",
    overlap: int = 0,
    missing: Collection[tuple[int, int]] = (),
) -> Written:
    """MIRAX: images in Data*.dat, where each lies there in Index.dat, all the rest in Slidedat.ini.

    ``levels`` are camera fields packed side by side, of which those ``missing``, (row, col), were not
    scanned. An image of a coarser level is made of several fields; without any it is missing, too.
    """
    rows, cols = (size // TILE for size in levels[0].shape[:2])
    scanned = np.array([[(row, col) not in missing for col in range(cols)] for row in range(rows)])
    compress = {"PNG": png, "JPEG": jpeg}[image_format]
    path, inside = folder / "slide.mrxs", folder / "slide"
    path.write_bytes(jpeg(levels[-1]))  # a preview, which nobody reads
    inside.mkdir()
    pages, found = [], []
    for index, level in enumerate(levels):
        fields, field = 2**index, TILE >> index  # in an image, along a side; px of one
        seen = scanned.repeat(field, 0).repeat(field, 1)[..., None]
        images = [compress(tile) for tile in _tiles(np.where(seen, level, np.uint8(255)))]
        page, data = b"", b""
        for block, image in zip(_blocks(level), images, strict=True):
            row, col = (side.start // field for side in block)
            if scanned[row : row + fields, col : col + fields].any():
                page += struct.pack("<4i", row * cols + col, len(data), len(image), index)
                data += image
        pages.append(page)
        (inside / f"Data{index:04}.dat").write_bytes(data)
        packed = _joined(map(decoded, images), level.shape)
        found.append(_stitched(packed, scanned, overlap=overlap, shrink=fields))
    (inside / "Index.dat").write_bytes(_mrxs_index(pages))
    (inside / "Slidedat.ini").write_text(_mrxs_ini(rows, cols, len(levels), image_format, overlap))
    places = np.argwhere(scanned) * (TILE - overlap)
    (top, left), (bottom, right) = places.min(0), places.max(0) + TILE
    cut = [
        level[top >> index : bottom >> index, left >> index : right >> index]
        for index, level in enumerate(found)
    ]
    return Written(path, tuple(cut), (int(top), int(left)))


_MRXS_ID = "0123456789ABCDEF"


def _mrxs_index(pages: Sequence[bytes]) -> bytes:
    """Of each level one page of (image, offset, length, file); what has no levels is empty."""
    head = f"01.02{_MRXS_ID}".encode()
    roots = len(head) + 8
    first = roots + 4 * len(pages)
    pointers, body = b"", b""
    for page in pages:
        at = first + len(body)
        pointers += struct.pack("<i", at)
        body += struct.pack("<2i", 0, at + 8) + struct.pack("<2i", len(page) // 16, 0) + page
    return head + struct.pack("<2i", roots, first) + pointers + body


def _mrxs_ini(rows: int, cols: int, levels: int, image_format: str, overlap: int) -> str:
    sections = "".join(
        f"[LEVEL_{index}]\nIMAGE_CONCAT_FACTOR={int(index > 0)}\nIMAGE_FORMAT={image_format}\n"
        f"OVERLAP_X={overlap / 2**index}\nOVERLAP_Y={overlap / 2**index}\n"
        f"MICROMETER_PER_PIXEL_X={MPP * 2**index}\nMICROMETER_PER_PIXEL_Y={MPP * 2**index}\n"
        f"IMAGE_FILL_COLOR_BGR={0xFFFFFF}\nDIGITIZER_WIDTH={TILE}\nDIGITIZER_HEIGHT={TILE}\n"
        for index in range(levels)
    )
    files = "".join(f"FILE_{index}=Data{index:04}.dat\n" for index in range(levels))
    names = "".join(f"HIER_0_VAL_{index}_SECTION=LEVEL_{index}\n" for index in range(levels))
    return (
        f"[GENERAL]\nSLIDE_ID={_MRXS_ID}\nIMAGENUMBER_X={cols}\nIMAGENUMBER_Y={rows}\n"
        f"OBJECTIVE_MAGNIFICATION={MAGNIFICATION}\nCameraImageDivisionsPerSide=1\n"
        f"[HIERARCHICAL]\nINDEXFILE=Index.dat\nHIER_COUNT=1\nNONHIER_COUNT=0\n"
        f"HIER_0_NAME=Slide zoom level\nHIER_0_COUNT={levels}\n{names}"
        f"[DATAFILE]\nFILE_COUNT={levels}\n{files}{sections}"
    )


# DICOM


def write_dicom(folder: Path, levels: Sequence[Pixels], *, compressed: bool = True) -> Written:
    """DICOM whole-slide images, all tiles in order: a file per level, JPEG or uncompressed."""
    found = []
    for index, level in enumerate(levels):
        frames = [jpeg(tile) if compressed else tile.tobytes() for tile in _tiles(level)]
        found.append(_joined(map(decoded, frames), level.shape) if compressed else level)
        (folder / f"level-{index}.dcm").write_bytes(_dicom(level, frames, index, compressed=compressed))
    return Written(folder / "level-0.dcm", tuple(found))


def _dicom(level: Pixels, frames: Sequence[bytes], index: int, *, compressed: bool) -> bytes:
    """One file: 128 bytes of nothing, "DICM", what the file is, what the image is, its frames."""
    kind, instance = "1.2.840.10008.5.1.4.1.1.77.1.6", f"2.25.{index + 2}"  # whole-slide microscopy
    syntax = "1.2.840.10008.1.2.4.50" if compressed else "1.2.840.10008.1.2.1"
    meta = _element(0x00020001, "OB", b"\0\1") + _element(0x00020002, "UI", kind)
    meta += _element(0x00020003, "UI", instance) + _element(0x00020010, "UI", syntax)
    spacing = f"{MPP * 2**index / 1000:g}"
    measures = _sequence(0x00289110, _element(0x00280030, "DS", f"{spacing}\\{spacing}"))
    image = b"".join(
        (
            _element(
                0x00080008,
                "CS",
                "DERIVED\\PRIMARY\\VOLUME\\RESAMPLED" if index else "ORIGINAL\\PRIMARY\\VOLUME\\NONE",
            ),
            _element(0x00080016, "UI", kind),
            _element(0x00080018, "UI", instance),
            _element(0x0020000E, "UI", "2.25.1"),  # the series, which is the slide
            _element(0x00209311, "CS", "TILED_FULL"),
            _element(0x00280002, "US", 3),  # samples per pixel
            _element(0x00280004, "CS", "YBR_FULL_422" if compressed else "RGB"),
            _element(0x00280006, "US", 0),  # not in planes
            _element(0x00280008, "IS", str(len(frames))),
            _element(0x00280010, "US", TILE),
            _element(0x00280011, "US", TILE),
            _element(0x00280100, "US", 8),  # bits allocated, stored; the highest bit
            _element(0x00280101, "US", 8),
            _element(0x00280102, "US", 7),
            _element(0x00280103, "US", 0),  # unsigned
            _element(0x00480006, "UL", level.shape[1]),
            _element(0x00480007, "UL", level.shape[0]),
            _sequence(0x00480105, _element(0x00480112, "DS", str(MAGNIFICATION))),
            _sequence(0x52009229, measures),
        )
    )
    length = _element(0x00020000, "UL", len(meta))
    return bytes(128) + b"DICM" + length + meta + image + _dicom_frames(frames, compressed=compressed)


def _dicom_frames(frames: Sequence[bytes], *, compressed: bool) -> bytes:
    """Pixel data: one after the other; or, compressed, as items after a list of where they begin."""
    if not compressed:
        return _element(0x7FE00010, "OB", b"".join(frames))
    items = [_item(frame) for frame in frames]
    starts = [sum(map(len, items[:index])) for index in range(len(items))]
    table = _item(struct.pack(f"<{len(starts)}I", *starts))
    head = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    return head + table + b"".join(items) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def _element(tag: int, kind: str, value: bytes | str | int) -> bytes:
    """A value with its tag, its type and its length, little endian."""
    if isinstance(value, int):
        value = struct.pack({"US": "<H", "UL": "<I"}[kind], value)
    elif isinstance(value, str):
        value = value.encode()
    value += (b"\0" if kind in ("UI", "OB") else b" ") * (len(value) % 2)
    size = "2xI" if kind in ("OB", "SQ") else "H"
    return struct.pack(f"<HH2s{size}", tag >> 16, tag & 0xFFFF, kind.encode(), len(value)) + value


def _sequence(tag: int, item: bytes) -> bytes:
    return _element(tag, "SQ", _item(item))


def _item(value: bytes) -> bytes:
    value += bytes(len(value) % 2)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value

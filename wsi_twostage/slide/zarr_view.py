"""A slide as a read-only zarr store, for tools that want zarr: OME-Zarr 0.5, read chunk by chunk."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable

import numpy as np
import zarr
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import MemoryStore

from wsi_twostage.slide.ngff import write_multiscales
from wsi_twostage.slide.slide import Slide
from wsi_twostage.slide.view import BACKGROUND, View
from wsi_twostage.tiles import Box

_CHUNK_KEY = re.compile(r"(\d+)/c/0/(\d+)/(\d+)")


class SlideStore(Store):
    """What ``zarr.open_group(SlideStore(slide), mode="r")`` opens; its levels are `Slide.views`.

    A chunk that cannot be decoded raises `UnreadableRegion`.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, slide: Slide) -> None:
        super().__init__(read_only=True)
        self.slide, self.views = slide, slide.views()
        self._documents = _documents(self.views)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SlideStore) and self.slide == other.slide

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The document or the chunk of a key, or a part of it."""
        make = (prototype or default_buffer_prototype()).buffer.from_bytes
        if key in self._documents:
            return make(_part(self._documents[key], byte_range))
        box = self._box(key)
        if box is None:
            return None
        view = self.views[int(key.split("/")[0])]
        return make(_part(await asyncio.to_thread(_chunk, view, box), byte_range))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Each part of each key."""
        return [await self.get(key, prototype, part) for key, part in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether there is such a document or chunk."""
        return key in self._documents or self._box(key) is not None

    async def set(self, key: str, value: Buffer) -> None:
        """A slide is never written to."""
        self._check_writable()

    async def delete(self, key: str) -> None:
        """A slide is never written to."""
        self._check_writable()

    async def list(self) -> AsyncIterator[str]:
        """All documents and chunks."""
        for key in self._documents:
            yield key
        for index, view in enumerate(self.views):
            rows, cols = (-(-n // c) for n, c in zip(view.shape, view.chunk, strict=False))
            for row in range(rows):
                for col in range(cols):
                    yield f"{index}/c/0/{row}/{col}"

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Those that begin so."""
        async for key in self.list():
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """What lies directly in a folder; of the chunks' folders only their first."""
        if not prefix.strip("/"):
            for name in ("zarr.json", *map(str, range(len(self.views)))):
                yield name
        elif prefix.strip("/") in map(str, range(len(self.views))):
            for name in ("zarr.json", "c"):
                yield name

    def _box(self, key: str) -> Box | None:
        """The pixels of a chunk, which may reach past the level's edge."""
        found = _CHUNK_KEY.fullmatch(key)
        level, row, col = map(int, found.groups()) if found else (len(self.views), 0, 0)
        if level >= len(self.views):
            return None
        view = self.views[level]
        height, width = view.chunk
        box = Box(row * height, col * width, height, width)
        return box if box.top < view.height and box.left < view.width else None


def _chunk(view: View, box: Box) -> bytes:
    return np.ascontiguousarray(view.read(box).transpose(2, 0, 1)).tobytes()


def _part(data: bytes, wanted: ByteRequest | None) -> bytes:
    if isinstance(wanted, RangeByteRequest):
        return data[wanted.start : wanted.end]
    if isinstance(wanted, OffsetByteRequest):
        return data[wanted.offset :]
    if isinstance(wanted, SuffixByteRequest):
        return data[-wanted.suffix :]
    return data


def _documents(views: tuple[View, ...]) -> dict[str, bytes]:
    """Each zarr.json, as zarr and ome-zarr-models write them."""
    written: dict[str, Buffer] = {}
    group = zarr.create_group(MemoryStore(written), zarr_format=3)
    for index, view in enumerate(views):
        group.create_array(
            str(index),
            shape=(3, view.height, view.width),
            dtype="uint8",
            chunks=(3, *view.chunk),
            compressors=None,
            fill_value=BACKGROUND,
            dimension_names=["c", "y", "x"],
        )
    write_multiscales(group, views)
    return {key: value.to_bytes() for key, value in written.items()}

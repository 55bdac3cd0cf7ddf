"""Zarr chunks, decoded to no more than they may hold: a few kilobytes can come to gigabytes."""

import asyncio
import bz2
import lzma
import math
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import imagecodecs
import zarr
from numcodecs.abc import Codec as OldCodec
from zarr.abc.codec import BytesBytesCodec, Codec
from zarr.codecs import ShardingCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer

_MOST_MEMBERS = 1000  # of one chunk; writers make one
_SLACK = 2**16  # bytes beside twice the pixels, of which one codec may tell the next


def bounded(array: "zarr.Array[Any]") -> "zarr.Array[Any]":
    """The same array; a chunk that holds more than the array's chunks do is a ValueError, and not decoded."""
    told: Any = array.metadata
    if told.zarr_format == 3:
        told = replace(told, codecs=tuple(_each(told.codecs)))
    else:
        limit = limit_of(array.chunks, array.dtype.itemsize)
        told = replace(
            told,
            compressor=told.compressor and _Old(told.compressor, limit),
            filters=told.filters and [_Old(codec, limit) for codec in told.filters],
        )
    return zarr.Array(zarr.AsyncArray(told, array.store_path))


def _each(codecs: Iterable[Codec]) -> Iterable[Codec]:
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            inner, index = tuple(_each(codec.codecs)), tuple(_each(codec.index_codecs))
            yield replace(codec, codecs=inner, index_codecs=index)
        elif isinstance(codec, BytesBytesCodec) and (name := _name(codec)) in _SIZES:
            yield _Bounded(codec, name)
        else:
            yield codec


def _name(codec: Codec) -> str:
    """As `_SIZES` has it."""
    return str(codec.to_dict()["name"]).removeprefix("numcodecs.")


@dataclass(frozen=True)
class _Bounded(BytesBytesCodec):
    """A codec of zarr 3 that looks before it decodes."""

    is_fixed_size = False

    codec: BytesBytesCodec
    name: str

    def to_dict(self) -> Any:
        """As the codec itself."""
        return self.codec.to_dict()

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """As the codec itself."""
        return self.codec.compute_encoded_size(input_byte_length, chunk_spec)

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        limit = limit_of(chunk_spec.shape, chunk_spec.dtype.to_native_dtype().itemsize)
        look = partial(_ensure, self.name, chunk_bytes.as_numpy_array(), limit)
        await asyncio.to_thread(look) if self.name in _TRIED else look()
        return await self.codec._decode_single(chunk_bytes, chunk_spec)


class _Old(OldCodec):  # type: ignore[misc]
    """A codec of zarr 2 that looks before it decodes."""

    codec_id = "bounded"  # zarr wants classes to have one

    def __init__(self, codec: Any, limit: int) -> None:
        self._codec, self._limit, self.codec_id = codec, limit, codec.codec_id

    def encode(self, buf: Any) -> Any:
        """As the codec itself."""
        return self._codec.encode(buf)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """As the codec itself, if it is not too much."""
        _ensure(self.codec_id, buf, self._limit)
        return self._codec.decode(buf, out)

    def get_config(self) -> Any:
        """As the codec itself."""
        return self._codec.get_config()


def limit_of(shape: Iterable[int], itemsize: int) -> int:
    """Bytes that pixels of this shape may come to, or be compressed to; more is damaged or hostile."""
    return 2 * math.prod(shape) * itemsize + _SLACK


def _ensure(name: str, data: Any, limit: int) -> None:
    """Compressed data, of a codec's name, come to at most so many bytes."""
    view = memoryview(data).cast("B")
    size = _SIZES[name](view, limit) if name in _SIZES else 0
    if size > limit:
        raise ValueError(f"a {name} chunk of {len(view)} bytes holds more than {limit}, which is too much")


def _of_zstd(data: memoryview, limit: int) -> int:
    """As its frame says (RFC 8878, 3.1.1.1); where it does not, it is tried, and fails if it is too much."""
    if len(data) < 5 or bytes(data[:4]) != b"\x28\xb5\x2f\xfd":
        return 0  # decoding it says what it is
    single, width = data[4] >> 5 & 1, (0, 2, 4, 8)[data[4] >> 6]
    width = width or single
    if width:
        at = 6 - single + (0, 1, 2, 4)[data[4] & 3]
        return int.from_bytes(data[at : at + width], "little") + (256 if width == 2 else 0)
    return len(imagecodecs.zstd_decode(bytes(data), out=bytearray(limit)))


def _at(place: int) -> Callable[[memoryview, int], int]:
    """Four bytes of the header tell it, least first."""
    return lambda data, limit: int.from_bytes(data[place : place + 4], "little")


def _tried(make: Callable[[], Any]) -> Callable[[memoryview, int], int]:
    """No header tells it: members one after the other, up to the limit."""

    def size(data: memoryview, limit: int) -> int:
        total, rest = 0, bytes(data)
        with suppress(zlib.error, lzma.LZMAError, OSError):  # decoding it says what it is
            for _ in range(_MOST_MEMBERS):
                if not rest or total > limit:
                    return total
                member = make()
                total += len(member.decompress(rest, limit + 1 - total))
                rest = member.unused_data
            return limit + 1  # each copies the rest: many small ones take for ever
        return total

    return size


_DEFLATED = _tried(lambda: zlib.decompressobj(zlib.MAX_WBITS | 32))  # with the header of gzip or of zlib
_TRIED = {
    "gzip": _DEFLATED,
    "zlib": _DEFLATED,
    "bz2": _tried(bz2.BZ2Decompressor),
    "lzma": _tried(lzma.LZMADecompressor),
}
"""Those that take as long as decoding does."""

_SIZES = {"zstd": _of_zstd, "blosc": _at(4), "lz4": _at(0), **_TRIED}
"""Of each codec that makes much of little: bytes that data come to, as far as the limit."""

"""JPEG as a zarr 3 codec for chunks (rows, cols, 3) uint8; zarr finds it by the package's entry point."""

import asyncio
from dataclasses import dataclass
from typing import Any, Self

import imagecodecs
import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer

from wsi_twostage.slide.codestream import size_of_jpeg
from wsi_twostage.slide.jpeg import decode_jpeg

NAME = "wsi_twostage.jpeg"


@dataclass(frozen=True)
class JpegCodec(ArrayBytesCodec):
    """JPEG of a quality, 1 to 100, with colour at half the resolution."""

    is_fixed_size = False

    quality: int = 90

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """From a zarr.json; zarr calls it."""
        return cls(**data.get("configuration", {}))

    def to_dict(self) -> Any:
        """For a zarr.json; zarr calls it."""
        return {"name": NAME, "configuration": {"quality": self.quality}}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Zarr asks only codecs of a fixed size."""
        raise NotImplementedError

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        pixels = np.ascontiguousarray(chunk_array.as_numpy_array())
        data = await asyncio.to_thread(
            imagecodecs.jpeg8_encode, pixels, level=self.quality, subsampling="420"
        )
        return chunk_spec.prototype.buffer.from_bytes(bytes(data))

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        data = chunk_bytes.to_bytes()
        if (size := size_of_jpeg(data)) != chunk_spec.shape[:2]:
            raise ValueError(f"a JPEG of {size.height} x {size.width} px in a chunk of {chunk_spec.shape}")
        pixels = await asyncio.to_thread(decode_jpeg, data, shape=chunk_spec.shape)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(pixels)

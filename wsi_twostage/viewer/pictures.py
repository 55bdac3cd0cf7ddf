"""Pictures: the tiles of every layer of a scene, made when they are asked for and kept for a while."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_twostage.mask import Source
from wsi_twostage.pixels import read_around_holes
from wsi_twostage.slide.contents import is_url
from wsi_twostage.tiles import Box, Tile
from wsi_twostage.uncertainty import of_bytes
from wsi_twostage.viewer import paint
from wsi_twostage.viewer.cache import Drawn, SentTiles
from wsi_twostage.viewer.pyramid import TILE
from wsi_twostage.viewer.scene import Scene

CACHE_BYTES = 2**26
FROM_OVERVIEW = 16
"""Pixels of a stored level per pixel of a tile from which on a slide's tile is made from the overview."""
PROBABILITIES = 4 * TILE**2
"""Read for one tile of the uncertainty, at most, but nearest; further out it shows the mean of each tile."""

LEAST_HOLE_OF_TILE_PX = 32
"""Of a tile; where a share does not answer, each try takes its time."""

FRAME_PX = 2  # of the source of a tile

Bytes = NDArray[np.uint8]


class Pictures:
    """Layers of a scene: slide, mask, outlines, uncertainty and source."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.sent = SentTiles(CACHE_BYTES)
        self._make: dict[str, Callable[[int, Box], Drawn]] = {
            "slide": self._slide if scene.slide is not None else self._overview,
            "mask": self._mask,
            "outlines": self._outlines,
            "uncertainty": self._uncertainty,
            "source": self._source,
        }
        self._classes = paint.class_palette(scene.store.spec.colours)
        self._heat, self._sources = paint.heat_palette(), paint.source_palette()

    def tile(self, layer: str, level: int, tile: Tile, *, revision: int = 0) -> Drawn | None:
        """A tile of a layer, a JPEG of the slide and a PNG of others; None where there is no such tile.

        Raises
        ------
        SlideError, StoreError
            The slide or the result cannot be read there.
        """
        pyramid = self.scene.pyramids.get(layer)
        box = None if pyramid is None else pyramid.box(level, tile)
        if box is None:
            return None
        version = 0 if layer == "slide" else revision
        with self.scene.store.readable():
            return self.sent.obtain((layer, version, level, tile), lambda: self._make[layer](level, box))

    def _slide(self, level: int, box: Box) -> Drawn:
        slide, spec = self.scene.slide, self.scene.store.spec
        assert slide is not None
        view = slide.view(2**level)
        fine = 2**level * self.scene.pyramids["slide"].size  # fine pixels per pixel
        costly = math.prod(view.scale) > FROM_OVERVIEW and fine >= spec.overview_downsample
        if costly:
            return self._overview(level, box)
        if is_url(slide.path):  # reading it again in parts may take long
            return Drawn(paint.jpeg(view.read(box)))
        rgb, holes = read_around_holes(view, box, least=LEAST_HOLE_OF_TILE_PX)
        return Drawn(paint.jpeg(rgb), stays=not holes.any())  # a share that fails now may not the next time

    def _overview(self, level: int, box: Box) -> Drawn:
        """The slide as it is in the store, from the next finer level."""
        spec = self.scene.store.spec
        step = 2**level * self.scene.pyramids["slide"].size / spec.overview_downsample
        stored = min(max(int(math.log2(step) + 1e-6), 0), spec.levels - 1)
        step, grid = step / 2**stored, spec.overview(stored)  # overview's pixels per pixel
        top, left = min(box.top * step, grid.height - 1), min(box.left * step, grid.width - 1)
        bottom, right = min(box.bottom * step, grid.height), min(box.right * step, grid.width)
        rows, cols = (math.floor(top), math.ceil(bottom)), (math.floor(left), math.ceil(right))
        source = self.scene.store.read_overview(
            Box(rows[0], cols[0], rows[1] - rows[0], cols[1] - cols[0]), stored
        )
        part = (left - cols[0], top - rows[0], right - cols[0], bottom - rows[0])
        image = Image.fromarray(source).resize((box.width, box.height), Image.Resampling.BILINEAR, box=part)
        return Drawn(paint.jpeg(np.asarray(image)))

    def _mask(self, level: int, box: Box) -> Drawn:
        return Drawn(paint.png(self.scene.store.read(box, level), self._classes))

    def _outlines(self, level: int, box: Box) -> Drawn:
        """With the pixels around the tile, so that an outline goes on over its edge."""
        around = box.grow(2).clip(*self.scene.store.shape(level))
        found = paint.outlines(self.scene.store.read(around, level))
        return Drawn(paint.png(found[box.relative_to(around).slices], self._classes))

    def _uncertainty(self, level: int, box: Box) -> Drawn:
        """Of pixels, averaged; where that would read too much, the mean of each tile."""
        spec = self.scene.store.spec
        if level and 4**level * TILE**2 * spec.channels > PROBABILITIES:
            u = np.nan_to_num(self.scene.ledger.grid("uncertainty"))
            of_tiles = self._of_tiles(np.rint(255 * u).astype(np.uint8), box, 2**level * spec.ratio)
            return Drawn(paint.png(of_tiles, self._heat))
        read = box.times(2**level).clip(spec.coarse.height, spec.coarse.width)
        probability = self.scene.store.read_probability(read)
        pixels = of_bytes(self.scene.uncertainty, probability) * probability.any(0)  # 0: not computed
        return Drawn(paint.png(np.rint(255 * _shrink(pixels, 2**level)).astype(np.uint8), self._heat))

    def _source(self, level: int, box: Box) -> Drawn:
        """Tiles filled and framed."""
        sources = self._of_tiles(self.scene.ledger.grid("source", Source.BACKGROUND), box, 2**level)
        size = self.scene.store.spec.tile // 2**level  # px of this level
        if size >= 4 * FRAME_PX:
            rows, cols = (
                np.minimum(at % size, size - 1 - at % size) < FRAME_PX
                for at in (np.arange(box.top, box.bottom), np.arange(box.left, box.right))
            )
            sources[rows[:, None] | cols] += np.uint8(len(Source))
        return Drawn(paint.png(sources, self._sources))

    def _of_tiles(self, values: Bytes, box: Box, fine: int) -> Bytes:
        """A value for each tile -> pixels of a box whose pixels are ``fine`` fine pixels each."""
        tile = self.scene.store.spec.tile
        rows = np.arange(box.top, box.bottom) * fine // tile
        cols = np.arange(box.left, box.right) * fine // tile
        return paint.spread(values, rows, cols)


def _shrink(u: NDArray[np.float32], cell: int) -> NDArray[np.float32]:
    """Means of cells of ``cell`` px; at an odd edge the last pixels count again."""
    if cell == 1:
        return u
    even = np.pad(u, [(0, -size % cell) for size in u.shape], mode="edge")
    height, width = even.shape
    found: NDArray[np.float32] = even.reshape(height // cell, cell, width // cell, cell).mean((1, 3))
    return found

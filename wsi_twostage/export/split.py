"""Touching nuclei apart: a watershed on the distance to the background; shallow saddles do not count."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from skimage.measure import label as label_components
from skimage.morphology import local_maxima
from skimage.segmentation import watershed

from wsi_twostage.tiles import Box

HALO = 256
"""Pixels around a block that are looked at, too. An object that ends within them is cut as it would be if
the whole mask was seen at once; what is larger is cut by what can be seen from each block."""

DEPTH_UM = 0.25
"""How much narrower than both its parts, in micrometres of half its width, an object must be to be cut."""

LEAST_DEPTH_PX = 1.0  # between widths of 20 and 21 px there is as much

_TIE = 1e-12
"""Between seeds of one depth, in pixels; other depths lie farther apart than all of them together."""


def split_keys(labels: NDArray[np.uint8], box: Box, width: int, depth_px: float) -> NDArray[np.int64]:
    """Keys of the parts that objects fall into, (H, W); 0 is background.

    ``box`` is where ``labels`` lie on an image of ``width`` px. Two parts of an object stay together if the
    distance to the background at the deepest way between them is no more than ``depth_px`` below the largest
    one in either. A part's key is that of a pixel of it, wherever it is seen from.
    """
    keys = np.zeros(labels.shape, np.int64)
    for value in np.flatnonzero(np.bincount(labels.ravel(), minlength=1)[1:]) + 1:
        keys += _keys(labels == value, box, width, depth_px)
    return keys


def _keys(mask: NDArray[np.bool_], box: Box, width: int, depth_px: float) -> NDArray[np.int64]:
    inner = (slice(1, -1), slice(1, -1))
    depth = distance_transform_edt(np.pad(mask, 1)).astype(np.float32)  # background lies all around
    seeds = np.asarray(label_components(local_maxima(depth, connectivity=1) & (depth > 0), connectivity=1))
    at = np.flatnonzero(seeds)
    height = -depth.astype(np.float64)
    height.ravel()[at] -= _TIE * np.arange(len(at))  # else the whole block decides which is flooded first
    basins = np.asarray(watershed(height, seeds, mask=depth > 0, connectivity=1))[inner]
    depth, seeds = depth[inner], seeds[inner]
    count = int(seeds.max(initial=0))
    at = np.flatnonzero(seeds)
    first = np.zeros(count + 1, np.int64)
    first[seeds.ravel()[at[::-1]]] = at[::-1]  # of a seed's pixels the first in reading order
    rows, cols = np.divmod(first, mask.shape[1])
    peaks = np.append(0, depth.ravel()[first[1:]])
    names = (rows + box.top) * width + cols + box.left + 1
    names[0] = 0
    return np.asarray(names[_joined(basins, depth, peaks, max(depth_px, LEAST_DEPTH_PX))[basins]])


def _joined(
    basins: NDArray[np.integer], depth: NDArray[np.float32], peaks: NDArray[np.float32], least: float
) -> NDArray[np.int64]:
    """For each basin the one that it belongs to, of a higher peak and across saddles that do not count."""
    root = list(range(len(peaks)))

    def find(basin: int) -> int:
        while root[basin] != basin:
            root[basin] = basin = root[root[basin]]
        return basin

    for one, two, saddle in _saddles(basins, depth):
        a, b = find(one), find(two)
        if a != b and min(peaks[a], peaks[b]) - saddle <= least:
            low, high = (a, b) if (peaks[a], -a) < (peaks[b], -b) else (b, a)
            root[low] = high
    return np.array([find(basin) for basin in range(len(peaks))])


def _saddles(basins: NDArray[np.integer], depth: NDArray[np.float32]) -> list[tuple[int, int, float]]:
    """Pairs of basins that touch, and the greatest depth on the way; the deepest first."""
    pairs, depths = [], []
    for axis in (0, 1):
        first = tuple(slice(None, -1) if a == axis else slice(None) for a in (0, 1))
        second = tuple(slice(1, None) if a == axis else slice(None) for a in (0, 1))
        one, two = basins[first], basins[second]
        touch = (one != two) & (one > 0) & (two > 0)
        pairs.append(np.sort(np.stack([one[touch], two[touch]], axis=1), axis=1))
        depths.append(np.minimum(depth[first][touch], depth[second][touch]))
    several, level = np.concatenate(pairs), np.concatenate(depths)
    order = np.lexsort((-level, several[:, 1], several[:, 0]))
    _, once = np.unique(several[order], axis=0, return_index=True)  # of a pair's ways the deepest
    deepest = order[once]
    deepest = deepest[np.argsort(-level[deepest], kind="stable")]
    return [(int(a), int(b), float(d)) for (a, b), d in zip(several[deepest], level[deepest], strict=True)]

"""Exact outlines of labelled pixels: corners are found block by block, rings are linked from corners.

A corner is a point of the pixel lattice where the outline of one object turns. It is decided by the four
pixels around it, so an object's corners can be collected from any blocks that its pixels lie in, and linked
once all of them are there: sorted by rows they pair up into the horizontal edges, sorted by columns into the
vertical ones.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

CORNER = np.dtype([("owner", np.int64), ("y", np.int32), ("x", np.int32), ("code", np.uint8)])
"""A corner of an outline; ``y`` and ``x`` count edges of pixels: 0 is the outer edge of the first one."""

_RIGHT, _DOWN, _BELOW = 1, 2, 4
"""Bits of ``code``: edges leave to the right (else left) and down (else up); the object is below (else above)
the horizontal one."""


def corners(labels: NDArray[np.integer], top: int, left: int) -> NDArray[np.void]:
    """Corners at the points inside of ``labels`` (H, W), by owner; the pixels of 0 have none.

    ``labels`` must hold 4-connected objects: neighbours along a row or a column either differ or are one
    object. The first point, between the first four pixels, lies at ``(top, left)``.
    """
    points = _turning(labels)
    width = labels.shape[1] - 1
    rows, cols = np.divmod(points, width)
    around = _around(labels, points)
    found = []
    for south, east in product((0, 1), repeat=2):
        pixel, beside = around[south, east], around[south, 1 - east]
        above, across = around[1 - south, east], around[1 - south, 1 - east]
        convex = (pixel > 0) & (beside != pixel) & (above != pixel)
        hollow = (across > 0) & (beside == across) & (above == across) & (pixel != across)
        for there, owner, below in ((convex, pixel, south), (hollow, across, 1 - south)):
            some = np.empty(int(there.sum()), CORNER)
            some["owner"], some["y"], some["x"] = owner[there], rows[there] + top, cols[there] + left
            some["code"] = _RIGHT * east | _DOWN * south | _BELOW * below
            found.append(some)
    every = np.concatenate(found)
    return every[np.argsort(every["owner"], kind="stable")]


def crossings(labels: NDArray[np.integer], same: NDArray[np.integer]) -> NDArray[np.float64]:
    """Length of each object's outline in pixels, (labels.max() + 1,), as seen at the points of `corners`.

    Crofton's formula with four directions: lines along rows, columns and both diagonals, counted where they
    enter or leave the object. A pixel across a diagonal counts as inside where ``same`` (H, W) says the
    same.
    """
    points = _turning(labels)
    around, alike = _around(labels, points), _around(same, points)
    owners, lengths = [], []
    straight, diagonal = np.pi / 8, np.pi / 8 / np.sqrt(2)
    for (one, two), values, length in (
        (((1, 0), (1, 1)), around, straight),
        (((0, 1), (1, 1)), around, straight),
        (((0, 0), (1, 1)), alike, diagonal),
        (((0, 1), (1, 0)), alike, diagonal),
    ):
        differ = values[one] != values[two]
        for pixel in (one, two):
            owners.append(around[pixel][differ])
            lengths.append(np.full(len(owners[-1]), length))
    count = int(labels.max(initial=0)) + 1
    lengths_of = np.bincount(np.concatenate(owners), np.concatenate(lengths), minlength=count)
    return np.asarray(lengths_of, np.float64)


@dataclass(frozen=True, eq=False)
class Rings:
    """Closed outlines, one after the other."""

    points: NDArray[np.integer | np.floating]  # (m, 2): y, x
    starts: NDArray[np.int64]  # of each ring in ``points``, and the end of the last
    owners: NDArray[np.int64]
    """Of each ring, ascending; of an owner's rings the first is the outer one, the others are holes."""


def rings(corners: NDArray[np.void]) -> Rings:
    """Link all corners of whole objects, whatever their order.

    Outer rings have a positive area by the shoelace formula on (x, y), holes a negative one; no ring touches
    itself, so they are valid by OGC's rules: where an object's pixels meet across a diagonal, the
    background's parts do not.
    """
    owner, y, x, code = (corners[name] for name in ("owner", "y", "x", "code"))
    # At one point, two corners of one object: each goes on with the other one's vertical edge.
    by_row = np.lexsort((code & _RIGHT, x, y, owner))
    by_col = np.lexsort((~code & _DOWN, y, x, owner))
    first, last = by_row[::2], by_row[1::2]
    below = (code[first] & _BELOW) > 0
    begin, end = np.where(below, first, last), np.where(below, last, first)
    across = np.empty(len(corners), np.int64)
    across[by_col[::2]], across[by_col[1::2]] = by_col[1::2], by_col[::2]
    edge_at = np.empty(len(corners), np.int64)
    edge_at[begin] = np.arange(len(begin))
    edges, sizes = _cycles(edge_at[across[end]].tolist())
    order = np.stack([begin[edges], end[edges]], axis=1).ravel()
    starts = np.concatenate([[0], 2 * np.cumsum(sizes, dtype=np.int64)])
    points = np.stack([y[order], x[order]], axis=1)
    return Rings(points, starts, owner[order[starts[:-1]]])


def _cycles(after: list[int]) -> tuple[list[int], list[int]]:
    """The cycles of a permutation, each from its least member on, and their sizes."""
    members: list[int] = []
    sizes: list[int] = []
    for first in range(len(after)):
        place, before = first, len(members)
        while (then := after[place]) >= 0:
            members.append(place)
            after[place] = -1
            place = then
        if len(members) > before:
            sizes.append(len(members) - before)
    return members, sizes


def _turning(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Flat indices of the points whose four pixels are not all the same."""
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    return np.flatnonzero(across[1:] | across[:-1] | down[:, 1:])


def _around(
    labels: NDArray[np.integer], points: NDArray[np.int64]
) -> dict[tuple[int, int], NDArray[np.integer]]:
    """Labels of the four pixels around each point, by (south, east)."""
    width = labels.shape[1]
    rows, cols = np.divmod(points, width - 1)
    flat, corner = labels.ravel(), rows * width + cols
    return {(south, east): flat[corner + south * width + east] for south, east in product((0, 1), repeat=2)}

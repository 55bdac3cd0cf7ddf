"""Half the resolution: majority of labels, mean of colours; pure functions of arrays."""

import numpy as np
from numpy.typing import NDArray


def majority(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Most frequent label of every 2 x 2 pixels: (H, W) -> (ceil(H / 2), ceil(W / 2)).

    At an odd edge the two pixels, or the one, that are there decide. A tie goes to a class before
    background, so that a thin structure is kept wherever the grid falls; among classes it goes to
    the first in reading order.

    >>> majority(np.array([[1, 1, 0], [0, 0, 2]], np.uint8))
    array([[1, 2]], dtype=uint8)
    """
    if not labels.any():  # most of a slide
        return np.zeros((-(-labels.shape[0] // 2), -(-labels.shape[1] // 2)), np.uint8)
    # An edge pixel counted twice changes no majority and no tie.
    even = np.pad(labels, [(0, size % 2) for size in labels.shape], mode="edge")
    a, b, c, d = even[::2, ::2], even[::2, 1::2], even[1::2, ::2], even[1::2, 1::2]
    if labels.max() == 1:  # one class
        return (a + b + c + d >= 2).view(np.uint8)
    ab, ac, ad, bc, bd, cd = (
        (p == q).view(np.uint8) for p, q in ((a, b), (a, c), (a, d), (b, c), (b, d), (c, d))
    )
    winner = a
    best = _votes(a, ab + ac + ad)
    for label, equals in ((b, ab + bc + bd), (c, ac + bc + cd), (d, ad + bd + cd)):
        votes = _votes(label, equals)
        winner = np.where(votes > best, label, winner)
        best = np.maximum(votes, best)
    return winner


def mean(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rounded mean of every 2 x 2 pixels: (C, H, W) -> (C, ceil(H / 2), ceil(W / 2))."""
    # An edge pixel counted twice does not change the mean.
    even = np.pad(rgb, [(0, 0), (0, rgb.shape[1] % 2), (0, rgb.shape[2] % 2)], mode="edge").astype(np.uint16)
    total = even[:, ::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, ::2] + even[:, 1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8)


def _votes(label: NDArray[np.uint8], equals: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels of the block that agree with this one; a class is half a vote ahead of background."""
    return 2 * equals + (label > 0).view(np.uint8)

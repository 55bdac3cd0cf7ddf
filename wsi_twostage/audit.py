"""How far a slide's mask still is from the reference, estimated from a random sample of its unrefined tiles.

The sample is refined, which takes no labels: what changed on it says what would change on the rest.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.batches import tiles_of_shards
from wsi_twostage.ledger import Ledger
from wsi_twostage.mask import Source
from wsi_twostage.models.spec import BundleSpec
from wsi_twostage.shards import coarse_labels
from wsi_twostage.tiles import Tile

CONFIDENCE = 0.95
_QUANTILE = 0.995  # small samples of so skewed a thing cover less than it says; tests hold what is promised
LEAST = 8
"""Tiles of a sample, and of the sample in each stratum of uncertainty, at least."""

_STRATA = 5  # at most

HARDLY = 0.01
"""Of a tile's foreground: two networks never agree to the pixel."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Remaining:
    """1 - Dice to the reference that a mask is estimated to have left."""

    name: str
    """Of a class; ``all`` is foreground against background."""
    gap: float
    bound: float
    """It is at most this, with `CONFIDENCE`; approximately."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def strata(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Which stratum each tile is in, for a sample of ``count``: equal parts in the order of uncertainty."""
    parts = int(np.clip(count // LEAST, 1, _STRATA))
    place = np.empty(len(scores), np.int64)
    place[np.argsort(scores, kind="stable")] = np.arange(len(scores))
    return place * parts // max(len(scores), 1)


def sample(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Indices of a random sample, as many of each stratum; the same for the same scores."""
    group, chance = strata(scores, count), np.random.RandomState(0)
    parts = [chance.permutation(np.flatnonzero(group == h)) for h in range(int(group.max(initial=-1)) + 1)]
    if count >= len(scores) or not parts:
        return np.arange(len(scores))
    share, rest = divmod(count, len(parts))
    return np.sort(np.concatenate([part[: share + (h < rest)] for h, part in enumerate(parts)]))


def remaining_gap(
    differ: Floats,
    change: Floats,
    group: NDArray[np.int64],
    sizes: NDArray[np.int64],
    *,
    known: float,
    enough: float,
    fullest: float,
) -> tuple[float, float]:
    """Estimate and upper bound of 1 - Dice to the reference, once the sample is refined.

    A stratified estimate of the total; Student's quantile with Satterthwaite's degrees of freedom (Biometrics
    1946), corrected for skew (Johnson, JASA 1978), since a few tiles differ much and most hardly. A sample
    that hardly differs bounds the share of tiles that do, each of which may be all wrong; one that has not
    met the class bounds nothing.

    Parameters
    ----------
    differ
        (n,): pixels of each sampled tile on which the models differ.
    change
        (n,): pixels of foreground that Model 2 has more.
    group
        (n,): stratum of each.
    sizes
        (strata,): tiles of each before the sample was taken.
    known
        Pixels of foreground in the mask as it is, twice.
    enough
        Pixels of foreground in a sampled tile that has met the class (`enough_of`).
    fullest
        Pixels of foreground in the sampled tile that has most of it.
    """
    from scipy.special import stdtrit  # here: it is large, and few runs need it

    left, more, variance, third, uncertain = 0.0, 0.0, 0.0, 0.0, 0.0
    for h, size in enumerate(sizes):
        inside = differ[group == h]
        n = len(inside)
        if not n or size <= n:
            continue
        left += (size - n) * float(inside.mean())
        more += (size - n) * float(change[group == h].mean())
        if n > 1:
            own = size**2 * float(inside.var(ddof=1)) * (1 / n - 1 / size)
            variance += own
            uncertain += own**2 / (n - 1)
            third += size**3 * float(((inside - inside.mean()) ** 3).mean()) / n**2
    t = float(stdtrit(max(variance**2 / uncertain, 1) if uncertain else 1, _QUANTILE))
    skewed = third * (1 + 2 * t**2) / (6 * variance) if variance > 0 and third > 0 else 0.0
    total = max(known + more, 1.0)
    bound = (left + t * variance**0.5 + skewed) / total
    rest = float(sizes.sum()) - len(differ)
    if rest and (fullest < enough or (known > 0 and not fullest)):  # the class was not met
        return left / total, 1.0
    if differ.max(initial=0) < HARDLY * fullest:
        bound = max(bound, rest * (1 - (1 - CONFIDENCE) ** (1 / len(differ))) * fullest / total)
    return left / total, min(bound, 1.0)


def enough_of(held: Floats) -> Floats:
    """Half of what the tile holds in which a pixel of the class lies on average; 0 where there is none.

    ``held`` are the pixels of each class in each tile, (tiles, classes) -> (classes,). Of a class in few
    tiles that is far more than the mean tile holds, so that specks are no meeting with it.
    """
    return np.asarray((held**2).sum(0) / np.maximum(held.sum(0), 1) / 2, np.float64)


def choose_sample(ledger: Ledger, count: int, number: int) -> None:
    """Fill this round with ``count`` random tiles that Model 2 has not seen, or of all that are left."""
    free = np.flatnonzero(ledger.having(Source.MODEL_1))
    scores: NDArray[np.float32] = ledger.grid("uncertainty").ravel()[free]
    ledger.enter_round(number, free[sample(scores, count)])


def estimate(ledger: Ledger, spec: BundleSpec, number: int) -> list[Remaining]:
    """What is left, overall and for each class, from the tiles of this round; reads the mask."""
    mask, grid = ledger.mask, ledger.mask.spec.tiles
    audited = [Tile(*map(int, place)) for place in np.argwhere(ledger.grid("round", -1) == number)]
    if not audited:  # Model 2 has seen everything
        return [Remaining("all", 0.0, 0.0)]
    population = ledger.having(Source.MODEL_1)
    population[tuple(np.array(audited).T)] = True
    scores: NDArray[np.float32] = ledger.grid("uncertainty")
    group = np.full(population.shape, -1, np.int64)
    group[population] = strata(scores[population], len(audited))
    sizes = np.bincount(group[population])
    names = ("all", *mask.spec.classes) if len(mask.spec.classes) > 1 else ("all",)
    differ, change, holds = np.zeros((3, len(names), len(audited)))
    for i, tile in enumerate(audited):
        box = grid.box(tile)
        first, second = coarse_labels(mask, spec, box, (tile,)), mask.read(box)
        for k in range(len(names)):
            one, two = (labels > 0 if k == 0 else labels == k for labels in (first, second))
            holds[k, i] = two.sum()
            differ[k, i], change[k, i] = (one != two).sum(), holds[k, i] - one.sum()
    everywhere, held = np.zeros(len(names)), list[Floats]()
    tiles = tiles_of_shards(mask.spec, population)
    for shard in mask.shards():
        whole = mask.box(shard)
        labels = mask.read(whole)
        everywhere += _areas(labels, len(names))
        boxes = [grid.box(tile).relative_to(whole) for tile in tiles.get(shard, ())]
        held += [_areas(labels[box.slices], len(names)) for box in boxes]
    enough = enough_of(np.array(held))
    of = group[tuple(np.array(audited).T)]
    both = [
        remaining_gap(
            differ[k],
            change[k],
            of,
            sizes,
            known=2 * everywhere[k],
            enough=enough[k],
            fullest=holds[k].max(),
        )
        for k in range(len(names))
    ]
    return [
        Remaining(name, round(gap, 6), round(bound, 6))
        for name, (gap, bound) in zip(names, both, strict=True)
    ]


def _areas(labels: NDArray[np.uint8], names: int) -> Floats:
    """Pixels of all classes together and, of several, of each: (names,)."""
    found = np.bincount(labels.ravel(), minlength=max(names, 2))[1:]
    return np.array([found.sum(), *found], np.float64)[:names]

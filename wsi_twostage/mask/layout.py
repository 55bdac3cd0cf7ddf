"""Groups and arrays of a new store, and how it takes its place on disk."""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from wsi_twostage.drafts import ensure_only
from wsi_twostage.errors import StoreError
from wsi_twostage.mask.metadata import write_metadata
from wsi_twostage.mask.spec import CHUNK, SHARD, MaskSpec

OURS = "wsi_twostage"
"""Name of the group that only we write, and the marker in it."""

_UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.partial$")
"""Name of a file that zarr has not renamed yet."""

_NODES = ("zarr.json", ".zgroup", ".zarray")
"""One of them is in each group and array, of Zarr 3 and 2."""


def create_store(root: Path | MemoryStore, spec: MaskSpec, manifest: Mapping[str, object]) -> zarr.Group:
    """Write the groups and empty arrays of a store to a folder that does not exist yet, or to memory."""
    image = create_groups(root, spec)
    mask = image[f"labels/{spec.name}"]
    assert isinstance(mask, zarr.Group)
    for level in range(spec.levels):
        overview = spec.overview(level)
        create_array(image, str(level), (3, overview.height, overview.width), axes="cyx", shard=None)
        shards = spec.shards(level)
        create_array(mask, str(level), (shards.height, shards.width), axes="yx")
    attributes: dict[str, Any] = {"marker": OURS, "spec": spec.to_json(), "manifest": dict(manifest)}
    ours = image.create_group(OURS, attributes=attributes)
    coarse, tiles, low = spec.coarse, spec.tiles, spec.overview(0)
    # A shard of the mask and its part of this belong to the same task.
    size = (spec.channels, coarse.height, coarse.width)
    create_array(ours, "probability", size, axes="cyx", shard=coarse.tile)
    create_array(ours, "source", (tiles.rows, tiles.cols), axes="yx")
    create_array(ours, "tissue", (low.height, low.width), axes="yx", dtype="bool")
    ours.create_group("tiles", attributes={"columns": []})
    return image


def create_groups(store: Path | MemoryStore, spec: MaskSpec) -> zarr.Group:
    """The groups that OME-Zarr knows, with their metadata."""
    image = zarr.create_group(store, zarr_format=3)
    image.create_group(f"labels/{spec.name}")
    write_metadata(image, spec)
    return image


def create_array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    *,
    axes: str,
    shard: int | None = SHARD,
    dtype: str = "uint8",
) -> None:
    """One array of the store, filled with 0; empty chunks and shards never become files.

    Chunks and shards are larger than a small level: zarr clips, and one layout serves all levels.
    """
    leading = shape[:-2]  # channels lie in one shard: whoever owns the pixels owns them all
    chunk = min(CHUNK, shard or CHUNK)
    chunks = (*(leading if shard is None else (1,) * len(leading)), chunk, chunk)
    group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=None if shard is None else (*leading, shard, shard),
        compressors=ZstdCodec(level=3, checksum=True),
        fill_value=0,
        dimension_names=list(axes),
        config={"write_empty_chunks": False},
    )


def read_attributes(path: Path) -> dict[str, Any] | None:
    """Attributes of the group that only we write; None where there is none, or it lacks our marker.

    Plain JSON, not zarr: what lies here may be anything, and zarr stumbles over some of it.
    """
    try:
        node = json.loads((path / OURS / "zarr.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # missing, unreadable, not JSON
        return None
    attributes = node.get("attributes") if isinstance(node, dict) else None
    return attributes if isinstance(attributes, dict) and attributes.get("marker") == OURS else None


def result_in(folder: Path) -> str:
    """The end of a line about a path that is no result: one that lies in it, or that it is a part of."""
    try:
        inside = next((one for one in sorted(folder.glob("*.zarr")) if read_attributes(one)), None)
    except OSError:
        return ""
    around = next((one for one in folder.parents if read_attributes(one)), None)
    found = inside or around
    return f"; did you mean {found}?" if found else ""


def remove_unfinished(root: Path) -> None:
    """Remove what processes that were killed left of a store's files; while nobody writes to it."""
    for file in root.rglob("*.partial"):
        if _UNFINISHED.search(file.name):
            with suppress(OSError):  # gone, or not to be removed: the result is whole without that
                file.unlink()


def ensure_in_no_zarr(path: Path) -> None:
    """Raise StoreError for a place inside of a store."""
    around = next((one for one in path.parents if any(os.path.isfile(one / name) for name in _NODES)), None)
    if around is not None:
        raise StoreError(f"{path} lies in {around}, which is a Zarr of its own; give another --output")


def ensure_may_be_written(path: Path, name: str, *, overwrite: bool) -> None:
    """A path is free, or holds a result of ours that the user gave up; and it is no part of another store.

    ``name`` is the mask's: whatever else lies beside it is somebody's.
    """
    ensure_in_no_zarr(path)
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise StoreError(f"{path} exists; give --overwrite or another --output")
    # A link would be replaced while its target, the result, stays.
    if path.is_symlink() or not path.is_dir() or read_attributes(path) is None:
        raise StoreError(f"{path} is not a wsi_twostage result; it is left untouched")
    ensure_only(path, ("zarr.json", "labels", OURS))
    if (labels := path / "labels").is_dir():
        ensure_only(labels, ("zarr.json", name))

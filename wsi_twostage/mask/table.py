"""The tile table: one 1-D zarr array per column, in a group of its own."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec


def write_table(parent: zarr.Group, name: str, columns: Mapping[str, NDArray[Any]]) -> None:
    """Replace table ``name`` by ``columns``: numbers or booleans, all of one length."""
    rows = {column.shape for column in columns.values()}
    for key, column in columns.items():
        # Text has no stable zarr v3 type: other readers may fail on it.
        if not key.isidentifier() or column.ndim != 1 or column.dtype.kind not in "biuf" or len(rows) > 1:
            raise ValueError(f"column {key!r}, {column.dtype} of shape {column.shape}, does not fit a table")
    # zarr lists a folder in any order, and warns of files that are being written: so names are kept.
    table = parent.create_group(name, attributes={"columns": list(columns)}, overwrite=True)
    for key, column in columns.items():
        table.create_array(
            key,
            data=column,
            chunks=(max(column.size, 1),),
            compressors=ZstdCodec(checksum=True),
            dimension_names=["tile"],
        )


def write_column(parent: zarr.Group, name: str, key: str, column: NDArray[Any]) -> None:
    """Replace one column of table ``name`` by one of its type and length; a file, so all of it or nothing."""
    if column.size:
        zarr.open_array(parent.store_path / name / key, mode="r+")[:] = column


def read_table(parent: zarr.Group, name: str) -> dict[str, NDArray[Any]]:
    """The columns of table ``name``, in the order they were written."""
    table = zarr.open_group(parent.store_path / name, mode="r")
    attributes: dict[str, Any] = dict(table.attrs)
    return {
        key: np.asarray(zarr.open_array(table.store_path / key, mode="r")[:]) for key in attributes["columns"]
    }

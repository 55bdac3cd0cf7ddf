"""Objects as a table, one row each: CSV, or Parquet by pyarrow, which is an extra."""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.errors import ConfigError
from wsi_twostage.export.objects import About, measures
from wsi_twostage.export.parts import Components

GROUP = 50_000
"""Rows that are compressed together, at least; pyarrow holds so many."""


def write_csv(file: BinaryIO, batches: Iterable[Components], about: About) -> int:
    """Write a header and a row for each object, and say how many."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(measures(Components.none(), about))
    count = 0
    for batch in batches:
        columns = measures(batch, about)
        rows.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
        count += len(batch.table)
    text.flush()
    text.detach()
    return count


def ensure_parquet() -> None:
    """Raise ConfigError where pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "--to parquet needs pyarrow; pip install 'wsi-twostage[parquet]', or take --to csv"
        ) from error


def write_parquet(file: BinaryIO, batches: Iterable[Components], about: About) -> int:
    """The same columns, numbers as 64-bit floats; class and source as dictionaries."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def table(columns: dict[str, NDArray[Any]]) -> Any:
        arrays = {name: pa.array(column.tolist()).cast(_arrow_type(name)) for name, column in columns.items()}
        return pa.table(arrays)

    def _arrow_type(name: str) -> Any:
        if name in ("class", "source"):
            return pa.dictionary(pa.int16(), pa.string())
        return pa.string() if name == "id" else pa.float64()

    empty = {name: column[:0] for name, column in measures(Components.none(), about).items()}
    schema = pa.schema([(name, _arrow_type(name)) for name in empty])
    count = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for columns in _grouped(measures(batch, about) for batch in batches):
            writer.write_table(table(columns))
            count += len(columns["id"])
    return count


def _grouped(tables: Iterable[dict[str, NDArray[Any]]]) -> Iterator[dict[str, NDArray[Any]]]:
    """Small tables as larger ones."""
    held: list[dict[str, NDArray[Any]]] = []
    for table in tables:
        held.append(table)
        if sum(len(each["id"]) for each in held) >= GROUP:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(tables: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}

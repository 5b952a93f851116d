"""Parquet files, and Arrow files as ``datasets`` saves them, read by ``pyarrow`` batch by batch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deca_node.numerics.data.formats.opening import arrow_library
from deca_node.numerics.data.formats.sources import Entry, Source
from deca_node.protocol.errors import DataError

ROWS_PER_BATCH = 1024


def parquet_rows(path: Path, file: Any) -> Iterator[Entry]:
    """The rows of a Parquet file. Raises DataError where it is none, or pyarrow is not installed."""
    pyarrow = arrow_library(path)
    from pyarrow import parquet

    try:
        yield from _rows(path, parquet.ParquetFile(file).iter_batches(batch_size=ROWS_PER_BATCH))
    except pyarrow.ArrowException as error:
        raise _damaged(path, "Parquet", error) from None


def arrow_rows(path: Path, file: Any) -> Iterator[Entry]:
    """The rows of an Arrow stream or an Arrow file (Feather). Raises as :func:`parquet_rows`."""
    pyarrow = arrow_library(path)
    try:
        if file.peek(6)[:6] == b"ARROW1":
            whole = pyarrow.ipc.open_file(file)
            yield from _rows(path, map(whole.get_batch, range(whole.num_record_batches)))
        else:
            yield from _rows(path, pyarrow.ipc.open_stream(file))
    except pyarrow.ArrowException as error:
        raise _damaged(path, "Arrow", error) from None


def _damaged(path: Path, kind: str, error: Exception) -> DataError:
    why = str(error).partition("\n")[0][:200]
    return DataError(f"{path}: the file is no whole {kind} file ({why}); check that it was copied completely")


def _rows(path: Path, batches: Any) -> Iterator[Entry]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield Source(path, record=number), without_nulls(row)


def without_nulls(value: Any) -> Any:
    """The value without keys that are null: every row of a table has every column, and every struct every key."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value

"""INQUIRE-Rerank from the Hugging Face hub, streamed through `datasets` into Parquet files on this disk.

What is on the disk is read like any other copy, so that images are never all in memory, and no later run needs the
network or the library.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fieldscope.core.errors import BenchmarkError, ConfigError
from fieldscope.core.files import replacing
from fieldscope.eval.benchmarks.splits import canonical
from fieldscope.retrieval.manifest import writing
from fieldscope.retrieval.progress import Report

NAME = "evendrow/INQUIRE-Rerank"
ROWS = {"validation": 4_000, "test": 16_000}
"""How many rows the published splits have."""

_BATCH = 64  # rows in memory


def fetch_inquire_rerank(
    folder: Path, split: str | None = None, progress: Report | None = None, source: str = NAME
) -> Path:
    """The folder with a copy of a split (without `split` of test), fetched on first use and whole or not at all.

    `source` is what `datasets.load_dataset` takes. Raises `ConfigError` where `datasets` is not installed, and
    `BenchmarkError` where the split can't be fetched.
    """
    split = canonical(split or "test")
    path = folder / f"{split}-00000-of-00001.parquet"
    if path.exists():
        return folder
    datasets = _library()
    with writing(folder), replacing(path) as partial:
        try:
            rows = datasets.load_dataset(source, split=split, streaming=True).with_format("arrow")
            _write(rows, partial, ROWS.get(split, 0), progress)
        except OSError as error:
            if error.errno is not None:  # the disk's
                raise
            raise _unfetched(source, split, error) from error
        except Exception as error:  # the library and the hub's client raise all kinds of things
            raise _unfetched(source, split, error) from error
    return folder


def _write(rows: Any, path: Path, expected: int, progress: Report | None) -> None:
    done = 0
    writer: pq.ParquetWriter | None = None
    try:
        for table in rows.iter(batch_size=_BATCH):
            writer = writer or pq.ParquetWriter(path, table.schema.remove_metadata())
            writer.write_table(table.replace_schema_metadata(None))
            done += len(table)
            if progress is not None:
                progress(done, max(done, expected))
    finally:
        if writer is not None:
            writer.close()
    if not done:
        raise ValueError("it holds no rows")


def _unfetched(source: str, split: str, error: Exception) -> BenchmarkError:
    reason = (str(error) or type(error).__name__).splitlines()[0][:200]
    return BenchmarkError(
        f"the split {split!r} of {source} can't be fetched ({reason}). Try again, or put a copy of its Parquet files "
        "into a folder and give that."
    )


def _library() -> Any:
    """`datasets`, which only this needs."""
    try:
        return importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "INQUIRE-Rerank is fetched with the library datasets, which is not installed. Run `pip install datasets`, "
            "or give a folder with a copy of the Parquet files."
        ) from error

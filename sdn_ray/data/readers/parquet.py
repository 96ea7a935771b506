"""Parquet files of captioned images, such as the data sets that Hugging Face keeps."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sdn_ray.data.readers.layout import FileError
from sdn_ray.data.readers.records import Record, new_record
from sdn_ray.data.shards import IMAGE
from sdn_ray.errors import one_line

TEXT, CLASS = "text", "class"
_EXPECTED = (
    f"Parquet with the columns {IMAGE} (encoded files: bytes, or a struct of bytes and path), "
    f"{TEXT} (a text or a list of texts) and, where there are classes, {CLASS} (names or whole "
    "numbers)"
)


def parquet_records(shards: Sequence[Path]) -> Iterator[Record | FileError]:
    """The rows of Parquet files, one image each; the images themselves are not read.

    Raises:
        UserError: a file cannot be read, or its columns are not as expected.
    """
    for shard in shards:
        try:
            yield from _shard_records(shard)
        except (OSError, ValueError, pa.ArrowException) as error:
            reason = f"cannot be read ({one_line(error, 300)}); expected {_EXPECTED}"
            raise FileError(shard, reason) from error


def _shard_records(shard: Path) -> Iterator[Record | FileError]:
    file = pq.ParquetFile(shard)
    named = _check_columns(shard, file.schema_arrow)
    wanted = [TEXT, *([CLASS] if CLASS in file.schema_arrow.names else [])]
    wanted += [f"{IMAGE}.path"] if named else []
    row = 0
    for batch in file.iter_batches(columns=wanted):
        for line in batch.to_pylist():
            yield _record(shard, row, line)
            row += 1


def _record(shard: Path, row: int, line: dict[str, Any]) -> Record | FileError:
    given = (line.get(IMAGE) or {}).get("path")
    name = PurePosixPath(given).as_posix() if given else None
    path = shard / str(row) / (PurePosixPath(given).name if given else "")
    text = line[TEXT]
    texts = [text] if text is None or isinstance(text, str) else text
    where = f"{shard}, row {row}"
    return new_record(path, name, [one or "" for one in texts], line.get(CLASS), where)


def _check_columns(shard: Path, schema: pa.Schema) -> bool:
    """Whether images have names."""
    for name in (IMAGE, TEXT, CLASS):
        if schema.names.count(name) > 1 or (name not in schema.names and name != CLASS):
            found = f"found the columns {', '.join(schema.names):.200}"
            how = "twice" if name in schema.names else "not among them"
            raise FileError(shard, f"{found}, {name} {how}; expected {_EXPECTED}")
    image, text = schema.field(IMAGE).type, schema.field(TEXT).type
    struct = pa.types.is_struct(image)
    fields = {field.name: field.type for field in image} if struct else {}
    for name, kind, fits in (
        (IMAGE, image, _is_bytes(fields.get("bytes") if struct else image)),
        (TEXT, text, _is_text(text) or (_is_list(text) and _is_text(text.value_type))),
    ):
        if not fits:
            raise FileError(
                shard, f"found {kind!s:.100} in its column {name}; expected {_EXPECTED}"
            )
    return struct and _is_text(fields.get("path"))


def _is_bytes(kind: pa.DataType | None) -> bool:
    return kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType | None) -> bool:
    return kind is not None and (pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)

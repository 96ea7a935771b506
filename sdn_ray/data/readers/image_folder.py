"""A folder of image files that a table names: the ImageFolder convention of Hugging Face."""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NotRequired

from pydantic_core import from_json
from typing_extensions import TypedDict

from sdn_ray.data.readers.layout import FileError
from sdn_ray.data.readers.records import Record, new_record
from sdn_ray.errors import UserError, one_line
from sdn_ray.files import checked_record, read_text

CSV, JSON_LINES = "metadata.csv", "metadata.jsonl"
FILE, TEXT, CLASS = "file_name", "text", "class"
_EXPECTED_CSV = f"UTF-8 with the columns {FILE}, {TEXT} and, where there are classes, {CLASS}"
_EXPECTED_LINES = (
    f'a JSON object on every line, such as {{"{FILE}": "0001.jpg", "{TEXT}": "a red rose", '
    f'"{CLASS}": "rose"}}'
)

# "class" is no name that a class body could have.
_Line = TypedDict("_Line", {"file_name": str, "text": str | list[str], "class": NotRequired[Any]})


def image_folder_records(table: Path) -> Iterator[Record | FileError]:
    """The images that ``metadata.csv`` or ``metadata.jsonl`` names, in its order.

    ``file_name`` is relative to the table's folder and stays in it. ``text`` is a caption or, in
    JSON, a list of captions; several lines may name the same image. ``class`` may be left out.

    Raises:
        UserError: the table cannot be read, a line is not as expected, or names a file elsewhere.
    """
    lines = _csv_lines(table) if table.name == CSV else _json_lines(table)
    for number, line in lines:
        yield _record(table, number, line)


def _record(table: Path, number: int, line: Mapping[str, Any]) -> Record | FileError:
    where = f"{table}, line {number}"
    name = PurePosixPath(line[FILE])
    if name.is_absolute() or ".." in name.parts:
        found = f"found {line[FILE]!r:.200}, which lies outside of {table.parent}"
        raise UserError(f"{where}: {found}; expected a path inside of that folder")
    path = table.parent / name
    if not path.is_file():
        return FileError(path, f"found no such file ({where}), expected an image")
    text = line[TEXT]
    texts = [text] if isinstance(text, str) else text
    return new_record(path, str(name), texts, line.get(CLASS), where)


def _csv_lines(table: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    # Spreadsheets begin a file with a byte order mark.
    text = read_text(table, _EXPECTED_CSV).removeprefix("\ufeff")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    number, columns = 1, None
    try:
        for cells in reader:
            number, first = reader.line_num + 1, number
            if not cells:
                continue
            if columns is None:
                columns = _checked_columns(table, cells)
            elif len(cells) == len(columns):
                yield first, dict(zip(columns, cells, strict=True))
            else:
                found = f"found {len(cells)} cells, expected {len(columns)} as in the first line"
                raise UserError(f"{table}, line {first}: {found}; texts with commas need quotes")
    except csv.Error as error:
        found = f"cannot be read ({one_line(error, 200)})"
        raise UserError(f"{table}, line {number}: {found}; expected {_EXPECTED_CSV}") from error
    if columns is None:
        raise FileError(table, f"found nothing in it, expected {_EXPECTED_CSV}")


def _checked_columns(table: Path, columns: list[str]) -> list[str]:
    columns = [name.strip() for name in columns]
    for name in (FILE, TEXT, CLASS):
        if columns.count(name) > 1 or (name not in columns and name != CLASS):
            found = f"found the columns {', '.join(columns):.200}"
            how = "twice" if name in columns else "not among them"
            raise FileError(table, f"{found}, {name} {how}; expected {_EXPECTED_CSV}")
    return columns


def _json_lines(table: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    # Not `splitlines`, for which some characters of a caption would end the line.
    text = read_text(table, _EXPECTED_LINES).removeprefix("\ufeff")
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, checked_record(from_json(line), _Line)
        except ValueError as error:
            found = f"cannot be read ({one_line(error, 300)})"
            raise UserError(
                f"{table}, line {number}: {found}; expected {_EXPECTED_LINES}"
            ) from error

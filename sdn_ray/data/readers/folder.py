"""One's own captioned images: image files with a table, Parquet files or WebDataset shards."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sdn_ray.data.readers.image_folder import CSV, JSON_LINES, image_folder_records
from sdn_ray.data.readers.layout import FileError, require_folder
from sdn_ray.data.readers.parquet import parquet_records
from sdn_ray.data.readers.records import Record, dataset_of
from sdn_ray.data.readers.webdataset import webdataset_records
from sdn_ray.data.rows import CaptionedDataset
from sdn_ray.data.shards import PARQUET, TAR

MARKS = (CSV, JSON_LINES, f"*{PARQUET}", f"*{TAR}")  # of which a folder holds one
_EXPECTED = (
    f"{CSV} or {JSON_LINES} beside images, {PARQUET} files, or WebDataset shards ({TAR}, not "
    "compressed)"
)
_READERS: dict[str, Callable[[Sequence[Path]], Iterator[Record | FileError]]] = {
    CSV: lambda files: image_folder_records(files[0]),
    JSON_LINES: lambda files: image_folder_records(files[0]),
    f"*{PARQUET}": parquet_records,
    f"*{TAR}": webdataset_records,
}


def read_folder(root: Path, *, skip_bad: bool = False) -> CaptionedDataset:
    """Read one's own captioned images, in whichever of three layouts they are.

    ``root`` holds images and a ``metadata.csv`` or ``metadata.jsonl`` (see
    `image_folder_records`); or Parquet files, or is one (see `parquet_records`); or ``.tar`` shards
    (see `webdataset_records`). Classes may be left out: then each image is a class of its own. The
    same images, captions and classes are the same rows, but for their paths, in every layout. Class
    lists stand in ``root`` (see `read_class_lists`; they name images where there are no classes).
    Images are not decoded here.

    Args:
        root: the folder, or a Parquet file.
        skip_bad: leave out images that are missing, have an empty text or alone no class, and list
            them in ``bad_items``, where otherwise the first one is an error.

    Raises:
        UserError: names the file and line that is missing or bad, and what was expected.
    """
    if root.is_file() and root.suffix == PARQUET:
        return dataset_of(root, parquet_records([root]), skip_bad=skip_bad)
    require_folder(root, f"one with {_EXPECTED}, or one {PARQUET} file")
    found = folder_files(root)
    if len(found) != 1:
        marks = " and ".join(files[0].name for files in found.values())
        below = next((path.parent for mark in MARKS for path in root.glob(f"*/{mark}")), None)
        hint = f". Did you mean {below}?" if below and not found else ""
        one = "one of them" if found else _EXPECTED
        raise FileError(root, f"found {marks or 'none'} in it, expected {one}{hint}")
    [(mark, files)] = found.items()
    return dataset_of(root, _READERS[mark](files), skip_bad=skip_bad)


def folder_files(root: Path) -> dict[str, list[Path]]:
    """The files that tell a folder's layout, by their mark, in the order of their names."""
    found = {
        mark: sorted(path for path in root.glob(mark) if not path.name.startswith("."))
        for mark in MARKS
    }
    return {mark: files for mark, files in found.items() if files}

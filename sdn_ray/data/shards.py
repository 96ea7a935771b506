"""Images inside of shards, each by a path that goes on where the shard's own path ends.

``roses.tar/0001.jpg`` is a member of a tar archive, ``roses.parquet/12`` is row 12 of a Parquet
file, and so is ``roses.parquet/12/0001.jpg``, where the file names its images. So an image is one
path wherever it lies, and whoever decodes it need not know.
"""

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow.parquet as pq

TAR, PARQUET = ".tar", ".parquet"
IMAGE = "image"  # the column of a Parquet file


def in_shard(path: Path) -> tuple[Path, PurePosixPath] | None:
    """The shard that an image lies in, and where in it; None of an image with a file of its own."""
    for above in path.parents:
        if above.suffix in (TAR, PARQUET) and above.is_file():
            return above, PurePosixPath(path.relative_to(above).as_posix())
    return None


def image_file(path: Path) -> Path | io.BytesIO:
    """What Pillow opens: the image's file, or its bytes out of a shard.

    Raises:
        OSError, ValueError: the shard cannot be read, or has no such image.
    """
    found = in_shard(path)
    if found is None:
        return path
    shard, inside = found
    read = _tar_image if shard.suffix == TAR else _parquet_image
    # Whoever holds an index of a file that was written anew since would read nonsense.
    return io.BytesIO(read(shard, shard.stat().st_mtime_ns, inside))


def encoded(value: Any) -> bytes:
    """The bytes of an image that a Parquet file holds by themselves, or in a struct with its path.

    Raises:
        ValueError: there are none.
    """
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise ValueError("it has no bytes")
    return content


@contextmanager
def opened_tar(shard: Path) -> Iterator[tarfile.TarFile]:
    """A tar archive that is not compressed, so that images can be read where they lie.

    Raises:
        ValueError: it is none, or damaged, whenever that is found.
    """
    try:
        with tarfile.open(shard, "r:") as tar:
            yield tar
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(str(error)) from error


def member_files(tar: tarfile.TarFile) -> Iterator[tuple[PurePosixPath, tarfile.TarInfo]]:
    """The files of an archive in their order, without folders and links."""
    for member in tar:
        if member.isreg() and not member.issparse():
            yield member_path(member.name), member


def member_path(name: str) -> PurePosixPath:
    """The name of a file in an archive, without what would not stay the same within a path."""
    return PurePosixPath(name.lstrip("/"))


@lru_cache(64)
def _tar_places(shard: Path, changed: int) -> dict[PurePosixPath, tuple[int, int]]:
    """Where each file of an archive begins, and how many bytes it has."""
    with opened_tar(shard) as tar:
        return {name: (one.offset_data, one.size) for name, one in member_files(tar)}


def _tar_image(shard: Path, changed: int, inside: PurePosixPath) -> bytes:
    place = _tar_places(shard, changed).get(inside)
    if place is None:
        raise ValueError(f"{shard.name} has no such file")
    with shard.open("rb") as file:
        file.seek(place[0])
        return file.read(place[1])


@lru_cache(64)
def _row_groups(shard: Path, changed: int) -> np.ndarray:
    """The first row of each group of rows, and the number of rows: (groups + 1,) int64."""
    about = pq.ParquetFile(shard).metadata
    sizes = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
    return np.cumsum([0, *sizes])


@lru_cache(2)  # groups of rows, which are whole images and read one after the other
def _row_group(shard: Path, changed: int, group: int) -> Any:
    return pq.ParquetFile(shard).read_row_group(group, columns=[IMAGE])[IMAGE]


def _parquet_image(shard: Path, changed: int, inside: PurePosixPath) -> bytes:
    row, starts = int(inside.parts[0]), _row_groups(shard, changed)
    if not 0 <= row < starts[-1]:
        raise ValueError(f"{shard.name} has {starts[-1]} rows")
    group = int(np.searchsorted(starts, row, side="right")) - 1
    return encoded(_row_group(shard, changed, group)[row - int(starts[group])].as_py())

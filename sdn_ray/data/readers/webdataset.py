"""WebDataset: tar archives in which neighbouring files of one name are one sample."""

import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, NotRequired

from pydantic_core import from_json
from typing_extensions import TypedDict

from sdn_ray.data.readers.layout import FileError
from sdn_ray.data.readers.records import Record, new_record
from sdn_ray.data.shards import member_files, opened_tar
from sdn_ray.errors import UserError, one_line
from sdn_ray.files import checked_record

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff")
TEXT, CLASS, JSON = "txt", "cls", "json"
_EXPECTED = (
    "a tar archive, not compressed, with samples of an image and a .txt of one caption a line, or "
    'a .json with "text", and, where there are classes, a .cls or "class" in the .json'
)
# As WebDataset and Ray split a name: its suffixes begin at the first dot.
_NAME = re.compile(r"((?:.*/|)[^./]+)[.]([^/]*)")

# "class" is no name that a class body could have.
_Json = TypedDict("_Json", {"text": NotRequired[str | list[str]], "class": NotRequired[Any]})
_Members = dict[str, tuple[PurePosixPath, tarfile.TarInfo]]  # of a sample, by suffix


def _split_member(name: PurePosixPath) -> tuple[str, str] | None:
    """The sample that a file belongs to, and what it is of it; None of a hidden file."""
    match = _NAME.fullmatch(name.as_posix())
    return (match[1], match[2].lower()) if match else None


def webdataset_records(shards: Sequence[Path]) -> Iterator[Record | FileError]:
    """The samples of WebDataset shards, in their order; images are not read.

    Captions are the lines of a sample's ``.txt``, or without one the ``text`` of its ``.json``: a
    text or a list; its class is the content of a ``.cls``, or ``class`` there.

    Raises:
        UserError: a shard cannot be read, has a sample in two places or a file twice, or a sample
            without an image or with two.
    """
    for shard in shards:
        try:
            with opened_tar(shard) as tar:
                yield from _shard_records(shard, tar)
        except (OSError, ValueError) as error:
            reason = f"cannot be read ({one_line(error, 300)}); expected {_EXPECTED}"
            raise FileError(shard, reason) from error


def _shard_records(shard: Path, tar: tarfile.TarFile) -> Iterator[Record | FileError]:
    samples = list(_samples(shard, tar))
    counts = Counter(key for key, _ in samples)
    for key, members in samples:
        where = f"{shard}, sample {key}"
        if counts[key] > 1:
            found = f"found its files in {counts[key]} places"
            raise UserError(
                f"{where}: {found}, expected them side by side, as tar --sort=name does"
            )
        images = [suffix for suffix in members if suffix in IMAGE_SUFFIXES]
        told = [suffix for suffix in (TEXT, CLASS, JSON) if suffix in members]
        if len(images) > 1:
            found = f"found {len(images)} images (.{', .'.join(images)}), expected one"
            raise FileError(shard, f"sample {key}: {found}")
        if images:
            yield _record(shard, tar, members, images[0], where)
        elif told:
            found = f"found its .{', .'.join(told)} without an image"
            raise FileError(shard, f"sample {key}: {found}, expected {_EXPECTED}")


def _samples(shard: Path, tar: tarfile.TarFile) -> Iterator[tuple[str, _Members]]:
    """The samples of an archive, each by its files' suffixes."""
    files = (
        (*parts, name, member)
        for name, member in member_files(tar)
        if (parts := _split_member(name)) is not None
    )
    for key, group in groupby(files, key=lambda file: file[0]):
        if not key.isprintable():
            found = f"found the name {key!a:.100}, expected UTF-8 without control characters"
            raise FileError(shard, found)
        members: _Members = {}
        for _, suffix, name, member in group:
            if suffix in members:
                raise FileError(shard, f"found {name} twice, expected each file once")
            members[suffix] = (name, member)
        yield key, members


def _record(
    shard: Path, tar: tarfile.TarFile, members: _Members, image: str, where: str
) -> Record | FileError:
    name = members[image][0]

    def content(suffix: str) -> str | None:
        file = tar.extractfile(members[suffix][1]) if suffix in members else None
        try:
            return None if file is None else file.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            found = f"its .{suffix} is no UTF-8 ({error.reason})"
            raise UserError(f"{where}: {found}, expected {_EXPECTED}") from error

    text, of_class, more = content(TEXT), content(CLASS), _Json()
    if JSON in members and (text is None or of_class is None):
        try:
            more = checked_record(from_json(content(JSON) or ""), _Json)
        except ValueError as error:
            found = f"its .json cannot be read ({one_line(error, 300)})"
            raise UserError(f"{where}: {found}, expected {_EXPECTED}") from error
    if text is None and "text" not in more:
        return FileError(shard / name, f"found no text ({where}), expected {_EXPECTED}")
    if of_class is None:
        of_class = more.get("class")
    if text is not None:
        texts = [line for line in text.split("\n") if line.strip()]
    else:
        texts = [more["text"]] if isinstance(more["text"], str) else more["text"]
    return new_record(shard / name, str(name), texts, of_class, where)

"""What the layouts of a folder of one's own images share: records that become a data set."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdn_ray.data.readers.layout import FileError, read_class_lists, require_rows
from sdn_ray.data.rows import BadItem, CaptionedDataset, CaptionedImage
from sdn_ray.errors import UserError

NAME = "folder"
_LARGEST_NUMBER = 1 << 31  # of a class that is called by a number


@dataclass(frozen=True)
class Record:
    """What one line, row or sample says of an image."""

    image_path: Path
    name: str | None  # of the image, the same in every layout; None: it has none of its own
    captions: tuple[str, ...]
    class_name: str | None
    where: str  # it stands, for errors


def new_record(
    image_path: Path, name: str | None, texts: Sequence[str], of_class: Any, where: str
) -> Record | FileError:
    """A record, or what is wrong with its captions.

    Args:
        image_path: see `CaptionedImage`.
        name: of the image.
        texts: its captions.
        of_class: its class as the file has it.
        where: file and line.

    Raises:
        UserError: the class is neither a name nor a number.
    """
    captions = tuple(text.strip() for text in texts)
    if not captions or not all(captions):
        return FileError(image_path, f"found an empty text ({where}), expected a caption")
    if any("\0" in caption for caption in captions):
        return FileError(image_path, f"found a zero byte in its text ({where}), expected a caption")
    return Record(image_path, name, captions, _class_name(of_class, where), where)


def dataset_of(
    root: Path, records: Iterable[Record | FileError], *, skip_bad: bool
) -> CaptionedDataset:
    """The data set that records make, images in the order in which they are named first.

    Class ids do not depend on what else is in the folder: a class that is called by a number has
    that number, another one a hash of its name. Where no record has a class each image is a class
    of its own, called by the image's name.

    Args:
        root: the folder, or one file.
        records: several may name the same image; an error stands for an image that is bad.
        skip_bad: leave such images out, and list them in ``bad_items``.

    Raises:
        UserError: an image is bad, has two classes, or alone has none; no image is left; or a
            class list is not as expected (see `read_class_lists`).
    """
    images: dict[Path, list[Record]] = {}
    faults: list[FileError] = []
    for record in records:
        if isinstance(record, Record):
            images.setdefault(record.image_path, []).append(record)
        else:
            faults.append(_unless(skip_bad, record))
    names = _names(root, images)
    classes = {path: _one_class(own) for path, own in images.items()}
    has_classes = any(classes.values())
    if not has_classes:
        classes |= names
    rows = []
    for path, own in images.items():
        class_name = classes[path]
        if class_name is None:
            faults.append(_unless(skip_bad, _without_class(own[0])))
            continue
        captions = tuple(caption for record in own for caption in record.captions)
        class_id = _class_id(class_name)
        rows.append(CaptionedImage(path, class_id, class_name, captions, name=names[path]))
    bad_items = [BadItem(fault.path, fault.reason) for fault in faults]
    require_rows(root, rows, bad_items)
    ids = {name: _class_id(name) for name in classes.values() if name is not None}
    train, test = read_class_lists((root if root.is_dir() else root.parent,), ids)
    bad = tuple(bad_items)
    return CaptionedDataset(NAME, tuple(rows), train, test, bad, has_classes=has_classes)


def _unless(skip_bad: bool, fault: FileError) -> FileError:
    if not skip_bad:
        raise fault
    return fault


def _without_class(record: Record) -> FileError:
    found = f"found no class ({record.where}), but other images have one"
    return FileError(record.image_path, f"{found}; expected a class of each image, or of none")


def _one_class(records: Sequence[Record]) -> str | None:
    """The class of an image that several records name."""
    known = [record for record in records if record.class_name is not None]
    for other in known[1:]:
        if other.class_name != known[0].class_name:
            found = f"found the class {other.class_name} of {other.image_path.name}"
            raise UserError(
                f"{other.where}: {found}, which has {known[0].class_name} in {known[0].where}; "
                "expected one class of each image"
            )
    return known[0].class_name if known else None


def _names(root: Path, images: dict[Path, list[Record]]) -> dict[Path, str]:
    """Images by names that no two share: their own, or where two do, with that of their shard."""
    names = {path: own[0].name for path, own in images.items()}
    counts = Counter(names.values())
    if None not in counts and max(counts.values(), default=0) <= 1:
        return {path: name for path, name in names.items() if name is not None}
    above = root if root.is_dir() else root.parent
    return {path: path.relative_to(above).as_posix() for path in images}


def _class_name(found: Any, where: str) -> str | None:
    """A class as its name; None where there is none, for which tables of numbers have NaN."""
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if found is None or (isinstance(found, float) and found != found):
        return None
    if isinstance(found, bool) or not isinstance(found, int | str):
        raise UserError(f"{where}: found the class {found!r:.60}, expected a name or whole number")
    return str(found).strip() or None


def _class_id(name: str) -> int:
    if name.isascii() and name.isdigit() and len(name) < 11 and str(int(name)) == name:
        number = int(name)
        if number < _LARGEST_NUMBER:
            return number
    # 52 bits, which every reader of JSON has: of a million names two share one once in 9,000 sets.
    digest = hashlib.blake2b(name.encode("utf-8"), digest_size=8).digest()
    return _LARGEST_NUMBER + (int.from_bytes(digest, "big") >> 12)

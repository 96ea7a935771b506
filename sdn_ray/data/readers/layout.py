"""What the readers of data sets on disk share: faults, caption files, class lists."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdn_ray.data.rows import BadItem, CaptionedImage
from sdn_ray.errors import UserError

CAPTION_FOLDER = "text_c10"


class FileError(UserError):
    """A file or folder of a data set that is missing or not as expected."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


@dataclass(frozen=True)
class Item:
    """One image of a data set, whose files have not been looked at yet."""

    image_path: Path
    caption_path: Path
    class_id: int
    class_name: str
    number: int | None = None


def require_folder(path: Path, expected: str) -> None:
    """Raise ``FileError`` where ``path`` is no folder, with the words for what was expected.

    Where the data set lies one folder further down, the error says so.
    """
    if not path.is_dir():
        below = next(path.parent.glob(f"*/{path.name}"), None)
        hint = f". There is one in {below.parent}: is that the data set?" if below else ""
        raise FileError(path, f"found no such folder, expected {expected}{hint}")


def read_bytes(path: Path, expected: str) -> bytes:
    """The content of ``path``; on failure ``FileError`` with the words for what was expected."""
    try:
        if path.exists() and not path.is_file():  # to read from a pipe might wait for ever
            raise FileError(path, f"found a folder or a device, expected {expected}")
        return path.read_bytes()
    except FileNotFoundError:
        raise FileError(path, f"found no such file, expected {expected}") from None
    except OSError as error:
        reason = f"cannot be read ({error.strerror}), expected {expected}"
        raise FileError(path, reason) from error


def read_lines(path: Path, expected: str) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, stripped, each with its number from 1."""
    # Bytes are split, not text: in latin-1 the byte 0x85 would count as the end of a line.
    lines = [_decode(line).strip() for line in read_bytes(path, expected).splitlines()]
    return [(number, line) for number, line in enumerate(lines, start=1) if line]


def read_captions(path: Path) -> tuple[str, ...]:
    """The captions of a file that holds one a line.

    A line that is not UTF-8 is read as latin-1, since the caption files of Reed et al. hold a few
    such bytes. That loses nothing: the alphabet of the char-CNN-RNN is ASCII, and each of these
    characters is an all-zero column to it, whichever character it is.

    Raises:
        FileError: the file is missing, is not text, or holds no caption.
    """
    expected = "a caption file with one caption a line"
    captions = tuple(line for _, line in read_lines(path, expected))
    if not captions:
        raise FileError(path, f"found no caption in it, expected {expected}")
    if any("\0" in caption for caption in captions):
        raise FileError(path, f"found zero bytes (UTF-16 or no text), expected {expected} in UTF-8")
    return captions


def read_items(
    root: Path, items: Iterable[Item], *, skip_bad: bool
) -> tuple[tuple[CaptionedImage, ...], tuple[BadItem, ...]]:
    """Read the captions of all items and see that the image files exist; images are not decoded.

    Raises:
        UserError: an image or caption file is missing or bad. With ``skip_bad`` such an item is
            left out and listed in the second result, and only having no item left is an error.
    """
    rows: list[CaptionedImage] = []
    bad_items: list[BadItem] = []
    for item in items:
        try:
            rows.append(_read_item(item))
        except FileError as error:
            if not skip_bad:
                raise
            bad_items.append(BadItem(error.path, error.reason))
    require_rows(root, rows, bad_items)
    return tuple(rows), tuple(bad_items)


def require_rows(root: Path, rows: Sequence[CaptionedImage], bad_items: Sequence[BadItem]) -> None:
    """Raise ``FileError`` where no image of a data set is left."""
    if not rows:
        first = f", the first: {bad_items[0].path}: {bad_items[0].reason}" if bad_items else ""
        reason = f"found no usable image ({len(bad_items)} left out{first}), expected at least one"
        raise FileError(root, reason)


def read_class_lists(
    folders: Iterable[Path], class_ids: Mapping[str, int]
) -> tuple[tuple[int, ...], tuple[int, ...]] | tuple[None, None]:
    """The training (with validation) and the test classes of a data set, ascending.

    ``trainvalclasses.txt`` and ``testclasses.txt`` hold names; where no folder has them,
    ``trainvalids.txt`` and ``testids.txt`` hold numbers. As in the code of Reed et al., a number is
    a line of the ``allclasses.txt`` beside the list; where that is absent, it is the class's id.

    Args:
        folders: where to look; the first that has a list counts.
        class_ids: the id of every class of the data set, by the name of its folder.

    Returns:
        The two lists, or (None, None) where no folder has one.

    Raises:
        UserError: one list of a pair is missing or empty, a line names an unknown class, or a
            class stands in both lists.
    """
    folders = tuple(folders)
    for kind in ("classes", "ids"):
        for folder in folders:
            paths = folder / f"trainval{kind}.txt", folder / f"test{kind}.txt"
            if not any(path.exists() for path in paths):
                continue
            known = class_ids if kind == "classes" else _numbered_classes(folder, class_ids)
            train, test = (set(read_class_list(path, known).values()) for path in paths)
            _refuse_shared(paths, train, test, class_ids)
            return tuple(sorted(train)), tuple(sorted(test))
    return None, None


def read_class_list(path: Path, known: Mapping[str, int]) -> dict[int, int]:
    """The ids of the listed classes by line number.

    Args:
        path: of a text file with one class a line.
        known: the id of every class, by its name.

    Raises:
        UserError: it cannot be read, is empty, or names an unknown class.
    """
    lines = read_lines(path, "a class list, one class a line")
    if not lines:
        raise FileError(path, "found no class in it, expected one class a line")
    for number, name in lines:
        if name not in known:
            found = f"found unknown class {name}"
            expected = f"one of the {len(known)} classes of the data set, such as {min(known)}"
            raise UserError(f"{path}, line {number}: {found}, expected {expected}")
    return {number: known[name] for number, name in lines}


def _decode(line: bytes) -> str:
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _read_item(item: Item) -> CaptionedImage:
    if not item.image_path.is_file():
        raise FileError(item.image_path, "found no such file, expected an image")
    captions = read_captions(item.caption_path)
    return CaptionedImage(item.image_path, item.class_id, item.class_name, captions, item.number)


def _numbered_classes(folder: Path, class_ids: Mapping[str, int]) -> dict[str, int]:
    """The id of every class by the number that an ids file in ``folder`` gives it."""
    path = folder / "allclasses.txt"
    if not path.exists():
        return {str(class_id): class_id for class_id in class_ids.values()}
    lines = read_class_list(path, class_ids)
    return {str(number): class_id for number, class_id in lines.items()}


def _refuse_shared(
    paths: tuple[Path, Path], train: set[int], test: set[int], class_ids: Mapping[str, int]
) -> None:
    shared = sorted(name for name, class_id in class_ids.items() if class_id in train & test)
    if shared:
        found = f"found {', '.join(shared)} in both {paths[0].name} and {paths[1].name}"
        raise UserError(f"{paths[1]}: {found}, expected no class in both lists")

"""CUB-200-2011 with the captions of Reed et al."""

from collections.abc import Iterator
from pathlib import Path

from sdn_ray.data.readers.layout import (
    CAPTION_FOLDER,
    FileError,
    Item,
    read_class_lists,
    read_items,
    read_lines,
    require_folder,
)
from sdn_ray.data.rows import CaptionedDataset
from sdn_ray.errors import UserError


def read_cub(root: Path, *, skip_bad: bool = False) -> CaptionedDataset:
    """Read CUB-200-2011 as it unpacks, with the captions as Reed et al. lay them out.

    ``root`` holds ``CUB_200_2011`` (``images.txt``, ``classes.txt``, ``image_class_labels.txt``,
    ``images/001.Black_footed_Albatross/….jpg``) and, beside or inside it,
    ``text_c10/001.Black_footed_Albatross/….txt`` (one caption a line). The class lists (see
    ``read_class_lists``; without them the split is drawn) are in ``root``, ``text_c10`` or
    ``CUB_200_2011``. Class ids are those of ``classes.txt``, 1 to 200; rows are in the order of the
    image ids. Images are not decoded, and boxes and parts not read here (see `annotations`).

    Args:
        root: the folder.
        skip_bad: leave out images whose image or caption file is missing or bad, and list them in
            ``bad_items``, where otherwise the first one is an error.

    Raises:
        UserError: names the file or folder that is missing or bad, and what was expected.
    """
    require_folder(root, f"CUB-200-2011 (the folders CUB_200_2011 and {CAPTION_FOLDER})")
    unpacked = root / "CUB_200_2011"
    require_folder(unpacked, "CUB-200-2011 as it unpacks (images, images.txt, classes.txt)")
    require_folder(unpacked / "images", "the photographs, a folder a class")
    text = _caption_folder(root, unpacked)
    folders = _read_numbered(unpacked / "classes.txt", "a class id and its folder a line")
    images = _read_numbered(unpacked / "images.txt", "an image id and its path a line")
    labels = _read_labels(unpacked / "image_class_labels.txt", set(images), set(folders))
    class_ids = {folder: class_id for class_id, folder in folders.items()}
    train_classes, test_classes = read_class_lists((root, text, unpacked), class_ids)
    names = {class_id: _class_name(folder) for class_id, folder in folders.items()}
    items = _items(unpacked / "images", text, images, labels, names)
    rows, bad_items = read_items(root, items, skip_bad=skip_bad)
    return CaptionedDataset("cub", rows, train_classes, test_classes, bad_items, unpacked)


def _caption_folder(root: Path, unpacked: Path) -> Path:
    if (unpacked / CAPTION_FOLDER).is_dir() and not (root / CAPTION_FOLDER).is_dir():
        return unpacked / CAPTION_FOLDER
    require_folder(root / CAPTION_FOLDER, f"the captions, here or in {unpacked / CAPTION_FOLDER}")
    return root / CAPTION_FOLDER


def _class_name(folder: str) -> str:
    """``001.Black_footed_Albatross`` in words: ``Black footed Albatross``."""
    return folder.partition(".")[2].replace("_", " ") or folder


def _items(
    image_folder: Path,
    text: Path,
    images: dict[int, str],
    labels: dict[int, int],
    names: dict[int, str],
) -> Iterator[Item]:
    for image_id in sorted(images):
        image, class_id = Path(images[image_id]), labels[image_id]
        if not image.name:
            raise FileError(image_folder, f"found {images[image_id]!r} as the name of an image")
        caption_path = text / image.with_suffix(".txt")
        yield Item(image_folder / image, caption_path, class_id, names[class_id], image_id)


def _read_numbered(path: Path, expected: str) -> dict[int, str]:
    """A file with a number and a value a line, each number once."""
    values: dict[int, str] = {}
    for line_number, line in read_lines(path, expected):
        text, *rest = line.split(maxsplit=1)
        number = _parse_number(text)
        if number is None or not rest:
            raise UserError(f"{path}, line {line_number}: found {line}, expected {expected}")
        if number in values:
            found = f"found the number {number} again"
            raise UserError(f"{path}, line {line_number}: {found}, expected each number once")
        values[number] = rest[0]
    return values


def _parse_number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _read_labels(path: Path, image_ids: set[int], class_ids: set[int]) -> dict[int, int]:
    labels = _read_numbered(path, "an image id and its class id a line")
    if labels.keys() != image_ids:
        unpaired = min(labels.keys() ^ image_ids)
        found = f"found {len(labels)} labels for {len(image_ids)} images of images.txt"
        reason = f"{found}, image {unpaired} stands in only one of the files"
        raise FileError(path, f"{reason}, expected one label for each image")
    for image_id, label in labels.items():
        if _parse_number(label) not in class_ids:
            found = f"found class {label} for image {image_id}"
            raise FileError(path, f"{found}, expected one of the {len(class_ids)} of classes.txt")
    return {image_id: int(label) for image_id, label in labels.items()}

"""Oxford-Flower-102 with the captions of Reed et al."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sdn_ray.data.readers.layout import (
    CAPTION_FOLDER,
    FileError,
    Item,
    read_bytes,
    read_class_lists,
    read_items,
    require_folder,
)
from sdn_ray.data.readers.matlab import read_matlab_vector
from sdn_ray.data.rows import CaptionedDataset
from sdn_ray.files import read_json

LABELS_EXPECTED = "MATLAB 5 with the variable labels, one class number an image"
NAMES_EXPECTED = 'a JSON object of class names, such as {"1": "pink primrose"}'


def read_oxford_flowers(root: Path, *, skip_bad: bool = False) -> CaptionedDataset:
    """Read Oxford-Flower-102, in the layout that its authors and Reed et al. give it.

    ``root`` holds ``jpg/image_00001.jpg``, ``imagelabels.mat``,
    ``text_c10/class_00077/image_00001.txt`` (one caption a line), where wanted ``class_names.json``
    (without it, a class is called ``class_00077``), and in itself or in ``text_c10`` the class
    lists (see ``read_class_lists``; without them the split is drawn). Class ids are the labels,
    1 to 102; rows are in the order of the image numbers. Images are not decoded here.

    Args:
        root: the folder.
        skip_bad: leave out images whose image or caption file is missing or bad, and list them in
            ``bad_items``, where otherwise the first one is an error.

    Raises:
        UserError: names the file or folder that is missing or bad, and what was expected.
    """
    require_folder(root, f"Oxford-Flower-102 (jpg, imagelabels.mat, {CAPTION_FOLDER})")
    require_folder(root / "jpg", "the photographs image_00001.jpg and on")
    require_folder(root / CAPTION_FOLDER, "the captions, class_00001/image_06734.txt and on")
    labels = _read_labels(root / "imagelabels.mat")
    _refuse_unlabelled(root, len(labels))
    class_ids = {_class_folder(label): label for label in sorted(set(labels))}
    train_classes, test_classes = read_class_lists((root, root / CAPTION_FOLDER), class_ids)
    rows, bad_items = read_items(root, _items(root, labels), skip_bad=skip_bad)
    return CaptionedDataset("oxford_flowers", rows, train_classes, test_classes, bad_items)


def _class_folder(label: int) -> str:
    return f"class_{label:05d}"


def _items(root: Path, labels: list[int]) -> Iterator[Item]:
    names = _read_class_names(root / "class_names.json")
    for number, label in enumerate(labels, start=1):
        image, folder = f"image_{number:05d}", _class_folder(label)
        yield Item(
            image_path=root / "jpg" / f"{image}.jpg",
            caption_path=root / CAPTION_FOLDER / folder / f"{image}.txt",
            class_id=label,
            class_name=names.get(str(label), folder),
        )


def _read_labels(path: Path) -> list[int]:
    content = read_bytes(path, LABELS_EXPECTED)
    try:
        labels = read_matlab_vector(content, "labels")
    except ValueError as error:
        raise FileError(path, f"{error}, expected {LABELS_EXPECTED}") from error
    wrong = labels[(labels < 1) | (labels != np.floor(labels)) | ~np.isfinite(labels)]
    if wrong.size:
        raise FileError(path, f"found the label {wrong[0]}, expected whole numbers from 1")
    return labels.astype(np.int64).tolist()


def _refuse_unlabelled(root: Path, labels: int) -> None:
    """An image numbered beyond the labels shows that the two do not belong together."""
    matches = (re.fullmatch(r"image_(\d+)\.jpg", path.name) for path in (root / "jpg").iterdir())
    numbers = [int(match[1]) for match in matches if match]
    if max(numbers, default=0) > labels:
        found = f"found {labels} labels and {len(numbers)} images up to number {max(numbers)}"
        raise FileError(root / "imagelabels.mat", f"{found} in jpg, expected a label for each")


def _read_class_names(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    return read_json(path, dict[str, str], NAMES_EXPECTED)

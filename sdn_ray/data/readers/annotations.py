"""Boxes and parts of the objects on images, in the files that CUB-200-2011 has for them.

They are read for the methods that draw by them alone (GAWWN), in fractions of the image, so that to
resize an image leaves them as they are. Each is given twice, as it is and as the mirrored image has
it.
"""

import hashlib
import math
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sdn_ray.data.decoding import DECODE_ERRORS
from sdn_ray.data.readers.layout import FileError, read_lines
from sdn_ray.data.rows import CaptionedDataset
from sdn_ray.errors import UserError
from sdn_ray.files import fingerprint

_BOXES_EXPECTED = "an image's number, x, y, width and height a line"
_NAMES_EXPECTED = "a part's number and its name a line"
_PARTS_EXPECTED = "an image's number, a part's number, x, y and 0 or 1 a line"
_BOXES, _NAMES, _PARTS = "bounding_boxes.txt", "parts/parts.txt", "parts/part_locs.txt"
_NUMBERS = 5  # of a line, of boxes and of parts alike
_ROUNDING = 1.0  # pixels by which a box may reach beyond its image
_PETAL_TIP = re.compile(r"petal tip (\d+)")


@dataclass(frozen=True)
class Locations:
    """Where things are on the images of a data set, in fractions of each image.

    Boxes are (2, rows, 4) float32, left, top, width and height; parts (2, rows, parts, 3) float32,
    x, y and 1, or three zeros for a part that is hidden: of each row as it is, then mirrored.
    """

    values: np.ndarray
    parts: tuple[str, ...] = ()  # their names; boxes have none

    @property
    def fingerprint(self) -> str:
        """Of all places and names."""
        places = hashlib.blake2b(self.values.tobytes(), digest_size=10).hexdigest()
        return fingerprint("locations", self.parts, places)


def require_annotations(dataset: CaptionedDataset, *, boxes: bool) -> None:
    """Refuse a data set without boxes, or without parts, before its images are looked at.

    Raises:
        UserError: naming the option or the missing file.
    """
    files = {_BOXES: _BOXES_EXPECTED}
    if not boxes:
        files = {_NAMES: _NAMES_EXPECTED, _PARTS: _PARTS_EXPECTED}
    for file, expected in files.items():
        path = _folder(dataset) / file
        if not path.exists():
            raise FileError(path, f"found no such file, expected {expected}")


def read_boxes(dataset: CaptionedDataset) -> Locations:
    """The box of every image.

    Args:
        dataset: whose rows have numbers.

    Raises:
        UserError: a file is missing, an image has no box, or a box lies outside its image.
    """
    path = _folder(dataset) / _BOXES
    found: dict[int, tuple[float, ...]] = {}
    for number, line in read_lines(path, _BOXES_EXPECTED):
        image, *box = _numbers(path, number, line, 1, _BOXES_EXPECTED)
        if image in found:
            raise FileError(path, f"line {number}: found image {image:g} again, expected it once")
        found[int(image)] = tuple(box)
    sizes = _sizes(dataset)
    boxes = np.empty((len(dataset.rows), 4))
    for place, row in enumerate(dataset.rows):
        if row.number not in found:
            raise FileError(path, f"found no box of {row.image_path.name}, expected one an image")
        left, top, width, height = found[row.number]
        inside = min(left, top) >= -_ROUNDING and min(width, height) > 0
        right, bottom = sizes[place] + _ROUNDING
        if not inside or left + width > right or top + height > bottom:
            raise FileError(
                path,
                f"found the box {left:g} {top:g} {width:g} {height:g} of {row.image_path.name}, "
                f"expected one inside its {sizes[place][0]:.0f}×{sizes[place][1]:.0f} pixels",
            )
        boxes[place] = left, top, width, height
    boxes /= np.tile(sizes, 2)
    mirrored = boxes.copy()
    mirrored[:, 0] = 1 - boxes[:, 0] - boxes[:, 2]
    return Locations(np.stack([boxes, mirrored]).astype(np.float32))


def _part_names(dataset: CaptionedDataset) -> tuple[str, ...]:
    """The names of the parts, in the order of their numbers.

    Raises:
        UserError: their file is missing or bad.
    """
    path = _folder(dataset) / _NAMES
    names: dict[int, str] = {}
    for number, line in read_lines(path, _NAMES_EXPECTED):
        text, _, name = line.partition(" ")
        if not text.isdecimal() or not name.strip():
            raise FileError(path, f"line {number}: found {line}, expected {_NAMES_EXPECTED}")
        if name.strip() in names.values():
            raise FileError(path, f"line {number}: found {name.strip()} again, expected it once")
        names[int(text)] = name.strip()
    if not names or sorted(names) != list(range(1, len(names) + 1)):
        raise FileError(path, f"found the numbers {sorted(names)}, expected 1, 2, … of each part")
    return tuple(names[number] for number in sorted(names))


def read_parts(dataset: CaptionedDataset) -> Locations:
    """The parts of every image; in a mirrored one left and right parts have changed their names.

    Args:
        dataset: whose rows have numbers.

    Raises:
        UserError: a file is missing, or an image has not one line for each part.
    """
    names = _part_names(dataset)
    path = _folder(dataset) / _PARTS
    found: dict[int, dict[int, tuple[float, ...]]] = {}
    for number, line in read_lines(path, _PARTS_EXPECTED):
        image, part, *location = _numbers(path, number, line, 2, _PARTS_EXPECTED)
        own = found.setdefault(int(image), {})
        if part in own or location[2] not in (0, 1):
            what = "a part again" if part in own else f"visible {location[2]:g}"
            raise FileError(path, f"line {number}: found {what}, expected {_PARTS_EXPECTED}")
        own[int(part)] = tuple(location)
    parts = np.zeros((len(dataset.rows), len(names), 3))
    expected = range(1, len(names) + 1)
    for place, row in enumerate(dataset.rows):
        own = found.get(row.number, {}) if row.number is not None else {}
        if sorted(own) != list(expected):
            raise FileError(
                path,
                f"found {len(own)} parts of {row.image_path.name}, expected the {len(names)} of "
                "parts.txt, each once",
            )
        parts[place] = [own[part] for part in expected]
    seen = parts[:, :, 2:] != 0
    places = np.where(seen, parts[:, :, :2] / _sizes(dataset)[:, None], 0)
    parts = np.concatenate([places, seen], axis=2)
    return Locations(np.stack([parts, _mirrored(parts, names)]).astype(np.float32), names)


def _mirrored(parts: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Parts (rows, parts, 3) as mirrored images have them."""
    mirrored = parts.copy()
    mirrored[:, :, 0] = np.where(parts[:, :, 2] > 0, 1 - parts[:, :, 0], 0)
    others = [_other_side(name) for name in names]
    mirrored = mirrored[:, [names.index(o) if o in names else i for i, o in enumerate(others)]]
    # Tips are counted clockwise from the one on top, which remains the first.
    tips = [place for place, name in enumerate(names) if _PETAL_TIP.fullmatch(name)]
    for own in mirrored if tips else ():
        seen = [place for place in tips if own[place, 2] > 0]
        own[seen[1:]] = own[seen[1:]][::-1]
    return mirrored


def _other_side(name: str) -> str:
    """What a part is called in a mirrored image."""
    for side, other in (("left ", "right "), ("right ", "left ")):
        if name.startswith(side):
            return other + name.removeprefix(side)
    return name


def _folder(dataset: CaptionedDataset) -> Path:
    if dataset.annotations is None:
        raise UserError(
            f"dataset.name: found {dataset.name}, which has neither boxes nor parts; expected a "
            "data set that has them, such as cub or synthetic_flowers"
        )
    return dataset.annotations


def _numbers(path: Path, number: int, line: str, whole: int, expected: str) -> list[float]:
    """The five numbers of a line, of which so many, the first ones, are whole."""
    try:
        values = [float(text) for text in line.split()]
    except ValueError:
        values = []
    good = len(values) == _NUMBERS and all(map(math.isfinite, values))
    if not good or any(value % 1 for value in values[:whole]):
        raise FileError(path, f"line {number}: found {line}, expected {expected}")
    return values


def _sizes(dataset: CaptionedDataset) -> np.ndarray:
    """Width and height of every image in pixels, (rows, 2); no pixel is decoded."""

    def size(path: Path) -> tuple[int, int]:
        try:
            with Image.open(path) as image:
                return image.size
        except DECODE_ERRORS as error:
            raise FileError(path, f"does not decode ({error}), expected an image") from error

    with ThreadPoolExecutor(16) as pool:
        return np.array(list(pool.map(size, [row.image_path for row in dataset.rows])), float)

"""The embedded data set: drawn flowers with captions, written to disk from a seed, no download.

It is laid out as the real data sets are: images, ten captions an image, and class lists of a
class-disjoint split. 320 species, 40 of them for testing, five of each petal colour. Boxes and
parts of the flowers stand in the files that CUB-200-2011 has for them.
"""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import joblib
import numpy as np
from typing_extensions import TypedDict

from sdn_ray.data.readers.layout import read_captions
from sdn_ray.data.rows import CaptionedDataset, CaptionedImage
from sdn_ray.data.synthetic.captions import draw_captions
from sdn_ray.data.synthetic.drawing import DrawnFlower, draw_flower
from sdn_ray.data.synthetic.species import (
    PETAL_COUNTS,
    SPECIES,
    TEST_CLASSES,
    TRAIN_CLASSES,
    Species,
    class_name,
)
from sdn_ray.errors import UserError
from sdn_ray.files import parse_json, read_text

NAME = "synthetic_flowers"
SPECIES_FILE = "species.json"
PARTS = ("center", *(f"petal tip {index + 1}" for index in range(max(PETAL_COUNTS))))
_SMALLEST, _LARGEST, _STEP = 16, 256, 8
_MOST_PROCESSES, _WORTH_PROCESSES = 8, 2000  # processes that draw; images that are worth them
_Lines = tuple[list[str], list[str]]  # of boxes and of parts


class _Content(TypedDict):
    settings: dict[str, int]
    species: dict[int, Species]


def write_synthetic_flowers(
    root: Path,
    *,
    image_size: int = 64,
    images_per_species: int = 15,
    seed: int = 0,
    on_image: Callable[[int, int], None] | None = None,
) -> None:
    """Draw the data set into the new folder ``root``, all or nothing.

    It holds ``images/species_NNN/image_NNNNN.png``, ``text_c10/species_NNN/image_NNNNN.txt`` (ten
    captions, one a line), ``trainvalclasses.txt``, ``testclasses.txt``, ``species.json``, and, by
    the number of the image and in its pixels, ``bounding_boxes.txt`` (number, left, top, width,
    height) and ``parts/part_locs.txt`` (number, part, x, y, visible); ``parts/parts.txt`` names the
    parts: the centre, and as many petal tips as the most petals, from the top clockwise.
    The same arguments give the same files; an image does not depend on ``images_per_species``.
    When ``root`` already holds this very data set, nothing is done. Several processes may write
    the same ``root`` at once. ``on_image`` is told how many images of how many are drawn.

    Raises:
        UserError: ``image_size`` is not a multiple of 8 from 16 to 256, there would be no images,
            or ``root`` holds something else.
    """
    root = Path(root)
    if not (_SMALLEST <= image_size <= _LARGEST and image_size % _STEP == 0):
        raise UserError(
            f"image_size is {image_size}: synthetic_flowers is drawn at a multiple of {_STEP} "
            f"from {_SMALLEST} to {_LARGEST}"
        )
    if images_per_species < 1:
        raise UserError(f"images_per_species is {images_per_species}: expected at least 1")
    settings = {
        "image_size": image_size,
        "images_per_species": images_per_species,
        "seed": seed,
    }
    if root.exists() and not _is_empty_folder(root):
        _check_same(root, settings)
        return

    root.parent.mkdir(parents=True, exist_ok=True)
    partial = root.with_name(f".{root.name}.{uuid.uuid4().hex}")
    try:
        _write(partial, settings, on_image)
        try:
            partial.rename(root)
        except OSError:  # another process was first, unless the folder holds something else
            if not root.exists():
                raise
            _check_same(root, settings)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_synthetic_flowers(root: Path) -> CaptionedDataset:
    """The data set that ``write_synthetic_flowers`` wrote to ``root``.

    Raises:
        UserError: ``root`` does not hold it, or a file of it is missing.
    """
    root = Path(root)
    ids = {class_name(class_id): class_id for class_id in read_species(root)}
    rows = []
    for image_path in sorted((root / "images").glob("*/*.png")):
        name = image_path.parent.name
        captions = read_captions(root / "text_c10" / name / f"{image_path.stem}.txt")
        if name not in ids:
            raise UserError(f"{image_path}: of {name}, which {SPECIES_FILE} does not list")
        number = int(image_path.stem.removeprefix("image_"))
        rows.append(CaptionedImage(image_path, ids[name], name, captions, number))
    if not rows:
        raise UserError(f"{root / 'images'}: found no image of synthetic_flowers")
    return CaptionedDataset(
        name=NAME,
        rows=tuple(rows),
        train_classes=_read_class_list(root / "trainvalclasses.txt", ids),
        test_classes=_read_class_list(root / "testclasses.txt", ids),
        annotations=root,
    )


def read_species(root: Path) -> dict[int, Species]:
    """The attributes of each species, by class id.

    Raises:
        UserError: ``root`` does not hold the data set.
    """
    return _content(Path(root) / SPECIES_FILE)["species"]


def _write(
    root: Path, settings: dict[str, int], on_image: Callable[[int, int], None] | None
) -> None:
    boxes: list[str] = []
    parts: list[str] = []
    per_species = settings["images_per_species"]
    for class_id, (own_boxes, own_parts) in _all_drawn(root, settings):
        boxes += own_boxes
        parts += own_parts
        if on_image is not None:
            on_image(class_id * per_species, len(SPECIES) * per_species)
    _write_text(root / "trainvalclasses.txt", map(class_name, TRAIN_CLASSES))
    _write_text(root / "testclasses.txt", map(class_name, TEST_CLASSES))
    _write_text(root / "bounding_boxes.txt", boxes)
    (root / "parts").mkdir()
    _write_text(root / "parts" / "parts.txt", [f"{i} {name}" for i, name in enumerate(PARTS, 1)])
    _write_text(root / "parts" / "part_locs.txt", parts)
    attributes = {
        class_id: {"class_name": class_name(class_id), **asdict(species)}
        for class_id, species in SPECIES.items()
    }
    content = {"settings": settings, "species": attributes}
    (root / SPECIES_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _all_drawn(root: Path, settings: dict[str, int]) -> Iterator[tuple[int, _Lines]]:
    """Draw every species, in several processes where that is worth their start."""
    draw = partial(_draw_species, root, settings)
    processes = min(_MOST_PROCESSES, len(os.sched_getaffinity(0)))
    if processes == 1 or len(SPECIES) * settings["images_per_species"] < _WORTH_PROCESSES:
        yield from zip(SPECIES, map(draw, SPECIES.items()), strict=True)
        return
    # Neither forked, since a fork of a process with threads, such as PyTorch's, may hang, nor
    # spawned by multiprocessing, which runs a script that calls us once more in each process.
    pool = joblib.Parallel(processes, return_as="generator", batch_size=4, idle_worker_timeout=10)
    drawn = pool(joblib.delayed(draw)(species) for species in SPECIES.items())
    yield from zip(SPECIES, drawn, strict=True)


def _draw_species(root: Path, settings: dict[str, int], species: tuple[int, Species]) -> _Lines:
    """Write images and captions of one species; the lines of its boxes and of its parts."""
    class_id, attributes = species
    per_species = settings["images_per_species"]
    images = root / "images" / class_name(class_id)
    texts = root / "text_c10" / class_name(class_id)
    images.mkdir(parents=True)
    texts.mkdir(parents=True)
    boxes, parts = [], []
    for index in range(per_species):
        rng = np.random.default_rng([settings["seed"], class_id, index])
        number = (class_id - 1) * per_species + index + 1
        captions = draw_captions(attributes, rng)
        flower = draw_flower(attributes, rng, settings["image_size"])
        flower.image.save(images / f"image_{number:05d}.png", compress_level=1)
        _write_text(texts / f"image_{number:05d}.txt", captions)
        boxes.append(f"{number} {_numbers(flower.box)}")
        parts += [f"{number} {line}" for line in _part_lines(flower)]
    return boxes, parts


def _part_lines(flower: DrawnFlower) -> list[str]:
    """A line for every part: its number, its place and whether the flower has it."""
    seen = [f"{_numbers(place)} 1" for place in (flower.center, *flower.tips)]
    missing = ["0.0 0.0 0"] * (len(PARTS) - len(seen))
    return [f"{part} {line}" for part, line in enumerate(seen + missing, 1)]


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)


def _write_text(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _check_same(root: Path, settings: dict[str, int]) -> None:
    path = root / SPECIES_FILE
    if not path.is_file():
        raise UserError(
            f"{root}: found something other than synthetic_flowers; expected a new or empty folder"
        )
    found = _content(path)["settings"]
    if found != settings:
        raise UserError(
            f"{root}: found synthetic_flowers drawn with {found}, expected {settings}; "
            "choose another folder or delete this one"
        )


def _content(path: Path) -> _Content:
    return parse_json(_read(path), _Content, str(path), f"a file of {NAME}")


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _read_class_list(path: Path, ids: dict[str, int]) -> tuple[int, ...]:
    names = _read(path).split()
    unknown = [name for name in names if name not in ids]
    if unknown:
        raise UserError(f"{path}: found class {unknown[0]!r}, which {SPECIES_FILE} does not list")
    return tuple(ids[name] for name in names)


def _read(path: Path) -> str:
    return read_text(path, f"a file of {NAME}")

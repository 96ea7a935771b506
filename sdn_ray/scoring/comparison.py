"""Figures 3, 4 and 6 of the paper: several methods' pictures of the same captions, side by side.

The paper's are the best of 16 pictures a caption, picked by hand. Here either nothing is picked, or
a rule picks that is the same for all: the highest FSIM to the caption's real image.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from sdn_ray.cluster.resources import use_device
from sdn_ray.data.image_sets import ImageReader, SetImage, read_image_set, read_real
from sdn_ray.data.references import RealImages
from sdn_ray.errors import UserError
from sdn_ray.metrics.fsim import fsim
from sdn_ray.models.export import load_model
from sdn_ray.pictures import comparison_rows
from sdn_ray.scoring.actors import draw_rows, image_row
from sdn_ray.scoring.image_sets import ScoredSet

MOST_PICTURES = 64  # of a caption, which are drawn at once


def check_best_of(pictures: int) -> None:
    """Refuse a number of pictures of which none can be the best.

    Raises:
        UserError: naming the option.
    """
    if not 1 <= pictures <= MOST_PICTURES:
        raise UserError(f"--best_of: found {pictures}, expected 1 to {MOST_PICTURES}")


def write_comparison(
    path: Path,
    sets: Sequence[ScoredSet],
    real: RealImages,
    places: Sequence[int],
    *,
    best_of: int = 1,
    real_size: int | None = None,
) -> None:
    """Write a PNG: a row a caption, its real image, and a column for each set.

    Args:
        path: of the PNG.
        sets: with an image of each of the captions.
        real: the real images.
        places: in ``real.rows``, of those that are shown.
        best_of: pictures of each caption of which the one with the highest FSIM to the real image
            is shown, as many as a set has or its model draws. Of 1 it is the one that is scored.
        real_size: pixels a side of the real images. None: those of the first set's.
    """
    names, columns = [], []
    for one in sets:
        counts, column = _column(one, real, places, best_of)
        least, most = min(counts), max(counts)
        number = f"{least} to {most}" if least < most else f"{most}"
        names.append(one.name if best_of == 1 else f"{one.name}, best of {number}")
        columns.append(column)
    rows = [real.rows[place] for place in places]
    sizes = [(real_size, real_size) if real_size else image.shape[:2] for image in columns[0]]
    photographs = [read_real(row.image_path, *size) for row, size in zip(rows, sizes, strict=True)]
    comparison_rows(
        path,
        [row.captions[0] for row in rows],
        ["real", *names],
        list(zip(photographs, *columns, strict=True)),
        caption="One picture of each caption, which nobody has chosen."
        if best_of == 1
        else "Of the pictures of each caption the one with the highest FSIM to the real image.",
    )


def _column(
    one: ScoredSet, real: RealImages, places: Sequence[int], best_of: int
) -> tuple[list[int], list[np.ndarray]]:
    """How many pictures of each caption a set has, and of each the one that is shown."""
    by_source = images_by_source(one, real)
    images = [by_source[place] for place in places]
    pictures: Iterator[np.ndarray]
    if one.model is None:
        groups = [[image] for image in images]
        if best_of > 1:
            groups = _in_folder(one.folder, images, best_of)
        pictures = map(ImageReader(), (image for group in groups for image in group))
    else:
        model = load_model(one.model).to(use_device())
        groups = [[image] for image in images]
        if best_of > 1:
            own = best_of if model.generator.noise_dim else min(best_of, model.generator.samples)
            groups = [[replace(image, sample=s) for s in range(own)] for image in images]
        pictures = draw_rows(model, [image_row(0, image) for group in groups for image in group])
    counts = [len(group) for group in groups]
    own_real = [real.rows[place].image_path for place in places]
    best = [
        _best([*islice(pictures, count)], path)
        for path, count in zip(own_real, counts, strict=True)
    ]
    return counts, best


def images_by_source(one: ScoredSet, real: RealImages) -> dict[int, SetImage]:
    """The image of each real image's first caption, by the real image's place."""
    found: dict[int, SetImage] = {}
    for image in one.images:
        place = real.find(image.source) if image.source else None
        if place is not None:
            found.setdefault(place, image)
    return found


def _in_folder(folder: Path, images: Sequence[SetImage], most: int) -> list[list[SetImage]]:
    """The pictures of each image's caption that a folder has, at most so many."""
    pictures: dict[tuple[str | None, str | None], list[SetImage]] = defaultdict(list)
    for image in read_image_set(folder):
        pictures[image.source, image.caption].append(image)
    groups = [pictures[image.source, image.caption] for image in images]
    return [sorted(group, key=lambda image: image.sample)[:most] for group in groups]


def _best(pictures: Sequence[np.ndarray], real: Path) -> np.ndarray:
    """The picture with the highest FSIM to a real image at its size; the first of equals."""
    if len(pictures) == 1:
        return pictures[0]
    values = [fsim(read_real(real, *picture.shape[:2]), picture) for picture in pictures]
    return pictures[int(np.argmax(values))]

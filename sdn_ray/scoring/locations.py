"""Where the things are to be that GAWWN draws: of a file, or those of real images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sdn_ray.data.readers.annotations import read_boxes, read_parts
from sdn_ray.data.references import source_name
from sdn_ray.data.rows import CaptionedDataset
from sdn_ray.errors import UserError
from sdn_ray.files import read_text
from sdn_ray.models.export import Model
from sdn_ray.models.gawwn import BOXES, KEYPOINTS, GawwnGenerator
from sdn_ray.models.image_generators import method_of
from sdn_ray.runs.experiment import absolute
from sdn_ray.scoring.captions import Location, Request

REFERENCE = "reference"  # instead of a file: those of the images of --reference
_OPTIONS = (BOXES, KEYPOINTS)
_SHOWN = 200  # characters of a line that is not as expected
_BOX = "left, top, width and height in fractions of the image, such as 0.2 0.1 0.5 0.6"
_PARTS = "parts with their x and y in fractions of the image, such as beak 0.2 0.3, tail 0.8 0.6"


def given_option(options: Any) -> str | None:
    """Which of --boxes and --keypoints is given.

    Raises:
        UserError: both are, or they are to be those of a data set that is not given.
    """
    given = [name for name in _OPTIONS if options[name] is not None]
    if len(given) > 1:
        raise UserError("expected one of --boxes and --keypoints; found both")
    for name in given:
        if options[name] == REFERENCE and options.reference is None:
            raise UserError(
                f"--{name}: found {REFERENCE} without --reference, expected a file, or a data set"
            )
    return given[0] if given else None


def with_given_locations(
    requests: Sequence[Request], options: Any, model: Model, dataset: CaptionedDataset | None
) -> list[Request]:
    """The requests with the locations of --boxes or --keypoints, if there are any.

    Args:
        requests: captions.
        options: of `sdn_ray.generate`.
        model: which draws.
        dataset: of --reference.

    Raises:
        UserError: the model does not draw by such locations, or they are not as expected.
    """
    option = given_option(options)
    if option is None:
        return list(requests)
    generator = model.generator
    if not isinstance(generator, GawwnGenerator) or generator.locations != option:
        raise UserError(
            f"--{option}: found it with a model of the method {method_of(generator)}"
            + (f" of {generator.locations}" if isinstance(generator, GawwnGenerator) else "")
            + f", expected a gawwn model of gawwn.locations {option}"
        )
    if options[option] == REFERENCE:
        assert dataset is not None
        return _of_reference(requests, dataset, option, generator.parts)
    path = Path(absolute(options[option], f"--{option}"))
    return _of_file(requests, path, option, generator.parts)


def _of_reference(
    requests: Sequence[Request], dataset: CaptionedDataset, option: str, parts: tuple[str, ...]
) -> list[Request]:
    if dataset.annotations is None:
        raise UserError(
            f"--{option}: found {REFERENCE}, but {dataset.name} has neither boxes nor parts; "
            "expected a file, or another --reference"
        )
    asked = {request.source for request in requests}
    rows = tuple(row for row in dataset.rows if source_name(row) in asked)
    dataset = replace(dataset, rows=rows)
    found = read_boxes(dataset) if option == BOXES else read_parts(dataset)
    if option == KEYPOINTS and found.parts != parts:
        raise UserError(
            f"--{option}: the images of --reference have the parts {', '.join(found.parts)}, "
            f"expected the model's, {', '.join(parts)}"
        )
    place = {source_name(row): number for number, row in enumerate(rows)}
    values = found.values[0]
    return [
        replace(request, location=_as_tuples(values[place[str(request.source)]]))
        for request in requests
    ]


def _of_file(
    requests: Sequence[Request], path: Path, option: str, parts: tuple[str, ...]
) -> list[Request]:
    expected = _BOX if option == BOXES else _PARTS
    try:
        text = read_text(path, f"a text file with {expected} on each line").removesuffix("\n")
    except UserError as error:
        raise UserError(f"--{option}: {error}") from error
    lines = text.split("\n")
    if len(lines) != len(requests):
        raise UserError(
            f"--{option}: {path} has lines: {len(lines)}, captions: {len(requests)}; expected a "
            "line for each caption"
        )
    located = []
    for number, (line, request) in enumerate(zip(lines, requests, strict=True), 1):
        where = f"--{option}: {path}, line {number}"
        values = _box(line) if option == BOXES else _keypoints(line, parts, where)
        if values is None:
            raise UserError(f"{where}: found {line.strip()[:_SHOWN]}, expected {expected}")
        located.append(replace(request, location=_as_tuples(values)))
    return located


def _box(line: str) -> np.ndarray | None:
    """A box of a line, or None where it is none."""
    numbers = _fractions(line.split())
    if numbers is None or len(numbers) != 4 or min(numbers[2:]) <= 0:
        return None
    left, top, width, height = numbers
    return np.array(numbers) if max(left + width, top + height) <= 1 + 1e-6 else None


def _keypoints(line: str, parts: tuple[str, ...], where: str) -> np.ndarray | None:
    """Parts of a line, (n, 3); others are all zero. None where it is no such line.

    Raises:
        UserError: a part that the model does not have, or one twice.
    """
    found = np.zeros((len(parts), 3))
    for entry in line.split(",") if line.strip() else []:
        *words, x, y = entry.split() if len(entry.split()) > 2 else ("", "", "")
        name, place = " ".join(words), _fractions([x, y])
        if place is None or not name:
            return None
        if name not in parts or found[parts.index(name), 2]:
            what = f"{name} twice" if name in parts else f"the part {name[:_SHOWN]}"
            raise UserError(f"{where}: found {what}, expected some of {', '.join(parts)}")
        found[parts.index(name)] = *place, 1
    return found


def _fractions(texts: Sequence[str]) -> list[float] | None:
    """Numbers from 0 to 1, or None."""
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return None
    return numbers if all(0 <= number <= 1 for number in numbers) else None


def _as_tuples(values: np.ndarray) -> Location:
    """A box as four numbers, or parts as rows of three, in what can be written as JSON."""
    rows = values.reshape(-1, values.shape[-1]).tolist()
    return tuple(tuple(row) for row in rows)

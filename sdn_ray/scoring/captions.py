"""What is asked of a model: captions, of a user or of a data set, as the images they will be."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdn_ray.data.readers.records import NAME as FOLDER
from sdn_ray.data.references import part_rows, read_reference, source_name
from sdn_ray.data.rows import CaptionedDataset, CaptionedImage
from sdn_ray.data.splits import ClassSplit
from sdn_ray.errors import UserError
from sdn_ray.files import read_text
from sdn_ray.runs.experiment import absolute
from sdn_ray.text.captions import given_captions

FILES_AT_ONCE = 512  # files that an actor decodes at once
Location = tuple[tuple[float, ...], ...]  # a box as one row of four, or parts as rows of three


@dataclass(frozen=True)
class Request:
    """One caption to draw."""

    caption: str
    class_id: int | None = None
    source: str | None = None  # the real image whose caption it is
    location: Location | None = None  # of what is to be drawn, where it is given

    @property
    def record(self) -> dict[str, Any]:
        """All that is asked for, as JSON; without a location as earlier versions had it."""
        record = asdict(self)
        if self.location is None:
            del record["location"]
        return record


def file_requests(file: str) -> list[Request]:
    """The captions of a text file, one a line.

    Raises:
        UserError: when it cannot be read or has an empty line.
    """
    try:
        text = read_text(Path(file), "a UTF-8 text file with one caption a line").rstrip("\n")
    except UserError as error:
        raise UserError(f"--captions: {error}") from error
    # Not `splitlines`, for which some characters of a caption would end the line.
    lines = text.split("\n") if text else []
    empty = [number for number, line in enumerate(lines, 1) if not line.strip()]
    if empty or not lines:
        where = f"an empty line {empty[0]}" if empty else "no line"
        raise UserError(f"--captions: {file} has {where}, expected a caption on every line")
    return [Request(line) for line in given_captions(lines, f"--captions: {file}")]


def row_requests(rows: Iterable[CaptionedImage], captions_per_image: int | None) -> list[Request]:
    """The captions of real images, those of an image together and its first one first."""
    return [
        Request(caption, row.class_id, source_name(row))
        for row in rows
        for caption in row.captions[:captions_per_image]
    ]


def reference_rows(
    root: str, part: str, origins: Mapping[str, Mapping[str, Any]], *, skip_bad: bool = False
) -> tuple[CaptionedDataset, tuple[CaptionedImage, ...]]:
    """A data set and the rows of one part of it.

    Args:
        root: folder of the data set.
        part: train, validation or test.
        origins: what is known of the models in question, by name. The split of those that were
            trained on this data set counts before its own lists; of folders of one's own images
            any that has all classes of the part, or without classes all its images, is this one.
        skip_bad: leave out items whose files are missing.

    Raises:
        UserError: when the data set, or that part, cannot be had, two models were trained on
            different splits of it, or one on another folder.
    """
    dataset = read_reference(Path(absolute(root, "--reference")), skip_bad=skip_bad)
    split = common_split(origins, dataset.name, part)
    if split is not None and dataset.name == FOLDER and not skip_bad:
        of = f"{part} part of {' and '.join(origins)}'s run"
        _check_folder(dataset, getattr(split, part, ()), of, root)
    return dataset, part_rows(dataset, part, split)


def common_split(
    origins: Mapping[str, Mapping[str, Any]], dataset: str, part: str
) -> ClassSplit | None:
    """The split of those that were trained on a data set; None where nobody was.

    Raises:
        UserError: when that part is not the same for two of them.
    """
    splits = {
        name: ClassSplit.from_dict(origin["split"])
        for name, origin in origins.items()
        if origin.get("split") and _trained_on(origin) == dataset
    }
    names = list(splits)
    for name in names[1:]:
        if getattr(splits[name], part, None) != getattr(splits[names[0]], part, None):
            raise UserError(
                f"--images: {names[0]} and {name} were trained with different {part} classes of "
                f"{dataset}; expected sets that can be scored on the same ones. Score each "
                "by itself"
            )
    return splits[names[0]] if names else None


def _check_folder(dataset: CaptionedDataset, class_ids: Sequence[int], of: str, root: str) -> None:
    """Refuse a folder that lacks what a model's split names: it is not the model's."""
    lacking = set(class_ids).difference(dataset.class_ids)
    if lacking:
        what = "classes" if dataset.has_classes else "images"
        raise UserError(
            f"--reference: {root} lacks {len(lacking)} of the {len(class_ids)} {what} of the {of}; "
            "expected the folder that it was trained on"
        )


def _trained_on(origin: Mapping[str, Any]) -> str | None:
    return origin.get("config", {}).get("dataset", {}).get("name")

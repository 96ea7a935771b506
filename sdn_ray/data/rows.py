"""What every data set reader returns."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CaptionedImage:
    """One image of a data set with its captions."""

    image_path: Path  # of its file, or on into a shard (see `sdn_ray.data.shards`)
    class_id: int  # as the data set numbers its classes; without classes, the image's own
    class_name: str
    captions: tuple[str, ...]  # at least one, none empty
    number: int | None = None  # by which the files of annotations know it
    name: str | None = None  # where folder and file name would not tell it from others


@dataclass(frozen=True)
class BadItem:
    """An item that was left out, because the user asked to leave bad items out."""

    path: Path
    reason: str


@dataclass(frozen=True)
class CaptionedDataset:
    """A data set as its files say: images in a fixed order, and class lists where there are any."""

    name: str
    rows: tuple[CaptionedImage, ...]  # in the order of the data set's own numbering
    train_classes: tuple[int, ...] | None = None  # training and validation classes together
    test_classes: tuple[int, ...] | None = None
    bad_items: tuple[BadItem, ...] = ()
    annotations: Path | None = None  # folder of boxes and parts, of a data set that has them
    has_classes: bool = True  # without them each image is a class of its own

    @property
    def class_ids(self) -> tuple[int, ...]:
        """The ids of all classes that have an image, ascending."""
        return tuple(sorted({row.class_id for row in self.rows}))

    def rows_of(self, class_ids: Iterable[int]) -> tuple[CaptionedImage, ...]:
        """The rows whose class is among ``class_ids``, in the data set's order."""
        wanted = set(class_ids)
        return tuple(row for row in self.rows if row.class_id in wanted)

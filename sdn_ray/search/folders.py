"""Rows of Table 1 that no trial trains: folders of images that another system has drawn."""

from collections.abc import Sequence

from sdn_ray.cluster.progress import Terminal
from sdn_ray.data.image_sets import MANIFEST, SetImage, read_image_set
from sdn_ray.data.references import RealImages
from sdn_ray.data.rows import CaptionedDataset
from sdn_ray.data.splits import ClassSplit
from sdn_ray.errors import UserError
from sdn_ray.scoring.captions import common_split
from sdn_ray.scoring.image_sets import Entry, ScoredSet, open_set, usable
from sdn_ray.search.space import SearchSpace


def folder_entries(space: SearchSpace) -> list[Entry]:
    """The folders as what is scored: of each the images that models' rows have, too."""
    return [Entry(name, folder, first_captions=True) for name, folder in space.folders.items()]


def open_folders(
    space: SearchSpace, dataset: CaptionedDataset, split: ClassSplit
) -> list[ScoredSet]:
    """The images of each folder that stand beside those that the trials will draw.

    Args:
        space: with the folders.
        dataset: that the trials are trained on.
        split: of it, with the test classes.

    Raises:
        UserError: naming the row, when a folder has no manifest, when an image of it is of no
            image of the test classes, when one is missing for the first caption of such an image,
            or when the model that drew it was trained with other test classes.
    """
    real = RealImages.of(dataset.rows_of(split.test))
    sets = []
    for entry in folder_entries(space):
        try:
            if not (entry.folder / MANIFEST).is_file():
                raise UserError(
                    f"{entry.folder} has no {MANIFEST}, expected one that names `file`, `caption` "
                    "and `source` of each image, as sdn_ray.generate writes it"
                )
            _check_classes(read_image_set(entry.folder), dataset, split)
            _check_split(entry, dataset, split)
            sets.append(open_set(entry, real, None))
        except UserError as error:
            reason = str(error).removeprefix("--images: ")
            raise UserError(f"{space.path}: rows: {entry.name}: {reason}") from error
    return sets


def _check_classes(
    images: Sequence[SetImage], dataset: CaptionedDataset, split: ClassSplit
) -> None:
    everything, tested = RealImages.of(dataset.rows), set(split.test)
    for image in images:
        place = everything.find(image.source) if image.source else None
        if place is None:
            found = f"is of {image.source}, which is no image of {dataset.name}"
        elif everything.rows[place].class_id not in tested:
            row = everything.rows[place]
            found = f"is of {image.source}, of the class {row.class_name}"
        else:
            continue
        raise UserError(
            f"{image} {found}; expected every image to have as its `source` an image of one of the "
            f"{len(tested)} test classes"
        )


def _check_split(entry: Entry, dataset: CaptionedDataset, split: ClassSplit) -> None:
    study = {"config": {"dataset": {"name": dataset.name}}, "split": split.to_dict()}
    common_split({"this study": study, entry.name: entry.origin}, dataset.name, "test")


def decode_folders(sets: Sequence[ScoredSet], terminal: Terminal) -> None:
    """Decode every image of the folders, before hours of training that one of them would spoil.

    Args:
        sets: as `open_folders` has them.
        terminal: shows how far it has come.

    Raises:
        UserError: for the first bad image.
    """
    for one in sets:  # real images are decoded where trials' pixels are prepared
        _, reasons = usable(one, None, skip_bad=True, workers=None, terminal=terminal)
        if reasons:
            raise UserError(f"the row {one.name}: {reasons[0]}")

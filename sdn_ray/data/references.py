"""Any data set on disk, told apart by its layout, as a reference for generated images."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sdn_ray.data.readers.cub import read_cub
from sdn_ray.data.readers.folder import MARKS, folder_files, read_folder
from sdn_ray.data.readers.oxford_flowers import read_oxford_flowers
from sdn_ray.data.rows import CaptionedDataset, CaptionedImage
from sdn_ray.data.shards import PARQUET
from sdn_ray.data.splits import ClassSplit
from sdn_ray.data.synthetic.flowers import SPECIES_FILE, read_synthetic_flowers
from sdn_ray.errors import UserError

PARTS = ("train", "validation", "test")


def read_reference(root: Path, *, skip_bad: bool = False) -> CaptionedDataset:
    """The rows of the data set in ``root``, whichever layout it has.

    Args:
        root: folder of ``oxford_flowers``, ``cub`` or ``synthetic_flowers``, or of one's own
            images, see `read_folder`.
        skip_bad: leave out items whose files are missing or bad.

    Raises:
        UserError: no such folder, none of the layouts, or a file of the data set is bad.
    """
    if root.is_file() and root.suffix == PARQUET:
        return read_folder(root, skip_bad=skip_bad)
    if not root.is_dir():
        raise UserError(f"--reference: {root} is no folder; expected the folder of a data set")
    if (root / SPECIES_FILE).exists():
        return read_synthetic_flowers(root)
    if (root / "imagelabels.mat").exists():
        return read_oxford_flowers(root, skip_bad=skip_bad)
    if (root / "CUB_200_2011").is_dir():
        return read_cub(root, skip_bad=skip_bad)
    if folder_files(root):
        return read_folder(root, skip_bad=skip_bad)
    marks = (SPECIES_FILE, "imagelabels.mat", "CUB_200_2011", *MARKS)
    below = next((path.parent for mark in marks for path in root.glob(f"*/{mark}")), None)
    hint = f". Did you mean {below}?" if below else ""
    raise UserError(
        f"--reference: {root} holds neither imagelabels.mat (Oxford-Flower-102) nor CUB_200_2011 "
        f"(CUB-200-2011) nor {SPECIES_FILE} (synthetic_flowers) nor {', '.join(MARKS)} (folder); "
        f"expected the folder of a data set{hint}"
    )


def part_rows(
    dataset: CaptionedDataset, part: str, split: ClassSplit | None
) -> tuple[CaptionedImage, ...]:
    """The rows of one part of a zero-shot split.

    Args:
        dataset: read by :func:`read_reference`.
        part: one of `PARTS`.
        split: that of a training run; None takes the class lists of the data set itself, where
            `train` means training and validation classes together.

    Raises:
        UserError: an unknown part, or a data set that has no lists.
    """
    if part not in PARTS:
        raise UserError(f"--split: found {part}, expected one of {', '.join(PARTS)}")
    if split is not None:
        class_ids = getattr(split, part)
    elif part == "validation":
        raise UserError(
            "--split: found validation, which only a model's own run knows; expected train or "
            "test, or a --model that was trained with validation classes"
        )
    else:
        class_ids = dataset.test_classes if part == "test" else dataset.train_classes
        if class_ids is None:
            raise UserError(
                f"--split: {dataset.name} has no class lists here; expected trainvalclasses.txt "
                "and testclasses.txt in its folder, or a --model whose run drew a split"
            )
    rows = dataset.rows_of(class_ids)
    if not rows:
        raise UserError(f"--split: the part {part} of {dataset.name} has no image")
    return rows


@dataclass(frozen=True)
class RealImages:
    """The real images that generated ones are compared with, found by name."""

    rows: tuple[CaptionedImage, ...]
    _by_name: dict[str, int | None]  # None: a stem that several images share

    @classmethod
    def of(cls, rows: Iterable[CaptionedImage]) -> "RealImages":
        """The images of some rows."""
        rows = tuple(rows)
        by_name: dict[str, int | None] = {}
        for place, row in enumerate(rows):
            stem = row.image_path.stem
            by_name[stem] = None if stem in by_name else place
        for place, row in enumerate(rows):
            by_name[source_name(row)] = place
        return cls(rows, by_name)

    def find(self, source: str) -> int | None:
        """The place in ``rows`` of a source image, by `source_name`, file name or stem."""
        for name in (source, Path(source).stem):
            place = self._by_name.get(name)
            if place is not None:
                return place
        return None


def source_name(row: CaptionedImage) -> str:
    """How a manifest names a real image, the same on every machine: by folder and file name.

    One's own image is named as its data set names it.
    """
    return row.name or "/".join(row.image_path.parts[-2:])

"""Zero-shot splits: training, validation and test share no class.

Where the images have no classes each is a class of its own, and the split is one by image, which is
not zero-shot: a caption of a test image may be like those that were trained on.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from sdn_ray.data.rows import CaptionedDataset
from sdn_ray.errors import UserError

# Each draw has its own stream of random numbers, so that neither moves the other.
TEST_DRAW, VALIDATION_DRAW = 0, 1
NOT_ZERO_SHOT = "split by image: this is no zero-shot split"  # of images without classes


def scored_part(dataset: CaptionedDataset) -> str:
    """What the scores of a data set's test part are of, in words."""
    return "test classes" if dataset.has_classes else f"test images ({NOT_ZERO_SHOT})"


@dataclass(frozen=True)
class ClassSplit:
    """Class ids by what they serve; no class stands in it twice.

    Raises:
        UserError: a class stands in it twice.
    """

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse a class that stands in the split twice."""
        counts = Counter(self.train + self.validation + self.test)
        repeated = sorted(class_id for class_id, count in counts.items() if count > 1)
        if repeated:
            found = f"found classes {repeated} more than once among train, validation and test"
            raise UserError(f"class split: {found}, expected each class once")

    def to_dict(self) -> dict[str, list[int]]:
        """The split as JSON can hold it."""
        return {name: list(class_ids) for name, class_ids in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ClassSplit":
        """The split that ``to_dict`` gave.

        Raises:
            UserError: a part is missing or is no list of whole numbers, or a class stands in it
                twice.
        """
        for field in fields(cls):
            part = values.get(field.name)
            if not isinstance(part, list) or not all(type(class_id) is int for class_id in part):
                expected = "a list of class ids"
                raise UserError(f"class split, {field.name}: found {part!r}, expected {expected}")
        return cls(**{field.name: tuple(values[field.name]) for field in fields(cls)})


def split_classes(
    dataset: CaptionedDataset, *, validation_classes: int, test_classes: int | None, seed: int
) -> ClassSplit:
    """Split a data set by class, by its own lists or by lot; each part is ascending.

    Test classes are those of the data set's list, and ``test_classes`` does not count then; a data
    set without lists has that many drawn. The validation classes are drawn from the training
    classes: for one seed, a smaller draw is part of a larger one. Classes none of whose images is
    left (see ``skip_bad`` of the readers) are in no part.

    Args:
        dataset: the data set.
        validation_classes: how many training classes to hold out, 0 for none.
        test_classes: how many test classes to draw where the data set has no lists.
        seed: of the draws, 0 or more.

    Raises:
        UserError: names ``dataset.test_classes`` or ``dataset.validation_classes``, where the
            number is missing, negative, or leaves no training class.
    """
    if dataset.train_classes is None or dataset.test_classes is None:
        train, test = _draw_test(dataset, test_classes, seed)
    else:
        present = set(dataset.class_ids)
        train = sorted(present.intersection(dataset.train_classes))
        test = sorted(present.intersection(dataset.test_classes))
    if not 0 <= validation_classes < len(train):
        what = "classes" if dataset.has_classes else "images"
        expected = f"0 to {len(train) - 1}: of {len(train)} training {what} one must stay"
        raise UserError(
            f"dataset.validation_classes: found {validation_classes}, expected {expected}"
        )
    train, validation = _draw(train, validation_classes, seed, VALIDATION_DRAW)
    return ClassSplit(tuple(train), tuple(validation), tuple(test))


def _draw_test(
    dataset: CaptionedDataset, count: int | None, seed: int
) -> tuple[list[int], list[int]]:
    class_ids = dataset.class_ids
    if count is None or not 1 <= count < len(class_ids):
        what = "classes" if dataset.has_classes else "images without classes"
        expected = f"1 to {len(class_ids) - 1}: the data set has {len(class_ids)} {what}, no lists"
        raise UserError(f"dataset.test_classes: found {count}, expected {expected}")
    return _draw(class_ids, count, seed, TEST_DRAW)


def _draw(
    class_ids: Sequence[int], count: int, seed: int, stream: int
) -> tuple[list[int], list[int]]:
    """The classes that stay and ``count`` drawn ones, both ascending, as ``class_ids`` is."""
    order = np.random.default_rng((seed, stream)).permutation(class_ids).tolist()
    return sorted(order[count:]), sorted(order[:count])

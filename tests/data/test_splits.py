import json
from itertools import pairwise
from pathlib import Path

import pytest

from sdn_ray.data.rows import CaptionedDataset, CaptionedImage
from sdn_ray.data.splits import ClassSplit, scored_part, split_classes
from sdn_ray.errors import UserError


def dataset(class_ids, train=None, test=None, **about):
    rows = tuple(CaptionedImage(Path(f"{n}.jpg"), n, f"class {n}", ("a",)) for n in class_ids)
    return CaptionedDataset("hand-made", rows, train, test, **about)


LISTED = dataset(range(1, 31), train=tuple(range(11, 31)), test=tuple(range(1, 11)))
UNLISTED = dataset(range(1, 31))


def test_the_lists_of_the_data_set_count():
    split = split_classes(LISTED, validation_classes=0, test_classes=None, seed=3)
    assert split == ClassSplit(tuple(range(11, 31)), (), tuple(range(1, 11)))
    assert split_classes(LISTED, validation_classes=0, test_classes=4, seed=3) == split


def test_validation_classes_are_taken_from_the_training_classes():
    split = split_classes(LISTED, validation_classes=5, test_classes=None, seed=3)
    assert len(split.validation) == 5
    assert sorted(split.train + split.validation) == list(range(11, 31))
    assert split.test == tuple(range(1, 11))
    assert list(split.train) == sorted(split.train)
    assert list(split.validation) == sorted(split.validation)


def test_a_smaller_draw_is_part_of_a_larger_one():
    for seed in range(5):
        draws = [
            set(
                split_classes(LISTED, validation_classes=k, test_classes=None, seed=seed).validation
            )
            for k in range(20)
        ]
        assert [len(draw) for draw in draws] == list(range(20))
        assert all(small < large for small, large in pairwise(draws))


def test_the_seed_decides():
    def draw(seed):
        return split_classes(UNLISTED, validation_classes=5, test_classes=7, seed=seed)

    assert draw(1) == draw(1)
    assert len({draw(seed).validation for seed in range(20)}) == 20
    assert len({draw(seed).test for seed in range(20)}) == 20


def test_the_draw_does_not_depend_on_the_order_of_rows_or_lists():
    shuffled = dataset(
        reversed(range(1, 31)), train=tuple(range(30, 10, -1)), test=tuple(range(10, 0, -1))
    )
    for seed in range(3):
        options = {"validation_classes": 4, "test_classes": None, "seed": seed}
        assert split_classes(shuffled, **options) == split_classes(LISTED, **options)


def test_test_classes_are_drawn_where_there_is_no_list():
    split = split_classes(UNLISTED, validation_classes=3, test_classes=7, seed=0)
    assert [len(split.train), len(split.validation), len(split.test)] == [20, 3, 7]
    assert sorted(split.train + split.validation + split.test) == list(range(1, 31))
    # Another number of validation classes leaves the test classes as they are.
    assert split_classes(UNLISTED, validation_classes=9, test_classes=7, seed=0).test == split.test


def test_classes_without_an_image_are_in_no_part():
    listed = dataset((1, 3, 4), train=(1, 2, 3), test=(4, 5))
    split = split_classes(listed, validation_classes=0, test_classes=None, seed=0)
    assert split == ClassSplit((1, 3), (), (4,))


@pytest.mark.parametrize("count", [None, -1, 0, 30, 31])
def test_impossible_number_of_test_classes(count):
    with pytest.raises(UserError) as error:
        split_classes(UNLISTED, validation_classes=0, test_classes=count, seed=0)
    assert str(error.value) == (
        f"dataset.test_classes: found {count}, "
        "expected 1 to 29: the data set has 30 classes, no lists"
    )


def test_images_without_classes_are_split_one_by_one():
    images = dataset(range(1, 31), has_classes=False)
    options = {"validation_classes": 3, "test_classes": 7, "seed": 0}
    assert split_classes(images, **options) == split_classes(UNLISTED, **options)
    assert scored_part(UNLISTED) == "test classes"
    assert scored_part(images) == "test images (split by image: this is no zero-shot split)"
    with pytest.raises(UserError, match="1 to 29: the data set has 30 images without classes, no"):
        split_classes(images, validation_classes=0, test_classes=None, seed=0)
    with pytest.raises(UserError, match="0 to 22: of 23 training images one must stay"):
        split_classes(images, validation_classes=23, test_classes=7, seed=0)


@pytest.mark.parametrize("count", [-1, 20, 21])
def test_impossible_number_of_validation_classes(count):
    with pytest.raises(UserError) as error:
        split_classes(LISTED, validation_classes=count, test_classes=None, seed=0)
    assert str(error.value) == (
        f"dataset.validation_classes: found {count}, "
        "expected 0 to 19: of 20 training classes one must stay"
    )


def test_one_training_class_may_stay():
    split = split_classes(UNLISTED, validation_classes=1, test_classes=28, seed=0)
    assert len(split.train) == 1
    with pytest.raises(UserError, match=r"^dataset\.validation_classes: found 2, expected 0 to 1"):
        split_classes(UNLISTED, validation_classes=2, test_classes=28, seed=0)


@pytest.mark.parametrize(
    "parts",
    [((1, 2), (2,), (3,)), ((1, 2), (), (2,)), ((1,), (2,), (2,)), ((1, 2, 2), (), (3,))],
)
def test_no_class_stands_in_a_split_twice(parts):
    with pytest.raises(UserError, match=r"^class split: found classes \[2\] more than once"):
        ClassSplit(*parts)


def test_through_json_and_back():
    split = ClassSplit((1, 4), (), (2, 3))
    text = json.dumps(split.to_dict())
    assert json.loads(text) == {"train": [1, 4], "validation": [], "test": [2, 3]}
    assert ClassSplit.from_dict(json.loads(text)) == split


@pytest.mark.parametrize("part", [None, 3, "12", [1.0], ["1"], [True]])
def test_from_damaged_json(part):
    values = {"train": [5], "validation": part, "test": [2]}
    with pytest.raises(UserError, match=r"^class split, validation: found .*, expected a list"):
        ClassSplit.from_dict(values)


def test_from_json_with_a_missing_part():
    with pytest.raises(UserError, match=r"^class split, test: found None, expected a list"):
        ClassSplit.from_dict({"train": [1], "validation": []})

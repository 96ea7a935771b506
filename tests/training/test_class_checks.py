"""What needs classes is refused where the images have none, before anything is prepared."""

from pathlib import Path

import pytest

from sdn_ray.config import DatasetConfig, ExperimentConfig, TeacherConfig, TextConfig
from sdn_ray.data.rows import CaptionedDataset, CaptionedImage
from sdn_ray.errors import UserError
from sdn_ray.preparation.images import dataset_split
from sdn_ray.training.checks import check_classes

ROWS = tuple(CaptionedImage(Path(f"{n}.jpg"), n, f"{n}.jpg", ("a",)) for n in range(1, 6))
WITHOUT = CaptionedDataset("folder", ROWS, has_classes=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"teacher": TeacherConfig(weights="fit")},
            "teacher.weights: found fit, but the images of own have no classes to fit a",
        ),
        ({"text": TextConfig(patience=3)}, "text.patience: found 3, but the images of own have no"),
    ],
)
def test_what_needs_classes(options, words):
    config = ExperimentConfig(dataset=DatasetConfig(root="own"), **options)
    check_classes(config, CaptionedDataset("folder", ROWS))
    with pytest.raises(UserError, match=words):
        check_classes(config, WITHOUT)
    check_classes(ExperimentConfig(), WITHOUT)


def listed(tmp_path, lines, dataset=WITHOUT, **options):
    path = tmp_path / "test.txt"
    path.write_text(lines)
    config = DatasetConfig(validation_classes=1, test_list=str(path), **options)
    return dataset_split(dataset, config)


def test_a_list_of_the_user_counts_before_lists_and_draws(tmp_path):
    split = listed(tmp_path, "4.jpg\n2.jpg\n")
    assert split.test == (2, 4)
    assert sorted(split.train + split.validation) == [1, 3, 5]
    own = CaptionedDataset("folder", ROWS, train_classes=(1, 2, 4), test_classes=(3, 5))
    assert listed(tmp_path, "4.jpg\n2.jpg\n", own) == split


@pytest.mark.parametrize(
    ("lines", "options", "words"),
    [
        ("4.jpg\n", {"test_classes": 2}, "dataset.test_list: found it beside dataset.test_classes"),
        ("4.jpg\n9.jpg\n", {}, r"dataset.test_list: .*test\.txt, line 2: found unknown class 9"),
        ("", {}, r"dataset.test_list: .*test\.txt: found no class in it"),
        ("".join(f"{n}.jpg\n" for n in range(1, 6)), {}, "names all 5 classes, expected some"),
    ],
)
def test_a_list_that_cannot_be_meant(lines, options, words, tmp_path):
    with pytest.raises(UserError, match=words):
        listed(tmp_path, lines, **options)

from dataclasses import replace
from pathlib import Path

import pytest

from sdn_ray.data.references import RealImages, part_rows, read_reference, source_name
from sdn_ray.data.rows import CaptionedDataset, CaptionedImage
from sdn_ray.data.splits import ClassSplit
from sdn_ray.data.synthetic.flowers import write_synthetic_flowers
from sdn_ray.errors import UserError
from tests.folders import Own, write_parquet


def row(name, class_id):
    return CaptionedImage(Path("/data/images") / name, class_id, f"class {class_id}", ("a",))


ROWS = (row("a/0001.png", 1), row("b/0001.png", 2), row("b/0002.png", 2), row("c/0003.png", 3))


def test_the_layout_tells_the_data_set(tmp_path, material):
    assert read_reference(material.flowers).name == "oxford_flowers"
    write_synthetic_flowers(tmp_path / "drawn", image_size=16, images_per_species=1)
    assert read_reference(tmp_path / "drawn").name == "synthetic_flowers"
    (tmp_path / "cub" / "CUB_200_2011").mkdir(parents=True)
    with pytest.raises(UserError, match="CUB_200_2011/images"):
        read_reference(tmp_path / "cub")
    with pytest.raises(UserError, match=r"imagelabels\.mat"):
        read_reference(tmp_path)
    with pytest.raises(UserError, match="is no folder"):
        read_reference(tmp_path / "none")
    own = write_parquet(tmp_path / "data" / "own", [Own("1.jpg", b"", ("a",))], files=1)
    assert read_reference(own).name == read_reference(own / "train-00000.parquet").name == "folder"
    with pytest.raises(UserError, match=f"Did you mean {own}"):
        read_reference(tmp_path / "data")


def test_a_models_own_split_counts_before_the_lists_of_the_data_set():
    dataset = CaptionedDataset("cub", ROWS, train_classes=(1, 2), test_classes=(3,))
    own = ClassSplit(train=(3,), validation=(1,), test=(2,))
    assert part_rows(dataset, "test", None) == ROWS[3:]
    assert part_rows(dataset, "train", None) == ROWS[:3]
    assert part_rows(dataset, "test", own) == ROWS[1:3]
    assert part_rows(dataset, "validation", own) == ROWS[:1]


@pytest.mark.parametrize(
    ("part", "split", "message"),
    [
        ("tests", None, "found tests, expected one of train, validation, test"),
        ("validation", None, "only a model's own run knows"),
        ("test", None, "no class lists"),
        ("validation", ClassSplit((1,), (), (2,)), "has no image"),
    ],
)
def test_parts_that_are_not_there(part, split, message):
    with pytest.raises(UserError, match=message):
        part_rows(CaptionedDataset("cub", ROWS), part, split)


def test_real_images_are_found_by_name_or_by_a_stem_of_their_own():
    real = RealImages.of(ROWS)
    assert source_name(ROWS[0]) == "a/0001.png"
    assert source_name(replace(ROWS[0], name="one/of/mine.png")) == "one/of/mine.png"
    assert [real.find(source_name(one)) for one in ROWS] == [0, 1, 2, 3]
    assert real.find("0002") == real.find("0002.jpg") == real.find("/elsewhere/0002.png") == 2
    assert real.find("0001") is None  # two images have this stem
    assert real.find("0009") is None

"""Which folders of images may stand in Table 1; their scores: tests/integration/test_tune.py."""

import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from sdn_ray.data.rows import CaptionedDataset, CaptionedImage
from sdn_ray.data.splits import ClassSplit
from sdn_ray.errors import UserError
from sdn_ray.search.folders import decode_folders, open_folders
from sdn_ray.search.space import SearchSpace

SPLIT = ClassSplit((1,), (), (2, 3))


@pytest.fixture
def dataset():
    """Six images with two captions each, two of every class; classes 2 and 3 are for testing."""
    rows = [
        CaptionedImage(
            Path(f"/data/jpg/image_{number}.jpg"),
            1 + number // 2,
            f"class {1 + number // 2}",
            (f"caption {number}", f"another {number}"),
        )
        for number in range(6)
    ]
    return CaptionedDataset("flowers", tuple(rows))


@pytest.fixture
def write(tmp_path):
    """Write a folder of images with these lines as its manifest."""

    def written(lines):
        for line in lines:
            Image.new("RGB", (16, 16)).save(tmp_path / line["file"])
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "manifest.jsonl").write_text(text)
        rows = {"SDN": {}, "other": {"images": str(tmp_path)}}
        return SearchSpace(Path("space.yaml"), (), rows=rows)

    return written


def lines_of(numbers, captions=("caption",)):
    """Lines of a manifest: for each image and caption one that was drawn from it."""
    pairs = [(number, caption) for number in numbers for caption in captions]
    return [
        {
            "file": f"{place}.png",
            "index": place,
            "caption": f"{caption} {number}",
            "source": f"jpg/image_{number}.jpg",
        }
        for place, (number, caption) in enumerate(pairs)
    ]


def test_a_folder_has_the_images_of_first_captions_in_the_order_of_models(dataset, write):
    space = write(lines_of((5, 2, 4, 3), captions=("another", "caption")))
    [found] = open_folders(space, dataset, SPLIT)
    assert found.name == "other"
    assert [image.caption for image in found.images] == [f"caption {n}" for n in (2, 3, 4, 5)]
    assert [image.path.name for image in found.images] == ["3.png", "7.png", "5.png", "1.png"]
    assert [image.index for image in found.images] == [0, 1, 2, 3]


def test_captions_that_a_manifest_leaves_out_are_the_first(dataset, write):
    lines = [{k: v for k, v in line.items() if k != "caption"} for line in lines_of((4, 3, 2, 5))]
    [found] = open_folders(write(lines), dataset, SPLIT)
    assert [image.path.name for image in found.images] == ["2.png", "1.png", "0.png", "3.png"]


def test_no_folder_is_no_set(dataset):
    space = SearchSpace(Path("space.yaml"), (), rows={"SDN": {}})
    assert open_folders(space, dataset, SPLIT) == []


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            lines_of((2, 3, 1, 4, 5)),
            r"2\.png is of jpg/image_1\.jpg, of the class class 1; .* one of the 2 test classes",
        ),
        (lines_of((2, 7)), r"1\.png is of jpg/image_7\.jpg, which is no image of flowers; expect"),
        (
            lines_of((2, 3, 5)),
            "found images of 3 of the 4 captions that .* is 'caption 4' of jpg/image_4.jpg",
        ),
        (lines_of((2, 3, 4, 5), ("another",)), "found images of 0 of the 4 captions"),
    ],
)
def test_what_is_no_row(dataset, write, lines, words):
    with pytest.raises(UserError, match=f"^space.yaml: rows: other: .*{words}"):
        open_folders(write(lines), dataset, SPLIT)


def test_a_folder_needs_a_manifest(dataset, write, tmp_path):
    space = write(lines_of((2, 3, 4, 5)))
    (tmp_path / "manifest.jsonl").unlink()
    with pytest.raises(UserError, match=r"rows: other: .* has no manifest\.jsonl, expected one"):
        open_folders(space, dataset, SPLIT)


def test_a_folder_whose_model_has_seen_other_classes_is_refused(dataset, write, tmp_path):
    space = write(lines_of((2, 3, 4, 5)))
    origin = {"config": {"dataset": {"name": "flowers"}}, "tracked": None, "test_scores": {}}
    for test in ([2, 3], [2]):
        split = {"train": [1], "validation": [], "test": test}
        (tmp_path / "request.json").write_text(json.dumps({"origin": {**origin, "split": split}}))
        if test == [2, 3]:
            assert len(open_folders(space, dataset, SPLIT)) == 1
            continue
        words = "other: this study and other were trained with different test classes of flowers"
        with pytest.raises(UserError, match=words):
            open_folders(space, dataset, SPLIT)


def test_a_bad_image_is_found_before_trials_begin(dataset, write, tmp_path):
    sets = open_folders(write(lines_of((2, 3, 4, 5))), dataset, SPLIT)
    decode_folders(sets, Mock())
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "1.png")
    with pytest.raises(UserError, match=r"the row other: .*1\.png: found an image of mode L"):
        decode_folders(sets, Mock())
    decode_folders([replace(sets[0], images=sets[0].images[2:])], Mock())

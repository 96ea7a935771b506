"""Boxes and parts of CUB-200-2011 and of the embedded data set."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdn_ray.data.readers.annotations import read_boxes, read_parts, require_annotations
from sdn_ray.data.rows import CaptionedDataset, CaptionedImage
from sdn_ray.data.synthetic.flowers import PARTS, read_synthetic_flowers, write_synthetic_flowers
from sdn_ray.errors import UserError

NAMES = ("back", "left eye", "left wing", "right eye", "right wing")


@pytest.fixture
def birds(tmp_path: Path) -> CaptionedDataset:
    """Two images of 200×100 and 50×40 pixels, numbered 7 and 3."""
    rows = []
    for number, size in ((7, (200, 100)), (3, (50, 40))):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", size).save(path)
        rows.append(CaptionedImage(path, 1, "a bird", ("a bird",), number))
    (tmp_path / "parts").mkdir()
    (tmp_path / "bounding_boxes.txt").write_text("3 5.0 10.0 25.0 30.0\n7 20.0 50.0 100.0 25.0\n")
    names = "".join(f"{i} {name}\n" for i, name in enumerate(NAMES, 1))
    (tmp_path / "parts" / "parts.txt").write_text(names)
    lines = [f"3 {part} 0.0 0.0 0\n" for part in range(1, 6)]
    lines += ["7 1 100.0 25.0 1\n", "7 2 20.0 50.0 1\n", "7 3 0.0 0.0 0\n"]
    lines += ["7 4 40.0 75.0 1\n", "7 5 150.0 10.0 1\n"]
    (tmp_path / "parts" / "part_locs.txt").write_text("".join(lines))
    return CaptionedDataset("cub", tuple(rows), annotations=tmp_path)


def test_boxes_are_fractions_of_their_image_and_move_with_its_mirror(
    birds: CaptionedDataset,
) -> None:
    boxes = read_boxes(birds).values
    assert boxes.dtype == np.float32
    expected = [[0.1, 0.5, 0.5, 0.25], [0.1, 0.25, 0.5, 0.75]]
    np.testing.assert_allclose(boxes[0], expected, rtol=1e-6)
    mirrored = [[0.4, 0.5, 0.5, 0.25], [0.4, 0.25, 0.5, 0.75]]
    np.testing.assert_allclose(boxes[1], mirrored, rtol=1e-6)


def test_parts_are_fractions_and_left_and_right_exchange(birds: CaptionedDataset) -> None:
    found = read_parts(birds)
    assert found.parts == NAMES
    parts = found.values
    assert parts.shape == (2, 2, 5, 3)
    seen = [[0.5, 0.25, 1], [0.1, 0.5, 1], [0, 0, 0], [0.2, 0.75, 1], [0.75, 0.1, 1]]
    np.testing.assert_allclose(parts[0, 0], seen, rtol=1e-6)
    mirrored = [[0.5, 0.25, 1], [0.8, 0.75, 1], [0.25, 0.1, 1], [0.9, 0.5, 1], [0, 0, 0]]
    np.testing.assert_allclose(parts[1, 0], mirrored, rtol=1e-6)
    assert not parts[:, 1].any()  # hidden parts are zero in the mirror, too


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("bounding_boxes.txt", None, "found no such file"),
        ("bounding_boxes.txt", "7 20 50 100 25\n", "found no box of 3.png"),
        ("bounding_boxes.txt", "7 20 50 190 25\n3 5 10 25 30\n", "inside its 200×100 pixels"),
        ("bounding_boxes.txt", "7 20 50 nan 25\n", "line 1: found 7 20 50 nan 25"),
        ("parts/parts.txt", None, "found no such file"),
        ("parts/parts.txt", "1 back\n3 tail\n", "found the numbers [1, 3]"),
        ("parts/parts.txt", "back\n", "line 1: found back"),
        ("parts/part_locs.txt", None, "found no such file"),
        ("parts/part_locs.txt", "7 1 100.0 25.0 1\n", "found 1 parts of 7.png"),
        ("parts/part_locs.txt", "7 1 100.0 25.0\n", "line 1: found 7 1 100.0 25.0"),
        ("parts/part_locs.txt", "7 1.5 1 2 1\n", "line 1: found 7 1.5 1 2 1"),
        ("parts/part_locs.txt", "7 1 1 2 3\n", "line 1: found visible 3"),
        ("parts/part_locs.txt", "7 1 1 2 1\n7 1 1 2 1\n", "line 2: found a part again"),
        ("parts/parts.txt", "1 back\n2 back\n", "found back again"),
        ("bounding_boxes.txt", "7 20 50 10 25\n7 5 10 25 30\n", "line 2: found image 7 again"),
    ],
)
def test_bad_annotations_are_refused_in_words(
    birds: CaptionedDataset, file: str, content: str | None, expected: str
) -> None:
    assert birds.annotations is not None
    path = birds.annotations / file
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    read = read_boxes if file.startswith("bounding") else read_parts
    with pytest.raises(UserError) as error:
        read(birds)
    assert expected in str(error.value)
    assert str(path) in str(error.value)


def test_a_data_set_without_annotations_is_refused() -> None:
    flowers = CaptionedDataset("oxford_flowers", ())
    for read in (read_boxes, read_parts):
        with pytest.raises(UserError, match=r"dataset.name: found oxford_flowers"):
            read(flowers)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> CaptionedDataset:
    root = tmp_path_factory.mktemp("drawn") / "flowers"
    write_synthetic_flowers(root, image_size=32, images_per_species=1)
    return read_synthetic_flowers(root)


def test_the_embedded_data_set_has_boxes_and_parts(drawn: CaptionedDataset) -> None:
    boxes, parts = read_boxes(drawn).values, read_parts(drawn).values
    assert read_parts(drawn).parts == PARTS
    assert boxes.shape == (2, 320, 4)
    assert parts.shape == (2, 320, len(PARTS), 3)
    centers, tips = parts[0, :, 0], parts[0, :, 1:]
    assert (centers[:, 2] == 1).all()
    # The centre is in the box, and no tip far outside it.
    left, top, width, height = boxes[0].T
    assert ((centers[:, 0] > left) & (centers[:, 0] < left + width)).all()
    assert ((centers[:, 1] > top) & (centers[:, 1] < top + height)).all()
    seen = tips[:, :, 2] == 1
    beyond = np.maximum(left[:, None] - tips[:, :, 0], tips[:, :, 0] - (left + width)[:, None])
    assert beyond[seen].max() < 0.1


def test_tips_of_a_mirrored_flower_are_counted_clockwise_again(drawn: CaptionedDataset) -> None:
    plain, mirrored = read_parts(drawn).values
    for own, other in zip(plain, mirrored, strict=True):
        count = int(own[1:, 2].sum())
        order = [0, 1, *range(count, 1, -1)]  # the centre, the tip on top, the others backwards
        np.testing.assert_allclose(other[: count + 1, 0], 1 - own[order, 0], atol=1e-6)
        np.testing.assert_allclose(other[: count + 1, 1], own[order, 1])
        assert not other[count + 1 :].any()


@pytest.mark.parametrize("boxes", [True, False])
def test_missing_annotations_are_refused_before_they_are_read(
    birds: CaptionedDataset, boxes: bool
) -> None:
    require_annotations(birds, boxes=boxes)
    assert birds.annotations is not None
    path = birds.annotations / ("bounding_boxes.txt" if boxes else "parts/part_locs.txt")
    path.unlink()
    require_annotations(birds, boxes=not boxes)
    with pytest.raises(UserError, match="found no such file, expected an image's number"):
        require_annotations(birds, boxes=boxes)
    with pytest.raises(UserError, match=r"dataset\.name: found oxford_flowers"):
        require_annotations(CaptionedDataset("oxford_flowers", ()), boxes=boxes)


def test_an_image_that_does_not_decode_is_named(birds: CaptionedDataset) -> None:
    birds.rows[1].image_path.write_text("no image")
    for read in (read_boxes, read_parts):
        with pytest.raises(UserError, match=r"3\.png: does not decode"):
            read(birds)

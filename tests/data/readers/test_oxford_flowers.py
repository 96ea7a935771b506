import json

import numpy as np
import pytest
import scipy.io

from sdn_ray.data.readers.layout import read_captions
from sdn_ray.data.readers.oxford_flowers import read_oxford_flowers
from sdn_ray.data.rows import BadItem, CaptionedImage
from sdn_ray.errors import UserError

LABELS = [3, 1, 2, 3, 2]  # of images 1 to 5


def write_labels(root, labels, key="labels"):
    scipy.io.savemat(root / "imagelabels.mat", {key: np.array([labels])})


def caption_path(root, number):
    return root / f"text_c10/class_{LABELS[number - 1]:05d}/image_{number:05d}.txt"


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "flowers"
    (root / "jpg").mkdir(parents=True)
    write_labels(root, LABELS)
    for number in range(1, len(LABELS) + 1):
        (root / f"jpg/image_{number:05d}.jpg").write_bytes(b"not decoded here")
        captions = caption_path(root, number)
        captions.parent.mkdir(parents=True, exist_ok=True)
        captions.write_text(f"first of {number}\nsecond of {number}\n")
    return root


def write_lists(folder, train="class_00003\nclass_00001\n", test="class_00002\n", kind="classes"):
    (folder / f"trainval{kind}.txt").write_text(train)
    (folder / f"test{kind}.txt").write_text(test)


def message(root, **options):
    with pytest.raises(UserError) as error:
        read_oxford_flowers(root, **options)
    return str(error.value)


def test_reads_every_row_in_the_order_of_the_image_numbers(root):
    (root / "class_names.json").write_text(json.dumps({"1": "pink primrose", "3": "sweet pea"}))
    (root / "jpg/notes.txt").write_text("not a photograph")
    dataset = read_oxford_flowers(root)
    names = {1: "pink primrose", 2: "class_00002", 3: "sweet pea"}
    assert dataset.name == "oxford_flowers"
    assert dataset.rows == tuple(
        CaptionedImage(
            image_path=root / "jpg" / f"image_{number:05d}.jpg",
            class_id=label,
            class_name=names[label],
            captions=(f"first of {number}", f"second of {number}"),
        )
        for number, label in enumerate(LABELS, start=1)
    )
    assert dataset.bad_items == ()
    assert dataset.class_ids == (1, 2, 3)
    assert dataset.rows_of([2]) == (dataset.rows[2], dataset.rows[4])
    assert dataset.train_classes is None
    assert dataset.test_classes is None


@pytest.mark.parametrize("folder", [".", "text_c10"])
@pytest.mark.parametrize(
    ("kind", "train", "test"),
    [("classes", "class_00003\r\n\nclass_00001", " class_00002\n"), ("ids", "3\n1\n", "2\n")],
)
def test_class_lists_by_name_and_by_id(root, folder, kind, train, test):
    write_lists(root / folder, train, test, kind)
    dataset = read_oxford_flowers(root)
    assert dataset.train_classes == (1, 3)
    assert dataset.test_classes == (2,)


def test_ids_are_lines_of_allclasses_where_it_is_there(root):
    write_lists(root, "1\n2\n", "3\n", "ids")
    assert read_oxford_flowers(root).test_classes == (3,)
    (root / "allclasses.txt").write_text("class_00002\nclass_00003\nclass_00001\n")
    dataset = read_oxford_flowers(root)
    assert dataset.train_classes == (2, 3)
    assert dataset.test_classes == (1,)
    (root / "allclasses.txt").write_text("class_00002\nclass_00003\nclass_00009\n")
    assert message(root).startswith(f"{root / 'allclasses.txt'}, line 3: found unknown class")


def test_names_count_before_ids_and_root_before_the_caption_folder(root):
    write_lists(root, "1\n", "3\n", "ids")
    write_lists(root / "text_c10", "class_00001\n", "class_00002\n")
    assert read_oxford_flowers(root).test_classes == (2,)
    write_lists(root, "class_00002\n", "class_00001\n")
    assert read_oxford_flowers(root).test_classes == (1,)


@pytest.mark.parametrize(
    ("kind", "line", "first"), [("classes", "class_00004", "class_00001"), ("ids", "4", "1")]
)
def test_unknown_class_names_file_line_and_class(root, kind, line, first):
    known = "class_00002" if kind == "classes" else "2"
    write_lists(root, first, f"{known}\n\n{line}\n", kind)
    assert message(root, skip_bad=True) == (
        f"{root / f'test{kind}.txt'}, line 3: found unknown class {line}, "
        f"expected one of the 3 classes of the data set, such as {first}"
    )


def test_class_in_both_lists(root):
    write_lists(root, "class_00001\nclass_00003\nclass_00002\n", "class_00002\nclass_00003\n")
    assert message(root) == (
        f"{root / 'testclasses.txt'}: found class_00002, class_00003 in both trainvalclasses.txt "
        "and testclasses.txt, expected no class in both lists"
    )


@pytest.mark.parametrize("missing", ["trainvalclasses.txt", "testclasses.txt"])
def test_one_list_without_the_other(root, missing):
    write_lists(root)
    (root / missing).unlink()
    assert message(root).startswith(f"{root / missing}: found no such file, expected a class list")


def test_empty_list(root):
    write_lists(root, test="\n \n")
    assert message(root).startswith(f"{root / 'testclasses.txt'}: found no class in it")


def test_missing_root_and_missing_parts(root, tmp_path):
    assert message(tmp_path / "absent") == (
        f"{tmp_path / 'absent'}: found no such folder, "
        "expected Oxford-Flower-102 (jpg, imagelabels.mat, text_c10)"
    )
    for part in ("jpg", "text_c10", "imagelabels.mat"):
        (root / part).rename(tmp_path / part)
        kind = "file" if part == "imagelabels.mat" else "folder"
        expected = f"{root / part}: found no such {kind}, expected "
        assert message(root, skip_bad=True).startswith(expected)
        (tmp_path / part).rename(root / part)
    assert len(read_oxford_flowers(root).rows) == 5


def remove_image(root):
    path = root / "jpg/image_00002.jpg"
    path.unlink()
    return path, "found no such file, expected an image"


def remove_captions(root):
    path = caption_path(root, 2)
    path.unlink()
    return path, "found no such file, expected a caption file with one caption a line"


def empty_captions(root):
    path = caption_path(root, 2)
    path.write_text("\n  \r\n")
    return path, "found no caption in it, expected a caption file with one caption a line"


def captions_in_utf16(root):
    path = caption_path(root, 2)
    path.write_text("a flower\n", encoding="utf-16")
    expected = "expected a caption file with one caption a line in UTF-8"
    return path, f"found zero bytes (UTF-16 or no text), {expected}"


def captions_as_folder(root):
    path = caption_path(root, 2)
    path.unlink()
    path.mkdir()
    expected = "expected a caption file with one caption a line"
    return path, f"found a folder or a device, {expected}"


@pytest.mark.parametrize(
    "spoil",
    [remove_image, remove_captions, empty_captions, captions_in_utf16, captions_as_folder],
)
def test_bad_item_is_an_error_or_left_out_and_listed(root, spoil):
    write_lists(root)
    path, reason = spoil(root)
    assert message(root) == f"{path}: {reason}"
    dataset = read_oxford_flowers(root, skip_bad=True)
    assert dataset.bad_items == (BadItem(path, reason),)
    assert [row.image_path.name for row in dataset.rows] == [
        f"image_{number:05d}.jpg" for number in (1, 3, 4, 5)
    ]
    # Image 2 was the only one of class 1, which the list may still name.
    assert dataset.class_ids == (2, 3)
    assert dataset.train_classes == (1, 3)


def test_no_item_left(root):
    for path in (root / "jpg").iterdir():
        path.unlink()
    first = root / "jpg/image_00001.jpg"
    assert message(root, skip_bad=True) == (
        f"{root}: found no usable image (5 left out, the first: {first}: found no such file, "
        "expected an image), expected at least one"
    )


def test_captions_are_stripped_and_blank_lines_ignored(root):
    path = caption_path(root, 1)
    path.write_bytes(b"\xef\xbb\xbf a red flower \r\n\r\n\tan \xc3\xa9toile\nlast, no newline")
    assert read_captions(path) == ("a red flower", "an étoile", "last, no newline")


def test_captions_that_are_not_utf8_are_read_as_latin_1_line_by_line(root):
    path = caption_path(root, 1)
    # 0x85 is a line end to str.splitlines, but a character of the caption in such a file.
    path.write_bytes(b"petals\x85 and a caf\xe9 center\nan \xc3\xa9toile\n")
    assert read_captions(path) == ("petals\x85 and a café center", "an étoile")


def test_more_images_than_labels(root):
    write_labels(root, LABELS[:4])
    assert message(root, skip_bad=True) == (
        f"{root / 'imagelabels.mat'}: found 4 labels and 5 images up to number 5 in jpg, "
        "expected a label for each"
    )


def test_more_labels_than_images(root):
    write_labels(root, [*LABELS, 1])
    missing = root / "jpg/image_00006.jpg"
    assert message(root) == f"{missing}: found no such file, expected an image"


def test_truncated_labels(root):
    path = root / "imagelabels.mat"
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        assert message(root, skip_bad=True).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([3, 0, 2, 3, 2], "found the label 0, expected whole numbers from 1"),
        ([3, 1.5, 2, 3, 2], "found the label 1.5, expected whole numbers from 1"),
        ([3, np.nan, 2, 3, 2], "found the label nan, expected whole numbers from 1"),
        ([3, np.inf, 2, 3, 2], "found the label inf, expected whole numbers from 1"),
        ([LABELS, LABELS], "found 10 numbers in an array of shape (1, 2, 5), expected MATLAB 5"),
    ],
)
def test_labels_that_are_no_class_numbers(root, labels, found):
    write_labels(root, labels)
    assert message(root).startswith(f"{root / 'imagelabels.mat'}: {found}")


def test_labels_under_another_key(root):
    write_labels(root, LABELS, key="label")
    assert message(root) == (
        f"{root / 'imagelabels.mat'}: found no variable labels, "
        "expected MATLAB 5 with the variable labels, one class number an image"
    )


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'{"1": "pink', "cannot be read ("),
        (b'{"1": "\xff"}', "cannot be read ("),
        (b'["pink primrose"]', "cannot be read ("),
        (b'{"1": 1}', "cannot be read (1: "),
    ],
)
def test_bad_class_names(root, content, found):
    (root / "class_names.json").write_bytes(content)
    assert message(root).startswith(f"{root / 'class_names.json'}: {found}")


def test_the_real_folder(shared):
    dataset = read_oxford_flowers(shared / "data" / "oxford-flowers-102-64px")
    assert len(dataset.rows) == 8189
    assert dataset.class_ids == tuple(range(1, 103))
    assert len(dataset.train_classes) == 82
    assert len(dataset.test_classes) == 20
    assert sorted(dataset.train_classes + dataset.test_classes) == list(range(1, 103))
    assert {len(row.captions) for row in dataset.rows} == {10}
    assert len(dataset.rows_of(dataset.test_classes)) == 1711
    assert len(dataset.rows_of(dataset.train_classes)) == 6478
    assert dataset.bad_items == ()
    assert [row.image_path.name for row in dataset.rows[::1000]] == [
        f"image_{number:05d}.jpg" for number in range(1, 8190, 1000)
    ]
    row = dataset.rows[6733]
    assert (row.image_path.name, row.class_id) == ("image_06734.jpg", 1)
    assert row.class_name == "pink primrose"
    assert row.captions[0] == "this flower has petals that are lavender"
    assert (dataset.rows[0].class_id, dataset.rows[0].class_name) == (77, "passion flower")

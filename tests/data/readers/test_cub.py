import pytest

from sdn_ray.data.readers.cub import read_cub
from sdn_ray.data.rows import BadItem, CaptionedImage
from sdn_ray.errors import UserError

CLASSES = {1: "001.Black_footed_Albatross", 2: "002.Laysan_Albatross", 3: "003.Chuck_will_Widow"}
NAMES = {1: "Black footed Albatross", 2: "Laysan Albatross", 3: "Chuck will Widow"}
# image id -> class id, path; the ids are not in the order of the lines of images.txt
IMAGES = {
    2: (1, "001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg"),
    1: (1, "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg"),
    10: (3, "003.Chuck_will_Widow/Chuck_Will_Widow_0001_1.jpg"),
    3: (2, "002.Laysan_Albatross/Laysan_Albatross_0001_545.jpg"),
}


def write_numbered(path, values):
    path.write_text("".join(f"{number} {value}\n" for number, value in values.items()))


def caption_path(root, number):
    return root / "text_c10" / IMAGES[number][1].replace(".jpg", ".txt")


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "birds"
    unpacked = root / "CUB_200_2011"
    unpacked.mkdir(parents=True)
    write_numbered(unpacked / "classes.txt", CLASSES)
    write_numbered(unpacked / "images.txt", {key: path for key, (_, path) in IMAGES.items()})
    write_numbered(
        unpacked / "image_class_labels.txt", {k: label for k, (label, _) in IMAGES.items()}
    )
    for number, (_, image) in IMAGES.items():
        for path in (unpacked / "images" / image, caption_path(root, number)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"bird {number}\nagain {number}\n")
    return root


def message(root, **options):
    with pytest.raises(UserError) as error:
        read_cub(root, **options)
    return str(error.value)


def test_reads_every_row_in_the_order_of_the_image_ids(root):
    dataset = read_cub(root)
    assert dataset.name == "cub"
    assert dataset.rows == tuple(
        CaptionedImage(
            image_path=root / "CUB_200_2011" / "images" / IMAGES[number][1],
            class_id=IMAGES[number][0],
            class_name=NAMES[IMAGES[number][0]],
            captions=(f"bird {number}", f"again {number}"),
            number=number,
        )
        for number in (1, 2, 3, 10)
    )
    assert (dataset.train_classes, dataset.test_classes, dataset.bad_items) == (None, None, ())
    assert dataset.annotations == root / "CUB_200_2011"


def test_captions_may_lie_inside_the_unpacked_folder(root):
    beside = read_cub(root)
    (root / "text_c10").rename(root / "CUB_200_2011" / "text_c10")
    assert read_cub(root) == beside
    (root / "text_c10").mkdir()
    first = root / "text_c10" / IMAGES[1][1].replace(".jpg", ".txt")
    assert message(root).startswith(f"{first}: found no such file")


@pytest.mark.parametrize("folder", [".", "text_c10", "CUB_200_2011"])
@pytest.mark.parametrize(
    ("kind", "train", "test"),
    [
        ("classes", "003.Chuck_will_Widow\n001.Black_footed_Albatross\n", "002.Laysan_Albatross"),
        ("ids", "3\n1\n", "2\n"),
    ],
)
def test_class_lists_by_name_and_by_id(root, folder, kind, train, test):
    (root / folder / f"trainval{kind}.txt").write_text(train)
    (root / folder / f"test{kind}.txt").write_text(test)
    dataset = read_cub(root)
    assert dataset.train_classes == (1, 3)
    assert dataset.test_classes == (2,)


def test_unknown_class_in_a_list(root):
    path = root / "text_c10" / "trainvalclasses.txt"
    path.write_text("001.Black_footed_Albatross\n201.Dodo\n")
    (root / "text_c10" / "testclasses.txt").write_text("002.Laysan_Albatross\n")
    assert message(root) == (
        f"{path}, line 2: found unknown class 201.Dodo, "
        "expected one of the 3 classes of the data set, such as 001.Black_footed_Albatross"
    )


def test_class_in_both_lists(root):
    (root / "trainvalids.txt").write_text("1\n2\n")
    (root / "testids.txt").write_text("2\n3\n")
    assert message(root) == (
        f"{root / 'testids.txt'}: found 002.Laysan_Albatross in both trainvalids.txt "
        "and testids.txt, expected no class in both lists"
    )


@pytest.mark.parametrize(
    "part",
    [
        "CUB_200_2011",
        "CUB_200_2011/images",
        "CUB_200_2011/images.txt",
        "CUB_200_2011/classes.txt",
        "CUB_200_2011/image_class_labels.txt",
        "text_c10",
    ],
)
def test_missing_part(root, tmp_path, part):
    (root / part).rename(tmp_path / "moved")
    kind = "file" if part.endswith(".txt") else "folder"
    expected = f"{root / part}: found no such {kind}, expected "
    assert message(root, skip_bad=True).startswith(expected)


def test_missing_root(tmp_path):
    assert message(tmp_path / "absent") == (
        f"{tmp_path / 'absent'}: found no such folder, "
        "expected CUB-200-2011 (the folders CUB_200_2011 and text_c10)"
    )


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("CUB_200_2011/images", "found no such file, expected an image"),
        ("text_c10", "found no such file, expected a caption file with one caption a line"),
    ],
)
def test_bad_item_is_an_error_or_left_out_and_listed(root, part, reason):
    path = root / part / IMAGES[2][1]
    path = path if part != "text_c10" else path.with_suffix(".txt")
    path.unlink()
    assert message(root) == f"{path}: {reason}"
    dataset = read_cub(root, skip_bad=True)
    assert dataset.bad_items == (BadItem(path, reason),)
    assert [row.class_id for row in dataset.rows] == [1, 2, 3]


def test_labels_that_do_not_match_the_images(root):
    path = root / "CUB_200_2011" / "image_class_labels.txt"
    write_numbered(path, {1: 1, 2: 1, 3: 2})
    assert message(root, skip_bad=True) == (
        f"{path}: found 3 labels for 4 images of images.txt, image 10 stands in only one of the "
        "files, expected one label for each image"
    )
    write_numbered(path, {1: 1, 2: 1, 4: 2, 10: 3})
    assert message(root).startswith(f"{path}: found 4 labels for 4 images of images.txt, image 3")


@pytest.mark.parametrize("label", ["4", "two", "-1"])
def test_label_of_no_class(root, label):
    path = root / "CUB_200_2011" / "image_class_labels.txt"
    write_numbered(path, {1: 1, 2: 1, 3: label, 10: 3})
    assert message(root) == (
        f"{path}: found class {label} for image 3, expected one of the 3 of classes.txt"
    )


@pytest.mark.parametrize("line", ["a b.jpg", "3", "b.jpg"])
def test_malformed_line(root, line):
    path = root / "CUB_200_2011" / "images.txt"
    path.write_text(f"1 a.jpg\n{line}\n")
    assert message(root) == (
        f"{path}, line 2: found {line}, expected an image id and its path a line"
    )


def test_repeated_number(root):
    path = root / "CUB_200_2011" / "classes.txt"
    path.write_text("1 001.A\n2 002.B\n\n1 003.C\n")
    assert message(root) == f"{path}, line 4: found the number 1 again, expected each number once"

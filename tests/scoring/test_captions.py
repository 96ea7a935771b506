import pytest

from sdn_ray.data.synthetic.flowers import write_synthetic_flowers
from sdn_ray.data.synthetic.species import TEST_CLASSES
from sdn_ray.errors import UserError
from sdn_ray.scoring.captions import file_requests, reference_rows
from tests.folders import Own, write_json_lines


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn") / "flowers"
    write_synthetic_flowers(root, image_size=16, images_per_species=1)
    return root


def origin(test, train=(5,), name="synthetic_flowers"):
    split = {"train": list(train), "validation": [], "test": list(test)}
    return {"config": {"dataset": {"name": name}}, "split": split}


def classes(root, origins, part="test"):
    _, rows = reference_rows(str(root), part, origins)
    return sorted({row.class_id for row in rows})


def test_the_split_of_the_models_that_were_trained_on_the_data_set_counts(flowers):
    assert classes(flowers, {}) == sorted(TEST_CLASSES)
    assert classes(flowers, {"a": origin([1, 2]), "b": {}}) == [1, 2]
    assert classes(flowers, {"a": origin([1], name="cub"), "b": origin([3])}) == [3]
    assert classes(flowers, {"a": origin([1]), "b": origin([1], train=(6, 7))}) == [1]


def test_models_with_different_splits_are_not_scored_together(flowers):
    with pytest.raises(UserError, match="a and c were trained with different test classes"):
        classes(flowers, {"a": origin([1]), "b": {}, "c": origin([2])})


def test_a_folder_that_lacks_what_a_models_split_names_is_not_its_own(tmp_path):
    images = [Own(f"{n}.jpg", b"", ("a",), n % 4) for n in range(12)]
    root = write_json_lines(tmp_path / "own", images)
    own = {"m": origin([1, 3], train=(0, 2), name="folder")}
    assert classes(root, own) == [1, 3]
    other = {"m": origin([1, 3, 7], name="folder")}
    with pytest.raises(UserError, match="lacks 1 of the 3 classes of the test part of m's run"):
        classes(root, other)
    _, rows = reference_rows(str(root), "test", other, skip_bad=True)
    assert {row.class_id for row in rows} == {1, 3}


def test_the_captions_of_a_file(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_text("a red flower\r\n a blue\x85 one \n", encoding="utf-8")
    assert [request.caption for request in file_requests(str(path))] == [
        *("a red flower", "a blue\x85 one")
    ]
    path.write_text("")
    with pytest.raises(UserError, match="has no line"):
        file_requests(str(path))
    path.write_text("a\n\nb")
    with pytest.raises(UserError, match="has an empty line 2"):
        file_requests(str(path))
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match="cannot be read"):
        file_requests(str(path))

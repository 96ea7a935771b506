import pytest

from sdn_ray.data.synthetic.flowers import write_synthetic_flowers
from sdn_ray.data.synthetic.species import TEST_CLASSES
from sdn_ray.errors import UserError
from sdn_ray.scoring.captions import file_requests, reference_rows


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

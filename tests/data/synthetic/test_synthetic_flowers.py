import json
import re
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdn_ray.data.synthetic.flowers import (
    read_species,
    read_synthetic_flowers,
    write_synthetic_flowers,
)
from sdn_ray.data.synthetic.species import (
    BACKGROUNDS,
    CENTER_COLORS,
    PETAL_COLORS,
    PETAL_COUNTS,
    PETAL_SHAPES,
    SIZES,
    SPECIES,
    TEST_CLASSES,
    TRAIN_CLASSES,
)
from sdn_ray.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("flowers") / "set"
    write_synthetic_flowers(folder, image_size=32, images_per_species=3, seed=5)
    return folder


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_layout(root):
    dataset = read_synthetic_flowers(root)
    assert len(dataset.rows) == 240
    assert dataset.class_ids == tuple(range(1, 81))
    assert dataset.test_classes == (10, 20, 30, 40, 50, 60, 70, 80)
    assert sorted(dataset.train_classes + dataset.test_classes) == list(range(1, 81))

    row = dataset.rows[7]
    assert row.image_path == root / "images" / "species_03" / "image_00008.png"
    assert (row.class_id, row.class_name) == (3, "species_03")
    with Image.open(row.image_path) as image:
        assert (image.mode, image.size) == ("RGB", (32, 32))
    text = (root / "text_c10" / "species_03" / "image_00008.txt").read_text()
    assert text == "".join(f"{caption}\n" for caption in row.captions)


def test_species_are_read_back(root):
    assert read_species(root) == SPECIES


def test_captions_tell_what_is_seen(root):
    words = {4: "four", 5: "five", 6: "six", 8: "eight", 12: "twelve"}
    centers = 0
    for row in read_synthetic_flowers(root).rows:
        species = SPECIES[row.class_id]
        assert len(set(row.captions)) == 10
        for caption in row.captions:
            assert caption == caption.lower()
            assert len(caption) < 201
            assert species.petal_color in caption
            assert not re.search(r"\ba orange|[{}]", caption)
            assert set(words.values()) & set(caption.split()) <= {words[species.petal_count]}
            centers += species.center_color in caption
    assert centers > 0.6 * 1440


def test_split_is_balanced_and_zero_shot():
    test = [SPECIES[number] for number in TEST_CLASSES]
    train = [SPECIES[number] for number in TRAIN_CLASSES]
    assert Counter(species.petal_color for species in test) == dict.fromkeys(PETAL_COLORS, 1)
    for name, values in {
        "petal_color": PETAL_COLORS,
        "center_color": CENTER_COLORS,
        "background": BACKGROUNDS,
        "petal_count": PETAL_COUNTS,
        "petal_shape": PETAL_SHAPES,
        "size": SIZES,
    }.items():
        seen = Counter(getattr(species, name) for species in train)
        assert set(seen) == set(values)
        assert min(seen.values()) >= 5
    triples = {(s.petal_color, s.center_color, s.background) for s in train}
    assert not triples & {(s.petal_color, s.center_color, s.background) for s in test}


def test_the_seed_decides_every_byte(root, tmp_path):
    write_synthetic_flowers(tmp_path / "same", image_size=32, images_per_species=3, seed=5)
    assert contents(tmp_path / "same") == contents(root)
    write_synthetic_flowers(tmp_path / "other", image_size=32, images_per_species=1, seed=6)
    name = "images/species_01/image_00001.png"
    assert contents(tmp_path / "other")[name] != contents(root)[name]


def test_an_image_does_not_depend_on_how_many_there_are(root, tmp_path):
    write_synthetic_flowers(tmp_path / "fewer", image_size=32, images_per_species=1, seed=5)
    fewer = contents(tmp_path / "fewer")["images/species_02/image_00002.png"]
    assert fewer == contents(root)["images/species_02/image_00004.png"]


def test_images_of_a_species_differ(root):
    images = [np.asarray(Image.open(path), int) for path in (root / "images").glob("*_09/*.png")]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(images[first] - images[second]).mean() > 5


@pytest.mark.parametrize("image_size", [16, 72, 256])
def test_image_sizes(tmp_path, monkeypatch, image_size):
    few = {number: SPECIES[number] for number in (1, 2, 3, 4, 5)}  # one of each background
    monkeypatch.setattr("sdn_ray.data.synthetic.flowers.SPECIES", few)
    write_synthetic_flowers(tmp_path / "set", image_size=image_size, images_per_species=1)
    paths = sorted((tmp_path / "set" / "images").glob("*/*.png"))
    assert [Image.open(path).size for path in paths] == [(image_size, image_size)] * 5


@pytest.mark.parametrize("image_size", [8, 60, 264])
def test_refuses_other_sizes(tmp_path, image_size):
    with pytest.raises(UserError, match=f"image_size is {image_size}"):
        write_synthetic_flowers(tmp_path / "set", image_size=image_size)


def test_an_existing_set_is_left_alone(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    write_synthetic_flowers(root, image_size=32, images_per_species=3, seed=5)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_an_existing_set_drawn_otherwise_is_refused(root):
    with pytest.raises(UserError, match=r"'seed': 5.*expected.*'seed': 1"):
        write_synthetic_flowers(root, image_size=32, images_per_species=3, seed=1)


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(UserError, match="something other"):
        write_synthetic_flowers(tmp_path, images_per_species=1)


def test_a_failure_in_the_middle_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr("sdn_ray.data.synthetic.flowers.asdict", fail)
    with pytest.raises(OSError, match="no space left"):
        write_synthetic_flowers(tmp_path / "set", image_size=16, images_per_species=1)
    assert list(tmp_path.iterdir()) == []


def test_writers_at_once_leave_one_whole_set(tmp_path):
    arguments = {"image_size": 16, "images_per_species": 1}
    failures = []

    def write():
        try:
            write_synthetic_flowers(tmp_path / "set", **arguments)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert len(read_synthetic_flowers(tmp_path / "set").rows) == 80


def test_reading_names_what_is_missing(root, tmp_path):
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "species.json"))):
        read_synthetic_flowers(tmp_path)
    write_synthetic_flowers(tmp_path / "set", image_size=16, images_per_species=1)
    (tmp_path / "set" / "testclasses.txt").write_text("species_97\n")
    with pytest.raises(UserError, match="'species_97'"):
        read_synthetic_flowers(tmp_path / "set")
    (tmp_path / "set" / "text_c10" / "species_01" / "image_00001.txt").unlink()
    with pytest.raises(UserError, match=r"image_00001\.txt: found no such file"):
        read_synthetic_flowers(tmp_path / "set")


def test_species_file_is_plain_json(root):
    species = json.loads((root / "species.json").read_text())["species"]["10"]
    assert species == {
        "class_name": "species_10",
        "petal_color": "red",
        "center_color": "white",
        "background": "soil",
        "petal_count": 8,
        "petal_shape": "pointed",
        "size": "small",
    }

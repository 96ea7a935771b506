import json
import re
import subprocess
import sys
import threading
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdn_ray.data.synthetic.captions import named_attributes
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
    Species,
)
from sdn_ray.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("flowers") / "set"
    write_synthetic_flowers(folder, image_size=32, images_per_species=2, seed=5)
    return folder


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


SCRIPT = """
import sys
from sdn_ray.data.synthetic import flowers
print("here")
flowers._WORTH_PROCESSES = 0
flowers.write_synthetic_flowers(sys.argv[1], image_size=32, images_per_species=2, seed=5)
"""


def test_several_processes_draw_the_same_and_leave_the_script_alone(root, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)  # without `if __name__ == "__main__"`
    words = [sys.executable, str(script), str(tmp_path / "set")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["here"]
    assert contents(tmp_path / "set") == contents(root)


def test_layout(root):
    dataset = read_synthetic_flowers(root)
    assert len(dataset.rows) == 640
    assert dataset.class_ids == tuple(range(1, 321))
    assert dataset.test_classes == TEST_CLASSES
    assert len(TEST_CLASSES) == 40
    assert sorted(dataset.train_classes + dataset.test_classes) == list(range(1, 321))

    row = dataset.rows[7]
    assert row.image_path == root / "images" / "species_004" / "image_00008.png"
    assert (row.class_id, row.class_name) == (4, "species_004")
    with Image.open(row.image_path) as image:
        assert (image.mode, image.size) == ("RGB", (32, 32))
    text = (root / "text_c10" / "species_004" / "image_00008.txt").read_text()
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
    assert centers > 0.6 * 6400


def test_split_is_balanced_and_zero_shot():
    test = [SPECIES[number] for number in TEST_CLASSES]
    train = [SPECIES[number] for number in TRAIN_CLASSES]
    assert len(set(SPECIES.values())) == 320
    assert Counter(species.petal_color for species in test) == dict.fromkeys(PETAL_COLORS, 5)
    assert Counter(species.petal_count for species in test) == dict.fromkeys(PETAL_COUNTS, 8)
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
        assert min(seen.values()) > 0.7 * 280 / len(values)
        assert {getattr(species, name) for species in test} == set(values)
    for two in combinations(vars(test[0]), 2):
        pairs = [Counter(tuple(getattr(s, name) for name in two) for s in p) for p in (test, train)]
        assert pairs[0].keys() <= pairs[1].keys(), two
        # No attribute tells another, or a generator would draw what it was never told.
        assert max(pairs[1].values()) <= 2.6 * 280 / len(pairs[1]), two
    triples = {(s.petal_color, s.center_color, s.background) for s in train}
    assert not triples & {(s.petal_color, s.center_color, s.background) for s in test}


def test_the_seed_decides_every_byte(root, tmp_path):
    write_synthetic_flowers(tmp_path / "same", image_size=32, images_per_species=2, seed=5)
    assert contents(tmp_path / "same") == contents(root)
    write_synthetic_flowers(tmp_path / "other", image_size=32, images_per_species=1, seed=6)
    name = "images/species_001/image_00001.png"
    assert contents(tmp_path / "other")[name] != contents(root)[name]


def test_an_image_does_not_depend_on_how_many_there_are(root, tmp_path):
    write_synthetic_flowers(tmp_path / "fewer", image_size=32, images_per_species=1, seed=5)
    fewer = contents(tmp_path / "fewer")["images/species_002/image_00002.png"]
    assert fewer == contents(root)["images/species_002/image_00003.png"]


def test_images_of_a_species_differ(root):
    first, second = (
        np.asarray(Image.open(path), int) for path in (root / "images").glob("*_009/*.png")
    )
    assert np.abs(first - second).mean() > 5


def test_boxes_and_parts_tell_where_the_flower_is(root):
    """On a dark background the flower is what is bright."""
    boxes = np.loadtxt(root / "bounding_boxes.txt")
    parts = np.loadtxt(root / "parts" / "part_locs.txt").reshape(640, 13, 5)
    assert boxes[:, 0].tolist() == list(range(1, 641))
    assert (parts[:, :, 0] == boxes[:, :1]).all()
    assert (parts[:, :, 1] == np.arange(1, 14)).all()
    names = (root / "parts" / "parts.txt").read_text().splitlines()
    assert names[:2] == ["1 center", "2 petal tip 1"]
    assert len(names) == 13
    rows = read_synthetic_flowers(root).rows
    checked = 0
    for row, (_, left, top, width, height), own in zip(rows, boxes, parts, strict=True):
        species = SPECIES[row.class_id]
        places, seen = own[:, 2:4], own[:, 4] == 1
        assert seen.sum() == 1 + species.petal_count
        assert (places[~seen] == 0).all()
        inside = places[seen]
        assert (inside >= [left - 1, top - 1]).all()
        assert (inside <= [left + width + 1, top + height + 1]).all()
        center, tips = places[0], places[1 : 1 + species.petal_count]
        assert np.abs(center - 16).max() < 1.5
        first = tips[0] - center
        assert abs(np.degrees(np.arctan2(first[0], -first[1]))) < 16  # up, a little turned
        if species.background == "night" and species.petal_color in ("white", "yellow", "pink"):
            image = np.asarray(Image.open(row.image_path), float).max(axis=2)
            bright = np.argwhere(image > 140)
            found = [*bright.min(axis=0)[::-1], *(bright.max(axis=0) + 1)[::-1]]
            assert np.abs(np.array(found) - [left, top, left + width, top + height]).max() < 2.5
            checked += 1
    assert checked > 20


def test_captions_name_attributes():
    species = Species("white", "green", "stone", 8, "heart", "large")
    named = {
        "this flower has eight white petals and a green center.": {"petal_count", "center_color"},
        "the petals of this flower are white and notched, and its center is green.": {
            "petal_shape",
            "center_color",
        },
        "a big white blossom with eight heart-shaped petals on grey stone.": {
            "size",
            "petal_count",
            "petal_shape",
            "background",
        },
        "in front of a grey stone wall there is a white flower with a green center.": {
            "background",
            "center_color",
        },
        "white petals, notched in shape, with green stamens in the center.": {
            "petal_shape",
            "center_color",
        },
    }
    for caption, expected in named.items():
        assert named_attributes(caption, species) == expected | {"petal_color"}, caption
    # A word within another one names nothing.
    other = Species("white", "green", "stone", 8, "round", "large")
    assert named_attributes("petals that are white grow around it.", other) == {"petal_color"}


@pytest.mark.parametrize("image_size", [16, 72, 256])
def test_image_sizes(tmp_path, monkeypatch, image_size):
    numbers = (TEST_CLASSES[place] for place in range(5))
    few = {number: SPECIES[number] for number in numbers}  # one of each background
    assert {species.background for species in few.values()} == set(BACKGROUNDS)
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
    write_synthetic_flowers(root, image_size=32, images_per_species=2, seed=5)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_an_existing_set_drawn_otherwise_is_refused(root):
    with pytest.raises(UserError, match=r"'seed': 5.*expected.*'seed': 1"):
        write_synthetic_flowers(root, image_size=32, images_per_species=2, seed=1)


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
    assert len(read_synthetic_flowers(tmp_path / "set").rows) == 320


def test_reading_names_what_is_missing(root, tmp_path):
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "species.json"))):
        read_synthetic_flowers(tmp_path)
    write_synthetic_flowers(tmp_path / "set", image_size=16, images_per_species=1)
    (tmp_path / "set" / "testclasses.txt").write_text("species_997\n")
    with pytest.raises(UserError, match="'species_997'"):
        read_synthetic_flowers(tmp_path / "set")
    (tmp_path / "set" / "text_c10" / "species_001" / "image_00001.txt").unlink()
    with pytest.raises(UserError, match=r"image_00001\.txt: found no such file"):
        read_synthetic_flowers(tmp_path / "set")


def test_species_file_is_plain_json(root):
    species = json.loads((root / "species.json").read_text())["species"]["10"]
    assert species == {
        "class_name": "species_010",
        "petal_color": "red",
        "center_color": "white",
        "background": "leaves",
        "petal_count": 5,
        "petal_shape": "pointed",
        "size": "small",
    }

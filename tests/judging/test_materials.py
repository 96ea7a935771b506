import json
import re
import stat
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdn_ray.errors import UserError
from sdn_ray.judging.materials import Wanted, check_wanted, make_study
from sdn_ray.judging.study import detectable, read_key, read_study
from sdn_ray.judging.trials import own_captions
from tests.judging.studies import CLASSES, METHODS, PHOTOGRAPH, small_study


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp("study"), questions=("quality", "match"))


def brightness(made, name):
    with Image.open(made.folder / "images" / name) as picture:
        assert picture.size == (32, 32)
        assert picture.mode == "RGB"
        assert not picture.info
        return np.asarray(picture).mean()


def test_each_column_is_one_method_s_first_sample_at_the_study_s_size(made):
    for caption in made.study.captions:
        found = [brightness(made, name) for name in caption.images]
        assert found == pytest.approx([shade + 0.5 for shade in METHODS.values()], abs=0.3)
        assert brightness(made, caption.real) == PHOTOGRAPH


def test_captions_are_of_all_classes_alike(made):
    counts = Counter(caption.class_id for caption in made.study.captions)
    assert len(counts) == CLASSES
    assert max(counts.values()) - min(counts.values()) <= 1


def test_no_rater_has_a_few_classes_alone(tmp_path):
    """Raters are dealt in turn, ten of them, and so are classes, of which there are five."""
    options = {"captions": 100, "common": 0, "raters": 10, "raters_per_caption": 1, "size": 32}
    study = small_study(tmp_path, **options).study
    for slot in range(10):
        own = {study.captions[c].class_id for c in own_captions(study, slot)}
        assert len(own) >= 3


def test_classes_are_the_data_set_s_whatever_a_folder_says(tmp_path):
    made = small_study(tmp_path)
    manifest = made.entries[0].folder / "manifest.jsonl"
    manifest.write_text(re.sub(r', "class": \d+', "", manifest.read_text()))
    wanted = Wanted(captions=24, common=4, raters=4, raters_per_caption=2, size=32)
    again = make_study(tmp_path / "again", made.entries, made.real, "flowers", wanted)
    assert [c.class_id for c in again.captions] == [c.class_id for c in made.study.captions]


def test_pictures_do_not_tell_when_they_were_made(made):
    assert {path.stat().st_mtime for path in (made.folder / "images").iterdir()} == {0}


def test_attention_checks_are_of_captions_that_nobody_judges(made):
    judged = {caption.text for caption in made.study.captions}
    assert {gold.text for gold in made.study.gold}.isdisjoint(judged)


def test_an_attention_check_has_a_photograph_first_or_a_scrambled_picture_last(tmp_path):
    study = small_study(tmp_path, captions=60)
    assert {gold.place for gold in study.study.gold} == {"first", "last"}
    for gold in study.study.gold:
        for column, (name, shade) in enumerate(zip(gold.images, METHODS.values(), strict=True)):
            real = column == gold.column and gold.place == "first"
            expected = PHOTOGRAPH if real else shade + 0.5
            assert brightness(study, name) == pytest.approx(expected, abs=0.3)


def test_a_scrambled_picture_has_the_same_blocks_elsewhere(tmp_path):
    from sdn_ray.judging.materials import _Writer

    write = _Writer(tmp_path / "images", "00" * 32, 64)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    from sdn_ray.data.image_sets import SetImage

    image = SetImage(tmp_path / "a.png", 0)
    name = write.scrambled(image, ("a", "b"), 0, np.random.default_rng(1))
    mixed = np.asarray(Image.open(tmp_path / "images" / name))
    assert (mixed != pixels).any()

    def blocks(of):
        return sorted(
            of[y : y + 8, x : x + 8].tobytes() for y in range(0, 64, 8) for x in range(0, 64, 8)
        )

    assert blocks(mixed) == blocks(pixels)


def test_nothing_but_the_key_names_a_method_and_the_key_is_its_owner_s(made):
    for path in made.folder.rglob("*"):
        assert not any(name in path.name for name in METHODS)
        if path.suffix == ".json" and path.name != "key.json":
            assert not any(name in path.read_text() for name in METHODS)
    names = [path.name for path in (made.folder / "images").iterdir()]
    assert all(re.fullmatch(r"[0-9a-f]{32}\.png", name) for name in names)
    assert stat.S_IMODE((made.folder / "key.json").stat().st_mode) == 0o600
    assert read_key(made.folder, made.study).methods == tuple(METHODS)


def test_two_studies_of_the_same_pictures_have_other_file_names(made, tmp_path):
    wanted = Wanted(captions=24, common=4, raters=4, raters_per_caption=2, size=32)
    again = make_study(tmp_path / "again", made.entries, made.real, "flowers", wanted)
    assert {c.text for c in again.captions} == {c.text for c in made.study.captions}
    names = {name for caption in made.study.captions for name in caption.images}
    assert names.isdisjoint(name for caption in again.captions for name in caption.images)


def test_a_study_is_read_as_it_was_written(made):
    assert read_study(made.folder) == made.study


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"common": 5, "captions": 4}, "--common: found 5, expected at most --captions 4"),
        ({"raters": 2}, "--raters_per_caption: found 3, expected at most --raters 2"),
        ({"questions": ("match",)}, "--questions: found match, expected quality"),
        ({"questions": ("quality", "quality")}, "each once"),
    ],
)
def test_what_no_study_can_be_is_refused(changes, message):
    with pytest.raises(UserError, match=re.escape(message)):
        check_wanted(Wanted(**changes), 3)


@pytest.mark.parametrize("methods", [1, 10])
def test_two_to_nine_methods(methods):
    with pytest.raises(UserError, match=f"found {methods} methods, expected 2 to 9"):
        check_wanted(Wanted(), methods)


def test_too_few_common_captions_are_told_and_nothing_is_left_behind(made, tmp_path):
    with pytest.raises(UserError, match=r"drew 29 captions in common \(of 29, 29, 29\), expected"):
        make_study(tmp_path / "x", made.entries, made.real, "flowers", Wanted(size=32))
    assert list(tmp_path.iterdir()) == []


def test_a_picture_of_no_real_image_is_named(made, tmp_path):
    entry = made.entries[0]
    folder = tmp_path / "other"
    folder.mkdir()
    lines = (entry.folder / "manifest.jsonl").read_text().splitlines()
    first = json.loads(lines[0]) | {"source": "jpg/nowhere.jpg"}
    first["file"] = str(entry.folder / first["file"])
    (folder / "manifest.jsonl").write_text(json.dumps(first) + "\n")
    from sdn_ray.scoring.image_sets import Entry

    with pytest.raises(UserError, match=r"source jpg/nowhere\.jpg is not among the 29"):
        make_study(
            tmp_path / "x",
            [Entry("a", folder), entry],
            made.real,
            "flowers",
            Wanted(captions=2, common=1, size=32),
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"methods": 4}, r"captions\.0 has 3 images, expected 4"),
        (lambda s: s | {"common": 99}, "found 99 common ones of 24 captions"),
        (lambda s: s | {"questions": ["taste"]}, "questions"),
    ],
)
def test_a_spoiled_study_is_told(made, tmp_path, change, message):
    spoiled = change(json.loads((made.folder / "study.json").read_text()))
    (tmp_path / "study.json").write_text(json.dumps(spoiled))
    with pytest.raises(UserError, match=message):
        read_study(tmp_path)


def test_a_folder_without_a_study_is_told():
    with pytest.raises(UserError, match="not found, expected the folder that"):
        read_study(Path("/nowhere"))


def test_the_difference_that_a_study_finds():
    # The protocol: δ 0.18 between two of four methods needs 810 rankings.
    assert detectable(810, 4) == pytest.approx(0.18, abs=0.001)

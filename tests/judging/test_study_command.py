import json

import pytest
from PIL import Image

from sdn_ray.data.image_sets import MANIFEST, SetImage, manifest_line
from sdn_ray.data.references import RealImages, part_rows, read_reference, source_name
from sdn_ray.runs.command_line import run_command
from sdn_ray.study import main


@pytest.fixture(scope="module")
def sets(best_material, tmp_path_factory):
    """What two methods drew of the photographs of the test classes: one colour each."""
    dataset = read_reference(best_material.flowers)
    real = RealImages.of(part_rows(dataset, "test", None))
    folders = {}
    for name, shade in (("sdn", 200), ("gan", 60)):
        folders[name] = folder = tmp_path_factory.mktemp(name)
        lines = []
        for number, row in enumerate(real.rows[:60]):
            path = folder / f"{number:05d}.png"
            Image.new("RGB", (64, 64), (shade,) * 3).save(path)
            source = source_name(row)
            image = SetImage(path, number, None, row.captions[0], source, row.class_id)
            lines.append(manifest_line(image, folder))
        (folder / MANIFEST).write_text("".join(lines))
    return folders


@pytest.fixture
def arguments(sets, best_material, tmp_path):
    images = [f"{name}={folder}" for name, folder in sets.items()]
    given = {"reference": best_material.flowers, "output": tmp_path / "study", "captions": 20}
    given |= {"common": 5, "size": 48}
    return ["create", "--images", *images, *(f"--{k}={v}" for k, v in given.items())]


def test_create_makes_a_study_of_photographs_and_says_what_it_can_tell(arguments, tmp_path, capsys):
    assert run_command(main, arguments) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "20 captions of 2 methods, 2 attention checks; 18 to 20 trials a rater" in said
    # 2.80 √(2 · 3 / 6 / 20)
    assert "tell apart mean ranks that differ by 0.63 (80 % power)" in said
    study = json.loads((tmp_path / "study" / "study.json").read_text())
    assert study["questions"] == ["quality", "correlation"]
    assert len(list((tmp_path / "study" / "images").iterdir())) == 22 * 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--questions", "taste"], "--questions: found taste, expected some of quality"),
        (["--captions", "100"], "--captions: the methods drew 60 captions in common (of 60, 60)"),
        (["--captions", "1"], "--captions: found 1, expected at least 2"),
        (["--common", "21"], "--common: found 21, expected at most --captions 20"),
        (["--raters", "2"], "--raters_per_caption: found 3, expected at most --raters 2"),
        (["--reference", "/nowhere"], "--reference: /nowhere is no folder"),
        (["--seed", "-1"], "--seed: found -1, expected at least 0"),
    ],
)
def test_what_create_cannot_do_is_one_line_and_leaves_nothing(
    arguments, tmp_path, capsys, more, message
):
    assert run_command(main, [*arguments, *more]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_one_method_is_none_to_put_in_order(arguments, capsys):
    one = [part for part in arguments if not part.startswith("gan=")]
    assert run_command(main, one) == 2
    assert "--images: found 1 methods, expected 2 to 9" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["serve", "report"])
def test_a_folder_without_a_study_is_one_line(tmp_path, capsys, kind):
    assert run_command(main, [kind, "--study", str(tmp_path)]) == 2
    assert "study.json: not found" in capsys.readouterr().err


def test_other_machines_need_a_token(tmp_path, capsys):
    arguments = ["serve", "--study", str(tmp_path), "--host", "0.0.0.0"]
    assert run_command(main, arguments) == 2
    assert "--host: found 0.0.0.0 without --token" in capsys.readouterr().err

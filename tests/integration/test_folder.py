"""One's own captioned images, from whichever layout, through training and all that reads it."""

import json
from unittest.mock import Mock

import numpy as np
import pytest

from sdn_ray.data.image_sets import read_image_set
from sdn_ray.data.prepared import caption_arrays, store_captions
from sdn_ray.data.readers.folder import read_folder
from sdn_ray.data.references import read_reference
from sdn_ray.evaluate import main as evaluate
from sdn_ray.figures import main as figures
from sdn_ray.generate import main as generate
from sdn_ray.models.plan import Plan
from sdn_ray.models.teacher import Teacher
from sdn_ray.preparation.images import prepare_images
from sdn_ray.runs.command_line import USER_ERROR, run_command
from sdn_ray.text.words import count_words
from tests.folders import LAYOUTS, Own, write_json_lines, write_parquet
from tests.integration.small import train, write_config

pytestmark = pytest.mark.usefixtures("ray_cluster")
BAD = 5  # does not decode


@pytest.fixture(scope="module")
def own(reference):
    """Sixty photographs as images of one's own, with their classes."""
    return [
        Own(row.image_path.name, row.image_path.read_bytes(), row.captions, row.class_name)
        for row in read_reference(reference).rows
    ]


def test_every_layout_is_prepared_alike(own, tmp_path):
    images = [*own[:BAD], Own("bad.jpg", own[0].content[:300], ("a",), "none"), *own[BAD:]]
    found = {}
    for layout, write in LAYOUTS.items():
        dataset = read_folder(write(tmp_path / layout, images))
        cache = tmp_path / f"cache of {layout}"  # so that each is decoded by itself
        prepared = prepare_images(dataset, 32, cache, Mock(), skip_bad=True)
        rows = prepared.dataset.rows
        assert [item.path.stem for item in prepared.dataset.bad_items] == ["bad"]
        encoder = count_words((c for row in rows for c in row.captions), 64)
        arrays = caption_arrays(prepared, cache, "words")
        store_captions(prepared, arrays, encoder.encode)
        files = sorted(arrays.folder.glob("*.npy"))
        found[layout] = {
            "images": np.array(prepared.images()),
            "classes": np.array([row.class_id for row in rows]),
            **{path.name: np.load(path) for path in files},
        }
    expected = prepare_images(_as_it_is(own, tmp_path), 32, tmp_path / "cache", Mock()).images()
    for arrays in found.values():
        assert (arrays["images"] == expected).all()
        assert arrays.keys() == found["csv"].keys() >= {"embeddings.npy", "caption_rows.npy"}
        for name, array in arrays.items():
            assert (array == found["csv"][name]).all(), name


def _as_it_is(own, tmp_path):
    return read_folder(write_json_lines(tmp_path / "as it is", own))


def test_without_classes_from_training_to_scores(own, small_cache, best_material, tmp_path, capfd):
    images = [Own(one.name, one.content, one.texts) for one in own]
    file = write_parquet(tmp_path / "parquet", images, files=1) / "train-00000.parquet"
    folder = write_json_lines(tmp_path / "folder", images)
    Teacher(Plan.parse("4,M,8,M,8")).save(tmp_path / "teacher.safetensors")
    options = {
        "config": write_config(tmp_path, small_cache, 4, "gan_int_cls"),
        "dataset.name": "folder",
        "dataset.root": file,
        "dataset.test_list": "null",
        "dataset.test_classes": 12,
        "gan_int_cls.epochs": 1,
        "output": tmp_path / "run",
    }
    arguments = [word for key, value in options.items() for word in (f"--{key}", value)]
    log = tmp_path / "log"
    assert train(*arguments, log=log) == USER_ERROR
    assert "have no classes to fit a classifier of" in log.read_text() + capfd.readouterr().err
    arguments += ["--teacher.weights", tmp_path / "teacher.safetensors"]
    assert train(*arguments, log=log) == 0, log.read_text()
    said = " ".join(log.read_text().split())
    assert "44 training, 4 validation and 12 test images without classes, split by image" in said
    assert "this is no zero-shot split" in said.partition("prepared in")[2]
    model = tmp_path / "run" / "model"
    origin = json.loads((model / "config.json").read_text())["origin"]
    assert origin["split_by"] == "image"
    names = {row.name for row in read_folder(file).rows if row.class_id in origin["split"]["test"]}
    assert len(names) == 12

    # The same images in another layout are the same data set, and have the same split.
    for reference in (file, folder):
        output = tmp_path / f"drawn of {reference.name}"
        drawing = ["--model", model, "--reference", reference, "--captions_per_image", 1]
        assert run(generate, *drawing, "--output", output) == 0
        assert {image.source for image in read_image_set(output)} == names
    scoring = ["--classifier", best_material.classifier, "--splits", 2]
    given = ["--images", tmp_path / "drawn of folder", "--reference", file]
    assert run(evaluate, *given, *scoring, "--output", tmp_path / "scores.json") == 0
    assert "no zero-shot split" in " ".join(capfd.readouterr().out.split())
    [report] = json.loads((tmp_path / "scores.json").read_text()).values()
    assert report["images"] == 12
    sheet = ["--images", model, "--reference", file, "--output", tmp_path / "a.png"]
    assert run(figures, "comparison", *sheet) == 0
    index = ["--teacher", tmp_path / "teacher.safetensors"]
    assert run(figures, "retrieval", *index, *sheet[:-1], tmp_path / "b.png") == USER_ERROR
    assert "have no classes, of which a VGG is" in capfd.readouterr().err
    (folder / "metadata.jsonl").write_text(
        "\n".join(line for line in _lines(folder) if json.loads(line)["file_name"] not in names)
    )
    assert run(generate, *drawing, "--output", tmp_path / "none") == USER_ERROR
    assert "lacks 12 of the 12 images of the test part of model's run" in capfd.readouterr().err


def _lines(folder):
    return (folder / "metadata.jsonl").read_text().splitlines()


def run(main, *arguments):
    return run_command(main, [str(argument) for argument in arguments])

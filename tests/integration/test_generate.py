import json

import numpy as np
import pytest
from PIL import Image

from sdn_ray import generate
from sdn_ray.cluster import actor_pool
from sdn_ray.data.image_sets import ImageReader, read_image_set
from sdn_ray.data.references import part_rows, read_reference, source_name
from sdn_ray.errors import UserError
from sdn_ray.models.export import load_model
from sdn_ray.scoring import drawing


@pytest.fixture(autouse=True)
def no_captions_are_few(monkeypatch):
    """Even a few captions stream through Ray Data in these tests."""
    monkeypatch.setattr(drawing, "IN_PROCESS", 0)


def run(*arguments):
    return generate.main([str(argument) for argument in arguments])


def drawn_directly(model, captions):
    return np.concatenate(list(load_model(model).draw(captions)))


def manifest(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_the_captions_of_a_split_stream_through_ray(
    ray_cluster, reference, diverse_model, tmp_path
):
    out = tmp_path / "out"
    assert run("--model", diverse_model, "--reference", reference, "--output", out) == 0
    rows = part_rows(read_reference(reference), "test", None)
    captions = [caption for row in rows for caption in row.captions]
    records = manifest(out)
    assert len(records) == len(captions) == 200
    assert [record["caption"] for record in records] == captions
    assert [record["source"] for record in records[::10]] == [source_name(row) for row in rows]
    assert [record["class"] for record in records[::10]] == [row.class_id for row in rows]
    # The first caption of image i takes sample i mod n, further ones the next.
    assert [record["sample"] for record in records[:3]] == [0, 1, 0]
    assert [record["sample"] for record in records[10:13]] == [1, 0, 1]
    expected = drawn_directly(diverse_model, captions)
    read = ImageReader()
    for image in read_image_set(out):
        difference = read(image).astype(int) - expected[image.index, image.sample]
        assert np.abs(difference).max() <= 1  # another batch may round another way
    assert (out / "grid.png").exists()

    # What a kill leaves: no manifest, and some files missing. They are drawn again.
    images = read_image_set(out)
    before = {image.path: image.path.read_bytes() for image in images}
    (out / "manifest.jsonl").unlink()
    for image in images[1::2]:
        image.path.unlink()
    with pytest.raises(UserError, match="is not finished"):
        read_image_set(out)
    assert run("--model", diverse_model, "--reference", reference, "--output", out) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert read_image_set(out) == images


def test_shards_that_are_there_are_not_drawn_again(reference, diverse_model, tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "IN_PROCESS", 512)
    monkeypatch.setattr(drawing, "SHARD", 32)
    out = tmp_path / "out"
    request = ["--model", diverse_model, "--reference", reference, "--output", out]
    request += ["--captions_per_image", 2, "--samples", 2, "--format", "parquet"]
    assert run(*request) == 0
    images = read_image_set(out)
    assert len(images) == 20 * 2 * 2
    assert [(image.index, image.sample) for image in images[:3]] == [(0, 0), (0, 1), (1, 0)]
    files = sorted({image.path for image in images})
    before = {path: path.read_bytes() for path in files}
    times = {path: path.stat().st_mtime_ns for path in files}
    (out / "manifest.jsonl").unlink()
    for path in files[1::2]:
        path.unlink()
    assert run(*request) == 0
    assert {path: path.read_bytes() for path in files} == before
    assert [path.stat().st_mtime_ns for path in files[::2]] == [times[p] for p in files[::2]]
    assert read_image_set(out) == images


def test_another_request_leaves_a_folder_alone(diverse_model, tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "IN_PROCESS", 8)
    out = tmp_path / "out"
    assert run("--model", diverse_model, "--text", "a red flower", "--output", out) == 0
    before = (out / "00000.png").read_bytes()
    with pytest.raises(UserError, match=r"another request \(its captions differ"):
        run("--model", diverse_model, "--text", "a blue flower", "--output", out)
    assert (out / "00000.png").read_bytes() == before


def test_more_samples_than_the_model_draws(diverse_model, tmp_path):
    with pytest.raises(UserError, match="--samples: found 3, expected 1 to 2"):
        run(
            *("--model", diverse_model, "--text", "a flower", "--samples", 3),
            *("--output", tmp_path / "out"),
        )


def test_more_workers_than_the_cluster_holds(ray_cluster, reference, diverse_model, tmp_path):
    with pytest.raises(UserError, match="--workers: found 9, expected 1 to 2"):
        run(
            *("--model", diverse_model, "--reference", reference, "--workers", 9),
            *("--output", tmp_path / "out"),
        )


def test_a_few_captions_are_drawn_without_a_cluster(diverse_model, tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "IN_PROCESS", 8)
    monkeypatch.setattr(actor_pool, "start_ray", None)
    (tmp_path / "captions.txt").write_text("a red flower\n\u00e9\u4e2d a blue one\n")
    out = tmp_path / "out"
    request = ["--model", diverse_model, "--captions", tmp_path / "captions.txt", "--output", out]
    assert run(*request) == 0
    with Image.open(out / "00001.png") as image:
        assert image.size == (32, 32)
    assert manifest(out)[1] == {
        "file": "00001.png",
        "index": 1,
        "caption": "\u00e9\u4e2d a blue one",
        "sample": 1,
    }

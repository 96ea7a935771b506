import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sdn_ray.data.image_sets import (
    ImageChecker,
    ImageReader,
    SetImage,
    manifest_line,
    one_sample_each,
    read_image_set,
    read_real,
    renumbered,
    sample_turns,
)
from sdn_ray.errors import UserError


def random_image(seed, size=(6, 4)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def reasons(image, least=1):
    row = {"path": str(image.path), "row": image.row, "index": image.index, "least": least}
    return ImageChecker()([row])


def encoded(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def test_a_plain_folder_is_read_deep_and_in_order(tmp_path):
    for seed, name in enumerate(["b/x.png", "a/z.jpg", "a/y.PNG"]):
        save(tmp_path / name, random_image(seed))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_text("no image")
    images = read_image_set(tmp_path)
    assert [image.source for image in images] == ["y", "z", "x"]
    assert [image.index for image in images] == [0, 1, 2]
    assert (ImageReader()(images[2]) == random_image(0)).all()


def test_a_manifest_says_order_captions_and_sources(tmp_path):
    made = [
        SetImage(tmp_path / "7.png", 0, None, "a “red” flower", "jpg/image_1.jpg", 12, 1),
        SetImage(tmp_path / "3.png", 1, None, "another", "jpg/image_2.jpg", 13, 0),
    ]
    for image in made:
        save(image.path, random_image(0))
    lines = "".join(manifest_line(image, tmp_path) for image in made)
    (tmp_path / "manifest.jsonl").write_text(lines, encoding="utf-8")
    assert read_image_set(tmp_path) == tuple(made)


def test_a_manifest_made_elsewhere_needs_files_only(tmp_path):
    for name in ("image_00005.png", "image_00002.png"):
        save(tmp_path / name, random_image(0))
    lines = [json.dumps({"file": name}) for name in ("image_00005.png", "image_00002.png")]
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    images = read_image_set(tmp_path)
    assert [(image.source, image.index) for image in images] == [
        ("image_00005", 0),
        ("image_00002", 1),
    ]


def test_parquet_shards_with_and_without_a_manifest(tmp_path):
    pixels = [random_image(seed) for seed in range(5)]
    for shard, part in enumerate([pixels[:3], pixels[3:]]):
        rows = {
            "image": [encoded(image) for image in part],
            "caption": [f"caption {shard}-{i}" for i in range(len(part))],
            "source": [f"image_{shard}{i}" for i in range(len(part))],
        }
        pq.write_table(pa.table(rows), tmp_path / f"images-{shard}.parquet")
    images = read_image_set(tmp_path)
    assert [str(image) for image in images[2:4]] == [
        f"{tmp_path}/images-0.parquet, row 2",
        f"{tmp_path}/images-1.parquet, row 0",
    ]
    assert [image.source for image in images] == [
        *("image_00", "image_01", "image_02", "image_10", "image_11")
    ]
    read = ImageReader()
    for image, expected in zip(images, pixels, strict=True):
        assert (read(image) == expected).all()
    assert [image.row for image in read_image_set(tmp_path / "images-1.parquet")] == [0, 1]
    (tmp_path / "manifest.jsonl").write_text("".join(manifest_line(i, tmp_path) for i in images))
    assert read_image_set(tmp_path) == images


def test_first_captions_take_sample_image_mod_n_and_further_ones_the_next():
    sources = ["a", "a", "a", "b", "b", "b", "c", "c"]
    assert sample_turns(sources) == [0, 1, 2, 1, 2, 3, 2, 3]
    assert sample_turns([None, None, None]) == [0, 1, 2]


@pytest.mark.parametrize("first", [0, 1])
def test_one_sample_of_each_caption_is_scored(tmp_path, first):
    images = [
        SetImage(tmp_path / f"{index}-{sample}.png", index, source="ab"[index // 2], sample=sample)
        for index in range(4)
        for sample in range(first, first + 3)
    ]
    chosen = one_sample_each(images)
    assert [(image.index, image.sample - first) for image in chosen] == [
        *((0, 0), (1, 1), (2, 1), (3, 2))
    ]
    assert [image.index for image in renumbered(chosen[1:])] == [0, 1, 2]
    singles = [SetImage(tmp_path / "a.png", 5, sample=1), SetImage(tmp_path / "b.png", 6, sample=2)]
    assert one_sample_each(singles) == tuple(singles)


@pytest.mark.parametrize(
    ("records", "what"),
    [
        ([{"file": "0.png"}, {"file": "1.png"}, {"file": "0.png"}], "1 and 3 have the same file"),
        (
            [{"file": "0.png", "index": 1}, {"file": "1.png", "index": 1}],
            "1 and 2 have the same index and sample",
        ),
    ],
)
def test_an_image_that_stands_twice_is_refused(tmp_path, records, what):
    for name in ("0.png", "1.png"):
        save(tmp_path / name, random_image(0))
    lines = "\n".join(json.dumps(record) for record in records)
    (tmp_path / "manifest.jsonl").write_text(lines)
    with pytest.raises(UserError, match=what):
        read_image_set(tmp_path)


def test_a_caption_may_hold_any_character(tmp_path):
    image = SetImage(tmp_path / "0.png", 0, None, "a\u0085b\u2028c\u2029d\ne", "0")
    save(image.path, random_image(0))
    text = manifest_line(image, tmp_path) * 1
    (tmp_path / "manifest.jsonl").write_text(text, encoding="utf-8")
    assert read_image_set(tmp_path) == (image,)
    (tmp_path / "manifest.jsonl").write_bytes(b'{"file": "\xff.png"}')
    with pytest.raises(UserError, match=r"manifest\.jsonl: cannot be read"):
        read_image_set(tmp_path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [b"x"], "class": ["tulip"]}, "tulip"),
        ({"image": [{"bytes": b"x", "path": "0.png"}]}, "its column `image` holds struct"),
        ({"image": [b"x"], "sample": ["one"]}, "one"),
    ],
)
def test_parquet_of_another_make(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "0.parquet")
    with pytest.raises(UserError, match=message):
        read_image_set(tmp_path)


def test_a_row_that_the_shard_has_not(tmp_path):
    pq.write_table(pa.table({"image": [encoded(random_image(0))]}), tmp_path / "0.parquet")
    (tmp_path / "manifest.jsonl").write_text('{"file": "0.parquet", "row": 1}')
    [image] = read_image_set(tmp_path)
    with pytest.raises(UserError, match="row 1: the shard has 1 rows"):
        ImageReader()(image)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:60]), "0.png: does not decode"),
        (lambda path: path.write_bytes(b""), "0.png: does not decode"),
        (lambda path: Image.new("L", (4, 4)).save(path), "mode L, expected RGB"),
        (lambda path: Image.new("RGBA", (4, 4)).save(path), "mode RGBA, expected RGB"),
    ],
)
def test_an_image_that_cannot_be_scored_is_named(tmp_path, spoil, message):
    save(tmp_path / "0.png", random_image(0, (30, 30)))
    [image] = read_image_set(tmp_path)
    assert reasons(image) == []
    spoil(tmp_path / "0.png")
    with pytest.raises(UserError, match=message):
        ImageReader()(image)
    [(index, path, reason)] = reasons(image)
    assert (index, path) == (0, str(image.path))
    assert message in reason


def test_a_real_image_is_resized_whole_to_the_generated_size(tmp_path):
    grey = Image.linear_gradient("L").resize((90, 30))
    grey.save(tmp_path / "real.png")
    expected = np.asarray(grey.convert("RGB").resize((4, 6), Image.Resampling.BICUBIC))
    assert (read_real(tmp_path / "real.png", 6, 4) == expected).all()
    path = str(tmp_path / "real.png")
    row = {"path": path, "row": None, "index": None, "least": 11}
    assert ImageChecker()([row]) == []
    (tmp_path / "real.png").write_bytes(b"no image")
    [(index, named, reason)] = ImageChecker()([row])
    assert (index, named) == (None, path)
    assert "real.png: does not decode" in reason


def test_an_image_too_small_to_compare_is_named(tmp_path):
    save(tmp_path / "0.png", random_image(0, (10, 12)))
    [image] = read_image_set(tmp_path)
    assert reasons(image, 10) == []
    [(_, _, reason)] = reasons(image, 11)
    assert "0.png: found 12x10 pixels, expected at least 11x11" in reason


def test_folders_that_are_no_set_of_images(tmp_path):
    with pytest.raises(UserError, match="is no folder"):
        read_image_set(tmp_path / "none")
    with pytest.raises(UserError, match="holds no image"):
        read_image_set(tmp_path)
    (tmp_path / "request.json").write_text("{}")
    with pytest.raises(UserError, match="is not finished"):
        read_image_set(tmp_path)
    (tmp_path / "request.json").unlink()
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"bad\.parquet: cannot be read"):
        read_image_set(tmp_path)
    pq.write_table(pa.table({"pixels": [b""]}), tmp_path / "bad.parquet")
    with pytest.raises(UserError, match="its columns are pixels"):
        read_image_set(tmp_path)
    save(tmp_path / "0.png", random_image(0))
    with pytest.raises(UserError, match="expected one kind"):
        read_image_set(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: cannot be read"),
        ('{"caption": "no file"}', "line 2: cannot be read"),
        ("[]", "line 2: cannot be read"),
        ('{"file": "0.png", "sample": "one"}', "line 2: cannot be read"),
        ('{"file": "absent.png"}', r"line 2: .*absent\.png does not exist"),
    ],
)
def test_a_manifest_that_cannot_be_read(tmp_path, line, message):
    save(tmp_path / "0.png", random_image(0))
    (tmp_path / "manifest.jsonl").write_text('{"file": "0.png"}\n' + line)
    with pytest.raises(UserError, match=message):
        read_image_set(tmp_path)


def test_an_empty_manifest(tmp_path):
    (tmp_path / "manifest.jsonl").write_text("")
    with pytest.raises(UserError, match="found no image in it"):
        read_image_set(tmp_path)


@pytest.mark.parametrize("column", [["text"], [3], [[1, 2]]])
def test_a_shard_behind_a_manifest_must_hold_images_too(tmp_path, column):
    pq.write_table(pa.table({"image": column}), tmp_path / "0.parquet")
    (tmp_path / "manifest.jsonl").write_text('{"file": "0.parquet", "row": 0}')
    [image] = read_image_set(tmp_path)
    with pytest.raises(UserError, match=r"0\.parquet, row 0: .*its column `image` holds"):
        ImageReader()(image)

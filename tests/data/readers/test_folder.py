"""One's own captioned images in three layouts, and what is said where something is wrong."""

import json
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdn_ray.data.readers.folder import read_folder
from sdn_ray.data.rows import BadItem, CaptionedImage
from sdn_ray.data.shards import image_file
from sdn_ray.errors import UserError
from tests.folders import LAYOUTS, Own, tar_of, write_csv, write_parquet, write_tar

IMAGES = (
    Own("b.jpg", b"first", ("a red rose", "red, and open"), "rose"),
    Own("sub/a.png", b"second", ("a tulip",), "tulip"),
    Own("c.jpg", b"third", ("a white rose", "a “white” rose, again"), "rose"),
    Own("d.jpg", b"fourth", ("an aster",), 7),
    Own("e.jpg", b"fifth", ("another aster",), 7),
)
# blake2b of the name, its first 52 bits behind the numbers below 2^31.
ROSE, TULIP = 2273132509482645, 3208464410956464
WITHOUT = tuple(Own(one.name, one.content, one.texts) for one in IMAGES)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_the_same_rows(layout, tmp_path):
    root = LAYOUTS[layout](tmp_path / "own", IMAGES)
    dataset = read_folder(root)
    assert dataset.name == "folder"
    assert dataset.has_classes
    assert (dataset.train_classes, dataset.test_classes, dataset.bad_items) == (None, None, ())
    assert [(row.name, row.captions) for row in dataset.rows] == [
        (one.name, one.texts) for one in IMAGES
    ]
    assert [(row.class_id, row.class_name) for row in dataset.rows] == [
        (ROSE, "rose"),
        (TULIP, "tulip"),
        (ROSE, "rose"),
        (7, "7"),
        (7, "7"),
    ]
    assert [content(row) for row in dataset.rows] == [one.content for one in IMAGES]
    assert [row.image_path.stem for row in dataset.rows] == ["b", "a", "c", "d", "e"]


def content(row: CaptionedImage) -> bytes:
    found = image_file(row.image_path)
    return found.read_bytes() if hasattr(found, "read_bytes") else found.read()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_classes_each_image_is_one(layout, tmp_path):
    dataset = read_folder(LAYOUTS[layout](tmp_path / "own", WITHOUT))
    assert not dataset.has_classes
    assert [row.class_name for row in dataset.rows] == [one.name for one in WITHOUT]
    ids = {row.name: row.class_id for row in dataset.rows}
    assert len(set(ids.values())) == 5
    # What is added changes no other image's class.
    more = (Own("a.jpg", b"new", ("a daisy",)), *reversed(WITHOUT))
    again = read_folder(LAYOUTS[layout](tmp_path / "more", more))
    assert {row.name: row.class_id for row in again.rows}.items() > ids.items()


def test_class_lists_name_classes_or_images(tmp_path):
    root = write_csv(tmp_path / "own", IMAGES)
    (root / "trainvalclasses.txt").write_text("rose\n7\n")
    (root / "testclasses.txt").write_text("tulip\n")
    dataset = read_folder(root)
    assert (dataset.train_classes, dataset.test_classes) == ((7, ROSE), (TULIP,))
    file = write_parquet(tmp_path / "parquet", WITHOUT, files=1) / "train-00000.parquet"
    (file.parent / "trainvalclasses.txt").write_text("b.jpg\n")
    (file.parent / "testclasses.txt").write_text("e.jpg\nsub/a.png\n")
    dataset = read_folder(file)
    by_name = {row.name: row.class_id for row in dataset.rows}
    assert dataset.test_classes == tuple(sorted((by_name["e.jpg"], by_name["sub/a.png"])))


def test_images_of_shards_that_share_names_are_told_by_their_shards(tmp_path):
    for shard in ("a", "b"):
        write_tar(tmp_path / f"{shard}.tar", {"./1.jpg": shard.encode(), "./1.txt": b"a rose"})
    dataset = read_folder(tmp_path)
    assert [row.name for row in dataset.rows] == ["a.tar/1.jpg", "b.tar/1.jpg"]
    assert [content(row) for row in dataset.rows] == [b"a", b"b"]
    plain = pa.table({"image": [b"x", b"y"], "text": ["a rose", "a tulip"]})
    pq.write_table(plain, tmp_path / "own.parquet")
    dataset = read_folder(tmp_path / "own.parquet")
    assert [row.name for row in dataset.rows] == ["own.parquet/0", "own.parquet/1"]
    assert [content(row) for row in dataset.rows] == [b"x", b"y"]


def test_a_json_of_a_sample_has_text_and_class(tmp_path):
    members = {
        "1.JPG": b"",
        "1.json": json.dumps({"text": ["a rose", "a flower"], "class": 3, "url": "x"}).encode(),
        "2.jpg": b"",
        "2.json": b'{"text": "not this one", "class": "tulip"}',
        "2.txt": b"a tulip\r\n\nred\n",
        "._2.jpg": b"of a file system",
        "notes.md": b"of no sample",
    }
    write_tar(tmp_path / "own.tar", members)
    rows = read_folder(tmp_path).rows
    assert [(row.captions, row.class_name) for row in rows] == [
        (("a rose", "a flower"), "3"),
        (("a tulip", "red"), "tulip"),
    ]


def test_classes_of_a_table_of_numbers(tmp_path):
    columns = {"image": [b"x", b"y"], "text": ["a", "b"]}
    pq.write_table(pa.table(columns | {"class": [3.0, 4.0]}), tmp_path / "own.parquet")
    assert read_folder(tmp_path).class_ids == (3, 4)
    nothing = pa.array([float("nan"), None], pa.float64())
    pq.write_table(pa.table(columns | {"class": nothing}), tmp_path / "own.parquet")
    assert not read_folder(tmp_path).has_classes


def test_what_is_bad_is_left_out_and_listed(tmp_path):
    images = (*IMAGES, Own("f.jpg", b"", (" ",), "rose"), Own("g.jpg", b"", ("a rose",), ""))
    root = write_csv(tmp_path, images)
    (root / "c.jpg").unlink()
    dataset = read_folder(root, skip_bad=True)
    assert [row.name for row in dataset.rows] == ["b.jpg", "sub/a.png", "d.jpg", "e.jpg"]
    table = root / "metadata.csv"
    no_file = "found no such file ({}, line {}), expected an image"
    assert dataset.bad_items == (
        BadItem(root / "c.jpg", no_file.format(table, 5)),
        BadItem(root / "c.jpg", no_file.format(table, 6)),
        BadItem(root / "f.jpg", f"found an empty text ({table}, line 9), expected a caption"),
        BadItem(
            root / "g.jpg",
            f"found no class ({table}, line 10), but other images have one; expected a class of "
            "each image, or of none",
        ),
    )


def test_lines_are_counted_as_a_text_editor_does(tmp_path):
    lines = ["file_name,text", '1.jpg,"a rose,\nopen"', "", "2.jpg,a tulip"]
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    (tmp_path / "1.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"2\.jpg: found no such file .*metadata\.csv, line 5\)"):
        read_folder(tmp_path)


@dataclass(frozen=True)
class Bad:
    """Files of a folder, words of the error, and whether --dataset.skip_bad gets over it."""

    name: str
    files: dict[str, bytes | str]
    words: str
    skipped: bool = False
    root: str = field(default="own")


def table(*lines: str) -> dict[str, bytes | str]:
    return {"1.jpg": b"", "2.jpg": b"", "metadata.csv": "\n".join(lines) + "\n"}


def json_lines(*lines: str) -> dict[str, bytes | str]:
    return {"1.jpg": b"", "2.jpg": b"", "metadata.jsonl": "\n".join(lines) + "\n"}


GOOD = '{"file_name": "1.jpg", "text": "a rose"}'


def parquet(columns: dict) -> dict[str, bytes | str]:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return {"own.parquet": sink.getvalue().to_pybytes()}


def shard(**members: bytes) -> dict[str, bytes | str]:
    """Members by their names, of which the last _ is the dot."""
    return {"own.tar": tar_of({".".join(k.rsplit("_", 1)): v for k, v in members.items()})}


TEXTS = {"text": ["a rose", "a tulip"]}
STRUCTS = {"image": [{"bytes": b"x", "path": "1.jpg"}, {"bytes": b"y", "path": "2.jpg"}]}
BAD = (
    Bad("an empty folder", {"readme.md": ""}, "own: found none in it, expected metadata.csv or"),
    Bad("one folder too high", {"data/own.tar": b""}, "Did you mean {f}/own/data?"),
    Bad("no such folder", {}, "found no such folder, expected one with metadata.csv", root="none"),
    Bad(
        "two tables",
        table("file_name,text", "1.jpg,a") | json_lines(GOOD),
        "own: found metadata.csv and metadata.jsonl in it, expected one of them",
    ),
    Bad(
        "a table and shards",
        table("file_name,text", "1.jpg,a") | shard(a_jpg=b"", a_txt=b"a"),
        "found metadata.csv and own.tar in it, expected one of them",
    ),
    Bad("an empty table", table(), "metadata.csv: found nothing in it"),
    Bad("a table of nothing", {"metadata.csv": b""}, "metadata.csv: found nothing in it"),
    Bad(
        "a table without images",
        table("file_name,text"),
        "own: found no usable image (0 left out), expected at least one",
    ),
    Bad(
        "no column text",
        table("file_name,caption", "1.jpg,a"),
        "metadata.csv: found the columns file_name, caption, text not among them; expected UTF-8",
    ),
    Bad("no column file_name", table("file,text", "1.jpg,a"), "file_name not among them"),
    Bad("semicolons", table("file_name;text", "1.jpg;a"), "columns file_name;text, file_name not"),
    Bad("a column twice", table("file_name,text,text", "1.jpg,a,b"), "text twice"),
    Bad(
        "a comma without quotes",
        table("file_name,text", "1.jpg,a", "2.jpg,a rose, red"),
        "metadata.csv, line 3: found 3 cells, expected 2 as in the first line",
    ),
    Bad("an open quote", table("file_name,text", '1.jpg,"a'), "metadata.csv, line 2: cannot be re"),
    Bad(
        "a table in Latin-1",
        {"1.jpg": b"", "metadata.csv": "file_name,text\n1.jpg,caf\xe9\n".encode("latin-1")},
        "metadata.csv: cannot be read ('utf-8' codec can't decode byte 0xe9 in position 24",
    ),
    Bad(
        "a table in UTF-16",
        {"1.jpg": b"", "metadata.csv": "file_name,text\n1.jpg,a\n".encode("utf-16")},
        "metadata.csv: cannot be read ('utf-8' codec can't decode byte 0xff",
    ),
    Bad(
        "a file that is not there",
        table("file_name,text", "1.jpg,a", "3.jpg,a"),
        "3.jpg: found no such file ({f}/own/metadata.csv, line 3), expected an image",
        skipped=True,
    ),
    Bad("a folder as an image", json_lines(GOOD, GOOD.replace("1.jpg", "")), "found no", True),
    Bad(
        "a file above",
        table("file_name,text", "1.jpg,a", "../outside.jpg,a"),
        "line 3: found '../outside.jpg', which lies outside of {f}/own; expected a path inside",
    ),
    Bad(
        "a way out and in",
        table("file_name,text", "../own/1.jpg,a"),
        "found '../own/1.jpg', which lies outside",
    ),
    Bad(
        "an absolute path",
        json_lines(GOOD.replace("1.jpg", "/etc/passwd")),
        "metadata.jsonl, line 1: found '/etc/passwd', which lies outside of",
    ),
    Bad(
        "an empty text",
        table("file_name,text", "1.jpg,", "2.jpg,a"),
        "1.jpg: found an empty text ({f}/own/metadata.csv, line 2), expected a caption",
        skipped=True,
    ),
    Bad(
        "no texts",
        json_lines(GOOD, '{"file_name": "2.jpg", "text": []}'),
        "2.jpg: found an empty text ({f}/own/metadata.jsonl, line 2)",
        skipped=True,
    ),
    Bad(
        "a zero byte",
        json_lines(GOOD, '{"file_name": "2.jpg", "text": "a\\u0000"}'),
        "2.jpg: found a zero byte in its text",
        skipped=True,
    ),
    Bad(
        "two classes of a file",
        table("file_name,text,class", "1.jpg,a,rose", "2.jpg,b,rose", "./1.jpg,c,tulip"),
        "metadata.csv, line 4: found the class tulip of 1.jpg, which has rose in {f}/own/metadata"
        ".csv, line 2; expected one class of each image",
    ),
    Bad(
        "a class of some images",
        table("file_name,text,class", "1.jpg,a,rose", "2.jpg,b,"),
        "2.jpg: found no class ({f}/own/metadata.csv, line 3), but other images have one",
        skipped=True,
    ),
    Bad(
        "half a class",
        json_lines(GOOD[:-1] + ', "class": 1.5}'),
        "metadata.jsonl, line 1: found the class 1.5, expected a name or whole number",
    ),
    Bad(
        "a long number",
        json_lines(GOOD[:-1] + ', "class": 1' + "0" * 5000 + "}"),
        "number out of range",
    ),
    Bad("true as a class", json_lines(GOOD[:-1] + ', "class": true}'), "found the class True"),
    Bad(
        "a bad line of JSON",
        json_lines(GOOD, "", '{"file_name": "2.jpg", "text": '),
        "metadata.jsonl, line 3: cannot be read (EOF while parsing",
    ),
    Bad("a deep line", json_lines("[" * 100_000), "metadata.jsonl, line 1: cannot be read"),
    Bad(
        "JSON without text",
        json_lines(GOOD, '{"file_name": "2.jpg"}'),
        "metadata.jsonl, line 2: cannot be read (text: Field required)",
    ),
    Bad("a number as text", json_lines(GOOD.replace('"a rose"', "3")), "line 1: cannot be read"),
    Bad("a surrogate", json_lines(GOOD.replace("a rose", "\\ud800")), "line 1: cannot be read"),
    Bad(
        "an unknown class in a list",
        table("file_name,text,class", "1.jpg,a,rose")
        | {"trainvalclasses.txt": "rose\n", "testclasses.txt": "tulip\n"},
        "testclasses.txt, line 1: found unknown class tulip, expected one of the 1 classes",
    ),
    Bad(
        "Parquet without text",
        parquet({"image": [b"x"], "caption": ["a"]}),
        "own.parquet: found the columns image, caption, text not among them; expected Parquet",
    ),
    Bad("Parquet without image", parquet(TEXTS), "found the columns text, image not among them"),
    Bad(
        "Parquet of paths",
        parquet({"image": ["1.jpg", "2.jpg"], **TEXTS}),
        "own.parquet: found string in its column image; expected Parquet",
    ),
    Bad("numbers as texts", parquet({**STRUCTS, "text": [1, 2]}), "found int64 in its column text"),
    Bad(
        "a row without text",
        parquet({**STRUCTS, "text": ["a", None]}),
        "own.parquet/1/2.jpg: found an empty text ({f}/own/own.parquet, row 1)",
        skipped=True,
    ),
    Bad("no Parquet", {"own.parquet": b"PAR1, but no more"}, "own.parquet: cannot be read ("),
    Bad("no such file of Parquet", {}, "found no such folder", root="none.parquet"),
    Bad("a file of another kind", {"own.txt": "a"}, "found no such folder", root="own/own.txt"),
    Bad(
        "an image without text",
        shard(a_jpg=b"", a_txt=b"a rose", b_jpg=b"", b_cls=b"3"),
        "own.tar/b.jpg: found no text ({f}/own/own.tar, sample b), expected a tar archive",
        skipped=True,
    ),
    Bad(
        "an empty txt",
        shard(a_jpg=b"", a_txt=b"a rose", b_jpg=b"", b_txt=b" \n"),
        "own.tar/b.jpg: found an empty text",
        skipped=True,
    ),
    Bad(
        "text without an image",
        shard(a_jpg=b"", a_txt=b"a rose", b_txt=b"a tulip", b_cls=b"3"),
        "own.tar: sample b: found its .txt, .cls without an image",
    ),
    Bad(
        "two images of a sample",
        shard(a_jpg=b"", a_png=b"", a_txt=b"a rose"),
        "own.tar: sample a: found 2 images (.jpg, .png), expected one",
    ),
    Bad(
        "a sample in two places",
        shard(a_jpg=b"", b_jpg=b"", a_txt=b"a rose", b_txt=b"a tulip"),
        "sample a: found its files in 2 places, expected them side by side",
    ),
    Bad("a txt in Latin-1", shard(a_jpg=b"", a_txt=b"caf\xe9"), "sample a: its .txt is no UTF-8"),
    Bad("a bad json", shard(a_jpg=b"", a_json=b"{"), "sample a: its .json cannot be read (EOF"),
    Bad("no archive", {"own.tar": b"x" * 2000}, "own.tar: cannot be read ("),
    Bad(
        "an archive cut short",
        {"own.tar": tar_of({"1.jpg": b"x" * 9000, "1.txt": b"a rose"})[:5000]},
        "own.tar: cannot be read (unexpected end of data)",
    ),
    Bad(
        "a name that is no text",
        shard(**{"a\udce9_jpg": b""}),
        r"own.tar: found the name 'a\udce9'",
    ),
    Bad("an archive of nothing", {"own.tar": tar_of({})}, "own: found no usable image"),
)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_what_is_wrong_is_said_in_one_sentence(bad, tmp_path):
    for name, data in bad.files.items():
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    (tmp_path / "outside.jpg").write_bytes(b"")
    with pytest.raises(UserError) as error:
        read_folder(tmp_path / bad.root)
    message = str(error.value)
    assert bad.words.replace("{f}", str(tmp_path)) in message
    assert message.startswith(str(tmp_path))
    assert "\n" not in message
    assert "expected" in message or "need quotes" in message
    if bad.skipped:
        assert len(read_folder(tmp_path / bad.root, skip_bad=True).bad_items) == 1
    else:
        with pytest.raises(UserError, match="expected"):
            read_folder(tmp_path / bad.root, skip_bad=True)

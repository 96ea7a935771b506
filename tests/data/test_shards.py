"""Images in shards are read where they lie, from whatever path leads into one."""

import io
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sdn_ray.data.decoding import decode_batch, decode_contents, decode_rgb
from sdn_ray.data.image_sets import read_real
from sdn_ray.data.shards import image_file, in_shard
from sdn_ray.errors import UserError
from tests.folders import Own, write_parquet, write_tar, write_webdataset


def png(level: int, size: int = 8) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (size, size), (level, level, level)).save(content, "png")
    return content.getvalue()


OWN = [Own(f"sub/{level}.png", png(level), ("a",)) for level in range(10)]


@pytest.mark.parametrize(
    ("write", "inside"),
    [
        (write_parquet, lambda level: f"train-00000.parquet/{level}/{level}.png"),
        (write_webdataset, lambda level: f"00000.tar/sub/{level}.png"),
    ],
)
def test_every_image_of_a_shard_is_its_own(write, inside, tmp_path):
    root = write(tmp_path / "own", OWN, files=1)
    for level in (7, 0, 9, 3):  # across groups of three rows, and back
        path = root / inside(level)
        assert image_file(path).read() == OWN[level].content
        assert (decode_rgb(path, 4, 4) == level).all()
    shard = next(root.iterdir())
    before = shard.stat()
    write(tmp_path / "other", OWN[::-1], files=1)
    (tmp_path / "other" / shard.name).replace(shard)
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert image_file(root / inside(2)).read() == OWN[7 if "parquet" in inside(2) else 2].content


@pytest.mark.parametrize(
    "place", ["own.parquet/2", "own.parquet/0", "own.tar/2.png", "own.tar/1.png", "own.tar/0.png"]
)
def test_an_image_that_is_not_there_or_none_is_named(place, tmp_path):
    rows = [{"bytes": None, "path": "0.png"}, {"bytes": b"", "path": "1.png"}]
    pq.write_table(pa.table({"image": rows}), tmp_path / "own.parquet")
    write_tar(tmp_path / "own.tar", {"1.png": b"no image", "0.png": png(1)[:40]})
    with pytest.raises(UserError) as error:
        read_real(tmp_path / place, 4, 4)
    assert str(error.value).startswith(f"{tmp_path / place}: does not decode (")
    assert " at 0x" not in str(error.value)


def test_a_file_beneath_a_folder_called_like_a_shard_is_a_file(tmp_path):
    path = tmp_path / "own.tar" / "1.png"
    path.parent.mkdir()
    path.write_bytes(png(5))
    assert in_shard(path) is None
    assert (decode_rgb(path, 8, 8) == 5).all()


def test_contents_become_what_files_become(tmp_path):
    paths = []
    contents = [png(3, 16), png(4)[:50], png(5, 4)]
    for place, content in enumerate(contents):
        paths.append(tmp_path / f"{place}.png")
        paths[-1].write_bytes(content)
    of_files = decode_batch({"row": np.arange(3), "path": np.array(list(map(str, paths)))}, 8)
    for image in (contents, [{"bytes": one, "path": "x"} for one in contents]):
        table = pa.table({"path": ["a", "b", "c"], "image": image})
        found = decode_contents(table, 8)
        assert found["path"].tolist() == ["a", "b", "c"]
        assert (found["image"] == of_files["image"]).all()
        assert (found["error"] == of_files["error"]).all()
    assert (of_files["error"] != "").tolist() == [False, True, False]

"""The same captioned images as a folder with a table, as Parquet files and as WebDataset shards."""

import csv
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Own:
    """An image of one's own: its name with its suffix, its file's content, captions and class."""

    name: str
    content: bytes
    texts: tuple[str, ...]
    of_class: str | int | None = None  # of all images or of none


def write_json_lines(root: Path, images: Sequence[Own]) -> Path:
    _write_images(root, images)
    lines = [
        {"file_name": one.name, "text": list(one.texts)}
        | ({} if one.of_class is None else {"class": one.of_class})
        for one in images
    ]
    (root / "metadata.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return root


def write_csv(root: Path, images: Sequence[Own]) -> Path:
    """A line a caption; columns in an order of their own, with one that means nothing."""
    _write_images(root, images)
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        classes = [] if all(one.of_class is None for one in images) else ["class"]
        writer.writerow(["text", "place", *classes, "file_name"])
        for one in images:
            for text in one.texts:
                writer.writerow([text, "here", *([one.of_class] if classes else []), one.name])
    return root


def write_parquet(root: Path, images: Sequence[Own], files: int = 2) -> Path:
    """As Hugging Face writes them, in groups of three rows."""
    root.mkdir(parents=True)
    for number, part in enumerate(_parts(images, files)):
        columns: dict[str, list[object]] = {
            "image": [{"bytes": one.content, "path": one.name} for one in part],
            "text": [list(one.texts) for one in part],
            "path": ["a column that means nothing"] * len(part),
        }
        if any(one.of_class is not None for one in images):
            columns["class"] = [str(one.of_class) for one in part]
        path = root / f"train-{number:05d}.parquet"
        pq.write_table(pa.table(columns), path, row_group_size=3)
    return root


def write_webdataset(root: Path, images: Sequence[Own], files: int = 2) -> Path:
    root.mkdir(parents=True)
    for number, part in enumerate(_parts(images, files)):
        members: dict[str, bytes] = {}
        for one in part:
            stem = one.name.rpartition(".")[0]
            members[one.name] = one.content
            members[f"{stem}.txt"] = "\n".join(one.texts).encode()
            if one.of_class is not None:
                members[f"{stem}.cls"] = str(one.of_class).encode()
        write_tar(root / f"{number:05d}.tar", members)
    return root


def write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_of(members))


def tar_of(members: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return content.getvalue()


LAYOUTS = {
    "csv": write_csv,
    "json_lines": write_json_lines,
    "parquet": write_parquet,
    "webdataset": write_webdataset,
}


def _write_images(root: Path, images: Sequence[Own]) -> None:
    for one in images:
        path = root / one.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.content)


def _parts(images: Sequence[Own], files: int) -> list[Sequence[Own]]:
    """Of unequal lengths."""
    cuts = [len(images) * k * k // (files * files) for k in range(files + 1)]
    return [images[a:b] for a, b in pairwise(cuts)]

"""Sets of generated images: a folder of image files or Parquet shards, with or without a manifest.

``manifest.jsonl`` has one JSON object a line for each image, in order:

    {"file": "00000.png", "index": 0, "caption": "…", "class": 12, "source": "jpg/image_06734.jpg",
     "sample": 0}

``file`` is relative to the manifest; in a Parquet shard ``row`` says which row. ``index`` counts
captions, so that the samples of a diverse model share one. ``source`` names the real image whose
caption it is. Only ``file`` is required. Without a manifest the file names' stems are the sources.
"""

import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pydantic_core import from_json
from typing_extensions import TypedDict

from sdn_ray.data.decoding import DECODE_ERRORS, decode_rgb
from sdn_ray.errors import UserError
from sdn_ray.files import checked_record, read_text

MANIFEST = "manifest.jsonl"
REQUEST = "request.json"  # what `generate` was asked for; without a manifest it is not finished
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}


@dataclass(frozen=True)
class SetImage:
    """One image of a set: where it is and what it was drawn from."""

    path: Path
    index: int  # of its caption in the set
    row: int | None = None  # of a Parquet shard
    caption: str | None = None
    source: str | None = None  # the real image
    class_id: int | None = None
    sample: int = 0

    def __str__(self) -> str:
        return str(self.path) if self.row is None else f"{self.path}, row {self.row}"


def read_image_set(folder: Path) -> tuple[SetImage, ...]:
    """The images of a set, in order; no image is decoded.

    Args:
        folder: of image files (searched deep, in the order of their names) or Parquet shards with
            the columns ``image`` (an encoded image file) and, if there are such, ``caption``,
            ``class``, ``source``, ``sample`` and ``index``; or one Parquet file.

    Raises:
        UserError: naming the folder, or the line of the manifest, that is not as expected.
    """
    if folder.is_file() and folder.suffix == ".parquet":
        return _parquet_images([folder])
    if not folder.is_dir():
        raise UserError(
            f"--images: {folder} is no folder; expected a folder of images or of Parquet shards"
        )
    if (folder / MANIFEST).exists():
        return _manifest_images(folder / MANIFEST)
    if (folder / REQUEST).exists():
        raise UserError(
            f"--images: {folder} is not finished ({REQUEST} without {MANIFEST}); run the "
            "same `python -m sdn_ray.generate` again to write what is missing"
        )
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    images = [path for path in files if path.suffix.lower() in _SUFFIXES]
    shards = [path for path in files if path.suffix == ".parquet"]
    if images and shards:
        raise UserError(
            f"--images: {folder} holds image files ({images[0].name}) and Parquet shards "
            f"({shards[0].name}), and no {MANIFEST}; expected one kind"
        )
    if shards:
        return _parquet_images(shards)
    if not images:
        raise UserError(f"--images: {folder} holds no image; expected PNG or JPEG files")
    return tuple(SetImage(path, i, source=path.stem) for i, path in enumerate(images))


def _manifest_images(manifest: Path) -> tuple[SetImage, ...]:
    images: list[SetImage] = []
    # Not `splitlines`, for which some characters of a caption would end the line.
    lines = read_text(manifest, "UTF-8 text").rstrip("\n").split("\n")
    for number, line in enumerate(lines if lines != [""] else [], 1):
        try:
            images.append(_from_record(manifest.parent, from_json(line), number - 1))
        except ValueError as error:
            raise UserError(
                f"{manifest}, line {number}: cannot be read ({error}); expected a JSON object "
                'such as {"file": "00000.png", "caption": "…", "source": "image_00001"}'
            ) from error
        if not images[-1].path.is_file():
            raise UserError(f"{manifest}, line {number}: {images[-1].path} does not exist")
    if not images:
        raise UserError(f"{manifest}: found no image in it, expected one a line")
    _refuse_repeated(images, manifest)
    return tuple(images)


def _refuse_repeated(images: Sequence[SetImage], where: Path) -> None:
    """Refuse an image that stands twice in a set, and two for one sample of one caption."""
    keys_of: dict[str, list[tuple[Path | int, int | None]]] = {
        "file": [(image.path, image.row) for image in images],
        "index and sample": [(image.index, image.sample) for image in images],
    }
    for what, keys in keys_of.items():
        first: dict[tuple[Path | int, int | None], int] = {}
        for number, key in enumerate(keys, 1):
            if key in first:
                raise UserError(
                    f"{where}: images {first[key]} and {number} have the same {what}; expected "
                    "each once"
                )
            first[key] = number


# Of a manifest's line or a shard's row; "class" is no name that a class body could have.
_Record = TypedDict(
    "_Record",
    {
        "file": str,
        "row": NotRequired[int | None],
        "index": NotRequired[int],
        "caption": NotRequired[str | None],
        "class": NotRequired[int | None],
        "source": NotRequired[str | int | None],
        "sample": NotRequired[int],
    },
)


def _from_record(folder: Path, found: Any, place: int) -> SetImage:
    record = checked_record(found, _Record)
    path = folder / record["file"]
    row, source = record.get("row"), record.get("source")
    if source is None and row is None:
        source = path.stem
    return SetImage(
        path=path,
        index=record.get("index", place),
        row=row,
        caption=record.get("caption"),
        source=None if source is None else str(source),
        class_id=record.get("class"),
        sample=record.get("sample", 0),
    )


def _parquet_images(shards: Sequence[Path]) -> tuple[SetImage, ...]:
    images: list[SetImage] = []
    for shard in shards:
        try:
            for row, record in enumerate(_parquet_records(shard)):
                record |= {"file": shard.name, "row": row}
                images.append(_from_record(shard.parent, record, len(images)))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"{shard}: cannot be read ({error}); expected Parquet with a column `image` of "
                "encoded image files, and `class`, `sample` and `index` as whole numbers"
            ) from error
    if not images:
        raise UserError(f"{shards[0]}: found no image in it, expected at least one row")
    _refuse_repeated(images, shards[0].parent)
    return tuple(images)


def _parquet_records(shard: Path) -> list[dict[str, Any]]:
    """What a shard says of each of its rows, but for the images themselves."""
    schema = pq.read_schema(shard)
    _check_column(schema)
    columns = [n for n in ("caption", "class", "source", "sample", "index") if n in schema.names]
    if not columns:
        return [{} for _ in range(pq.ParquetFile(shard).metadata.num_rows)]
    records = pq.read_table(shard, columns=columns).to_pylist()
    return [{k: v for k, v in record.items() if v is not None} for record in records]


def _check_column(schema: pa.Schema) -> None:
    """See that a shard has one column of encoded images.

    Raises:
        ValueError: saying what it has instead.
    """
    if schema.names.count("image") != 1:
        raise ValueError(f"its columns are {', '.join(schema.names)}")
    kind = schema.field("image").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ValueError(f"its column `image` holds {kind}")


def manifest_line(image: SetImage, folder: Path) -> str:
    """The line of ``folder``'s manifest for an image, with its newline."""
    record = {
        "file": image.path.relative_to(folder).as_posix(),
        "row": image.row,
        "index": image.index,
        "caption": image.caption,
        "class": image.class_id,
        "source": image.source,
        "sample": image.sample,
    }
    known = {name: value for name, value in record.items() if value is not None}
    return json.dumps(known, ensure_ascii=False) + "\n"


def sample_turns(sources: Iterable[str | None]) -> list[int]:
    """For each caption the number whose remainder by n is the sample that is scored.

    For the first caption of image i that is i (spec, Schemes: image index mod n); each further
    caption of an image takes the next sample, so that all samples have their turn.

    Args:
        sources: for each caption the real image that it is of; None counts as one of its own.
    """
    places: dict[Any, int] = {}
    seen: Counter[Any] = Counter()
    turns = []
    for number, source in enumerate(sources):
        key = number if source is None else source
        turns.append(places.setdefault(key, len(places)) + seen[key])
        seen[key] += 1
    return turns


def one_sample_each(images: Iterable[SetImage]) -> tuple[SetImage, ...]:
    """The images that are scored: one of the samples of each caption, by `sample_turns`."""
    captions: dict[int, list[SetImage]] = {}
    for image in images:
        captions.setdefault(image.index, []).append(image)
    groups = [sorted(own, key=lambda image: image.sample) for own in captions.values()]
    turns = sample_turns(own[0].source for own in groups)
    return tuple(own[turn % len(own)] for own, turn in zip(groups, turns, strict=True))


def renumbered(images: Iterable[SetImage]) -> tuple[SetImage, ...]:
    """The same images with captions numbered 0, 1, 2 … in their order, as scores count them."""
    return tuple(replace(image, index=place) for place, image in enumerate(images))


class ImageReader:
    """Decodes the images of a set; the Parquet shard read last is kept open."""

    def __init__(self) -> None:
        self._shard: Path | None = None
        self._column: Any = None

    def __call__(self, image: SetImage) -> np.ndarray:
        """The pixels, (height, width, 3) uint8.

        Raises:
            UserError: naming the file, when it does not decode or is no RGB image.
        """
        try:
            with Image.open(self._file(image)) as opened:
                if opened.mode != "RGB":
                    raise UserError(
                        f"{image}: found an image of mode {opened.mode}, expected RGB (8 bits for "
                        "each of 3 channels)"
                    )
                return np.array(opened)
        except DECODE_ERRORS as error:
            raise UserError(f"{image}: does not decode ({error}); expected an image") from error

    def _file(self, image: SetImage) -> Path | io.BytesIO:
        if image.row is None:
            return image.path
        if self._shard != image.path:
            _check_column(pq.read_schema(image.path))
            self._column = pq.read_table(image.path, columns=["image"])["image"]
            self._shard = image.path
        if not 0 <= image.row < len(self._column):
            raise UserError(f"{image}: the shard has {len(self._column)} rows")
        return io.BytesIO(self._column[image.row].as_py())


def read_real(path: Path, height: int, width: int) -> np.ndarray:
    """A real image as RGB, resized whole to the generated image's size: (height, width, 3) uint8.

    Raises:
        UserError: naming the file, when it does not decode.
    """
    try:
        return decode_rgb(path, height, width)
    except DECODE_ERRORS as error:
        raise UserError(f"{path}: does not decode ({error}); expected an image") from error


class ImageChecker:
    """Decodes images and says which cannot be used. Light to import, as a worker of a stream."""

    def __init__(self) -> None:
        self._read = ImageReader()

    def __call__(self, rows: list[dict[str, Any]]) -> list[tuple[int | None, str, str]]:
        """What is wrong with the bad ones.

        Args:
            rows: ``path``, ``row`` and ``index`` of images of a set, and ``least``, the side that
                they need; or ``path`` of real images, whose ``index`` is None.

        Returns:
            Index, path and reason of each bad one.
        """
        found = [(row["index"], row["path"], self._reason(row)) for row in rows]
        return [(index, path, reason) for index, path, reason in found if reason]

    def _reason(self, row: dict[str, Any]) -> str | None:
        try:
            if row["index"] is None:
                read_real(Path(row["path"]), row["least"], row["least"])
                return None
            image = SetImage(Path(row["path"]), row["index"], row["row"])
            height, width = self._read(image).shape[:2]
        except UserError as error:
            return str(error)
        if min(height, width) < row["least"]:
            return (
                f"{image}: found {width}x{height} pixels, expected at least "
                f"{row['least']}x{row['least']} to compare with a real image"
            )
        return None

"""python -m sdn_ray.generate: captions to images with an exported model, one or many thousands."""

import io
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jsonargparse import ArgumentParser
from PIL import Image

from sdn_ray.cluster import Display
from sdn_ray.command import check_at_least, run_command
from sdn_ray.config import absolute, parse
from sdn_ray.data.image_sets import (
    MANIFEST,
    REQUEST,
    ImageReader,
    SetImage,
    manifest_line,
    sample_turns,
)
from sdn_ray.data.references import PARTS
from sdn_ray.errors import UserError
from sdn_ray.export import GENERATOR, Model, load_model
from sdn_ray.files import file_hash, fingerprint, replacing, write_text
from sdn_ray.pictures import captioned_grid
from sdn_ray.requests import BATCH, Request, batched, file_requests, reference_rows, row_requests
from sdn_ray.set_workers import draw_rows
from sdn_ray.streaming import BatchWorker, Row, actor_device, stream
from sdn_ray.text.encoders import copied_text_encoder
from sdn_ray.text.sentence import fingerprint as path_fingerprint

DESCRIPTION = (
    "Draw images for captions with a trained model (the `model` folder of a run): for one caption, "
    "for those of a file, or for those of a part of a data set. Interrupted, the same command goes "
    "on with what is missing."
)
SHARD = 1024  # images of a Parquet shard
_GRID_CAPTIONS = 32  # the picture for people; every image is a file of its own as well
IN_PROCESS = 4 * BATCH  # images that are drawn before actors would have started


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    options = parse(_parser(), arguments)
    check_at_least(options, captions_per_image=1, workers=1)
    folder = Path(absolute(options.model, "--model"))
    output = Path(absolute(options.output, "--output"))
    captions = _given_captions(options)
    _check_output(output)
    model = load_model(folder)
    model.reader()  # refuses a model that has none
    requests = captions or _reference_captions(options, model)
    if not 1 <= options.samples <= model.generator.samples:
        raise UserError(
            f"--samples: found {options.samples}, expected 1 to {model.generator.samples}, the "
            "samples that this model draws of each caption"
        )
    images = planned_images(requests, output, model.generator.samples, options)
    _begin(output, folder, model, requests, options)
    batches = _batches(images, options)
    settings = {
        "model": str(folder),
        "output": str(output),
        "parquet": options.format == "parquet",
    }
    if not all(path.exists() for path in {image.path for image in images}):
        drawn = stream(batches, ImageWriter, settings, options.workers, in_process=IN_PROCESS)
        with Display() as display:
            began, done = time.perf_counter(), 0
            for written in drawn:
                done += written
                rate = done / (time.perf_counter() - began)
                display.progress("drawing", done, len(images), f"{rate:.0f} images/s")
    _write_manifest(output, images)
    _write_grid(output, images)
    print(f"{len(images)} images in {output}, the first on one sheet in {output / 'grid.png'}")
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m sdn_ray.generate", description=DESCRIPTION, exit_on_error=False
    )
    parser.add_argument("--model", type=str, required=True, help="Model folder: RUN/model.")
    parser.add_argument("--text", type=str, help="One caption.")
    parser.add_argument("--captions", type=str, help="File with one caption a line.")
    parser.add_argument("--reference", type=str, help="Data set whose captions are drawn.")
    parser.add_argument("--split", type=str, default="test", help=f"Its part: {', '.join(PARTS)}.")
    parser.add_argument(
        "--captions_per_image", type=int, help="Of each of its images the first N captions."
    )
    parser.add_argument("--output", type=str, required=True, help="Folder for the images.")
    parser.add_argument(
        "--samples", type=int, default=1, help="Images a caption, of a diverse model."
    )
    parser.add_argument("--format", type=str, default="png", help="png or parquet.")
    parser.add_argument(
        "--workers", type=int, help="Processes that draw. Default: one a GPU, else one a CPU."
    )
    return parser


def _given_captions(options: Any) -> list[Request] | None:
    """The captions of --text or --captions; None where --reference names a data set."""
    given = [name for name in ("text", "captions", "reference") if options[name] is not None]
    if len(given) != 1:
        found = " and ".join(f"--{name}" for name in given) or "none of them"
        raise UserError(f"expected one of --text, --captions and --reference; found {found}")
    if options.format not in ("png", "parquet"):
        raise UserError(f"--format: found {options.format}, expected png or parquet")
    if options.text is not None:
        if not options.text.strip():
            raise UserError("--text: found an empty caption, expected some words")
        return [Request(options.text.strip())]
    return (
        file_requests(absolute(options.captions, "--captions"))
        if options.captions is not None
        else None
    )


def _reference_captions(options: Any, model: Model) -> list[Request]:
    _, rows = reference_rows(options.reference, options.split, {"model": model.origin})
    return row_requests(rows, options.captions_per_image)


def _check_output(output: Path) -> None:
    """Refuse a folder that holds anything but an earlier part of the same work."""
    if (output / REQUEST).exists():
        return
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(
            f"--output: {output} already holds files; expected a new or empty folder, so that no "
            "image is overwritten"
        )


def planned_images(
    requests: Sequence[Request], output: Path, model_samples: int, options: Any
) -> list[SetImage]:
    """The images that a request will be, in order: which file, caption and sample.

    Without ``--samples`` it is the one sample of each caption that scores take.
    """
    places = range(options.samples)
    images: list[SetImage] = []
    width = max(5, len(str(len(requests))))
    turns = sample_turns(request.source for request in requests)
    for index, request in enumerate(requests):
        for sample in places if options.samples > 1 else [turns[index] % model_samples]:
            if options.format == "parquet":
                shard, row = divmod(len(images), SHARD)
                file = f"images-{shard:05d}.parquet"
            else:
                row = None
                suffix = f"-{sample}" if options.samples > 1 else ""
                file = f"{index:0{width}d}{suffix}.png"
            images.append(
                SetImage(
                    output / file,
                    index,
                    row,
                    request.caption,
                    request.source,
                    request.class_id,
                    sample,
                )
            )
    return images


def _begin(
    output: Path, folder: Path, model: Model, requests: Sequence[Request], options: Any
) -> None:
    """Note in ``output`` what is asked for.

    Raises:
        UserError: when ``output`` holds anything else.
    """
    encoder = copied_text_encoder(folder)
    request = {
        "generator": file_hash(folder / GENERATOR),
        "text_encoder": path_fingerprint(encoder) if encoder.exists() else None,
        "captions": fingerprint([asdict(request) for request in requests]),
        "samples": options.samples,
        "format": options.format,
    }
    note = output / REQUEST
    if note.exists():
        before = json.loads(note.read_text(encoding="utf-8"))
        different = [name for name in request if before.get(name) != request[name]]
        if different:
            raise UserError(
                f"--output: {output} holds images of another request (its {', '.join(different)} "
                "differ); expected a new folder, or the same request to go on with"
            )
        return
    # What scoring needs to know of the model, which may be elsewhere by then.
    dataset = model.origin.get("config", {}).get("dataset", {}).get("name")
    origin = {
        "config": {"dataset": {"name": dataset}},
        "split": model.origin.get("split"),
        "tracked": model.origin.get("tracked"),
    }
    write_text(note, json.dumps(request | {"model": str(folder), "origin": origin}, indent=1))


def _batches(images: Sequence[SetImage], options: Any) -> list[list[Row]]:
    # All samples of a caption are drawn in one pass, and a shard is written in one piece.
    size = SHARD if options.format == "parquet" else BATCH * options.samples
    return [
        [
            {
                "file": image.path.name,
                "index": image.index,
                "caption": image.caption,
                "class": image.class_id,
                "source": image.source,
                "sample": image.sample,
            }
            for image in part
        ]
        for part in batched(images, size)
    ]


class ImageWriter(BatchWorker):
    """Draws batches of captions into files; what is there already is kept.

    Args:
        model: folder.
        output: folder.
        parquet: a batch is a shard, not one PNG an image.
    """

    def __init__(self, model: str, output: str, parquet: bool) -> None:
        self._model = load_model(Path(model)).to(actor_device())
        self._output, self._parquet = Path(output), parquet

    def __call__(self, rows: list[Row]) -> int:
        """Write a batch; the number of images that are there now."""
        if not all((self._output / row["file"]).exists() for row in rows):
            drawn = draw_rows(self._model, rows)
            if self._parquet:
                self._write_shard(rows, drawn)
            else:
                for row, image in zip(rows, drawn, strict=True):
                    with replacing(self._output / row["file"]) as partial:
                        Image.fromarray(image).save(partial)
        return len(rows)

    def _write_shard(self, rows: list[Row], drawn: Iterator[np.ndarray]) -> None:
        encoded = []
        for image in drawn:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "png")
            encoded.append(buffer.getvalue())
        table = pa.Table.from_pylist([{k: v for k, v in r.items() if k != "file"} for r in rows])
        with replacing(self._output / rows[0]["file"]) as partial:
            pq.write_table(table.append_column("image", pa.array(encoded, pa.binary())), partial)


def _write_grid(output: Path, images: Sequence[SetImage]) -> None:
    """The first captions, each with all of its samples."""
    read = ImageReader()
    cells: dict[int, list[SetImage]] = {}
    for image in images:
        if image.index >= _GRID_CAPTIONS:
            break
        cells.setdefault(image.index, []).append(image)
    captions = [str(own[0].caption) for own in cells.values()]
    drawn = [[read(image) for image in own] for own in cells.values()]
    captioned_grid(output / "grid.png", captions, drawn)


def _write_manifest(output: Path, images: Sequence[SetImage]) -> None:
    with replacing(output / MANIFEST) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(manifest_line(image, output) for image in images)


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))

"""Captions to files of images: what is drawn, by whom, and what is there already."""

import io
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sdn_ray.cluster.actor_pool import BatchActor, Row, batched, stream
from sdn_ray.cluster.progress import Terminal
from sdn_ray.cluster.resources import use_device
from sdn_ray.data.image_sets import (
    MANIFEST,
    REQUEST,
    ImageReader,
    SetImage,
    manifest_line,
    sample_turns,
)
from sdn_ray.errors import UserError
from sdn_ray.files import file_hash, fingerprint, path_hash, read_json, replacing, write_text
from sdn_ray.models.drawing import BATCH, check_drawing
from sdn_ray.models.export import GENERATOR, Model, load_model
from sdn_ray.pictures import captioned_grid
from sdn_ray.runs.command_line import new_output
from sdn_ray.scoring.actors import draw_rows
from sdn_ray.scoring.captions import Location, Request
from sdn_ray.text.encoders import copied_text_encoder

SHARD = 1024  # images of a Parquet shard
IN_PROCESS = 4 * BATCH  # images that are drawn before actors would have started
FORMATS = ("png", "parquet")
_GRID_CAPTIONS = 32  # the picture for people; every image is a file of its own as well


@dataclass(frozen=True)
class DrawingSettings:
    """How captions become files of images."""

    samples: int = 1  # images a caption
    seed: int = 0  # of the noise, where the model takes some
    format: str = "png"  # of `FORMATS`
    actors: int | None = None  # processes that draw; None: see `pool_size`
    first_stage: bool = False  # of StackGAN: the first stage's image, enlarged


def draw_requests(
    requests: Sequence[Request],
    folder: Path,
    model: Model,
    output: Path,
    settings: DrawingSettings,
    terminal: Terminal,
) -> int:
    """Draw what is missing of a request's images, their manifest and a sheet of the first.

    Args:
        requests: the captions.
        folder: of the model.
        model: as read from it.
        output: folder of the images.
        settings: samples, format, processes.
        terminal: shows progress.

    Returns:
        The number of images in ``output``.

    Raises:
        UserError: the model draws fewer samples, or ``output`` holds another request's images.
    """
    _check_settings(model, settings)
    images = _planned_images(requests, output, model.generator.samples, settings)
    _note_request(requests, folder, model, output, settings)
    if not all(path.exists() for path in {image.path for image in images}):
        arguments = {
            "model": str(folder),
            "output": str(output),
            "parquet": settings.format == "parquet",
            "seed": settings.seed,
            "first_stage": settings.first_stage,
        }
        locations = [request.location for request in requests]
        batches = _batches(images, locations, settings)
        began, done = time.perf_counter(), 0
        for written in stream(
            batches,
            ImageWriter,
            arguments,
            settings.actors,
            terminal=terminal,
            in_process=IN_PROCESS,
        ):
            done += written
            rate = done / (time.perf_counter() - began)
            terminal.progress("drawing", done, len(images), f"{rate:.3g} images/s")
    terminal.wait("writing the manifest and the sheet")
    _write_manifest(output, images)
    _write_grid(output, images)
    return len(images)


def _check_settings(model: Model, settings: DrawingSettings) -> None:
    """Refuse what a model cannot draw.

    Raises:
        UserError: naming the option.
    """
    if settings.first_stage:
        model.draw_first_stage()
    check_drawing(model.generator, settings.samples, settings.seed)


def check_output(output: Path) -> None:
    """Refuse a folder that holds anything but an earlier part of the same work, or takes none."""
    if (output / REQUEST).exists():
        return
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(
            f"--output: {output} already holds files; expected a new or empty folder, so that no "
            "image is overwritten"
        )
    new_output(output)


def _planned_images(
    requests: Sequence[Request], output: Path, model_samples: int, settings: DrawingSettings
) -> list[SetImage]:
    """The images that a request will be, in order: which file, caption and sample.

    Without ``--samples`` it is the one sample of each caption that scores take.
    """
    places = range(settings.samples)
    images: list[SetImage] = []
    width = max(5, len(str(len(requests))))
    turns = sample_turns(request.source for request in requests)
    for index, request in enumerate(requests):
        for sample in places if settings.samples > 1 else [turns[index] % model_samples]:
            if settings.format == "parquet":
                shard, row = divmod(len(images), SHARD)
                file = f"images-{shard:05d}.parquet"
            else:
                row = None
                suffix = f"-{sample}" if settings.samples > 1 else ""
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


def _note_request(
    requests: Sequence[Request],
    folder: Path,
    model: Model,
    output: Path,
    settings: DrawingSettings,
) -> None:
    """Note in ``output`` what is asked for.

    Raises:
        UserError: when ``output`` holds anything else.
    """
    encoder = copied_text_encoder(folder)
    request = {
        "generator": file_hash(folder / GENERATOR),
        "text_encoder": path_hash(encoder) if encoder.exists() else None,
        "captions": fingerprint([request.record for request in requests]),
        "samples": settings.samples,
        "format": settings.format,
        **({"seed": settings.seed} if model.generator.noise_dim else {}),
        "first_stage": settings.first_stage,
    }
    note = output / REQUEST
    if note.exists():
        before = read_json(note, dict[str, Any], "the request that the folder was begun with")
        before.setdefault("first_stage", False)  # of earlier versions
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
        # The scores of its first stage's images would stand among the model's own.
        "tracked": None if settings.first_stage else model.origin.get("tracked"),
    }
    write_text(note, json.dumps(request | {"model": str(folder), "origin": origin}, indent=1))


def _batches(
    images: Sequence[SetImage], locations: Sequence[Location | None], settings: DrawingSettings
) -> list[list[Row]]:
    """The images in the pieces in which they are drawn; the locations are those of captions."""
    # All samples of a caption are drawn in one pass, and a shard is written in one piece.
    size = SHARD if settings.format == "parquet" else BATCH * settings.samples
    return [
        [
            {
                "file": image.path.name,
                "index": image.index,
                "caption": image.caption,
                "class": image.class_id,
                "source": image.source,
                "sample": image.sample,
                **_located(locations[image.index]),
            }
            for image in part
        ]
        for part in batched(images, size)
    ]


def _located(location: Location | None) -> Row:
    """What a row says of where things are to be: nothing where nobody asked."""
    return {} if location is None else {"location": location}


class ImageWriter(BatchActor):
    """Draws batches of captions into files; what is there already is kept.

    Args:
        model: folder.
        output: folder.
        parquet: a batch is a shard, not one PNG an image.
        seed: of the noise.
        first_stage: see `DrawingSettings`.
    """

    def __init__(
        self, model: str, output: str, parquet: bool, seed: int = 0, first_stage: bool = False
    ) -> None:
        self._model = load_model(Path(model)).to(use_device())
        if first_stage:
            self._model.draw_first_stage()
        self._output, self._parquet, self._seed = Path(output), parquet, seed

    def __call__(self, rows: list[Row]) -> int:
        """Write a batch; the number of images that are there now."""
        if not all((self._output / row["file"]).exists() for row in rows):
            drawn = draw_rows(self._model, rows, self._seed)
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

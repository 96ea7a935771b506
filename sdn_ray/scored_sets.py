"""Sets of images that `evaluate` and `figures` look at: in folders, or drawn by a model."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sdn_ray.config import absolute
from sdn_ray.data.image_sets import (
    REQUEST,
    ImageChecker,
    SetImage,
    one_sample_each,
    read_image_set,
    renumbered,
)
from sdn_ray.data.references import RealImages
from sdn_ray.errors import UserError
from sdn_ray.export import GENERATOR, TrackedRun, load_model, tracked_run
from sdn_ray.requests import batched, row_requests
from sdn_ray.set_workers import image_row
from sdn_ray.streaming import OnProgress, Row, stream

_CHECKED_AT_ONCE = 512


@dataclass(frozen=True)
class ScoredSet:
    """A set of images: where they are, or the model that draws them."""

    name: str
    images: tuple[SetImage, ...]  # numbered 0, 1, 2 …
    model: Path | None
    tracked: TrackedRun | None  # the MLflow run that made the model


def model_set(
    name: str, folder: Path, real: RealImages | None, captions_per_image: int | None
) -> ScoredSet:
    """The images that a model draws from the captions of real images.

    Raises:
        UserError: when the model cannot be read or has no text encoder, or there are no captions.
    """
    model = load_model(folder)
    model.reader()
    if real is None:
        raise UserError(
            f"--reference: found none; {folder} is a model, which draws the captions of a data set"
        )
    samples = model.generator.samples
    images = tuple(
        SetImage(folder, i, None, r.caption, r.source, r.class_id, sample=i % samples)
        for i, r in enumerate(row_requests(real.rows, captions_per_image))
    )
    return ScoredSet(name, images, folder, tracked_run(model.origin))


def open_sets(
    given: Sequence[str], real: RealImages | None, captions_per_image: int | None = None
) -> list[ScoredSet]:
    """The sets of ``--images``, each given as DIR or NAME=DIR: images, or a model that draws them.

    Args:
        given: as on the command line.
        real: whose captions a model draws.
        captions_per_image: of each real image, for models; None takes all.

    Raises:
        UserError: when one cannot be read, or two have the same name.
    """
    sets = []
    for entry in given:
        name, equals, path = entry.partition("=")
        folder = Path(absolute(path if equals else entry, "--images"))
        if is_model(folder):
            name = name if equals else folder.parent.name
            sets.append(model_set(name, folder, real, captions_per_image))
            continue
        images = renumbered(one_sample_each(read_image_set(folder)))
        note = folder / REQUEST
        origin = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
        sets.append(ScoredSet(name if equals else folder.name, images, None, tracked_run(origin)))
    names = [one.name for one in sets]
    if len(set(names)) < len(names):
        raise UserError(
            f"--images: found the names {', '.join(names)}; expected each once. NAME=DIR names a "
            "folder"
        )
    return sets


def model_origin(given: Sequence[str]) -> dict[str, Any] | None:
    """What the run of the first model among ``--images`` was, whose split of classes counts.

    A folder of images names the model that drew them, if it is still there.
    """
    for entry in given:
        folder = Path(entry.partition("=")[2] or entry)
        note = folder / REQUEST
        if note.exists():
            folder = Path(json.loads(note.read_text(encoding="utf-8"))["model"])
        if is_model(folder):
            return load_model(folder).origin
    return None


def is_model(folder: Path) -> bool:
    """Whether a folder is the `model` folder of a run."""
    return (folder / GENERATOR).exists()


def usable(
    one: ScoredSet,
    real: RealImages | None,
    *,
    skip_bad: bool,
    workers: int | None,
    on_progress: OnProgress,
) -> tuple[ScoredSet, list[str]]:
    """A set without what cannot be used, and the reasons for what was left out.

    Every image of a folder, and the real image that it is compared with, is decoded once for it,
    before hours of work begin that one of them would spoil.

    Raises:
        UserError: for the first bad image, unless ``skip_bad``.
    """
    bad = _without_source(one, real) if real else {}
    if one.model is None:
        rows = [
            image_row(0, image) | {"real": _real_path(image, real) if real else None}
            for image in one.images
            if image.index not in bad
        ]
        checked = 0
        for found in stream(list(batched(rows, _CHECKED_AT_ONCE)), ImageChecker, {}, workers):
            bad |= found
            checked = min(checked + _CHECKED_AT_ONCE, len(rows))
            on_progress(f"decoding {one.name}", checked, len(rows))
    if bad and not skip_bad:
        more = f" (and {len(bad) - 1} more such images)" if len(bad) > 1 else ""
        raise UserError(f"{bad[min(bad)]}{more}. Use --skip_bad true to leave such images out")
    kept = renumbered(image for image in one.images if image.index not in bad)
    return replace(one, images=kept), [bad[index] for index in sorted(bad)]


def _without_source(one: ScoredSet, real: RealImages) -> dict[int, str]:
    expected = (
        "every image's `source` in a manifest.jsonl, or its file's name, to be one of the real "
        "images"
    )
    return {
        image.index: f"{image}: its source {image.source} is not among the {len(real.rows)} real "
        f"images; expected {expected}"
        for image in one.images
        if image.source is None or real.find(image.source) is None
    }


def _real_path(image: SetImage, real: RealImages) -> str:
    return str(real.rows[real.find(image.source)].image_path)


def set_batches(place: int, one: ScoredSet, real: RealImages | None) -> list[list[Row]]:
    """The rows of a set in batches for a stream.

    Args:
        place: of the set among those of the stream.
        one: the set.
        real: adds to the image of each real image's first caption that image's path, and which
            images of the set are drawn from its captions.
    """
    drawn_from: dict[str, list[int]] = {}
    if real:
        for image in one.images:
            drawn_from.setdefault(_real_path(image, real), []).append(image.index)
    pairs = {indices[0]: (path, indices) for path, indices in drawn_from.items()}
    rows = []
    for image in one.images:
        path, indices = pairs.get(image.index, (None, []))
        rows.append(image_row(place, image) | {"real": path, "drawn_from_it": indices})
    return list(batched(rows))

"""Sets of images that `evaluate` and `figures` look at: in folders, or drawn by a model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from sdn_ray.cluster.actor_pool import Row, batched, stream
from sdn_ray.cluster.progress import Terminal
from sdn_ray.data.image_sets import (
    REQUEST,
    ImageChecker,
    SetImage,
    one_sample_each,
    read_image_set,
    renumbered,
    sample_turns,
)
from sdn_ray.data.references import RealImages, source_name
from sdn_ray.errors import UserError
from sdn_ray.files import read_json
from sdn_ray.metrics.ssim import WINDOW
from sdn_ray.models.drawing import BATCH
from sdn_ray.models.export import GENERATOR, Origin, load_model, read_origin
from sdn_ray.runs.command_line import name_and_path
from sdn_ray.runs.experiment import absolute
from sdn_ray.runs.folder import TrackedRun, tracked_run
from sdn_ray.scoring.actors import image_row
from sdn_ray.scoring.captions import FILES_AT_ONCE, row_requests


@with_config(ConfigDict(extra="allow"))
class _Drawn(TypedDict):
    origin: Origin


@dataclass(frozen=True)
class Entry:
    """What ``--images`` or ``--model`` names: a folder of images, or a model that draws them."""

    name: str
    folder: Path
    first_captions: bool = False  # of a folder: the images of real images' first captions alone

    @property
    def is_model(self) -> bool:
        """Whether it is the `model` folder of a run."""
        return (self.folder / GENERATOR).exists()

    @property
    def origin(self) -> Origin:
        """What the run of the model was, or of the model that drew the images; {} if unknown."""
        if self.is_model:
            return read_origin(self.folder)
        note = self.folder / REQUEST
        if not note.exists():  # of another system
            return {}
        return read_json(note, _Drawn, "the request that its images were drawn for")["origin"]


def model_entry(given: str) -> Entry:
    """The entry of ``--model``.

    Raises:
        UserError: when there is no such folder.
    """
    folder = Path(absolute(given, "--model"))
    return Entry(folder.parent.name, _existing(folder, "--model", "the `model` folder of a run"))


def _existing(folder: Path, option: str, expected: str) -> Path:
    if not folder.is_dir():
        raise UserError(f"{option}: {folder} is no folder; expected {expected}")
    return folder


def image_entries(given: Sequence[str]) -> list[Entry]:
    """The entries of ``--images``, each given as DIR or NAME=DIR.

    Raises:
        UserError: when two have the same name, or there is no such folder.
    """
    entries = []
    for text in given:
        name, path = name_and_path(text)
        expected = "a folder of images, or the `model` folder of a run"
        folder = _existing(Path(absolute(path, "--images")), "--images", expected)
        entry = Entry(name or folder.name, folder)
        if not name and entry.is_model:
            entry = replace(entry, name=folder.parent.name)
        entries.append(entry)
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        raise UserError(
            f"--images: found the names {', '.join(names)}; expected each once. NAME=DIR names a "
            "folder"
        )
    return entries


def origins_of(entries: Sequence[Entry]) -> dict[str, Origin]:
    """What is known of the run behind each entry, by its name."""
    return {entry.name: entry.origin for entry in entries}


@dataclass(frozen=True)
class ScoredSet:
    """A set of images: where they are, or the model that draws them."""

    name: str
    images: tuple[SetImage, ...]  # numbered 0, 1, 2 …
    model: Path | None
    tracked: TrackedRun | None  # the MLflow run that made the model
    folder: Path  # of the images, or of the model


def open_set(entry: Entry, real: RealImages | None, captions_per_image: int | None) -> ScoredSet:
    """The images of an entry.

    Args:
        entry: a folder or a model.
        real: whose captions a model draws.
        captions_per_image: of each real image, for models; None takes all.

    Raises:
        UserError: when it cannot be read, or is a model without a text encoder or captions.
    """
    tracked = tracked_run(entry.origin)
    if not entry.is_model:
        images = one_sample_each(read_image_set(entry.folder))
        if entry.first_captions and real is not None:
            images = _of_first_captions(images, real, entry.folder)
        return ScoredSet(entry.name, renumbered(images), None, tracked, entry.folder)
    model = load_model(entry.folder)  # what is wrong with it is said here, not by an actor
    model.reader()
    if real is None:
        raise UserError(
            f"--reference: found none; {entry.folder} is a model, which draws the captions of a "
            "data set"
        )
    if model.generator.image_size < WINDOW:
        raise UserError(
            f"{entry.folder}: its images have {model.generator.image_size} pixels a side, "
            f"expected at least {WINDOW} to compare them with real ones"
        )
    requests = row_requests(real.rows, captions_per_image)
    turns = sample_turns(request.source for request in requests)
    images = tuple(
        SetImage(
            entry.folder,
            index,
            caption=request.caption,
            source=request.source,
            class_id=request.class_id,
            sample=turn % model.generator.samples,
        )
        for index, (request, turn) in enumerate(zip(requests, turns, strict=True))
    )
    return ScoredSet(entry.name, images, entry.folder, tracked, entry.folder)


def _of_first_captions(
    images: Sequence[SetImage], real: RealImages, folder: Path
) -> tuple[SetImage, ...]:
    """The image of each real image's first caption, as models draw them: all, in that order.

    Raises:
        UserError: when one is missing.
    """
    found: dict[int, SetImage] = {}
    for image in images:
        place = real.find(image.source) if image.source else None
        if place is not None and image.caption in (None, real.rows[place].captions[0]):
            found.setdefault(place, image)
    missing = [row for place, row in enumerate(real.rows) if place not in found]
    if missing:
        raise UserError(
            f"{folder}: found images of {len(found)} of the {len(real.rows)} captions that stand "
            f"first with a real image, expected one of each; the first that is missing is "
            f"{missing[0].captions[0]!r} of {source_name(missing[0])}"
        )
    return tuple(found[place] for place in range(len(real.rows)))


def usable(
    one: ScoredSet,
    real: RealImages | None,
    *,
    skip_bad: bool,
    workers: int | None,
    terminal: Terminal,
) -> tuple[ScoredSet, list[str]]:
    """A set without what cannot be used, and the reasons for what was left out.

    Every image of a folder, and every real image, is decoded once for it, before hours of work
    begin that one of them would spoil.

    Raises:
        UserError: for the first bad image, unless ``skip_bad``.
    """
    bad = _without_source(one, real) if real else {}
    rows = [
        {"index": i.index, "path": str(i.path), "row": i.row, "least": WINDOW if real else 1}
        for i in (one.images if one.model is None else ())
        if i.index not in bad
    ]
    drawn_from = _drawn_from(one, real, without=bad) if real else {}
    rows += [{"index": None, "path": path, "row": None, "least": WINDOW} for path in drawn_from]
    checked = 0
    batches = list(batched(rows, FILES_AT_ONCE))
    for found in stream(
        batches,
        ImageChecker,
        {},
        workers,
        terminal=terminal,
        in_process=FILES_AT_ONCE,
        gpu=False,
    ):
        for index, path, reason in found:
            own = drawn_from[path] if index is None else [index]
            bad |= dict.fromkeys(own, reason)
        checked = min(checked + FILES_AT_ONCE, len(rows))
        terminal.progress(f"decoding {one.name}", checked, len(rows))
    if bad and not skip_bad:
        more = f" (and {len(bad) - 1} more such images)" if len(bad) > 1 else ""
        raise UserError(f"{bad[min(bad)]}{more}. Use --skip_bad to leave such images out")
    kept = renumbered(image for image in one.images if image.index not in bad)
    return replace(one, images=kept), list(dict.fromkeys(bad[index] for index in sorted(bad)))


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


def _drawn_from(
    one: ScoredSet, real: RealImages, without: dict[int, str] | None = None
) -> dict[str, list[int]]:
    """For each real image the images of the set that are of its captions, its first one first."""
    indices: dict[int, list[int]] = {}
    for image in one.images:
        if image.index not in (without or {}):
            indices.setdefault(source_place(image, real), []).append(image.index)
    for place, own in indices.items():
        first = real.rows[place].captions[0]
        own.sort(key=lambda index: one.images[index].caption not in (first, None))
    return {str(real.rows[place].image_path): own for place, own in indices.items()}


def set_batches(place: int, one: ScoredSet, real: RealImages | None) -> list[list[Row]]:
    """The rows of a set in batches for a stream.

    Args:
        place: of the set among those of the stream.
        one: the set.
        real: adds to the image of each real image's first caption that image's path, which
            images of the set are of its captions, and the caption.
    """
    drawn_from = _drawn_from(one, real) if real else {}
    pairs = {indices[0]: (path, indices) for path, indices in drawn_from.items()}
    rows: list[Row] = []
    for image in one.images:
        path, indices = pairs.get(image.index, (None, []))
        caption = image.caption
        if real is not None and path is not None and caption is None:  # a folder made elsewhere
            caption = real.rows[source_place(image, real)].captions[0]
        pair = {"real": path, "drawn_from_it": indices, "pair_caption": caption if path else None}
        rows.append(image_row(place, image) | pair)
    return [list(part) for part in batched(rows, BATCH)]


def source_place(image: SetImage, real: RealImages) -> int:
    """The place among the real images of the one whose caption an image is of.

    Raises:
        KeyError: it is not among them, which `usable` refuses or leaves out.
    """
    place = None if image.source is None else real.find(image.source)
    if place is None:
        raise KeyError(f"{image}: source {image.source}")
    return place

"""The paper's figures, of models and of folders of images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdn_ray.data.image_sets import read_real
from sdn_ray.data.references import RealImages, source_name
from sdn_ray.data.rows import CaptionedImage
from sdn_ray.errors import UserError
from sdn_ray.metrics.scoring import SetScores
from sdn_ray.models.drawing import check_steps, draw_between
from sdn_ray.models.export import load_model
from sdn_ray.models.retrieval import fc7_features, nearest
from sdn_ray.pictures import comparison_rows
from sdn_ray.runs.command_line import check_at_least
from sdn_ray.runs.experiment import absolute
from sdn_ray.runs.folder import TrackedRun, tracked_run
from sdn_ray.runs.terminal import Display
from sdn_ray.scoring.actors import SetReader, image_row
from sdn_ray.scoring.captions import file_requests, reference_rows
from sdn_ray.scoring.comparison import check_best_of, images_by_source, write_comparison
from sdn_ray.scoring.image_sets import (
    ScoredSet,
    image_entries,
    open_set,
    origins_of,
    source_place,
    usable,
)
from sdn_ray.scoring.retrieval_index import retrieval_index
from sdn_ray.scoring.score import score_sets
from sdn_ray.text.captions import given_captions

NEIGHBOURS = 5  # training images beside a generated one, as in Figure 7
_NOISE_SAMPLES = 6  # of a caption, by a model that draws as many as one wants


def _sets(options: Any, *, by_class: bool = False) -> tuple[list[ScoredSet], RealImages]:
    """The sets, of models the images of first captions, and the real images.

    Raises:
        UserError: they cannot be had, or have no classes where the figure is ``by_class``.
    """
    check_at_least(options, rows=1, workers=1, epochs=1, fc_width=1)
    entries = image_entries(options.images)
    dataset, rows = reference_rows(options.reference, options.split, origins_of(entries))
    if by_class and not dataset.has_classes:
        raise UserError(
            f"--reference: the images of {options.reference} have no classes, of which a VGG is "
            "fine-tuned as a classifier; expected a data set with classes"
        )
    real = RealImages.of(rows)
    return [open_set(entry, real, captions_per_image=1) for entry in entries], real


def _chosen(sets: Sequence[ScoredSet], real: RealImages, options: Any) -> list[int]:
    """The real images that a figure shows: places in ``real.rows``.

    Raises:
        UserError: when a wanted one is not there, or no real image has an image in every set.
    """
    common = set(range(len(real.rows))).intersection(*(images_by_source(one, real) for one in sets))
    if not common:
        raise UserError(
            f"--images: no real image has an image in all of {', '.join(s.name for s in sets)}; "
            "expected images of the same captions"
        )
    if options.sources is None:
        ordered = sorted(common)
        count = min(options.rows, len(ordered))
        return [ordered[i] for i in np.linspace(0, len(ordered) - 1, count).round().astype(int)]
    places = [real.find(source) for source in options.sources]
    for source, place in zip(options.sources, places, strict=True):
        if place not in common:
            raise UserError(
                f"--sources: found {source}, expected an image of the {options.split} classes of "
                f"{options.reference} with an image in every set, such as "
                f"{source_name(real.rows[min(common)])}"
            )
    return [place for place in places if place is not None]


def _reader(one: ScoredSet) -> SetReader:
    return SetReader([str(one.model) if one.model else None])


def _real_like(row: CaptionedImage, image: np.ndarray) -> np.ndarray:
    return read_real(row.image_path, *image.shape[:2])


def comparison(options: Any, output: Path, display: Display) -> list[TrackedRun | None]:
    """Figures 3, 4 and 6: one row a caption, the real image, and a column for each set."""
    check_best_of(options.best_of)
    sets, real = _sets(options)
    places = _chosen(sets, real, options)
    write_comparison(output, sets, real, places, best_of=options.best_of)
    return [one.tracked for one in sets]


def diverse(options: Any, output: Path, display: Display) -> list[TrackedRun | None]:
    """Figure 5: every sample of each caption."""
    if (options.text is None) == (options.captions is None):
        raise UserError("expected either --text or --captions, and not both")
    model = load_model(Path(absolute(options.model, "--model")))
    if options.text is not None:
        captions = given_captions(options.text, "--text")
    else:
        captions = [request.caption for request in file_requests(options.captions)]
    samples = _NOISE_SAMPLES if model.generator.noise_dim else model.generator.samples
    if samples == 1:
        raise UserError(
            f"--model: {options.model} draws one sample a caption; expected a diverse model "
            "(distillation.scheme sdn_diverse), or one that takes noise"
        )
    drawn = np.concatenate(list(model.draw(captions, samples=samples)))
    headers = [f"sample {sample + 1}" for sample in range(drawn.shape[1])]
    comparison_rows(output, captions, headers, [list(samples) for samples in drawn])
    return [tracked_run(model.origin)]


def interpolation(options: Any, output: Path, display: Display) -> list[TrackedRun | None]:
    """Figure 8 (section 4.7): linear between the embeddings of two captions."""
    check_steps(options.steps)
    if len(options.text) != len(options.to):
        raise UserError(
            f"--to: found {len(options.to)} captions, expected one for each of the "
            f"{len(options.text)} of --text"
        )
    first, last = given_captions(options.text, "--text"), given_captions(options.to, "--to")
    model = load_model(Path(absolute(options.model, "--model")))
    begin, end = model.embed(first), model.embed(last)
    rows = [
        draw_between(model.generator, a, b, options.steps) for a, b in zip(begin, end, strict=True)
    ]
    headers = [""] * options.steps
    comparison_rows(output, first, headers, rows, end_captions=last)
    return [tracked_run(model.origin)]


def worst(options: Any, output: Path, display: Display) -> list[TrackedRun | None]:
    """Figure 9: the pairs of lowest FSIM, the lowest first."""
    sets, real = _sets(options)
    one = _single(sets)
    one, _ = usable(one, real, skip_bad=False, workers=options.workers, terminal=display)
    with SetScores(len(one.images), 1, 0) as found:
        settings = {"classifier": None, "splits": 1, "seed": 0}
        score_sets([one], [found], real, settings, options.workers, display)
        pairs = found.pairs()
    lowest = pairs[np.argsort(pairs[:, 2], kind="stable")[: options.rows]]
    images = [one.images[int(index)] for index in lowest[:, 0]]
    drawn = _reader(one)([image_row(0, image) for image in images])
    rows = [real.rows[source_place(image, real)] for image in images]
    photos = [_real_like(row, image) for row, image in zip(rows, drawn, strict=True)]
    comparison_rows(
        output,
        [row.captions[0] for row in rows],
        ["real", one.name],
        list(zip(photos, drawn, strict=True)),
        notes=[("", f"FSIM {value:.3f}") for value in lowest[:, 2]],
    )
    return [one.tracked]


def retrieval(options: Any, output: Path, display: Display) -> list[TrackedRun | None]:
    """Figure 7 (section 4.6): a generated image and the training images nearest to it by fc7."""
    sets, real = _sets(options, by_class=True)
    one = _single(sets)
    places = _chosen([one], real, options)
    by_source = images_by_source(one, real)
    drawn = _reader(one)([image_row(0, by_source[place]) for place in places])
    origins = origins_of(image_entries(options.images))
    index = retrieval_index(options, drawn[0].shape[0], origins, display)
    queries = fc7_features(index.network, np.stack([index.resized(image) for image in drawn]))
    rows, similarities = nearest(queries, index.features, NEIGHBOURS)
    pictures, notes = [], []
    for image, own_rows, own_similarities in zip(drawn, rows, similarities, strict=True):
        found = [_real_like(index.rows[row], image) for row in own_rows]
        pictures.append([image, *found])
        notes.append(("", *(f"cosine {value:.3f}" for value in own_similarities)))
    headers = [one.name, *(f"training {place + 1}" for place in range(NEIGHBOURS))]
    captions = [real.rows[place].captions[0] for place in places]
    comparison_rows(output, captions, headers, pictures, notes=notes)
    return [one.tracked]


def _single(sets: Sequence[ScoredSet]) -> ScoredSet:
    if len(sets) != 1:
        raise UserError(f"--images: found {len(sets)} sets, expected one for this figure")
    return sets[0]


FIGURES: dict[str, Callable[[Any, Path, Display], list[TrackedRun | None]]] = {
    "comparison": comparison,
    "diverse": diverse,
    "retrieval": retrieval,
    "interpolation": interpolation,
    "worst": worst,
}

"""How good a text encoder is by itself: the measures of Reed et al. 2016 on unseen classes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from sdn_ray.data.rows import CaptionedImage
from sdn_ray.data.synthetic.flowers import NAME as SYNTHETIC
from sdn_ray.data.synthetic.flowers import read_species
from sdn_ray.data.synthetic.species import Species
from sdn_ray.errors import UserError
from sdn_ray.files import write_text
from sdn_ray.metrics.attributes import Shown
from sdn_ray.metrics.probe import attribute_probe
from sdn_ray.models.export import CONFIG, load_model, read_origin
from sdn_ray.models.image_features import TEACHER
from sdn_ray.preparation.features import features_of
from sdn_ray.runs.experiment import absolute
from sdn_ray.runs.folder import noted_run
from sdn_ray.runs.terminal import Display
from sdn_ray.runs.tracking import Recorder
from sdn_ray.scoring.captions import reference_rows
from sdn_ray.text.encoders import read_text_encoder
from sdn_ray.text.image_encoder import IMAGE_ENCODER_FILE, load_image_encoder
from sdn_ray.text.scores import CaptionedFeatures, text_scores

_PROBED = 3  # captions of an image that the probe looks at


def score_text_encoder(options: Any, output: Path | None, display: Display) -> None:
    """`evaluate --text_encoder`: print, write and record what an encoder tells apart.

    An encoder with its images' side: zero-shot accuracy and AP@50. Any encoder, a model's too,
    where the data set knows attributes: the share that a linear probe reads right.

    Raises:
        UserError: when the encoder, its image features or the data set cannot be had.
    """
    folder = Path(absolute(options.text_encoder, "--text_encoder"))
    own = (folder / CONFIG).exists() and not (folder / IMAGE_ENCODER_FILE).exists()
    # Its split counts where it was trained on this data set.
    origins = {folder.name: read_origin(folder) if own else load_image_encoder(folder)[1]}
    dataset, rows = reference_rows(
        options.reference, options.split, origins, skip_bad=options.skip_bad
    )
    if not dataset.has_classes:
        raise UserError(
            f"--reference: the images of {options.reference} have no classes, which an encoder is "
            "to tell apart; expected a data set with classes"
        )
    encode = load_model(folder).read if own else read_text_encoder(folder).encode
    scores = {} if own else _trained_scores(folder, rows, display)
    if dataset.name == SYNTHETIC:
        display.wait("probing the embeddings")
        _, known = reference_rows(options.reference, "train", origins, skip_bad=options.skip_bad)
        species = read_species(Path(absolute(options.reference, "--reference")))
        sides = [_captions_shown(part, species) for part in (known, rows)]
        (captions, shown), (tried, expected) = sides
        probe = attribute_probe(encode(captions), shown, encode(tried), expected)
        scores |= {f"probe_{name}": value for name, value in probe.items()}
    if not scores:
        raise UserError(
            f"--text_encoder: {folder} has no images' side and {dataset.name} knows no attributes; "
            "expected the text_encoder folder of a run of train_text"
        )
    _tell(folder, rows, scores, output, display)
    tracked = noted_run(folder.parent)
    if tracked is not None:
        recorder = Recorder(tracked)
        recorder.metrics({f"{options.split}/{name}": value for name, value in scores.items()}, 0)


def _trained_scores(
    folder: Path, rows: Sequence[CaptionedImage], display: Display
) -> dict[str, float]:
    """The measures of Reed et al. of an encoder that `train_text` has made."""
    image_encoder, source = load_image_encoder(folder)
    encoder = read_text_encoder(folder)
    if source["features"] == TEACHER and not Path(source["teacher"] or "").is_file():
        raise UserError(
            f"--text_encoder: the teacher whose features {folder} was trained against is gone: "
            f"{source['teacher']}"
        )
    features = features_of(rows, source, display)
    width = len(image_encoder.standardise.mean)
    if features.shape[1] != width or image_encoder.dim != encoder.embedding_dim:
        raise UserError(
            f"--text_encoder: {folder} maps features of {width} numbers to "
            f"{image_encoder.dim}, expected {features.shape[1]} and "
            f"{encoder.embedding_dim}: its two files do not belong together"
        )
    held_out = CaptionedFeatures(
        [row.captions for row in rows], np.array([row.class_id for row in rows]), features
    )
    scores = asdict(text_scores(encoder.encode, image_encoder, held_out))
    counts = np.unique(held_out.class_ids, return_counts=True)[1]
    # Always naming one class is right for its share of the images.
    return scores | {"chance": 1 / len(counts), "largest_class": float(counts.max() / counts.sum())}


def _captions_shown(
    rows: Sequence[CaptionedImage], species: Mapping[int, Species]
) -> tuple[list[str], list[Shown]]:
    """Some captions of each image, and what they ask for."""
    said = [(row, caption) for row in rows for caption in row.captions[:_PROBED]]
    return [caption for _, caption in said], [
        Shown.of(species[row.class_id], caption) for row, caption in said
    ]


def _tell(
    folder: Path,
    rows: Sequence[CaptionedImage],
    scores: Mapping[str, float],
    output: Path | None,
    display: Display,
) -> None:
    table = Table("measure", "value", title=f"{folder}: {len(rows)} images")
    for name, value in scores.items():
        table.add_row(name, f"{value:.4f}")
    display.console.print(table)
    if output:
        classes = len({row.class_id for row in rows})
        found = {"text_encoder": str(folder), "images": len(rows), "classes": classes}
        write_text(output, json.dumps({**found, **scores}, indent=1) + "\n")
        display.line(f"written to {output}")

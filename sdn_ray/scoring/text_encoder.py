"""How good a text encoder is by itself: the measures of Reed et al. 2016 on unseen classes."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from sdn_ray.errors import UserError
from sdn_ray.files import write_text
from sdn_ray.models.image_features import TEACHER
from sdn_ray.preparation.features import features_of
from sdn_ray.runs.experiment import absolute
from sdn_ray.runs.folder import noted_run
from sdn_ray.runs.terminal import Display
from sdn_ray.runs.tracking import Recorder
from sdn_ray.scoring.captions import reference_rows
from sdn_ray.text.encoders import read_text_encoder
from sdn_ray.text.image_encoder import load_image_encoder
from sdn_ray.text.training import CaptionedFeatures, text_scores


def score_text_encoder(options: Any, output: Path | None, display: Display) -> None:
    """`evaluate --text_encoder`: print, write and record zero-shot accuracy and AP@50.

    Raises:
        UserError: when the encoder, its image features or the data set cannot be had.
    """
    folder = Path(absolute(options.text_encoder, "--text_encoder"))
    image_encoder, source = load_image_encoder(folder)
    encoder = read_text_encoder(folder)
    if source["features"] == TEACHER and not Path(source["teacher"] or "").is_file():
        raise UserError(
            f"--text_encoder: the teacher whose features {folder} was trained against is gone: "
            f"{source['teacher']}"
        )
    origins = {folder.name: source}  # its split counts where it was trained on this data set
    _, rows = reference_rows(options.reference, options.split, origins, skip_bad=options.skip_bad)
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
    scores |= {"chance": 1 / len(counts), "largest_class": float(counts.max() / counts.sum())}
    table = Table("measure", "value", title=f"{folder}: {len(rows)} images")
    for name, value in scores.items():
        table.add_row(name, f"{value:.4f}")
    display.console.print(table)
    if output:
        found = {"text_encoder": str(folder), "images": len(rows), "classes": len(counts)}
        write_text(output, json.dumps(found | scores, indent=1) + "\n")
        display.line(f"written to {output}")
    tracked = noted_run(folder.parent)
    if tracked is not None:
        recorder = Recorder(tracked)
        recorder.metrics({f"{options.split}/{name}": value for name, value in scores.items()}, 0)

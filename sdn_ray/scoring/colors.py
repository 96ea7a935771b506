"""Fits the colour classifier of `evaluate --colors` on real images, read by Ray Data."""

from collections.abc import Mapping
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from sdn_ray.cluster.actor_pool import BatchActor, Row, batched, stream
from sdn_ray.data.image_sets import read_real
from sdn_ray.errors import UserError
from sdn_ray.metrics.color_agreement import (
    COLOR_WORDS,
    MEASURED_SIDE,
    ColorClassifier,
    color_histogram,
    named_color,
)
from sdn_ray.runs.terminal import Display
from sdn_ray.scoring.captions import FILES_AT_ONCE, reference_rows


def named_colors(
    reference: str, origins: Mapping[str, Mapping[str, Any]], *, skip_bad: bool
) -> dict[str, str]:
    """The training images of a data set, by path, with the colour that the first caption names.

    Images whose first caption names none are left out.

    Args:
        reference: folder of the data set.
        origins: what is known of the models in question, see `reference_rows`.
        skip_bad: leave out items whose files are missing.

    Raises:
        UserError: there are none, or they name fewer than two colours.
    """
    try:
        _, rows = reference_rows(reference, "train", origins, skip_bad=skip_bad)
    except UserError as error:
        raise UserError(f"--colors: needs training images to fit on. {error}") from error
    named = {str(row.image_path): named_color(row.captions[0]) for row in rows}
    colors = {path: color for path, color in named.items() if color is not None}
    found = sorted(set(colors.values()))
    if len(found) < 2:
        raise UserError(
            f"--colors: the first captions of the training images in {reference} name "
            f"{len(found)} colours ({', '.join(found) or 'none'}); expected two or more of "
            f"{', '.join(COLOR_WORDS)}"
        )
    return colors


class HistogramActor(BatchActor):
    """The colour histograms of batches of image files: of each an array, or why there is none."""

    def __call__(self, rows: list[Row]) -> list[np.ndarray | str]:
        """(1152,) float32 for each image that decodes."""
        return [self._histogram(Path(row["path"])) for row in rows]

    def _histogram(self, path: Path) -> np.ndarray | str:
        try:
            return color_histogram(read_real(path, MEASURED_SIDE, MEASURED_SIDE))
        except UserError as error:
            return str(error)


def fit_colors(
    images: Mapping[str, str], *, skip_bad: bool, workers: int | None, display: Display
) -> ColorClassifier:
    """What colours look like, from images and the colour that the caption of each names.

    Args:
        images: path and colour of each, see `named_colors`.
        skip_bad: leave out images that do not decode.
        workers: processes that read them.
        display: shows progress, and what was left out.

    Raises:
        UserError: an image does not decode, unless ``skip_bad``.
    """
    batches = list(batched([{"path": path} for path in images], FILES_AT_ONCE))
    found: list[np.ndarray | str] = []
    for batch in stream(
        batches,
        HistogramActor,
        {},
        workers,
        terminal=display,
        in_process=FILES_AT_ONCE,
        gpu=False,
    ):
        bad = [histogram for histogram in batch if isinstance(histogram, str)]
        if bad and not skip_bad:
            raise UserError(f"{bad[0]}. Use --skip_bad to leave such images out")
        for reason in bad:
            display.line(f"left out {reason}")
        found += batch
        display.progress("colours of training images", len(found), len(images))
    kept = [not isinstance(histogram, str) for histogram in found]
    histograms, colors = list(compress(found, kept)), list(compress(images.values(), kept))
    display.line(f"colours fitted on {len(colors)} training images")
    return ColorClassifier(np.stack(histograms), colors)

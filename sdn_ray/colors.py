"""Fits the colour classifier of `evaluate --colors` on real images, read by Ray Data."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sdn_ray.cluster import OnProgress
from sdn_ray.data.image_sets import read_real
from sdn_ray.data.rows import CaptionedImage
from sdn_ray.metrics.color_agreement import MEASURED_SIDE, ColorClassifier, color_histogram
from sdn_ray.requests import batched
from sdn_ray.streaming import BatchWorker, Row, stream

_AT_ONCE = 512


class HistogramWorker(BatchWorker):
    """The colour histograms of batches of image files."""

    def __call__(self, rows: list[Row]) -> np.ndarray:
        """(batch, 1152) float32."""
        images = [read_real(Path(row["path"]), MEASURED_SIDE, MEASURED_SIDE) for row in rows]
        return np.stack([color_histogram(image) for image in images])


def fit_colors(
    rows: Sequence[CaptionedImage], workers: int | None, on_progress: OnProgress
) -> ColorClassifier:
    """What colours look like, from the images of some rows and the first caption of each.

    Raises:
        UserError: an image does not decode, or the captions name fewer than two colours.
    """
    batches = list(batched([{"path": str(row.image_path)} for row in rows], _AT_ONCE))
    found: list[np.ndarray] = []
    for histograms in stream(batches, HistogramWorker, {}, workers):
        found.append(histograms)
        on_progress("colours of real images", sum(map(len, found)), len(rows))
    return ColorClassifier(np.concatenate(found), [row.captions[0] for row in rows])

"""What actors do with the images of sets: read or draw, check, score. Imports no MLflow."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sdn_ray.cluster.actor_pool import BatchActor, Row
from sdn_ray.cluster.resources import use_device
from sdn_ray.data.decoding import resized
from sdn_ray.data.image_sets import ImageReader, SetImage, read_real
from sdn_ray.metrics.color_agreement import ColorClassifier
from sdn_ray.metrics.scoring import BatchScorer, BatchScores, RealImage
from sdn_ray.models.classifiers import load_classifier
from sdn_ray.models.export import Model, load_model


def image_row(place: int, image: SetImage) -> Row:
    """An image as a row of a stream; ``place`` is that of its set."""
    return {
        "set": place,
        "index": image.index,
        "path": str(image.path),
        "row": image.row,
        "caption": image.caption,
        "sample": image.sample,
    }


def _set_image(row: Row) -> SetImage:
    return SetImage(Path(row["path"]), row["index"], row["row"])


def draw_rows(model: Model, rows: Sequence[Row], seed: int = 0) -> Iterator[np.ndarray]:
    """The image of each row, (height, width, 3) uint8; the samples of a caption stand together.

    Args:
        model: what draws.
        rows: with the index of their caption, by which and the seed its noise is drawn; either
            all with its location or none.
        seed: of the noise.
    """
    captions = {row["index"]: row["caption"] for row in rows}
    locations = {row["index"]: row["location"] for row in rows if "location" in row}
    batches = model.draw(
        list(captions.values()),
        locations=np.array(list(locations.values()), np.float32) if locations else None,
        samples=1 + max(row["sample"] for row in rows),
        seed=seed,
        indices=np.array(list(captions)),
    )
    drawn = (samples for batch in batches for samples in batch)
    index = None
    for row in rows:
        if row["index"] != index:
            index, samples = row["index"], next(drawn)
        yield samples[row["sample"]]


class SetReader:
    """The images of batches of rows: read from their folder, or drawn by their model.

    Args:
        models: for each set the folder of its model, or None.
    """

    def __init__(self, models: Sequence[str | None]) -> None:
        self._read = ImageReader()
        self._models = [
            load_model(Path(folder)).to(use_device()) if folder else None for folder in models
        ]

    def __call__(self, rows: list[Row]) -> list[np.ndarray]:
        """The images of rows of one set, (height, width, 3) uint8 each.

        Raises:
            UserError: when one cannot be read.
        """
        model = self._models[rows[0]["set"]]
        if model is not None:
            return list(draw_rows(model, rows))
        return [self._read(_set_image(row)) for row in rows]


class ScoringActor(BatchActor):
    """Reads or draws batches of images, and scores them.

    Args:
        sizes: images of each set.
        models: for each set the folder of the model that draws it, or None.
        classifier: NAME or NAME:FILE; None leaves out all scores that need one.
        splits: of the classifier score.
        seed: of its shuffle.
        colors: names the colours of images; None leaves them out.
        compare_size: pixels a side at which SSIM and FSIM compare an image with a real one; None
            is the image's own size.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        models: Sequence[str | None],
        classifier: str | None,
        splits: int,
        seed: int,
        colors: ColorClassifier | None = None,
        compare_size: int | None = None,
    ) -> None:
        loaded = load_classifier(classifier, use_device()) if classifier else None
        self._scorers = [BatchScorer(loaded, size, splits, seed, colors) for size in sizes]
        self._read = SetReader(models)
        self._compare_size = compare_size

    def __call__(self, rows: list[Row]) -> tuple[int, BatchScores]:
        """The place of a batch's set, and what the batch adds to its scores."""
        images = self._read(rows)
        real = [
            RealImage(
                read_real(Path(row["real"]), *images[place].shape[:2]),
                place,
                np.array(row["drawn_from_it"]),
                row["pair_caption"],
                self._compared(Path(row["real"]), images[place]),
            )
            for place, row in enumerate(rows)
            if row["real"] is not None
        ]
        indices = np.array([row["index"] for row in rows])
        return rows[0]["set"], self._scorers[rows[0]["set"]](indices, images, real)

    def _compared(self, real: Path, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """A real image and a drawn one at the size of comparison, where that is another."""
        size = self._compare_size
        if size is None or drawn.shape[:2] == (size, size):
            return None
        return read_real(real, size, size), resized(drawn, size, size)

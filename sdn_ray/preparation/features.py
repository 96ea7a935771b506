"""Fixed features of many images, made once by Ray Data: what a text encoder is trained against."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sdn_ray.cluster.actor_pool import BatchActor, Row, batched, stream
from sdn_ray.cluster.progress import Terminal
from sdn_ray.cluster.resources import use_device
from sdn_ray.config import ExperimentConfig
from sdn_ray.data.image_sets import read_real
from sdn_ray.data.prepared import PreparedImages
from sdn_ray.data.rows import CaptionedImage
from sdn_ray.data.splits import ClassSplit
from sdn_ray.files import file_hash, fingerprint, read_array, replacing, spec_hash
from sdn_ray.models.image_features import TEACHER, ImageFeatures
from sdn_ray.text.image_encoder import FeatureSource

_AT_ONCE = 256  # images of a batch
IN_PROCESS = _AT_ONCE  # images that are done before actors would have started


def feature_source(
    config: ExperimentConfig, teacher: Path | None, split: ClassSplit
) -> FeatureSource:
    """What makes the features of a configuration, as an encoder's folder keeps it."""
    return {
        "config": {"dataset": {"name": config.dataset.name}},
        "split": split.to_dict(),
        "features": config.text.features,
        "teacher": str(teacher) if teacher else None,
        "plan": config.teacher.plan,
        "image_size": config.dataset.image_size,
        "layout": config.text.whiten,
    }


def maker_hash(spec: str, teacher: Path | str | None) -> str | None:
    """What `text.features` is known by: the teacher's file, or a classifier."""
    return file_hash(str(teacher)) if spec == TEACHER else spec_hash(spec)


def feature_maker(
    config: ExperimentConfig,
    images: PreparedImages,
    split: ClassSplit,
    teacher: Path,
    terminal: Terminal,
) -> Callable[[np.ndarray], np.ndarray]:
    """In this process: rows of the prepared images to their features, (rows, width) float32.

    Raises:
        UserError: when the network cannot be had.
    """
    extract = _extractor(feature_source(config, teacher, split))

    def features(members: np.ndarray) -> np.ndarray:
        def shown(done: int, total: int) -> None:
            terminal.progress("image features", done, total)

        return extract(images.images()[members], shown)

    return features


def _extractor(source: FeatureSource) -> ImageFeatures:
    return ImageFeatures(
        source["features"],
        source["teacher"],
        source["plan"],
        use_device(),
        layout=source.get("layout", False),
    )


def prepare_features(images: PreparedImages, source: FeatureSource, terminal: Terminal) -> Path:
    """The file of a prepared data set's features, .npy (rows, width) float32, made or kept."""
    spec = source["features"]
    maker = maker_hash(spec, source["teacher"])
    rows = len(images.dataset.rows)
    layout = ["layout"] if source.get("layout") else []
    key = fingerprint("features", images.key, rows, spec, maker, source["plan"], *layout)
    path = images.cache / f"features-{key}.npy"
    if not path.exists():
        found = _features(
            [{"row": row} for row in range(rows)], source, str(images.array_path), terminal
        )
        with replacing(path) as partial:
            np.save(partial, found)
    return path


def features_of(
    rows: Sequence[CaptionedImage], source: FeatureSource, terminal: Terminal
) -> np.ndarray:
    """The features of image files, (rows, width) float32."""
    paths = [{"path": str(row.image_path)} for row in rows]
    return _features(paths, source, None, terminal)


def _features(
    rows: list[Row], source: FeatureSource, array: str | None, terminal: Terminal
) -> np.ndarray:
    batches = list(batched(rows, _AT_ONCE))
    found: list[np.ndarray] = []
    settings = {"source": source, "array": array}
    for features in stream(
        batches, FeatureActor, settings, terminal=terminal, in_process=IN_PROCESS
    ):
        found.append(features)
        terminal.progress("image features", sum(map(len, found)), len(rows))
    return np.concatenate(found)


class FeatureActor(BatchActor):
    """The features of batches of images.

    Args:
        source: see `feature_source`.
        array: of prepared images, .npy; without it rows are image files.
    """

    def __init__(self, source: FeatureSource, array: str | None) -> None:
        self._features = _extractor(source)
        self._array = read_array(Path(array)) if array else None
        self._size = source["image_size"]
        self._features.check_image_size(self._size)

    def __call__(self, rows: list[Row]) -> np.ndarray:
        """(batch, width) float32."""
        if self._array is not None:
            return self._features(self._array[[row["row"] for row in rows]])
        size = self._size
        return self._features(np.stack([read_real(Path(row["path"]), size, size) for row in rows]))

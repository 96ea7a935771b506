"""The index of section 4.6: fc7 features of all training images, made once by Ray Data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from PIL import Image

from sdn_ray.cluster import Display, Monitor, Reporter, start_ray, watch, worker_resources
from sdn_ray.config import DatasetConfig, TrainingConfig
from sdn_ray.data.decoding import decode_rgb
from sdn_ray.data.prepared import PreparedImages
from sdn_ray.data.rows import CaptionedImage
from sdn_ray.files import file_hash, fingerprint, replacing
from sdn_ray.models.fit import FitEpoch
from sdn_ray.models.retrieval import (
    RetrievalNetwork,
    fc7_features,
    fine_tune,
    load_retrieval_network,
)
from sdn_ray.models.teacher import Teacher, load_teacher
from sdn_ray.prepare import cache_folder, prepare_images, ray_task, task_device
from sdn_ray.requests import batched, reference_rows
from sdn_ray.streaming import BatchWorker, Row, actor_device, stream

_SEED = 0
_BATCH_SIZE = 32
_INDEXED_AT_ONCE = 256


@dataclass(frozen=True)
class RetrievalIndex:
    """Training images by their features."""

    network: RetrievalNetwork
    features: np.ndarray  # (rows, fc_width) float32
    rows: tuple[CaptionedImage, ...]

    def resized(self, image: np.ndarray) -> np.ndarray:
        """An image, (height, width, 3) uint8, at the size that the network takes."""
        size = self.network.image_size
        if image.shape[:2] == (size, size):
            return image
        return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


def retrieval_index(
    options: Any, image_size: int, origins: dict[str, dict[str, Any]], display: Display
) -> RetrievalIndex:
    """The fine-tuned network and its index, from the cache where they were made before.

    Args:
        options: of the command: ``reference``, ``teacher``, ``plan``, ``fc_width``, ``epochs``,
            ``learning_rate``, ``cache``.
        image_size: of the generated images; all are resized to the largest size up to it that the
            teacher's pools can halve.
        origins: of the models whose training classes count, see `reference_rows`.
        display: shows progress.

    Raises:
        UserError: when the teacher or an image cannot be read, or they do not fit together.
    """
    teacher = load_teacher(options.teacher, options.plan)
    step = 1 << teacher.plan.pools
    image_size = max(step, image_size // step * step)
    dataset, rows = reference_rows(options.reference, "train", origins)
    config = DatasetConfig(
        name=dataset.name, root=options.reference, image_size=image_size, cache=options.cache
    )
    start_ray()
    images = prepare_images(dataset, config, display.progress)
    class_ids = tuple(sorted({row.class_id for row in rows}))
    settings = [options.fc_width, options.epochs, options.learning_rate, _SEED, _BATCH_SIZE]
    weights = "imagenet" if options.teacher == "imagenet" else file_hash(options.teacher)
    key = fingerprint("retrieval", images.key, class_ids, str(teacher.plan), weights, settings)
    cache = cache_folder(config)
    path, features = cache / f"retrieval-{key}.safetensors", cache / f"retrieval-{key}.npy"
    if not path.exists():
        monitor = Monitor.remote()
        resources = worker_resources(TrainingConfig())
        fit = ray_task(_fine_tune, resources)
        work = (teacher, images, class_ids, options, path, Reporter(monitor))
        watch(lambda: ray.get(fit.remote(*work)), monitor, display, checkpoints=False)
    if not features.exists():
        found = _index(rows, path, image_size, display)
        with replacing(features) as partial:
            np.save(partial, found)
    return RetrievalIndex(load_retrieval_network(path), np.load(features, mmap_mode="r"), rows)


def _fine_tune(
    teacher: Teacher,
    images: PreparedImages,
    class_ids: tuple[int, ...],
    options: Any,
    path: Path,
    reporter: Reporter,
) -> None:
    members = images.members(class_ids)

    def on_epoch(epoch: FitEpoch) -> None:
        detail = f"loss {epoch.loss:.3f}  held-out accuracy {epoch.held_out_accuracy:.1%}"
        reporter.progress("fine-tuning the VGG", epoch.epoch, epoch.epochs, detail)
        if epoch.epoch == epoch.epochs:
            reporter.line(
                f"fine-tuned VGG: {epoch.held_out_accuracy:.1%} of held-out images named right "
                f"among {len(class_ids)} classes"
            )

    network = fine_tune(
        teacher,
        np.asarray(images.images()[members]),
        np.array([images.dataset.rows[i].class_id for i in members]),
        fc_width=options.fc_width,
        epochs=options.epochs,
        batch_size=_BATCH_SIZE,
        learning_rate=options.learning_rate,
        seed=_SEED,
        device=task_device(),
        on_epoch=on_epoch,
    )
    network.save(path)


def _index(
    rows: Sequence[CaptionedImage], path: Path, image_size: int, display: Display
) -> np.ndarray:
    """fc7 of all rows' images, in their order: (rows, fc_width) float32."""
    batches = list(batched([{"path": str(row.image_path)} for row in rows], _INDEXED_AT_ONCE))
    arguments = {"network": str(path), "image_size": image_size}
    found: list[np.ndarray] = []
    for features in stream(batches, IndexWorker, arguments):
        found.append(features)
        display.progress("indexing training images", len(found), len(batches))
    return np.concatenate(found)


class IndexWorker(BatchWorker):
    """The features of batches of images.

    Args:
        network: file of a `RetrievalNetwork`.
        image_size: to which images are resized.
    """

    def __init__(self, network: str, image_size: int) -> None:
        self._network = load_retrieval_network(network)
        self._image_size = image_size

    def __call__(self, rows: list[Row]) -> np.ndarray:
        """(batch, fc_width) float32."""
        size = self._image_size
        images = np.stack([decode_rgb(row["path"], size, size) for row in rows])
        return fc7_features(self._network, images, device=actor_device())

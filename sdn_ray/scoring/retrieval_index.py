"""The index of section 4.6: fc7 features of all training images, made once by Ray Data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from sdn_ray.cluster.actor_pool import BatchActor, Row, batched, stream
from sdn_ray.cluster.progress import Terminal, Watcher
from sdn_ray.cluster.resources import start_ray, use_device, worker_resources
from sdn_ray.cluster.tasks import ray_runner
from sdn_ray.config import TrainingConfig
from sdn_ray.data.prepared import PreparedImages
from sdn_ray.data.rows import CaptionedImage
from sdn_ray.files import file_hash, fingerprint, read_array, replacing
from sdn_ray.models.fit import FitSettings
from sdn_ray.models.retrieval import (
    FC_NAMES,
    RetrievalNetwork,
    fc7_features,
    fine_tune,
    load_retrieval_network,
)
from sdn_ray.models.teacher import Teacher, imagenet_weights, load_teacher
from sdn_ray.preparation.images import cache_at, prepare_images
from sdn_ray.preparation.teacher import fit_progress
from sdn_ray.runs.terminal import Display
from sdn_ray.scoring.captions import reference_rows

_VGG_SIDE, _VGG_FC_WIDTH = 224, 4096
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
    options: Any, image_size: int, origins: Mapping[str, Mapping[str, Any]], display: Display
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
    cache = cache_at(options.cache)
    start_ray(display)
    images = prepare_images(dataset, image_size, cache, display)
    class_ids = tuple(sorted({row.class_id for row in rows}))
    settings = FitSettings(options.epochs, _BATCH_SIZE, options.learning_rate, _SEED)
    # In this order since the first release: what was fitted before is found again.
    known: list[int | float | str] = [
        options.fc_width,
        options.epochs,
        options.learning_rate,
        _SEED,
        _BATCH_SIZE,
    ]
    weights = "imagenet" if options.teacher == "imagenet" else file_hash(options.teacher)
    pretrained = _imagenet_fc(options, image_size, display)
    if pretrained is not None:
        known.append("fc6 and fc7 of ImageNet")
    key = fingerprint("retrieval", images.key, class_ids, str(teacher.plan), weights, known)
    path, features = cache / f"retrieval-{key}.safetensors", cache / f"retrieval-{key}.npy"
    if not path.exists():
        watch = Watcher(display)
        run = ray_runner(worker_resources(TrainingConfig()))
        work = (
            teacher,
            images,
            class_ids,
            settings,
            options.fc_width,
            pretrained,
            path,
            watch.remote,
        )
        watch(lambda: run(_fine_tune, *work), checkpoints=False)
    if not features.exists():
        found = _index(images, images.members(class_ids), path, display)
        with replacing(features) as partial:
            np.save(partial, found)
    return RetrievalIndex(load_retrieval_network(path), read_array(features), rows)


def _imagenet_fc(options: Any, image_size: int, terminal: Terminal) -> dict[str, Tensor] | None:
    """fc6 and fc7 of ImageNet's VGG, which section 4.6 fine-tunes, where they fit."""
    if options.teacher != "imagenet":
        return None
    if (image_size, options.fc_width) != (_VGG_SIDE, _VGG_FC_WIDTH):
        terminal.line(
            f"fc6 and fc7 start anew: ImageNet's are for images of {_VGG_SIDE} pixels and "
            f"--fc_width {_VGG_FC_WIDTH}, found {image_size} and {options.fc_width}"
        )
        return None
    state, _ = imagenet_weights(options.plan)
    return {name: state[name] for name in FC_NAMES}


def _fine_tune(
    teacher: Teacher,
    images: PreparedImages,
    class_ids: tuple[int, ...],
    settings: FitSettings,
    fc_width: int,
    pretrained: dict[str, Tensor] | None,
    path: Path,
    terminal: Terminal,
) -> None:
    members = images.members(class_ids)
    network = fine_tune(
        teacher,
        np.asarray(images.images()[members]),
        np.array([images.dataset.rows[i].class_id for i in members]),
        settings,
        fc_width=fc_width,
        pretrained=pretrained,
        device=use_device(),
        on_epoch=fit_progress(terminal, "fine-tuning the VGG", "fine-tuned VGG", len(class_ids)),
    )
    network.save(path)


def _index(
    images: PreparedImages, members: np.ndarray, path: Path, terminal: Terminal
) -> np.ndarray:
    """fc7 of some of the prepared images, in their order: (members, fc_width) float32."""
    batches = list(batched([{"row": int(row)} for row in members], _INDEXED_AT_ONCE))
    arguments = {"network": str(path), "array": str(images.array_path)}
    found: list[np.ndarray] = []
    for features in stream(batches, IndexActor, arguments, terminal=terminal):
        found.append(features)
        terminal.progress("indexing training images", len(found), len(batches))
    return np.concatenate(found)


class IndexActor(BatchActor):
    """The features of batches of prepared images.

    Args:
        network: file of a `RetrievalNetwork`.
        array: of the images, .npy, at the network's size.
    """

    def __init__(self, network: str, array: str) -> None:
        self._network = load_retrieval_network(network)
        self._images = read_array(Path(array))
        self._device = use_device()

    def __call__(self, rows: list[Row]) -> np.ndarray:
        """(batch, fc_width) float32."""
        images = self._images[[row["row"] for row in rows]]
        return fc7_features(self._network, images, device=self._device)

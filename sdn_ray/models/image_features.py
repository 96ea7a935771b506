"""Fixed image features for training a text encoder: the teacher's, or any classifier's, pooled."""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

from sdn_ray.models.classifiers import Classifier, load_classifier
from sdn_ray.models.pixels import normalise
from sdn_ray.models.teacher import Teacher, load_teacher

TEACHER = "teacher"

_BATCH = 64
_GRID = 4
OnBatch = Callable[[int, int], None]  # (images done, images)


class ImageFeatures:
    """What the captions' side is trained against: images → fixed features.

    Args:
        spec: `teacher`, or a classifier as `load_classifier` takes it.
        teacher: the teacher's weights, a file; of a classifier nothing.
        plan: the teacher's, where the file does not name it.
        device: where to compute.
        layout: add the maps of the teacher's last two layers, see `pooled_features`.
    """

    def __init__(
        self,
        spec: str,
        teacher: str | None,
        plan: str | None = None,
        device: str = "cpu",
        *,
        layout: bool = False,
    ) -> None:
        self._device, self._layout = device, layout
        self._network: Teacher | Classifier = (
            load_teacher(teacher or "", plan) if spec == TEACHER else load_classifier(spec, device)
        )

    def check_image_size(self, size: int) -> None:
        """Refuse a size that the teacher's pools cannot halve; a classifier takes any.

        Raises:
            UserError: saying what was expected.
        """
        if isinstance(self._network, Teacher):
            self._network.plan.check_image_size(size)

    def __call__(
        self, images: np.ndarray, on_batch: OnBatch = lambda done, total: None
    ) -> np.ndarray:
        """(n, height, width, 3) uint8 → (n, width) float32."""
        if isinstance(self._network, Classifier):
            return _classifier_features(self._network, images, on_batch)
        return pooled_features(
            self._network, images, device=self._device, on_batch=on_batch, layout=self._layout
        )


def _classifier_features(
    classifier: Classifier, images: np.ndarray, on_batch: OnBatch
) -> np.ndarray:
    found = []
    for start in range(0, len(images), _BATCH):
        batch = torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH]))
        features, _ = classifier.features_and_probabilities(batch.permute(0, 3, 1, 2))
        found.append(features.cpu().numpy())
        on_batch(start + len(batch), len(images))
    return np.concatenate(found)


@torch.no_grad()
def pooled_features(
    teacher: Teacher,
    images: np.ndarray,
    batch_size: int = _BATCH,
    device: str = "cpu",
    on_batch: OnBatch = lambda done, total: None,
    *,
    layout: bool = False,
) -> np.ndarray:
    """The spatial means of every layer's features, side by side: (n, sum of widths) float32.

    All layers, since captions speak of colours, which the low layers hold, as well as of shapes,
    which the high ones do.

    Args:
        teacher: frozen.
        images: (n, height, width, 3) uint8.
        batch_size: images a forward pass.
        device: where to compute.
        on_batch: called with (images done, images) after each pass.
        layout: add the means over 4×4 parts of the last two layers' maps: how many petals there are
            is not in a mean over the whole.
    """
    teacher = teacher.to(device).to(memory_format=torch.channels_last)
    pooled = []
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size]))
        features = teacher(normalise(batch.permute(0, 3, 1, 2).to(device)))
        parts = [feature.mean((2, 3)) for feature in features]
        if layout:
            parts += [adaptive_avg_pool2d(feature, _GRID).flatten(1) for feature in features[-2:]]
        pooled.append(torch.cat(parts, 1).cpu().numpy())
        on_batch(min(start + batch_size, len(images)), len(images))
    return np.concatenate(pooled)

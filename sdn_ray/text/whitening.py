"""What the generator reads of a caption's embedding: the directions that images bear out.

An embedding says what a caption says in very unequal sizes: a few directions hold most of its
variance, and of the rest most is wording. Whitening by its own covariance would blow up the wording
as well as what is rare. So the embedding is read through the training images: a ridge regression
predicts their features from it, the predictions' principal directions are the canonical directions
of captions and images (Hotelling 1936), and their sizes, the canonical correlations, tell what can
be seen from what cannot. Those that can be seen are brought to one size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sdn_ray.errors import UserError
from sdn_ray.files import replacing
from sdn_ray.text.image_encoder import Standardiser, one_thread

MOST_DIRECTIONS = 64
RIDGE = 0.1  # of the mean variance of an embedding's dimension
FLOOR = 0.4  # of the largest correlation; below it a direction is not brought to full size


@dataclass(frozen=True)
class CaptionWhitening:
    """(φ_t − mean) · matrix."""

    mean: np.ndarray  # (embedding_dim,) float32
    matrix: np.ndarray  # (embedding_dim, dim) float32

    @property
    def dim(self) -> int:
        """Width of a whitened embedding."""
        return self.matrix.shape[1]

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """(captions, embedding_dim) → (captions, dim) float32."""
        return (embeddings - self.mean) @ self.matrix

    def save(self, path: Path) -> None:
        """Write it as one safetensors file, all or nothing."""
        with replacing(path) as partial:
            save_file({"mean": self.mean, "matrix": self.matrix}, partial)


def load_whitening(path: Path) -> CaptionWhitening:
    """What `CaptionWhitening.save` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        tensors = load_file(path)
        return CaptionWhitening(tensors["mean"], tensors["matrix"])
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"{path}: cannot be read as a whitening of captions ({error})") from error


def canonical_whitening(
    embeddings: np.ndarray, caption_rows: Sequence[Sequence[int]], features: np.ndarray
) -> CaptionWhitening:
    """The whitening of captions by the images that they describe.

    Args:
        embeddings: (distinct captions, embedding_dim) float32.
        caption_rows: the captions of each of n images, rows of ``embeddings``.
        features: (n, width) float32 of the images; they are whitened first.
    """
    with one_thread():
        return _canonical_whitening(embeddings, caption_rows, features)


def _canonical_whitening(
    embeddings: np.ndarray, caption_rows: Sequence[Sequence[int]], features: np.ndarray
) -> CaptionWhitening:
    images = Standardiser.whitening(features)(features).astype(np.float64)
    pairs = [(row, image) for image, rows in enumerate(caption_rows) for row in rows]
    used, inverse, uses = np.unique(
        [row for row, _ in pairs], return_inverse=True, return_counts=True
    )
    share = uses[:, None] / len(pairs)
    captions = embeddings[used].astype(np.float64)
    mean = (share * captions).sum(0)
    captions -= mean
    # The mean features of all images that a caption stands with, times its share.
    pictured = np.zeros((len(used), images.shape[1]))
    np.add.at(pictured, inverse, images[[image for _, image in pairs]] / len(pairs))

    covariance = (share * captions).T @ captions
    width = len(covariance)
    ridge = RIDGE * max(np.trace(covariance) / width, 1e-12) * np.eye(width)
    predict = np.linalg.solve(covariance + ridge, captions.T @ pictured)
    variances, directions = np.linalg.eigh(predict.T @ covariance @ predict)
    kept = min(MOST_DIRECTIONS, width, len(variances))
    sizes = np.sqrt(variances[::-1][:kept].clip(1e-12))
    matrix = predict @ directions[:, ::-1][:, :kept] / np.maximum(sizes, FLOOR * sizes[0])
    return CaptionWhitening(mean.astype(np.float32), np.ascontiguousarray(matrix, np.float32))

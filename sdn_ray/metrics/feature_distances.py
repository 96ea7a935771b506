"""Distances between the features of real and of generated images: Fréchet (FID) and kernel (KID).

They are called FID and KID only where the features are those of the TensorFlow Inception of
2015-12-05; see :meth:`sdn_ray.models.classifiers.Classifier.features_and_probabilities`.

Own code and not torch-fidelity's, which makes both of one tensor with the features of all images of
a set, in the memory of one process, and has nothing by which the statistics of parts add up. Here
moments are sums, to which the batches of any worker are added, and KID reads one subset at a time,
from a memory map if need be.
"""

from dataclasses import dataclass

import numpy as np
import torch

from sdn_ray.errors import UserError


class FeatureMoments:
    """Mean and covariance of the features of a set of images, from sums in float64.

    Args:
        dim: width of the features.
    """

    def __init__(self, dim: int) -> None:
        self.images = 0
        self._sum = np.zeros(dim)
        self._sum_of_products = np.zeros((dim, dim))

    def update(self, features: np.ndarray | torch.Tensor) -> None:
        """Add images by their features, (batch, dim)."""
        if isinstance(features, torch.Tensor):
            features = features.cpu()
        x = np.asarray(features, dtype=np.float64)
        self.images += len(x)
        self._sum += x.sum(axis=0)
        self._sum_of_products += x.T @ x

    def mean(self) -> np.ndarray:
        """The mean of the features, (dim,).

        Raises:
            UserError: there are fewer than 2 images.
        """
        self._require_images()
        return self._sum / self.images

    def covariance(self) -> np.ndarray:
        """The unbiased covariance of the features, (dim, dim).

        Raises:
            UserError: there are fewer than 2 images.
        """
        mean = self.mean()
        scatter = self._sum_of_products - self.images * np.outer(mean, mean)
        return scatter / (self.images - 1)

    def _require_images(self) -> None:
        if self.images < 2:
            raise UserError(
                f"the Fréchet distance of features needs at least 2 images, found {self.images}"
            )


def frechet_distance(a: FeatureMoments, b: FeatureMoments) -> float:
    """Squared Fréchet distance of two normal distributions (Heusel et al. 2017, eq. 6).

    ‖μ_a − μ_b‖² + tr(C_a + C_b − 2 (C_a C_b)^½). It grows as there are fewer images, so only
    figures of one number of images can be compared. There may be fewer images than dimensions.

    Raises:
        UserError: one of them is of fewer than 2 images.
    """
    covariance_a, covariance_b = a.covariance(), b.covariance()
    # C_a C_b has the eigenvalues of Rᵀ C_b R, where R Rᵀ = C_a: symmetric, so none is complex, and
    # as small as the rank of C_a, so that directions without variance add no rounding error.
    variances, directions = np.linalg.eigh(covariance_a)
    kept = variances > variances[-1] * len(variances) * np.finfo(np.float64).eps
    root = directions[:, kept] * np.sqrt(variances[kept])
    eigenvalues = np.linalg.eigvalsh(root.T @ covariance_b @ root)
    trace_of_root = np.sqrt(eigenvalues.clip(min=0)).sum()
    between_means = ((a.mean() - b.mean()) ** 2).sum()
    return float(
        between_means + np.trace(covariance_a) + np.trace(covariance_b) - 2 * trace_of_root
    )


@dataclass(frozen=True)
class KernelDistance:
    """A kernel distance over subsets: mean and population standard deviation."""

    mean: float
    std: float
    subsets: int
    subset_size: int


def kernel_distance(
    features_a: np.ndarray,
    features_b: np.ndarray,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> KernelDistance:
    """Unbiased squared MMD with the kernel (x·y / dim + 1)³ (Bińkowski et al. 2018, section 4).

    The subsets are those of torch-fidelity for the same seed, so a distance depends on the order of
    the rows. Unbiased, it may be slightly below 0 for sets that are alike.

    Args:
        features_a: of one set, (images, dim); only one subset of it is read into memory at a time,
            so it may be a memory map.
        features_b: of the other set, likewise; its number of images may differ.
        subsets: number of pairs of subsets.
        subset_size: images in each subset, drawn without repetition.
        seed: seed of the draws.

    Raises:
        UserError: a set has fewer images than a subset; a subset has fewer than 2; no subsets.
    """
    if subsets < 1:
        raise UserError(f"subsets of the kernel distance: {subsets}, expected at least 1")
    if subset_size < 2:
        raise UserError(f"subset size of the kernel distance: {subset_size}, expected at least 2")
    if min(len(features_a), len(features_b)) < subset_size:
        raise UserError(
            f"the kernel distance draws subsets of {subset_size} images, but the sets have "
            f"{len(features_a)} and {len(features_b)}: a smaller subset size is needed"
        )
    rng = np.random.RandomState(seed)
    distances = np.empty(subsets)
    for subset in range(subsets):
        a, b = (
            np.asarray(features[rng.choice(len(features), subset_size, replace=False)])
            for features in (features_a, features_b)
        )
        distances[subset] = _unbiased_mmd2(a, b)
    return KernelDistance(float(distances.mean()), float(distances.std()), subsets, subset_size)


def _unbiased_mmd2(a: np.ndarray, b: np.ndarray) -> float:
    """Squared MMD of two sets of features, (n, dim) each."""

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        # The distance is a small difference of large sums, which float32 would round away.
        return ((x @ y.T).astype(np.float64) / x.shape[1] + 1) ** 3

    def mean_of_pairs(k: np.ndarray) -> float:
        return (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))

    within = mean_of_pairs(kernel(a, a)) + mean_of_pairs(kernel(b, b))
    return float(within - 2 * kernel(a, b).mean())

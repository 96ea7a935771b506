"""The inception score, or the same score by another classifier (paper section 4.2, eq. 6).

Own code and not torch-fidelity's, which takes a whole set (a folder, a data set or a generator)
through one process, keeps the logits of all its images until the end and gives nothing but the
finished score. Here batches are classified by any number of workers, and only sums travel and are
kept: a row of class probabilities and one number for each split.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import xlogy

from sdn_ray.errors import UserError
from sdn_ray.models.classifiers import INCEPTION, Classifier


@dataclass(frozen=True)
class ScoreResult:
    """A score over splits: mean and population standard deviation, as papers quote it."""

    mean: float
    std: float
    images: int
    splits: int


@dataclass(frozen=True)
class SplitSums:
    """What a batch adds to a score: all that has to travel from where the batch was classified."""

    indices: np.ndarray  # (batch,) of the images in the whole set
    p: np.ndarray  # (splits, classes) Σ p(y|x)
    p_log_p: np.ndarray  # (splits,) Σ p(y|x) log p(y|x)


class ClassifierScore:
    """exp(E_x KL(p(y|x) ‖ p(y))) over splits of a shuffled set, from sums alone.

    The splits are those of torch-fidelity for the same seed: a permutation of the image indices by
    ``numpy.random.RandomState(seed)``, cut at ``i · images // splits``. The split of an image thus
    depends on its index, never on the order in which images arrive or on who scores them.

    Args:
        classes: number of classes of the classifier.
        images: number of images of the whole set.
        splits: number of splits.
        seed: seed of the shuffle.

    Raises:
        UserError: fewer images than splits, or no splits.
    """

    def __init__(self, classes: int, images: int, splits: int = 10, seed: int = 0) -> None:
        if splits < 1:
            raise UserError(f"splits of the classifier score: {splits}, expected at least 1")
        if images < splits:
            raise UserError(
                f"the classifier score has {splits} splits but only {images} images: "
                "expected at least one image a split"
            )
        self.images, self.splits = images, splits
        self._split_of = np.empty(images, dtype=np.int64)
        permutation = np.random.RandomState(seed).permutation(images)
        for split in range(splits):
            chunk = slice(split * images // splits, (split + 1) * images // splits)
            self._split_of[permutation[chunk]] = split
        self._times_seen = np.zeros(images, dtype=np.int64)
        self._sum_p = np.zeros((splits, classes))
        self._sum_p_log_p = np.zeros(splits)

    def update(self, indices: np.ndarray, probabilities: np.ndarray | torch.Tensor) -> None:
        """Add images: ``indices`` (batch,) in [0, images), ``probabilities`` (batch, classes)."""
        self.add(self.batch_sums(indices, probabilities))

    def batch_sums(
        self, indices: np.ndarray, probabilities: np.ndarray | torch.Tensor
    ) -> SplitSums:
        """What a batch adds, without adding it; arguments as in ``update``."""
        indices = np.asarray(indices)
        if isinstance(probabilities, torch.Tensor):
            probabilities = probabilities.cpu()
        p = np.asarray(probabilities, dtype=np.float64)
        members = np.equal.outer(np.arange(self.splits), self._split_of[indices]).astype(np.float64)
        return SplitSums(indices, members @ p, members @ xlogy(p, p).sum(axis=1))

    def add(self, sums: SplitSums) -> None:
        """Add a batch, classified here or in another process by an object of the same arguments."""
        self._sum_p += sums.p
        self._sum_p_log_p += sums.p_log_p
        np.add.at(self._times_seen, sums.indices, 1)

    def compute(self) -> ScoreResult:
        """The score of the whole set.

        Raises:
            ValueError: an image is missing or was added more than once.
        """
        missing = np.flatnonzero(self._times_seen == 0)
        repeated = np.flatnonzero(self._times_seen > 1)
        if len(missing) or len(repeated):
            raise ValueError(
                f"each of the {self.images} images must be scored once: {len(missing)} missing "
                f"(first {missing[:5].tolist()}), {len(repeated)} repeated "
                f"(first {repeated[:5].tolist()})"
            )
        count = np.bincount(self._split_of, minlength=self.splits)
        p_y = self._sum_p / count[:, None]
        # E_x KL(p(y|x) ‖ p(y)) = E_x Σ_y p(y|x) log p(y|x) − Σ_y p(y) log p(y)
        divergence = self._sum_p_log_p / count - xlogy(p_y, p_y).sum(axis=1)
        scores = np.exp(divergence)
        return ScoreResult(float(scores.mean()), float(scores.std()), self.images, self.splits)


def score_name(classifier_name: str) -> str:
    """The name a score is reported under: only the original Inception gives inception scores."""
    return "inception_score" if classifier_name == INCEPTION else f"{classifier_name}_score"


def distance_name(classifier_name: str, distance: str) -> str:
    """The name of an FID or KID: plain only where its features are the original Inception's."""
    return distance if classifier_name == INCEPTION else f"{classifier_name}_{distance}"


def classifier_score(
    images: np.ndarray | Sequence[np.ndarray],
    classifier: Classifier,
    splits: int = 10,
    seed: int = 0,
    batch_size: int = 8,
) -> ScoreResult:
    """Score a set of images in this process.

    Args:
        images: uint8 (images, height, width, 3), which may be memory-mapped, or a sequence of such
            batches, each with its own height and width.
        classifier: see :func:`sdn_ray.models.classifiers.load_classifier`.
        splits: number of splits.
        seed: seed of the shuffle.
        batch_size: images a forward pass; small ones are fastest on a CPU core.

    Example:
        >>> classifier_score(images, load_classifier("inception_2015_12_05"))

    Raises:
        UserError: fewer images than splits.
    """
    batches = [images] if isinstance(images, np.ndarray) else images
    score = ClassifierScore(classifier.classes, sum(map(len, batches)), splits, seed)
    first = 0
    for batch in batches:
        for start in range(0, len(batch), batch_size):
            part = np.array(batch[start : start + batch_size])
            probabilities = classifier(torch.from_numpy(part).permute(0, 3, 1, 2))
            score.update(np.arange(first, first + len(part)), probabilities)
            first += len(part)
    return score.compute()

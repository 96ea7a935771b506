"""Every score of a set of images as a stream: batches are scored anywhere, sums gathered in one
place, and no more than a batch of images or probabilities is held at once."""

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from sdn_ray.errors import UserError
from sdn_ray.metrics.classifier_score import ClassifierScore, ScoreResult, SplitSums
from sdn_ray.metrics.color_agreement import (
    ColorClassifier,
    color_agreement,
    named_color,
    shuffled_color_agreement,
)
from sdn_ray.metrics.feature_distances import FeatureMoments, frechet_distance, kernel_distance
from sdn_ray.metrics.fsim import fsim_values
from sdn_ray.metrics.ssim import ssim
from sdn_ray.metrics.variety import (
    Picture,
    SsimBetweenCaptions,
    is_compared,
    ssim_between_captions,
)
from sdn_ray.models.classifiers import Classifier

KID_SUBSET = 1000  # images of each subset, where both sets have as many
_FEATURES_AT_ONCE = 1024
# Small batches are fastest on a CPU core, and leave a GPU idle.
_CLASSIFIED_AT_ONCE = {"cpu": 8, "cuda": 128}


@dataclass(frozen=True)
class RealImage:
    """A real image, and which images of the set were drawn from its captions."""

    image: np.ndarray  # (height, width, 3) uint8, at the generated image's size
    place: int  # in the batch: the image that was drawn from its first caption
    indices: np.ndarray  # in the set: all that were drawn from its captions
    caption: str  # of the image at `place`
    # It and the image at `place`, at the size at which they are compared. None: as they are.
    compared: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class Classified:
    """What the classifier says of some images."""

    sums: SplitSums
    features: np.ndarray  # (images, dim) float32


@dataclass(frozen=True)
class BatchScores:
    """What a batch adds to the scores of its set; small, so that it can travel."""

    images: Classified | None  # None: no classifier
    real: Classified | None  # None: no real images, or no classifier
    indices: np.ndarray  # (pairs,) of the images in the set that are compared with a real one
    ssim: np.ndarray  # (pairs,)
    fsim: np.ndarray  # (pairs,)
    colors: list[tuple[str, str, str]]  # that a caption names, of the image, and of the real one
    pictures: list[Picture]  # that are compared with those of other batches
    size: tuple[int, int]  # height and width of the first image


class BatchScorer:
    """Scores batches of one set.

    Args:
        classifier: None leaves out everything that needs one.
        images: of the whole set.
        splits: of the classifier score.
        seed: of its shuffle.
        colors: adds colours; None leaves them out.

    Raises:
        UserError: fewer images than splits.
    """

    def __init__(
        self,
        classifier: Classifier | None,
        images: int,
        splits: int,
        seed: int,
        colors: ColorClassifier | None = None,
    ) -> None:
        self._classifier = classifier
        self._colors, self._images = colors, images
        if classifier is not None:
            self._score = ClassifierScore(classifier.classes, images, splits, seed)

    def __call__(
        self, indices: np.ndarray, images: Sequence[np.ndarray], real: Sequence[RealImage]
    ) -> BatchScores:
        """Score a batch.

        Args:
            indices: (batch,) of the images in the set.
            images: (height, width, 3) uint8 each, perhaps of different sizes.
            real: the real images whose first caption's image is in this batch.

        Raises:
            UserError: images that SSIM or FSIM cannot compare.
        """
        pairs = [pair.compared or (pair.image, images[pair.place]) for pair in real]
        return BatchScores(
            images=self._classify(images, [np.array([i]) for i in indices]),
            real=self._classify([pair.image for pair in real], [pair.indices for pair in real]),
            indices=np.array([indices[pair.place] for pair in real], dtype=np.int64),
            ssim=np.array([ssim(a, b) for a, b in pairs]),
            fsim=_fsim_of_pairs(pairs),
            colors=self._colors_of(images, real),
            pictures=[
                Picture(pair.caption, drawn, photograph)
                for pair, (photograph, drawn) in zip(real, pairs, strict=True)
                if is_compared(indices[pair.place], len(pair.indices), self._images)
            ],
            size=images[0].shape[:2],
        )

    def _colors_of(
        self, images: Sequence[np.ndarray], real: Sequence[RealImage]
    ) -> list[tuple[str, str, str]]:
        if self._colors is None:
            return []
        colors = [(named_color(pair.caption), pair) for pair in real]
        named = [(color, pair) for color, pair in colors if color is not None]
        drawn = self._colors([images[pair.place] for _, pair in named])
        photographed = self._colors([pair.image for _, pair in named])
        return list(zip((color for color, _ in named), drawn, photographed, strict=True))

    def _classify(
        self, images: Sequence[np.ndarray], indices: Sequence[np.ndarray]
    ) -> Classified | None:
        if self._classifier is None or not len(images):
            return None
        features: list[Any] = [None] * len(images)
        probabilities: list[Any] = [None] * len(images)
        for places in _equal_sized(images, _CLASSIFIED_AT_ONCE[self._classifier.device.type]):
            batch = torch.from_numpy(np.stack([images[place] for place in places]))
            found = self._classifier.features_and_probabilities(batch.permute(0, 3, 1, 2))
            for place, feature, p in zip(places, *(t.cpu().numpy() for t in found), strict=True):
                features[place], probabilities[place] = feature, p
        counts = [len(own) for own in indices]
        p = np.repeat(np.stack(probabilities), counts, axis=0)
        sums = self._score.batch_sums(np.concatenate(indices), p)
        return Classified(sums, np.stack(features).astype(np.float32))


def _equal_sized(images: Sequence[np.ndarray], most: int) -> list[list[int]]:
    """The places of the images in groups of one size, of at most ``most``."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        by_shape.setdefault(image.shape, []).append(place)
    return [
        places[start : start + most]
        for places in by_shape.values()
        for start in range(0, len(places), most)
    ]


def _fsim_of_pairs(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    values = np.empty(len(pairs))
    for places in _equal_sized([real for real, _ in pairs], 64):
        real, generated = (np.stack([pairs[p][side] for p in places]) for side in (0, 1))
        values[places] = fsim_values(real, generated)
    return values


@dataclass(frozen=True)
class Distances:
    """How far the features of a set are from those of the real images."""

    fid: float
    kid: float
    kid_std: float
    kid_subset: int  # images of each subset


@dataclass(frozen=True)
class ColorScores:
    """How often images have the colour that their captions name."""

    pairs: int  # of a real image and one drawn from its caption, where that names a colour
    agreement: float  # of the drawn images
    shuffled: float  # of the same ones, with the captions dealt at random
    real: float  # of the real images


class SetScores(AbstractContextManager["SetScores"]):
    """Gathers the scores of one set; its memory does not grow with the number of images.

    Features, which KID needs again at the end, go to files of a temporary folder, which leaving
    the context removes.
    """

    def __init__(self, images: int, splits: int, seed: int) -> None:
        self.images, self.splits, self.seed = images, splits, seed
        self._folder = TemporaryDirectory(prefix="sdn_ray-features-")
        self._sides = {name: _Side(Path(self._folder.name) / name) for name in ("images", "real")}
        self._pairs: list[np.ndarray] = []  # (pairs, 3): index, SSIM, FSIM
        self._colors: Counter[tuple[str, str, str]] = Counter()
        self._pictures: list[Picture] = []
        self.sizes: set[tuple[int, int]] = set()  # height and width of images

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def add(self, batch: BatchScores) -> None:
        """Add a scored batch; the order of batches is that of the features on disk."""
        self.sizes.add(batch.size)
        self._colors.update(batch.colors)
        self._pictures += batch.pictures
        for name, found in (("images", batch.images), ("real", batch.real)):
            if found is not None:
                self._sides[name].add(found, self.images, self.splits, self.seed)
        if len(batch.indices):
            self._pairs.append(np.column_stack([batch.indices, batch.ssim, batch.fsim]))

    def classifier_score(self, side: str = "images") -> ScoreResult | None:
        """The score of the ``images``, or of the ``real`` images at the same count and splits."""
        score = self._sides[side].score
        return score.compute() if score else None

    def pairs(self) -> np.ndarray:
        """Index in the set, SSIM and FSIM of each pair, by index: (pairs, 3)."""
        rows = np.concatenate(self._pairs) if self._pairs else np.empty((0, 3))
        return rows[np.argsort(rows[:, 0])]

    def colors(self) -> ColorScores | None:
        """How often the captions' colours are those of the images; None where nothing is known."""
        if not self._colors:
            return None
        said, drawn, photographed = zip(*self._colors.elements(), strict=True)
        return ColorScores(
            len(said),
            color_agreement(said, drawn),
            shuffled_color_agreement(said, drawn),
            color_agreement(said, photographed),
        )

    def variety(self) -> tuple[SsimBetweenCaptions, SsimBetweenCaptions] | None:
        """SSIM between pictures of different captions: of the images, and of the real ones."""
        drawn = ssim_between_captions([(one.caption, one.drawn) for one in self._pictures])
        real = ssim_between_captions([(one.caption, one.real) for one in self._pictures])
        return None if drawn is None or real is None else (drawn, real)

    def distances(self) -> Distances | None:
        """FID and KID; None without a classifier, or with fewer than two images on a side."""
        images, real = self._sides["images"], self._sides["real"]
        if min(images.count, real.count) < 2:
            return None
        fid = frechet_distance(images.moments(), real.moments())
        subset = min(KID_SUBSET, images.count, real.count)
        kid = kernel_distance(images.features(), real.features(), subset_size=subset)
        return Distances(fid, kid.mean, kid.std, subset)


class _Side:
    """Sums and features of the generated or of the real images."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.count = 0
        self.score: ClassifierScore | None = None
        self._dim = 0

    def add(self, found: Classified, images: int, splits: int, seed: int) -> None:
        if self.score is None:
            self.score = ClassifierScore(found.sums.p.shape[1], images, splits, seed)
            self._dim = found.features.shape[1]
        self.score.add(found.sums)
        # Appended, not memory-mapped: mapped pages would count as this process's memory.
        with self._path.open("ab") as file:
            file.write(found.features.tobytes())
        self.count += len(found.features)

    def features(self) -> np.ndarray:
        return np.memmap(self._path, np.float32, "r", shape=(self.count, self._dim))

    def moments(self) -> FeatureMoments:
        # At the end and in large parts: after each small product the threads of a BLAS would spin
        # for a while, and take the cores from those who score.
        moments = FeatureMoments(self._dim)
        for start in range(0, self.count, _FEATURES_AT_ONCE):
            moments.update(self.features()[start : start + _FEATURES_AT_ONCE])
        return moments


def check_splits(images: int, splits: int, what: str) -> None:
    """Refuse a set that is too small for the splits of the classifier score.

    Raises:
        UserError: naming ``what``, when there are fewer images than splits.
    """
    if images < splits:
        raise UserError(
            f"{what}: found {images} images, expected at least {splits}, one for each of the "
            f"--splits {splits}"
        )

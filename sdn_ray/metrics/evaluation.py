"""Scores of a generator on captioned images: one image drawn for each image's first caption."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from sdn_ray.data.batches import EncodedImages
from sdn_ray.metrics.attributes import (
    Shown,
    agreement,
    measure_attributes,
    shuffled_agreement,
)
from sdn_ray.metrics.classifier_score import ClassifierScore, score_name
from sdn_ray.metrics.perceptual import PerceptualDistance
from sdn_ray.metrics.ssim import MeanSSIM
from sdn_ray.metrics.variety import mean_difference
from sdn_ray.models.classifiers import Classifier
from sdn_ray.models.drawing import draw_images, draw_samples
from sdn_ray.models.image_generators import ImageGenerator
from sdn_ray.models.teacher import Teacher

PERCEPTUAL = "perceptual_distance"
BETWEEN_DRAWS, BETWEEN_CAPTIONS = "l1_between_draws", "l1_between_captions"
WITHIN_CLASSES = "l1_within_classes_of_real_images"
_VARIED = 64  # captions that are drawn twice
TEST_SPLITS = 10  # of the classifier score of the test classes


@dataclass(frozen=True)
class Evaluation:
    """Scores by name; a classifier score carries the classifier's name and its deviation."""

    scores: dict[str, float]
    images: int
    splits: int


def evaluate_generator(
    generator: ImageGenerator,
    data: EncodedImages,
    *,
    classifier: Classifier | None = None,
    teacher: Teacher | None = None,
    splits: int = 1,
    shown: Sequence[Shown] | None = None,
    attribute_baselines: bool = False,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Draw an image for the first caption of every image, and score them as a stream.

    Args:
        generator: on any device.
        data: real images with their captions' embeddings.
        classifier: of the classifier score (eq. 6); None leaves it out.
        teacher: adds `PERCEPTUAL`, the distance in its features.
        splits: of the classifier score.
        shown: what the caption of each image names, where the data set knows its attributes: adds
            the agreement of each attribute over the captions that name it.
        attribute_baselines: add the same agreement of the real images, and of the drawn ones when
            the captions are shuffled.
        on_batch: called with (images done, images).
    """
    total = len(data)
    mean_ssim = MeanSSIM()
    perceptual = PerceptualDistance(teacher) if teacher is not None else None
    score = None
    seen: list[np.ndarray] = []
    done = 0
    for drawn in draw_images(generator, data.first_captions()):
        indices = np.arange(done, done + len(drawn))
        real = data.images[data.indices[indices]]
        mean_ssim.update(real, drawn)
        if perceptual is not None:
            perceptual.update(real, drawn)
        if classifier is not None:
            probabilities = classifier(torch.from_numpy(drawn).permute(0, 3, 1, 2)).cpu()
            score = score or ClassifierScore(probabilities.shape[1], total, splits)
            score.update(indices, probabilities)
        if shown is not None:
            seen.append(drawn)
        done += len(drawn)
        on_batch(done, total)
    scores = {"ssim": mean_ssim.compute()}
    if generator.noise_dim:
        scores |= variety_of_draws(generator, data)
    if perceptual is not None:
        scores[PERCEPTUAL] = perceptual.compute()
    if classifier is not None and score is not None:
        result = score.compute()
        name = score_name(classifier.name)
        scores[name] = result.mean
        if splits > 1:
            scores[f"{name}_std"] = result.std
    if shown is not None:
        readings = measure_attributes(np.concatenate(seen))
        scores |= agreement(readings, shown)
        if attribute_baselines:
            real = agreement(measure_attributes(data.images[data.indices]), shown)
            shuffled = shuffled_agreement(readings, shown)
            scores |= {f"{name}_of_real_images": value for name, value in real.items()}
            scores |= {f"{name}_of_shuffled_captions": v for name, v in shuffled.items()}
    return Evaluation(scores, total, splits)


def variety_of_draws(generator: ImageGenerator, data: EncodedImages) -> dict[str, float]:
    """How much the pictures differ: mean |a − b| of pixels in [0, 1].

    Args:
        generator: one that takes noise.
        data: of which at most 64 first captions are drawn, twice each.

    Returns:
        Between two draws of one caption, between draws of two captions, and, to compare them with,
        between two real images of one class, where there are two.
    """
    few = spread(data, _VARIED)
    first, second = np.concatenate(
        list(draw_samples(generator, few.first_captions(), samples=2))
    ).transpose(1, 0, 2, 3, 4)
    # Far apart in the data set's order, in which classes stand together.
    others = np.roll(np.arange(len(few)), len(few) // 2)
    rows = few.caption_rows[few.indices, 0]
    different = rows != rows[others]
    scores = {BETWEEN_DRAWS: mean_difference(first, second)}
    if different.any():
        scores[BETWEEN_CAPTIONS] = mean_difference(first[different], first[others][different])
    if data.classes is not None:
        classes = data.classes[data.indices]
        order = np.argsort(classes, kind="stable")
        pairs = np.stack([order[:-1], order[1:]])[:, np.diff(classes[order]) == 0]
        pairs = pairs[:, :: max(1, pairs.shape[1] // _VARIED)]
        if pairs.size:
            a, b = (data.images[data.indices[one]] for one in pairs)
            scores[WITHIN_CLASSES] = mean_difference(a, b)
    return scores


def spread(data: EncodedImages, images: int) -> EncodedImages:
    """At most ``images`` of the images, evenly spread over the data set's order."""
    chosen = np.linspace(0, len(data) - 1, min(images, len(data))).round().astype(np.int64)
    return replace(data, indices=data.indices[chosen])

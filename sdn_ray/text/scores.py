"""How well text embeddings tell the images of unseen classes apart (Reed et al. 2016)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_PROTOTYPE_CAPTIONS = 100  # a class prototype is the mean of at most so many captions


@dataclass(frozen=True)
class TextScores:
    """How well captions tell the images of classes apart that were not trained on."""

    zero_shot_accuracy: float
    ap_at_50: float


@dataclass(frozen=True)
class CaptionedFeatures:
    """Images known by their features, class and captions."""

    captions: Sequence[Sequence[str]]  # of each image, at least one
    class_ids: np.ndarray  # (images,)
    features: np.ndarray  # (images, width) float32


def zero_shot_accuracy(
    text_embeddings: np.ndarray,
    text_class_ids: np.ndarray,
    image_embeddings: np.ndarray,
    image_class_ids: np.ndarray,
) -> float:
    """Share of images whose own class has the prototype with the largest dot product.

    The prototype of a class is the mean of its captions' embeddings.

    Args:
        text_embeddings: ``(captions, dim)``.
        text_class_ids: ``(captions,)``.
        image_embeddings: ``(images, dim)``, in the space of the text embeddings.
        image_class_ids: ``(images,)``.
    """
    classes, prototypes = class_prototypes(text_embeddings, text_class_ids)
    chosen = (image_embeddings @ prototypes.T).argmax(axis=1)
    return float((classes[chosen] == image_class_ids).mean())


def average_precision_at_50(
    text_embeddings: np.ndarray,
    text_class_ids: np.ndarray,
    image_embeddings: np.ndarray,
    image_class_ids: np.ndarray,
) -> float:
    """AP@50: of the 50 images nearest to a class prototype, the share of that class, over classes.

    Nearness is the dot product; with fewer than 50 images all are taken. Arguments as in
    ``zero_shot_accuracy``.
    """
    classes, prototypes = class_prototypes(text_embeddings, text_class_ids)
    nearest = np.argsort(-(prototypes @ image_embeddings.T), axis=1, kind="stable")[:, :50]
    return float((image_class_ids[nearest] == classes[:, None]).mean())


def class_prototypes(
    embeddings: np.ndarray, class_ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Class ids, ascending, and the mean embedding of each, ``(classes, dim)``."""
    classes, rows = np.unique(class_ids, return_inverse=True)
    sums = np.zeros((len(classes), embeddings.shape[1]), dtype=np.float64)
    np.add.at(sums, rows, embeddings)
    return classes, sums / np.bincount(rows)[:, None]


def text_scores(
    encode: Callable[[list[str]], np.ndarray],
    image_encoder: Callable[[np.ndarray], np.ndarray],
    held_out: CaptionedFeatures,
) -> TextScores:
    """Zero-shot accuracy and AP@50 on classes, each known by at most 100 of its captions.

    Args:
        encode: captions to embeddings.
        image_encoder: image features to the same space.
        held_out: images of classes that neither was trained on.
    """
    texts, text_classes = [], []
    for class_id in np.unique(held_out.class_ids):
        images = np.flatnonzero(held_out.class_ids == class_id).tolist()
        own = list(dict.fromkeys(text for image in images for text in held_out.captions[image]))
        # Evenly spread over the class's images, the same ones every time.
        chosen = own[:: -(-len(own) // _PROTOTYPE_CAPTIONS)]
        texts += chosen
        text_classes += [class_id] * len(chosen)
    known = (encode(texts), np.array(text_classes))
    pictured = (image_encoder(held_out.features), held_out.class_ids)
    return TextScores(
        zero_shot_accuracy(*known, *pictured), average_precision_at_50(*known, *pictured)
    )

"""How well text embeddings tell the images of unseen classes apart (Reed et al. 2016)."""

import numpy as np


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

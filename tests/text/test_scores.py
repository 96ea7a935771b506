"""Zero-shot accuracy and AP@50 on cases counted by hand."""

import numpy as np

from sdn_ray.text.scores import average_precision_at_50, zero_shot_accuracy


def test_accuracy_takes_the_mean_caption_of_a_class():
    # Prototypes: class 4 → (1, 0), class 9 → (0, 2).
    texts = np.array([[3.0, 0], [-1, 0], [0, 2]])
    text_classes = np.array([4, 4, 9])
    images = np.array([[1, 0], [3, 1], [1, 1], [0, 1]])
    # Class 4 wins images 0 and 1 (1 > 0, 3 > 2), class 9 wins images 2 and 3.
    image_classes = np.array([4, 9, 9, 9])
    assert zero_shot_accuracy(texts, text_classes, images, image_classes) == 0.75


def test_ap_at_50_counts_the_nearest_fifty():
    texts = np.array([[1.0, 0], [0, 1.0]])
    images = np.zeros((100, 2))
    images[:, 0] = np.arange(100)  # class 0's prototype ranks the last images first
    images[:, 1] = -np.arange(100)  # class 1's the first
    image_classes = np.zeros(100, dtype=int)
    image_classes[:20] = 1
    # Class 0 finds images 50 to 99, all its own; class 1 finds 0 to 49, of which 20 are its own.
    found = average_precision_at_50(texts, np.array([0, 1]), images, image_classes)
    assert found == (1.0 + 0.4) / 2


def test_ap_takes_all_images_where_there_are_fewer():
    found = average_precision_at_50(
        np.eye(2), np.array([0, 1]), np.eye(2)[[0, 0, 1, 1]], np.array([0, 1, 1, 1])
    )
    assert found == (0.25 + 0.75) / 2

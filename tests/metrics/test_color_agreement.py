import numpy as np
import pytest
from skimage.color import rgb2lab

from sdn_ray.data.image_sets import read_real
from sdn_ray.data.references import part_rows, read_reference
from sdn_ray.metrics.color_agreement import (
    ColorClassifier,
    color_agreement,
    color_histogram,
    named_color,
    shuffled_color_agreement,
)


@pytest.mark.parametrize(
    ("caption", "color"),
    [
        ("this flower has petals that are lavender", "purple"),
        ("a Red flower with a yellow middle on a dark green background", "red"),
        ("the petals (GREY, at the edge white)", "gray"),
        ("a flower with petals", None),
        ("an orangery full of redwood", None),  # words, not parts of them
        ("", None),
    ],
)
def test_named_color(caption, color):
    assert named_color(caption) == color


def test_a_histogram_by_hand():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32] = (200, 40, 40)  # the upper half is red, the lower one black
    histogram = color_histogram(image)
    expected = np.zeros((3, 6, 8, 8))
    for color in ((200, 40, 40), (0, 0, 0)):
        lightness, a, b = rgb2lab(np.array([[color]], np.uint8))[0, 0]
        place = int(lightness / 100 * 6), int((a + 60) / 140 * 8), int((b + 60) / 140 * 8)
        expected[:, *place] = np.sqrt(0.5)
    np.testing.assert_allclose(histogram, expected.reshape(-1), atol=1e-6)


def test_rings():
    across = (np.arange(64) + 0.5) / 64 - 0.5
    distance = np.hypot(across[:, None], across)
    image = np.zeros((64, 64, 3), np.uint8)
    image[distance < 0.25] = 255
    middle, ring, rest = color_histogram(image).reshape(3, -1)
    assert sorted(middle)[-2:] == [0, 1]
    np.testing.assert_array_equal(ring, rest)
    assert not np.array_equal(middle, ring)
    twice = color_histogram(image.repeat(2, 0).repeat(2, 1))  # measured at 64×64
    assert np.abs(twice - color_histogram(image)).max() < 0.25


def test_agreement_and_its_chance_level():
    said = ["red", "red", "blue", "white"]
    seen = ["red", "blue", "blue", "blue"]
    assert color_agreement(said, seen) == 0.5
    pairs = [a == b for a in said for b in seen]
    assert shuffled_color_agreement(said, seen) == pytest.approx(np.mean(pairs))


def test_colors_of_plain_images():
    colors = {"red": (220, 30, 30), "blue": (40, 40, 220), "yellow": (240, 220, 30)}
    draws = np.random.default_rng(0)
    images, captions = [], []
    for name, rgb in list(colors.items()) * 10:
        noise = draws.normal(0, 12, (32, 32, 3))
        images.append((np.array(rgb) + noise).clip(0, 255).astype(np.uint8))
        captions.append(f"a {name} flower on green")
    histograms = np.stack([color_histogram(image) for image in images])
    classifier = ColorClassifier(histograms, [named_color(caption) for caption in captions])
    assert classifier.images == 30
    plain = [np.full((48, 48, 3), rgb, np.uint8) for rgb in colors.values()]
    assert classifier(plain) == list(colors)
    assert classifier([]) == []


def test_photographs_agree_with_their_captions_and_not_with_others(material):
    """Those tested are of classes that the classifier never saw."""
    dataset = read_reference(material.flowers)
    every = max(1, len(dataset.rows) // 1000)
    train, test = (part_rows(dataset, part, None)[::every] for part in ("train", "test"))
    histograms = [color_histogram(read_real(row.image_path, 64, 64)) for row in train]
    said = [named_color(row.captions[0]) for row in train]
    classifier = ColorClassifier(np.stack(histograms), said)
    seen = classifier([read_real(row.image_path, 64, 64) for row in test])
    said = [named_color(row.captions[0]) for row in test]
    assert color_agreement(said, seen) > 0.65
    assert shuffled_color_agreement(said, seen) < 0.2

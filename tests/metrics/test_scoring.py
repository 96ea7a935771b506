import numpy as np
import pytest
import torch

from sdn_ray.errors import UserError
from sdn_ray.metrics.classifier_score import ClassifierScore
from sdn_ray.metrics.feature_distances import FeatureMoments, frechet_distance, kernel_distance
from sdn_ray.metrics.fsim import fsim
from sdn_ray.metrics.scoring import BatchScorer, RealImage, SetScores, check_splits
from sdn_ray.metrics.ssim import ssim

CLASSES = 5
CAPTIONS = ["a red flower", "a flower", *["a blue flower with a red middle"] * 6]


class MeansClassifier:
    """A classifier that is quick to compute by hand: the means of 5 strips of an image."""

    classes = CLASSES
    device = torch.device("cpu")

    def features_and_probabilities(self, images):
        features = torch.stack([part.float().mean((1, 2, 3)) for part in images.chunk(5, 2)], 1)
        return features, torch.softmax(features / 20, 1)


def by_hand(images):
    features = np.stack(
        [[part.mean() for part in np.array_split(image.astype(float), 5)] for image in images]
    )
    exponents = np.exp(features / 20)
    return features, exponents / exponents.sum(1, keepdims=True)


@pytest.fixture
def pictures():
    random = np.random.default_rng(0)
    # Strips of different brightness, so that classes and features differ between images.
    strips = random.integers(0, 200, (24 + 8, 5, 1, 1, 3))
    noise = random.integers(0, 50, (24 + 8, 15, 15, 3))
    images = (np.repeat(strips, 3, 1).reshape(32, 15, 1, 3) + noise).astype(np.uint8)
    return images[:24], images[24:]


def score(pictures, batches):
    """24 images, 3 captions for each of 8 real images, scored in the given batches."""
    generated, real = pictures
    scorer = BatchScorer(MeansClassifier(), 24, 4, seed=3)
    with SetScores(24, 4, seed=3) as found:
        for batch in batches:
            pairs = [
                RealImage(
                    real[index // 3], place, np.arange(index, index + 3), CAPTIONS[index // 3]
                )
                for place, index in enumerate(batch)
                if index % 3 == 0
            ]
            found.add(scorer(np.array(batch), generated[batch], pairs))
        return (
            found.classifier_score(),
            found.classifier_score("real"),
            found.distances(),
            found.pairs(),
        )


def test_every_score_against_a_direct_computation(pictures):
    generated, real = pictures
    found, found_real, distances, pairs = score(pictures, np.array_split(np.arange(24), 5))

    features, p = by_hand(generated)
    real_features, real_p = by_hand(real)
    for result, probabilities in ((found, p), (found_real, np.repeat(real_p, 3, 0))):
        whole = ClassifierScore(CLASSES, 24, 4, seed=3)
        whole.update(np.arange(24), probabilities)
        assert result.mean == pytest.approx(whole.compute().mean, rel=1e-5)
        assert result.std == pytest.approx(whole.compute().std, rel=1e-4)
        assert (result.images, result.splits) == (24, 4)

    moments = FeatureMoments(CLASSES), FeatureMoments(CLASSES)
    moments[0].update(features)
    moments[1].update(real_features)
    assert distances.fid == pytest.approx(frechet_distance(*moments), rel=1e-4)
    kid = kernel_distance(features.astype("f4"), real_features.astype("f4"), subset_size=8)
    assert (distances.kid, distances.kid_std) == pytest.approx((kid.mean, kid.std), rel=1e-3)
    assert distances.kid_subset == 8

    expected = [
        (3 * i, ssim(image, generated[3 * i]), fsim(image, generated[3 * i]))
        for i, image in enumerate(real)
    ]
    np.testing.assert_allclose(pairs, expected, atol=1e-6)


def test_batches_and_their_order_change_nothing(pictures):
    first = score(pictures, np.array_split(np.arange(24), 5))
    other = score(pictures, np.array_split(np.arange(24), 7)[::-1])
    assert other[0].mean == pytest.approx(first[0].mean, rel=1e-6)
    assert other[1].std == pytest.approx(first[1].std, rel=1e-5)
    assert other[2].fid == pytest.approx(first[2].fid, rel=1e-5)
    np.testing.assert_allclose(other[3], first[3], atol=1e-6)


def test_pictures_of_different_captions_are_compared_across_batches(pictures):
    generated, real = pictures
    scorer = BatchScorer(None, 24, 4, seed=3)
    with SetScores(24, 4, seed=3) as found:
        assert found.variety() is None
        for start in (0, 12):
            pairs = [
                RealImage(real[i], 3 * i - start, np.arange(3), CAPTIONS[i])
                for i in range(start // 3, start // 3 + 4)
            ]
            found.add(scorer(np.arange(start, start + 12), generated[start : start + 12], pairs))
        drawn, photographed = found.variety()
    unlike = [(i, j) for i in range(8) for j in range(i) if CAPTIONS[i] != CAPTIONS[j]]
    assert len(unlike) == 13
    assert drawn.mean == pytest.approx(
        np.mean([ssim(generated[3 * i], generated[3 * j]) for i, j in unlike])
    )
    expected = [ssim(real[i], real[j]) for i, j in unlike]
    assert photographed.mean == pytest.approx(np.mean(expected))
    assert photographed.nearest == pytest.approx(max(expected))


def test_images_of_several_sizes_are_classified_each_at_its_own(pictures):
    generated, _ = pictures
    mixed = [image[: 10 + 5 * (i % 2)] for i, image in enumerate(generated)]
    scores = BatchScorer(MeansClassifier(), 24, 4, seed=3)(np.arange(24), mixed, [])
    np.testing.assert_allclose(scores.images.features, by_hand(mixed)[0], rtol=1e-5)
    assert scores.real is None
    assert len(scores.ssim) == 0


def test_without_a_classifier_there_are_pairs_alone(pictures):
    generated, real = pictures
    scorer = BatchScorer(None, 24, 4, seed=3)
    with SetScores(24, 4, seed=3) as found:
        found.add(
            scorer(np.arange(24), generated, [RealImage(real[0], 0, np.arange(3), "a flower")])
        )
        assert found.classifier_score() is None
        assert found.distances() is None
        assert found.pairs()[:, 0].tolist() == [0]


class BrightRed:
    """A colour classifier that calls bright images red and dark ones blue."""

    def __call__(self, images):
        return ["red" if image.mean() > 125 else "blue" for image in images]


def test_colors_of_pairs_whose_caption_names_one(pictures):
    generated, real = pictures
    scorer = BatchScorer(None, 24, 4, seed=3, colors=BrightRed())
    with SetScores(24, 4, seed=3) as found:
        assert found.colors() is None
        for start in (0, 12):
            pairs = [
                RealImage(real[i], 3 * i - start, np.arange(3), CAPTIONS[i])
                for i in range(start // 3, start // 3 + 4)
            ]
            found.add(scorer(np.arange(start, start + 12), generated[start : start + 12], pairs))
        scores = found.colors()
    said = np.array([True, *[False] * 6])  # red, of the seven captions that name a colour
    kept = [0, 2, 3, 4, 5, 6, 7]
    drawn, photographed = (
        np.array([image.mean() > 125 for image in images])
        for images in (generated[::3][kept], real[kept])
    )
    assert 0 < drawn.sum() < 7
    assert scores.agreement == pytest.approx((drawn == said).mean())
    assert scores.real == pytest.approx((photographed == said).mean())
    chance = np.mean([a == b for a in drawn for b in said])  # every caption with every image
    assert scores.shuffled == pytest.approx(chance)


def test_too_few_images_for_the_splits():
    with pytest.raises(UserError, match="mine: found 9 images, expected at least 10"):
        check_splits(9, 10, "mine")
    check_splits(10, 10, "mine")

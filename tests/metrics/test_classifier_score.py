import numpy as np
import pytest
import torch

from sdn_ray.errors import UserError
from sdn_ray.metrics.classifier_score import ClassifierScore, classifier_score, score_name
from sdn_ray.models.classifiers import load_classifier


def random_probabilities(images: int, classes: int, seed: int = 0) -> np.ndarray:
    logits = 3 * np.random.default_rng(seed).standard_normal((images, classes))
    p = np.exp(logits)
    return p / p.sum(axis=1, keepdims=True)


def direct_score(p: np.ndarray, splits: int, seed: int) -> tuple[float, float]:
    """Eq. 6 with everything in memory, on explicitly shuffled and sliced probabilities."""
    n = len(p)
    p = p[np.random.RandomState(seed).permutation(n)]
    scores = []
    for k in range(splits):
        part = p[k * n // splits : (k + 1) * n // splits]
        kl = (part * (np.log(part) - np.log(part.mean(axis=0)))).sum(axis=1)
        scores.append(np.exp(kl.mean()))
    return np.mean(scores), np.std(scores)


def score_of(p: np.ndarray, **settings: int) -> ClassifierScore:
    score = ClassifierScore(p.shape[1], len(p), **settings)
    score.update(np.arange(len(p)), p)
    return score


@pytest.mark.parametrize(("images", "splits", "seed"), [(200, 10, 0), (203, 10, 7), (31, 1, 2020)])
def test_equals_a_direct_computation(images, splits, seed):
    p = random_probabilities(images, 23)
    result = score_of(p, splits=splits, seed=seed).compute()
    mean, std = direct_score(p, splits, seed)
    assert result.mean == pytest.approx(mean, rel=1e-12)
    assert result.std == pytest.approx(std, rel=1e-10, abs=1e-12)
    assert (result.images, result.splits) == (images, splits)


def test_order_and_batching_do_not_change_the_score():
    p = random_probabilities(97, 12, seed=3)
    whole = score_of(p, splits=5, seed=1).compute()
    order = np.random.default_rng(5).permutation(97)
    workers = [ClassifierScore(12, 97, splits=5, seed=1) for _ in range(3)]
    gathered = ClassifierScore(12, 97, splits=5, seed=1)
    for number, batch in enumerate(np.array_split(order, 14)):
        gathered.add(workers[number % 3].batch_sums(batch, torch.from_numpy(p[batch])))
    found = gathered.compute()
    assert found.mean == pytest.approx(whole.mean, rel=1e-12)
    assert found.std == pytest.approx(whole.std, rel=1e-10)


def test_another_shuffle_gives_another_score():
    p = random_probabilities(100, 12)
    assert score_of(p, seed=0).compute().mean != score_of(p, seed=1).compute().mean


def test_equals_torch_fidelity_on_the_same_logits():
    metric_isc = pytest.importorskip("torch_fidelity.metric_isc")
    logits = 4 * torch.randn(509, 1008, generator=torch.Generator().manual_seed(0))
    expected = metric_isc.isc_features_to_metric(logits, splits=10, shuffle=True, rng_seed=2020)
    result = score_of(logits.softmax(dim=1).numpy(), splits=10, seed=2020).compute()
    assert result.mean == pytest.approx(expected["inception_score_mean"], rel=1e-6)
    assert result.std == pytest.approx(expected["inception_score_std"], rel=1e-4)


def test_equal_predictions_score_one():
    result = score_of(np.full((40, 1000), 1 / 1000)).compute()
    assert result.mean == pytest.approx(1, abs=1e-12)
    assert result.std == pytest.approx(0, abs=1e-12)


def test_certain_and_evenly_spread_predictions_score_their_number_of_classes():
    one_hot = np.eye(9)[np.arange(63) % 7]  # 9 classes, 7 of them predicted; the others have p = 0
    result = score_of(one_hot, splits=1).compute()
    assert result.mean == pytest.approx(7, rel=1e-12)


def test_a_missing_and_a_repeated_image_are_refused():
    score = ClassifierScore(4, 20, splits=2)
    score.update(np.array([*range(18), 3]), random_probabilities(19, 4))
    with pytest.raises(ValueError, match=r"2 missing \(first \[18, 19\]\), 1 repeated .*\[3\]"):
        score.compute()


def test_fewer_images_than_splits():
    with pytest.raises(UserError, match="10 splits but only 7 images"):
        ClassifierScore(4, 7)


def test_no_splits():
    with pytest.raises(UserError, match="splits of the classifier score: 0"):
        ClassifierScore(4, 7, splits=0)


def test_only_the_original_inception_gives_inception_scores():
    assert score_name("inception_2015_12_05") == "inception_score"
    assert score_name("inception_v3") == "inception_v3_score"
    assert score_name("squeezenet1_1") == "squeezenet1_1_score"


class BrightestChannel(torch.nn.Module):
    """Stands for a classifier: three classes, by the mean of each channel."""

    classes = 3

    def forward(self, images):
        assert images.dtype == torch.uint8
        return (images.float().mean(dim=(2, 3)) / 20).softmax(dim=1)


def test_classifier_score_of_an_array_and_of_batches_of_several_sizes():
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (21, 4, 5, 3), dtype=np.uint8)
    large = generator.integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    logits = np.concatenate([part.mean(axis=(1, 2)) / 20 for part in (small, large)])
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    of_array = classifier_score(small, BrightestChannel(), splits=3, seed=4, batch_size=8)
    assert of_array.mean == pytest.approx(direct_score(p[:21], 3, 4)[0], rel=1e-5)
    assert of_array.images == 21
    of_batches = classifier_score([small, large], BrightestChannel(), splits=3, seed=4)
    assert of_batches.mean == pytest.approx(direct_score(p, 3, 4)[0], rel=1e-5)
    assert of_batches.images == 31


def test_the_squeezenet_score_of_photographs_equals_a_direct_computation(material):
    photographs = material.photographs(39)
    classifier = load_classifier(material.classifier)
    p = classifier(torch.from_numpy(photographs).permute(0, 3, 1, 2)).double().numpy()

    result = classifier_score(photographs, classifier, splits=2, seed=5)

    mean, std = direct_score(p, splits=2, seed=5)
    assert mean > 3
    assert result.mean == pytest.approx(mean, rel=1e-5)
    assert result.std == pytest.approx(std, rel=1e-3)

import io

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from sdn_ray.errors import UserError
from sdn_ray.metrics.classifier_score import ClassifierScore
from sdn_ray.metrics.feature_distances import (
    FeatureMoments,
    KernelDistance,
    frechet_distance,
    kernel_distance,
)
from sdn_ray.models.classifiers import load_classifier


def random_features(seed: int, images: int, dim: int) -> np.ndarray:
    """Positive and correlated, as the features of a network are."""
    draws = np.random.default_rng(seed)
    x = draws.normal(0.3 + seed / 10, 1, (images, dim)) @ draws.normal(0, dim**-0.5, (dim, dim))
    return np.abs(x).astype(np.float32)


def moments_of(features: np.ndarray) -> FeatureMoments:
    moments = FeatureMoments(features.shape[1])
    moments.update(features)
    return moments


def direct_mmd2(a: np.ndarray, b: np.ndarray) -> float:
    """Pair by pair."""

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return (sum(x * y) / len(x) + 1) ** 3

    n = len(a)
    within = sum(k(x[i], x[j]) for x in (a, b) for i in range(n) for j in range(n) if i != j)
    between = sum(k(x, y) for x in a for y in b)
    return within / (n * (n - 1)) - 2 * between / n**2


def test_moments_are_those_of_numpy():
    features = random_features(0, 57, 9)
    moments = moments_of(features)
    np.testing.assert_allclose(moments.mean(), features.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(
        moments.covariance(), np.cov(features, rowvar=False), rtol=1e-10, atol=1e-14
    )


def test_moments_of_batches_are_those_of_the_whole():
    features = random_features(0, 57, 9)
    whole, moments = moments_of(features), FeatureMoments(9)
    for batch in np.array_split(features, 8):
        moments.update(torch.from_numpy(batch))
    assert moments.images == 57
    np.testing.assert_allclose(moments.mean(), whole.mean(), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance(), whole.covariance(), rtol=1e-10, atol=1e-14)


def test_frechet_distance_of_two_normal_distributions_on_a_line():
    a, b = np.array([[0.0], [2.0]]), np.array([[3.0], [11.0]])  # means 1, 7; variances 2, 32
    expected = (7 - 1) ** 2 + (np.sqrt(32) - np.sqrt(2)) ** 2
    assert frechet_distance(moments_of(a), moments_of(b)) == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_equals_the_formula_with_a_matrix_root():
    a, b = random_features(0, 40, 6), random_features(1, 50, 6)
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    difference = a.mean(axis=0, dtype=np.float64) - b.mean(axis=0, dtype=np.float64)
    expected = difference @ difference + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)
    assert frechet_distance(moments_of(a), moments_of(b)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("images_a", "images_b"), [(400, 300), (30, 20), (2, 300), (300, 2)])
def test_frechet_distance_equals_torch_fidelity(images_a, images_b):
    metric_fid = pytest.importorskip("torch_fidelity.metric_fid")
    a, b = random_features(0, images_a, 64), random_features(1, images_b, 64)
    statistics = [metric_fid.fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    expected = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
    measured = frechet_distance(moments_of(a), moments_of(b))
    assert measured > 0.1
    assert measured == pytest.approx(expected["frechet_inception_distance"], rel=1e-4)


@pytest.mark.parametrize("images", [200, 10])
def test_frechet_distance_of_a_set_to_itself_and_to_the_same_set_shifted(images):
    features = random_features(0, images, 32).astype(np.float64)
    moments = moments_of(features)
    assert frechet_distance(moments, moments) == pytest.approx(0, abs=1e-7)
    shifted = moments_of(features + 0.5)
    assert frechet_distance(moments, shifted) == pytest.approx(32 * 0.5**2, rel=1e-7)


def test_frechet_distance_where_nothing_varies():
    a, b = np.full((3, 4), 1.0), np.full((5, 4), 3.0)
    assert frechet_distance(moments_of(a), moments_of(b)) == pytest.approx(16, rel=1e-12)


def test_frechet_distance_of_one_image():
    two, one = moments_of(random_features(0, 2, 3)), moments_of(random_features(1, 1, 3))
    for pair in [(one, two), (two, one)]:
        with pytest.raises(UserError, match="at least 2 images, found 1"):
            frechet_distance(*pair)
    with pytest.raises(UserError, match="found 0"):
        FeatureMoments(3).mean()


def test_kernel_distance_equals_a_direct_computation():
    a, b = random_features(0, 12, 5), random_features(1, 9, 5)
    rng = np.random.RandomState(3)
    expected = []
    for _ in range(4):
        rows_a, rows_b = rng.choice(12, 6, replace=False), rng.choice(9, 6, replace=False)
        expected.append(direct_mmd2(a[rows_a].astype(np.float64), b[rows_b].astype(np.float64)))
    result = kernel_distance(a, b, subsets=4, subset_size=6, seed=3)
    assert result.mean == pytest.approx(np.mean(expected), rel=1e-5)
    assert result.std == pytest.approx(np.std(expected), rel=1e-4)
    assert (result.subsets, result.subset_size) == (4, 6)


def test_kernel_distance_equals_torch_fidelity():
    metric_kid = pytest.importorskip("torch_fidelity.metric_kid")
    a, b = random_features(0, 150, 64), random_features(1, 120, 64)
    expected = metric_kid.kid_features_to_metric(
        torch.from_numpy(a),
        torch.from_numpy(b),
        kid_subsets=10,
        kid_subset_size=100,
        rng_seed=2020,
        verbose=False,
    )
    result = kernel_distance(a, b, subsets=10, subset_size=100, seed=2020)
    assert result.mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-4)
    assert result.std == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-4)


def test_kernel_distance_of_one_distribution_is_near_zero():
    draws = random_features(0, 400, 16)
    alike = kernel_distance(draws[:200], draws[200:], subsets=20, subset_size=100)
    apart = kernel_distance(draws[:200], random_features(1, 200, 16), subsets=20, subset_size=100)
    assert abs(alike.mean) < 0.02 * apart.mean


def test_kernel_distance_of_memory_maps(tmp_path):
    a, b = random_features(0, 30, 8), random_features(1, 30, 8)
    for name, features in (("a.npy", a), ("b.npy", b)):
        np.save(tmp_path / name, features)
    mapped = [np.load(tmp_path / name, mmap_mode="r") for name in ("a.npy", "b.npy")]
    settings = {"subsets": 3, "subset_size": 20, "seed": 1}
    assert kernel_distance(*mapped, **settings) == kernel_distance(a, b, **settings)


def test_kernel_distance_of_too_few_images():
    a, b = random_features(0, 30, 8), random_features(1, 19, 8)
    with pytest.raises(UserError, match=r"20 images.* 30 and 19: a smaller subset size is needed"):
        kernel_distance(a, b, subset_size=20)
    assert kernel_distance(a, b, subsets=2, subset_size=19).subset_size == 19


def test_kernel_distance_without_subsets_or_pairs():
    a = random_features(0, 30, 8)
    with pytest.raises(UserError, match="subsets of the kernel distance: 0"):
        kernel_distance(a, a, subsets=0)
    with pytest.raises(UserError, match="subset size of the kernel distance: 1"):
        kernel_distance(a, a, subset_size=1)


@pytest.fixture(scope="module")
def photographs(best_material) -> torch.Tensor:
    """Some of all classes, (25, 3, 64, 64) uint8."""
    return torch.from_numpy(best_material.photographs(25)).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def untrained_inception(photographs, tmp_path_factory) -> str:
    """A file of random weights of the TensorFlow Inception with which photographs score above 2."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")

    class Untrained(module.FeatureExtractorInceptionV3):
        def load_state_dict(self, state):
            pass

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    torch.manual_seed(0)
    extractor = Untrained("untrained", ["logits_unbiased"], feature_extractor_weights_path=empty)
    # Statistics of photographs, or activations would vanish on their way through 94 layers.
    for layer in extractor.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
            layer.train()
    logits = extractor(photographs[::2])[0]
    extractor.fc.weight.mul_(4 / (logits - logits.mean(dim=0)).std())
    file = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(extractor.state_dict(), file)
    return str(file)


class Images(torch.utils.data.Dataset):
    """What torch-fidelity takes images from."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]


def test_all_three_inception_metrics_equal_torch_fidelity_end_to_end(
    photographs, untrained_inception
):
    torch_fidelity = pytest.importorskip("torch_fidelity")
    generated, real = photographs[:12] // 32 * 32, photographs[12:24]
    expected = torch_fidelity.calculate_metrics(
        input1=Images(generated),
        input2=Images(real),
        feature_extractor_weights_path=untrained_inception,
        isc=True,
        fid=True,
        kid=True,
        isc_splits=2,
        kid_subsets=5,
        kid_subset_size=10,
        rng_seed=7,
        batch_size=10,
        cuda=False,
        cache=False,
        save_cpu_ram=True,  # no worker processes
        verbose=False,
    )

    classifier = load_classifier(f"inception_2015_12_05:{untrained_inception}")
    score = ClassifierScore(classifier.classes, len(generated), splits=2, seed=7)
    features = {}
    for name, images in (("generated", generated), ("real", real)):
        parts = [classifier.features_and_probabilities(batch) for batch in images.split(8)]
        features[name] = torch.cat([part[0] for part in parts]).numpy()
        if name == "generated":
            score.update(np.arange(12), torch.cat([part[1] for part in parts]))
    inception_score = score.compute()
    fid = frechet_distance(moments_of(features["generated"]), moments_of(features["real"]))
    kid = kernel_distance(
        features["generated"], features["real"], subsets=5, subset_size=10, seed=7
    )

    assert inception_score.mean > 2
    assert inception_score.mean == pytest.approx(expected["inception_score_mean"], rel=1e-4)
    assert inception_score.std == pytest.approx(expected["inception_score_std"], rel=1e-3)
    assert fid == pytest.approx(expected["frechet_inception_distance"], rel=1e-4)
    mean, std = (expected[f"kernel_inception_distance_{part}"] for part in ("mean", "std"))
    assert kid == KernelDistance(
        pytest.approx(mean, rel=1e-4), pytest.approx(std, rel=1e-3), subsets=5, subset_size=10
    )

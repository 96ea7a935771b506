import dataclasses

import numpy as np
import pytest
import torch

from sdn_ray.data.batches import EncodedImages
from sdn_ray.data.sampling import drawing_noise
from sdn_ray.metrics.evaluation import evaluate_generator, spread, variety_of_draws
from sdn_ray.metrics.ssim import ssim
from sdn_ray.models.generator import Generator
from sdn_ray.models.pixels import to_uint8
from sdn_ray.models.plan import Plan

IMAGES = 70  # more than one batch of drawing


def new_data():
    draws = np.random.default_rng(0)
    return EncodedImages(
        images=draws.integers(0, 256, (80, 12, 12, 3), dtype=np.uint8),
        embeddings=draws.normal(size=(30, 5)).astype(np.float32),
        caption_rows=draws.integers(0, 30, (80, 2)),
        caption_counts=np.full(80, 2),
        indices=draws.permutation(80)[:IMAGES],
    )


def new_generator(samples):
    generator = Generator(
        Plan.parse("4,M,6"), embedding_dim=5, image_size=12, fc_width=7, samples=samples
    )
    generator.reset_parameters(0)
    return generator


def drawn_directly(generator, data):
    """For image i of the set, sample i mod n of its first caption."""
    images = []
    for i, image in enumerate(data.indices):
        embedding = torch.from_numpy(data.embeddings[data.caption_rows[image, 0]])[None]
        with torch.no_grad():
            samples = generator(embedding).images[0]
        images.append(to_uint8(samples[i % len(samples)][None])[0].permute(1, 2, 0).numpy())
    return np.stack(images)


class MeanColour(torch.nn.Module):
    """Three classes, as probable as red, green and blue are bright."""

    name = "mean_colour"

    def forward(self, images):
        return torch.softmax(images.float().mean((2, 3)) / 32, 1)


@pytest.mark.parametrize("samples", [1, 3])
def test_ssim_is_the_mean_over_pairs(samples):
    generator, data = new_generator(samples).train(), new_data()
    batches = []
    result = evaluate_generator(generator, data, on_batch=lambda *counts: batches.append(counts))
    drawn = drawn_directly(generator, data)
    pairs = [ssim(data.images[i], image) for i, image in zip(data.indices, drawn, strict=True)]
    assert result.scores == {"ssim": pytest.approx(np.mean(pairs), abs=2e-3)}
    assert (result.images, result.splits) == (IMAGES, 1)
    assert batches == [(64, 70), (70, 70)]
    assert generator.training


def test_samples_take_turns():
    """Three samples of three flat greys: the mean SSIM tells which image got which."""
    generator, data = new_generator(3), new_data()
    last = generator.mirror["g_conv1_1"][0]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([-1.0, 0.0, 1.0]).repeat_interleave(3))
    greys = [
        to_uint8(torch.full((1, 3, 12, 12), value))[0].permute(1, 2, 0).numpy()
        for value in (-1.0, 0.0, 1.0)
    ]
    for shift in range(3):
        moved = EncodedImages(
            data.images,
            data.embeddings,
            data.caption_rows,
            data.caption_counts,
            data.indices[shift:],
        )
        pairs = [ssim(data.images[i], greys[n % 3]) for n, i in enumerate(moved.indices)]
        found = evaluate_generator(generator, moved).scores["ssim"]
        assert found == pytest.approx(np.mean(pairs), abs=1e-9)


def test_classifier_score_of_one_and_of_many_splits():
    generator, data = new_generator(1), new_data()
    found = evaluate_generator(generator, data, classifier=MeanColour())
    assert found.scores.keys() == {"ssim", "mean_colour_score"}
    drawn = torch.from_numpy(drawn_directly(generator, data)).permute(0, 3, 1, 2)
    p = MeanColour()(drawn).double().numpy()
    expected = np.exp((p * (np.log(p) - np.log(p.mean(0)))).sum(1).mean())
    assert expected > 1.01
    assert found.scores["mean_colour_score"] == pytest.approx(expected, rel=1e-2)
    split = evaluate_generator(generator, data, classifier=MeanColour(), splits=7)
    assert split.splits == 7
    assert split.scores["mean_colour_score_std"] > 0


@pytest.mark.parametrize(
    ("images", "expected"),
    [(1, [0]), (2, [0, 69]), (4, [0, 23, 46, 69]), (70, range(70)), (1000, range(70))],
)
def test_a_spread_of_images(images, expected):
    data = new_data()
    found = spread(data, images)
    assert found.indices.tolist() == data.indices[list(expected)].tolist()
    assert found.images is data.images


class Flat(torch.nn.Module):
    """A generator whose pictures have one grey: its caption's number and its noise settle it."""

    samples = noise_dim = 1
    seen = 0

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def pixels(self, embeddings, noise):
        self.seen += len(embeddings)
        grey = (10 * embeddings[:, :1] + 20 * noise + 100).round().clamp(0, 255)
        return grey[:, :, None, None, None].expand(-1, -1, 3, 12, 12).to(torch.uint8)


def flat_data(images, rows=None, classes=None):
    draws = np.random.default_rng(0)
    return EncodedImages(
        images=draws.integers(0, 256, (images, 12, 12, 3), dtype=np.uint8),
        embeddings=np.arange(images, dtype=np.float32)[:, None],
        caption_rows=np.arange(images)[:, None] if rows is None else np.array(rows)[:, None],
        caption_counts=np.full(images, 1),
        indices=np.arange(images)[::-1].copy(),
        classes=classes,
    )


def greys(captions):
    noise = drawing_noise(0, np.arange(len(captions)), 2, 1)[:, :, 0]
    return np.round(10 * captions[:, None] + 20 * noise + 100)


def test_variety_by_hand():
    """Captions 5, 1, 3 and 4, 1, 0 stand half the set apart; those of 1 are one caption."""
    data = flat_data(6, rows=[0, 1, 4, 3, 1, 5], classes=np.array([2, 1, 1, 2, 2, 0]))
    first, second = greys(np.array([5.0, 1, 3, 4, 1, 0])).T
    found = variety_of_draws(Flat(), data)
    between = [abs(first[a] - first[b]) for a, b in ((0, 3), (2, 5))]
    assert found.pop("l1_between_draws") == pytest.approx(np.abs(first - second).mean() / 255)
    assert found.pop("l1_between_captions") == pytest.approx(np.mean(between) / 255)
    images = data.images.astype(float)
    # Of class 1 the images 2 and 1, of class 2 the images 4, 3 and 0; neighbours are compared.
    real = [np.abs(images[a] - images[b]).mean() / 255 for a, b in ((2, 1), (4, 3), (3, 0))]
    assert found == {"l1_within_classes_of_real_images": pytest.approx(np.mean(real), rel=1e-5)}


def test_variety_of_few_and_of_many():
    assert variety_of_draws(Flat(), flat_data(1)).keys() == {"l1_between_draws"}
    alike = flat_data(4, rows=[2, 2, 2, 2], classes=np.arange(4))
    assert variety_of_draws(Flat(), alike).keys() == {"l1_between_draws"}
    generator = Flat()
    found = variety_of_draws(generator, flat_data(200))
    assert found.keys() == {"l1_between_draws", "l1_between_captions"}
    assert generator.seen == 2 * 64


def test_variety_is_measured_of_generators_that_take_noise():
    data = flat_data(6, classes=np.zeros(6, np.int64))
    found = evaluate_generator(Flat(), data).scores
    assert list(found) == [
        "ssim",
        "l1_between_draws",
        "l1_between_captions",
        "l1_within_classes_of_real_images",
    ]
    assert found == {"ssim": found["ssim"]} | variety_of_draws(Flat(), data)
    same = dataclasses.replace(data, images=np.repeat(data.images[:1], 6, 0))
    assert variety_of_draws(Flat(), same)["l1_within_classes_of_real_images"] == 0

import numpy as np
import pytest
import torch

from sdn_ray.data.batches import EncodedImages
from sdn_ray.metrics.evaluation import evaluate_generator, spread
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

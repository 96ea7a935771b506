import numpy as np
import pytest
import torch

from sdn_ray.models.drawing import draw_images
from sdn_ray.models.generator import Generator
from sdn_ray.models.pixels import to_uint8
from sdn_ray.models.plan import Plan

EMBEDDINGS = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)


def new_generator(**options):
    generator = Generator(
        Plan.parse("4,M,6,M"), embedding_dim=5, image_size=8, fc_width=7, **options
    )
    generator.reset_parameters(0)
    return generator


@pytest.mark.parametrize("batch_size", [2, 7, 64])
def test_image_i_is_sample_i_mod_n(batch_size):
    generator = new_generator(samples=3).eval()
    batches = list(draw_images(generator, EMBEDDINGS, batch_size))
    assert max(len(batch) for batch in batches) == min(batch_size, 7)
    drawn = np.concatenate(batches)
    assert drawn.dtype == np.uint8
    assert drawn.shape == (7, 8, 8, 3)
    with torch.no_grad():
        samples = generator(torch.from_numpy(EMBEDDINGS)).images
    for i, image in enumerate(drawn):
        expected = to_uint8(samples[i, i % 3][None])[0].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("training", [True, False])
def test_draws_in_eval_mode_and_restores_the_mode(training):
    generator = new_generator(batch_norm=True)
    with torch.no_grad():
        generator(3 + 2 * torch.randn(16, 5))  # moves the running statistics
    generator.train(training)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    one_by_one = np.concatenate(list(draw_images(generator, EMBEDDINGS, 1)))
    together = np.concatenate(list(draw_images(generator, EMBEDDINGS, 7)))
    assert np.abs(one_by_one.astype(int) - together).max() <= 1
    assert generator.training is training
    for name, value in generator.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_mode_is_restored_when_the_reader_stops_early():
    generator = new_generator().train()
    images = draw_images(generator, EMBEDDINGS, 2)
    next(images)
    assert not generator.training
    images.close()
    assert generator.training

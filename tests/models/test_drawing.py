import numpy as np
import pytest
import torch

from sdn_ray.data.sampling import drawing_noise
from sdn_ray.models.drawing import draw_images, draw_samples
from sdn_ray.models.gan_int_cls import GanIntClsGenerator
from sdn_ray.models.gawwn import GawwnGenerator
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


NOISE = 3


def warmed(generator):
    """With running statistics that have moved."""
    noise = torch.randn(7, NOISE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        generator(torch.from_numpy(EMBEDDINGS), noise)
    return generator


def new_mirror():
    return warmed(new_generator(batch_norm=True, modulated=True, noise_dim=NOISE))


def new_gan():
    generator = GanIntClsGenerator(5, image_size=16, width=4, text_width=4, noise_dim=NOISE)
    generator.reset_parameters(0)
    with torch.no_grad():
        generator.image[-2].weight *= 1000  # the authors' first pictures are grey
    return warmed(generator)


def drawn(generator, embeddings=EMBEDDINGS, **options):
    return np.concatenate(list(draw_samples(generator, embeddings, **options))).astype(int)


@pytest.fixture(params=[new_mirror, new_gan])
def noisy(request):
    return request.param()


def test_samples_are_drawn_with_the_noise_of_caption_and_sample(noisy):
    found = drawn(noisy, samples=2, seed=5)
    assert found.shape == (7, 2, noisy.image_size, noisy.image_size, 3)
    mean, std = (0.5, 0.5)  # of [−1, 1]
    if isinstance(noisy, Generator):
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    noise = torch.from_numpy(drawing_noise(5, np.arange(7), 2, NOISE))
    for sample in range(2):
        with torch.no_grad():
            images = noisy.eval()(torch.from_numpy(EMBEDDINGS), noise[:, sample])
        images = images.images[:, 0] if isinstance(noisy, Generator) else images
        unit = images.double().permute(0, 2, 3, 1).numpy() * std + mean
        expected = np.clip(np.round(255 * unit), 0, 255)
        assert np.ptp(expected) > 100
        assert np.abs(found[:, sample] - expected).max() <= 1


def test_a_sample_is_the_same_alone_and_in_any_batch(noisy):
    whole = drawn(noisy, samples=4)
    for options in ({"batch_size": 1}, {"batch_size": 9}, {"samples": 2}, {"samples": 1}):
        found = drawn(noisy, **{"samples": 4} | options)
        assert np.abs(found - whole[:, : found.shape[1]]).max() <= 1
    chosen = np.array([5, 2])
    alone = drawn(noisy, EMBEDDINGS[chosen], samples=4, indices=chosen)
    assert np.abs(alone - whole[chosen]).max() <= 1


def test_samples_captions_and_seeds_are_other_pictures(noisy):
    same = np.repeat(EMBEDDINGS[:1], 2, axis=0)
    pictures = [*drawn(noisy, same, samples=2).reshape(4, -1), drawn(noisy, same[:1], seed=1)]
    for place, picture in enumerate(pictures):
        for other in pictures[:place]:
            assert np.abs(picture.ravel() - other.ravel()).max() > 1


def test_about_as_many_images_a_pass_as_are_asked_for(noisy):
    sizes = [len(batch) for batch in draw_samples(noisy, EMBEDDINGS, samples=3, batch_size=7)]
    assert sizes == [2, 2, 2, 1]
    sizes = [len(batch) for batch in draw_samples(noisy, EMBEDDINGS, samples=3, batch_size=2)]
    assert sizes == [1] * 7


@pytest.mark.parametrize("training", [True, False])
def test_drawing_with_noise_restores_the_mode_and_moves_nothing(noisy, training):
    noisy.train(training)
    before = {name: value.clone() for name, value in noisy.state_dict().items()}
    state = torch.get_rng_state()
    batches = draw_samples(noisy, EMBEDDINGS, samples=2, batch_size=4)
    next(batches)
    batches.close()
    assert noisy.training is training
    drawn(noisy)
    assert noisy.training is training
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in noisy.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_one_image_of_each_caption_is_its_sample_0(noisy):
    images = np.concatenate(list(draw_images(noisy, EMBEDDINGS))).astype(int)
    assert np.abs(images - drawn(noisy, samples=3)[:, 0]).max() <= 1


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_without_noise_the_first_of_its_own_samples(samples):
    generator = new_generator(samples=3)
    found = drawn(generator, samples=samples, seed=9)
    assert np.array_equal(found, drawn(generator)[:, :samples])


def test_a_gan_gives_bytes_of_its_range():
    generator = new_gan().eval()
    generator.forward = lambda embeddings, noise: torch.tensor(
        [-1.0, -0.999, -0.5, 0.0, 0.1, 0.999, 1.0]
    ).expand(2, 7)
    pixels = generator.pixels(torch.zeros(2, 5), torch.zeros(2, NOISE))
    assert pixels.dtype == torch.uint8
    # Halves go to the even byte.
    assert pixels.tolist() == [[[0, 0, 64, 128, 140, 255, 255]]] * 2
    with pytest.raises(ValueError, match=r"noise: found none, expected \(batch, 3\)"):
        new_gan().pixels(torch.zeros(2, 5))


def new_gawwn(locations):
    z_dim = NOISE - (locations == "boxes")  # one number of the noise chooses a box
    generator = GawwnGenerator(5, 32, 4, z_dim, parts=("head", "tail", "wing"), locations=locations)
    generator.reset_parameters(0)
    for layer in generator.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.momentum = None  # the mean over passes, of which there is one
    with torch.no_grad():
        generator.images.image[-2].weight *= 10  # the authors' first pictures are grey
    if locations == "boxes":
        generator.keep_boxes(torch.from_numpy(places_of("boxes")[:, 0]))
    return warmed(generator).eval()


def places_of(locations):
    """Of each caption, as they are given: (7, 1, 4) boxes or (7, 3, 3) parts."""
    draws = np.random.default_rng(4)
    if locations == "boxes":
        sides = draws.uniform(0.3, 0.7, (7, 1, 2))
        return np.concatenate([draws.uniform(0, 1 - sides), sides], 2).astype(np.float32)
    parts = draws.random((7, 3, 3))
    parts[..., 2] = np.arange(21).reshape(7, 3) % 4 > 0  # the others are generated
    return (parts * parts[..., 2:]).astype(np.float32)


def single(generator, caption, sample, place=None):
    """One image by itself, as the generator draws it at a place: (32, 32, 3) in bytes."""
    noise = drawing_noise(5, np.array([caption]), sample + 1, NOISE)[:, sample]
    inputs = [torch.from_numpy(EMBEDDINGS[caption, None]), torch.from_numpy(noise)]
    if place is not None:
        own = place[0] if generator.locations == "boxes" else place
        inputs.append(torch.from_numpy(own[None]))
    with torch.no_grad():
        image = generator(*inputs)[0].double().permute(1, 2, 0).numpy()
    return np.round((image + 1) * 127.5)


@pytest.mark.parametrize("locations", ["keypoints", "boxes"])
def test_each_caption_is_drawn_at_its_own_place(locations):
    generator, places = new_gawwn(locations), places_of(locations)
    expected = np.array(
        [[single(generator, i, sample, places[i]) for sample in (0, 1)] for i in range(7)]
    )
    assert np.ptp(expected) > 100
    for batch_size in (1, 6, 64):  # images a pass: one caption, three, all
        options = {"samples": 2, "seed": 5, "batch_size": batch_size}
        found = drawn(generator, locations=places, **options)
        assert np.abs(found - expected).max() <= 1
    chosen = np.array([5, 2])
    options = {"samples": 2, "seed": 5, "indices": chosen, "locations": places[chosen]}
    found = drawn(generator, EMBEDDINGS[chosen], **options)
    assert np.abs(found - expected[chosen]).max() <= 1
    others = drawn(generator, locations=np.roll(places, 1, axis=0), samples=2, seed=5)
    assert (np.abs(others - expected).max((2, 3, 4)) > 1).all()


@pytest.mark.parametrize("locations", ["keypoints", "boxes", "none"])
def test_without_places_the_generator_chooses_them(locations):
    generator = new_gawwn(locations)
    expected = [[single(generator, i, sample) for sample in (0, 1)] for i in range(7)]
    found = drawn(generator, samples=2, seed=5, batch_size=6)
    assert np.abs(found - np.array(expected)).max() <= 1
    if locations == "none":  # given ones are ignored
        given = drawn(generator, samples=2, seed=5, batch_size=6, locations=places_of("keypoints"))
        assert np.array_equal(given, found)

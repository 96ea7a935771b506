import pytest
import torch
from torch import nn

from sdn_ray.errors import UserError
from sdn_ray.models.gan_blocks import Bottleneck
from sdn_ray.models.gan_int_cls import GanIntClsDiscriminator, GanIntClsGenerator

SIZES = [16, 32, 64, 128, 256]

# The plans at 64 pixels, layer by layer: widths are 8, 4, 2 and 1 times 4, and times 2.
GENERATOR_64 = """
Linear 6
LeakyReLU 6
ConvTranspose2d 32x4x4
BatchNorm2d 32x4x4
Bottleneck 32x4x4
Tup 16x8x8
BatchNorm2d 16x8x8
Bottleneck 16x8x8
Tup 8x16x16
BatchNorm2d 8x16x16
ReLU 8x16x16
Tup 4x32x32
BatchNorm2d 4x32x32
ReLU 4x32x32
Tup 3x64x64
Tanh 3x64x64
"""
DISCRIMINATOR_64 = """
Down 2x32x32
LeakyReLU 2x32x32
Down 4x16x16
BatchNorm2d 4x16x16
LeakyReLU 4x16x16
Down 8x8x8
BatchNorm2d 8x8x8
Down 16x4x4
BatchNorm2d 16x4x4
Bottleneck 16x4x4
Linear 6
BatchNorm1d 6
LeakyReLU 6
Conv2d 16x4x4
BatchNorm2d 16x4x4
LeakyReLU 16x4x4
Conv2d 1x1x1
"""


def new_generator(size=32, seed=0, **options):
    options = {"embedding_dim": 5, "width": 4, "text_width": 6, "noise_dim": 7} | options
    generator = GanIntClsGenerator(image_size=size, **options)
    generator.reset_parameters(seed)
    return generator


def new_discriminator(size=32, seed=0, **options):
    options = {"embedding_dim": 5, "width": 4, "text_width": 6} | options
    discriminator = GanIntClsDiscriminator(image_size=size, **options)
    discriminator.reset_parameters(seed)
    return discriminator


def batch_of(size=32, batch=3, seed=0):
    """Images, embeddings and noise."""
    random = torch.Generator().manual_seed(seed)
    images = torch.rand(batch, 3, size, size, generator=random) * 2 - 1
    vectors = [torch.randn(batch, dim, generator=random) for dim in (5, 7)]
    return images, *vectors


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def layers_passed(network, *inputs):
    """The layers in the order in which a pass goes through them, with their outputs' shapes."""
    passed = []

    def note(module, inputs, output):
        shape = "x".join(map(str, output.shape[1:]))
        passed.append(f"{type(module).__name__} {shape}")

    inside = {id(m) for b in network.modules() if isinstance(b, Bottleneck) for m in b.modules()}
    for module in network.modules():
        is_leaf = not list(module.children()) and id(module) not in inside
        if isinstance(module, nn.Identity):  # no whitening
            continue
        if is_leaf or isinstance(module, Bottleneck):
            module.register_forward_hook(note)
    network(*inputs)
    return passed


def test_parameters_of_the_published_sizes():
    with torch.device("meta"):
        assert count(GanIntClsGenerator()) == 18_905_472
        assert count(GanIntClsDiscriminator()) == 4_030_080
        # The first stage of StackGAN: without the scale and shift of 128 text channels.
        assert count(GanIntClsDiscriminator(text_norm=False)) == 4_030_080 - 2 * 128


def test_parameters_of_the_plan_at_32_pixels():
    generator = GanIntClsGenerator(image_size=32, width=16, text_width=32, noise_dim=32)
    assert count(generator) == 156_256
    assert count(GanIntClsDiscriminator(image_size=32, width=16, text_width=32)) == 94_816


def test_parameters_of_the_generator_by_hand():
    """Widths 32, 16, 8, 4 at 64 pixels: the products of the specification's table, written out."""
    text = 5 * 6 + 6
    top = (7 + 6) * 32 * 16 + 2 * 32
    bottleneck_4 = 32 * 8 + 8 * 8 * 9 + 8 * 32 * 9 + 2 * (8 + 8 + 32)
    bottleneck_8 = 16 * 4 + 4 * 4 * 9 + 4 * 16 * 9 + 2 * (4 + 4 + 16)
    doublings = 16 * (32 * 16 + 16 * 8 + 8 * 4 + 4 * 3) + 2 * (16 + 8 + 4)
    expected = text + top + bottleneck_4 + bottleneck_8 + doublings
    assert count(new_generator(64)) == expected


def test_layers_of_the_generator():
    _, embeddings, noise = batch_of(64)
    found = layers_passed(new_generator(64), embeddings, noise)
    assert found == GENERATOR_64.strip().splitlines()


def test_layers_of_the_discriminator():
    images, embeddings, _ = batch_of(64)
    found = layers_passed(new_discriminator(64, width=2), images, embeddings)
    assert found == DISCRIMINATOR_64.strip().splitlines()


@pytest.mark.parametrize(
    ("size", "generator", "discriminator"),
    [
        (16, [8, 4], [4, 8]),
        (32, [16, 8, 4], [4, 8, 16]),
        (64, [32, 16, 8, 4], [4, 8, 16, 32]),
        (128, [32, 32, 16, 8, 4], [4, 8, 16, 32, 32]),
        (256, [32, 32, 32, 16, 8, 4], [4, 8, 16, 32, 32, 32]),
    ],
)
def test_widths_of_other_sizes(size, generator, discriminator):
    images, embeddings, noise = batch_of(size, 2)
    passed = layers_passed(new_generator(size), embeddings, noise)
    maps = [f"{width}x{4 << r}x{4 << r}" for r, width in enumerate(generator)]
    found = [line.split()[1] for line in passed if line.startswith("BatchNorm2d")]
    assert found == maps
    assert [line for line in passed if line.startswith("Bottleneck")] == [
        f"Bottleneck {shape}" for shape in maps[:2]
    ]
    passed = layers_passed(new_discriminator(size), images, embeddings)
    found = [line.split()[1] for line in passed if line.startswith("Down")]
    sides = [size >> place for place in range(1, len(discriminator) + 1)]
    assert found == [f"{w}x{r}x{r}" for w, r in zip(discriminator, sides, strict=True)]


@pytest.mark.parametrize("size", SIZES)
def test_shapes_and_range(size):
    images, embeddings, noise = batch_of(size)
    drawn = new_generator(size)(embeddings, noise)
    assert drawn.shape == (3, 3, size, size)
    assert drawn.abs().max() <= 1
    assert new_discriminator(size)(images, embeddings).shape == (3,)


@pytest.mark.parametrize("size", SIZES)
def test_activations_of_the_discriminators_image_path(size):
    """None after the last two Downs, but always one after the first, which lacks normalisation."""
    images, embeddings, _ = batch_of(size)
    passed = layers_passed(new_discriminator(size), images, embeddings)
    kinds = [line.split()[0] for line in passed]
    path = kinds[: kinds.index("Bottleneck")]
    downs = size.bit_length() - 3
    inner = ["Down", "BatchNorm2d", "LeakyReLU"] * max(0, downs - 3)
    assert path == ["Down", "LeakyReLU", *inner, *["Down", "BatchNorm2d"] * min(2, downs - 1)]


@pytest.mark.parametrize("network", [GanIntClsGenerator, GanIntClsDiscriminator])
@pytest.mark.parametrize("size", [-64, 0, 1, 8, 24, 48, 65, 224])
def test_sizes_that_are_no_power_of_two(network, size):
    with pytest.raises(UserError) as error:
        network(image_size=size)
    assert str(error.value) == (
        f"dataset.image_size: found {size}, expected a power of two, 16 or more, since GAN-INT-CLS "
        "doubles a map of 4×4 pixels until it is the image"
    )


def test_the_generators_code_is_noise_then_text():
    generator = new_generator().eval()
    _, embeddings, noise = batch_of()
    generator.image[0].weight.data[7:] = 0  # what the first layer does with the text
    drawn = generator(embeddings, noise)
    assert torch.equal(drawn, generator(embeddings + 1, noise))
    assert not torch.equal(drawn, generator(embeddings, noise + 1))


def test_the_discriminators_joint_layer_sees_image_then_text():
    discriminator = new_discriminator().eval()
    images, embeddings, _ = batch_of()
    discriminator.head[0].weight.data[:, 16:] = 0  # what it does with the text
    logits = discriminator(images, embeddings)
    assert torch.equal(logits, discriminator(images, embeddings + 1))
    assert not torch.equal(logits, discriminator(-images, embeddings))


def test_noise_and_caption_both_change_the_image_and_the_logit():
    generator, discriminator = new_generator().eval(), new_discriminator().eval()
    images, embeddings, noise = batch_of()
    drawn = generator(embeddings, noise)
    assert not torch.equal(drawn, generator(embeddings, -noise))
    assert not torch.equal(drawn, generator(-embeddings, noise))
    logits = discriminator(images, embeddings)
    assert not torch.equal(logits, discriminator(images, -embeddings))


def test_three_batches_in_one_call_are_three_passes():
    """Each with a batch normalisation batch of its own, statistics in that order."""
    images = [batch_of(seed=seed)[0] for seed in range(3)]
    _, embeddings, _ = batch_of()
    together, apart = new_discriminator(), new_discriminator()
    found = together((images[0], images[1], images[2]), embeddings)
    expected = [apart(batch, embeddings) for batch in images]
    assert isinstance(found, tuple)
    assert len(found) == 3
    for logits, alone in zip(found, expected, strict=True):
        assert logits.shape == (3,)
        assert torch.equal(logits, alone)
    for name, tensor in together.state_dict().items():
        assert torch.equal(tensor, apart.state_dict()[name])
    assert together.image[3].num_batches_tracked == 3
    concatenated = new_discriminator()(torch.cat(images), embeddings.repeat(3, 1))
    assert not torch.allclose(torch.cat(found), concatenated, rtol=1e-3)


def test_what_real_images_are_given_does_not_depend_on_wrong_and_fake_ones():
    real, embeddings, _ = batch_of()
    first, second = (
        new_discriminator()((real, wrong, fake), embeddings)
        for wrong, fake in (
            (batch_of(seed=1)[0], batch_of(seed=2)[0]),
            (batch_of(seed=3)[0], batch_of(seed=2)[0]),
        )
    )
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])
    assert torch.equal(first[2], second[2])


def test_one_backward_pass_reaches_every_weight():
    real, embeddings, noise = batch_of()
    generator, discriminator = new_generator(), new_discriminator()
    wrong, _, _ = batch_of(seed=1)
    logits = discriminator((real, wrong, generator(embeddings, noise)), embeddings)
    torch.stack(logits).square().sum().backward()
    for parameter in [*generator.parameters(), *discriminator.parameters()]:
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()


def test_text_normalisation_is_the_discriminators_alone():
    norms = [m for m in new_generator().modules() if isinstance(m, nn.BatchNorm1d)]
    assert norms == []
    norms = [m for m in new_discriminator().modules() if isinstance(m, nn.BatchNorm1d)]
    assert [norm.num_features for norm in norms] == [6]
    bare = new_discriminator(text_norm=False)
    assert not any(isinstance(m, nn.BatchNorm1d) for m in bare.modules())


@pytest.mark.parametrize("new", [new_generator, new_discriminator])
def test_first_weights_are_the_seeds_alone(new):
    torch.manual_seed(0)
    first = new(seed=3).state_dict()
    torch.manual_seed(1)
    second, other = new(seed=3).state_dict(), new(seed=4).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    drawn = [name for name in first if name.endswith("weight") or name == "text.0.bias"]
    assert drawn
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


def test_networks_run_under_autocast_and_in_channels_last():
    images, embeddings, noise = batch_of()
    generator = new_generator().to(memory_format=torch.channels_last)
    discriminator = new_discriminator().to(memory_format=torch.channels_last)
    exact = new_generator()(embeddings, noise)
    torch.testing.assert_close(generator(embeddings, noise), exact, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        drawn = generator(embeddings, noise)
        logits = discriminator((images, drawn), embeddings)
    assert drawn.shape == (3, 3, 32, 32)
    assert all(part.isfinite().all() for part in logits)

"""The networks of GAWWN, layer by layer."""

import pytest
import torch
from safetensors.torch import save
from torch import nn

from sdn_ray.models.gan_blocks import Bottleneck
from sdn_ray.models.gawwn import GawwnGenerator
from sdn_ray.models.gawwn_boxes import BoxImageDiscriminator
from sdn_ray.models.gawwn_keypoints import KeypointImageDiscriminator
from sdn_ray.models.keypoint_generator import KeypointDiscriminator

SIZES = [32, 64, 128]
EMBEDDING, NOISE, TEXT, PARTS = 5, 7, 6, 3
NAMES = ("head", "tail", "wing")
BIRD = tuple(map(str, range(15)))

# The plans at 128 pixels, whose widths are those of the page by 32: 512 is 16, 128 is 4. There are
# 3 parts, and 6 channels of text in the discriminators.
KEYPOINT_GENERATOR = """
Linear 16
Linear 16
ReLU 32
Linear 16
BatchNorm1d 16
ReLU 16
Conv2d 16x16x16
BatchNorm2d 16x16x16
ReLU 16x16x16
Linear 16
BatchNorm1d 16
ReLU 16
Down 4x8x8
BatchNorm2d 4x8x8
ReLU 4x8x8
Down 8x4x4
BatchNorm2d 8x4x4
ReLU 8x4x4
Conv2d 16x1x1
BatchNorm2d 16x1x1
ReLU 16x1x1
ConvTranspose2d 16x4x4
BatchNorm2d 16x4x4
ReLU 16x4x4
Tup 8x8x8
BatchNorm2d 8x8x8
ReLU 8x8x8
Tup 4x16x16
BatchNorm2d 4x16x16
ReLU 4x16x16
Conv2d 16x16x16
BatchNorm2d 16x16x16
ReLU 16x16x16
Conv2d 16x16x16
BatchNorm2d 16x16x16
Bottleneck 16x16x16
Tup 8x32x32
BatchNorm2d 8x32x32
ReLU 8x32x32
Tup 4x64x64
BatchNorm2d 4x64x64
ReLU 4x64x64
Tup 3x128x128
Tanh 3x128x128
"""
IMAGE_AND_TEXT = """
Down 4x64x64
LeakyReLU 4x64x64
Down 4x32x32
LeakyReLU 4x32x32
Down 8x16x16
BatchNorm2d 8x16x16
LeakyReLU 8x16x16
Conv2d 8x16x16
BatchNorm2d 8x16x16
LeakyReLU 8x16x16
Linear 6
LeakyReLU 6
Conv2d 8x16x16
BatchNorm2d 8x16x16
LeakyReLU 8x16x16
Conv2d 8x16x16
BatchNorm2d 8x16x16
LeakyReLU 8x16x16
Conv2d 4x16x16
AdaptiveAvgPool2d 4x1x1
LeakyReLU 4
Down 16x8x8
BatchNorm2d 16x8x8
LeakyReLU 16x8x8
Down 32x4x4
BatchNorm2d 32x4x4
LeakyReLU 32x4x4
"""
SAID_IN_THE_BOX = """
Down 16x8x8
BatchNorm2d 16x8x8
ReLU 16x8x8
Down 4x4x4
BatchNorm2d 4x4x4
ReLU 4x4x4
"""
HEAD = """
Conv2d 16x4x4
BatchNorm2d 16x4x4
LeakyReLU 16x4x4
Conv2d 4x1x1
BatchNorm2d 4x1x1
LeakyReLU 4x1x1
Linear 4
BatchNorm1d 4
LeakyReLU 4
Linear 1
"""
BOX_GENERATOR = """
Linear 16
Down 16x8x8
BatchNorm2d 16x8x8
ReLU 16x8x8
Down 16x4x4
BatchNorm2d 16x4x4
ReLU 16x4x4
Conv2d 16x1x1
BatchNorm2d 16x1x1
ReLU 16x1x1
Linear 16
ReLU 16
Linear 16
ReLU 32
ConvTranspose2d 32x4x4
BatchNorm2d 32x4x4
Bottleneck 32x4x4
Tup 16x8x8
BatchNorm2d 16x8x8
Bottleneck 16x8x8
Tup 8x16x16
BatchNorm2d 8x16x16
ReLU 8x16x16
ConvTranspose2d 32x4x4
BatchNorm2d 32x4x4
ReLU 32x4x4
Tup 16x8x8
BatchNorm2d 16x8x8
ReLU 16x8x8
Tup 8x16x16
BatchNorm2d 8x16x16
ReLU 8x16x16
Conv2d 8x16x16
BatchNorm2d 8x16x16
ReLU 8x16x16
Tup 4x32x32
BatchNorm2d 4x32x32
ReLU 4x32x32
Tup 1x64x64
BatchNorm2d 1x64x64
ReLU 1x64x64
Tup 3x128x128
Tanh 3x128x128
"""
KEYPOINTS = """
Linear 16
ReLU 16
Linear 16
ReLU 16
Linear 16
BatchNorm1d 16
ReLU 16
Linear 8
BatchNorm1d 8
ReLU 8
Linear 32
BatchNorm1d 32
ReLU 32
Linear 16
BatchNorm1d 16
ReLU 16
Linear 8
BatchNorm1d 8
ReLU 8
Linear 9
"""


def normals(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def parts_of(batch=4, seed=0, count=PARTS):
    """Some of them hidden, in every image the first visible."""
    random = torch.Generator().manual_seed(seed)
    parts = torch.rand(batch, count, 3, generator=random)
    seen = (parts[..., 2:] > 0.4).float()
    seen[:, 0] = 1
    return torch.cat([parts[..., :2], torch.ones_like(seen)], 2) * seen


def boxes_of(batch=4, seed=0):
    random = torch.Generator().manual_seed(seed)
    sides = 0.2 + 0.6 * torch.rand(batch, 2, generator=random)
    return torch.cat([(1 - sides) * torch.rand(batch, 2, generator=random), sides], 1)


def new_generator(size=32, seed=0, **options):
    shape = {"embedding_dim": EMBEDDING, "width": 4, "z_dim": NOISE, "parts": NAMES} | options
    generator = GawwnGenerator(image_size=size, **shape)
    generator.reset_parameters(seed)
    return generator


def new_box_generator(size=32, seed=0, **options):
    return new_generator(size, seed, locations="boxes", **options)


def new_keypoint_judge(size=32, seed=0, **options):
    shape = {"width": 4, "text_width": TEXT, "parts": PARTS} | options
    judge = KeypointImageDiscriminator(EMBEDDING, size, **shape)
    judge.reset_parameters(seed)
    return judge


def new_box_judge(size=32, seed=0, **options):
    judge = BoxImageDiscriminator(EMBEDDING, size, **({"width": 4, "text_width": TEXT} | options))
    judge.reset_parameters(seed)
    return judge


def new_parts_judge(seed=0, **options):
    judge = KeypointDiscriminator(EMBEDDING, PARTS, 4, **options)
    judge.reset_parameters(seed)
    return judge


JUDGES = [(new_keypoint_judge, parts_of), (new_box_judge, boxes_of)]
GENERATORS = [(new_generator, parts_of), (new_box_generator, boxes_of)]
NETWORKS = [new_generator, new_box_generator, new_keypoint_judge, new_box_judge, new_parts_judge]


def images_of(size=32, batch=4, seed=0):
    return normals(batch, 3, size, size, seed=seed).tanh()


def codes_of(batch=4, seed=0):
    """Embeddings and noise."""
    return normals(batch, EMBEDDING, seed=seed), normals(batch, NOISE, seed=seed + 100)


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def settled(network, *inputs):
    """In eval mode, with the statistics of one batch."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None  # the mean over passes
    network(*inputs)
    return network.eval()


def silenced(sequential):
    """A path that gives zero, whatever it is given: no scale and no shift in its last layer."""
    last = [module for module in sequential if list(module.parameters())][-1]
    for parameter in last.parameters():
        parameter.data.zero_()


def layers_passed(network, *inputs):
    """The layers in the order in which a pass goes through them, with their outputs' shapes."""
    passed = []
    blocks = [m for m in network.modules() if isinstance(m, Bottleneck)]
    inside = {id(m) for block in blocks for m in block.modules()} - {id(b) for b in blocks}

    def note(module, inputs, output):
        shape = "x".join(map(str, output.shape[1:]))
        passed.append(f"{type(module).__name__} {shape}")

    for module in network.modules():
        is_leaf = not list(module.children())
        is_leaf &= not isinstance(module, nn.Identity | nn.Flatten | nn.Unflatten)
        if id(module) not in inside and (is_leaf or module in blocks):
            module.register_forward_hook(note)
    network(*inputs)
    return passed


def lines(*texts):
    return [line for text in texts for line in text.strip().splitlines()]


def before_normalisation(network):
    """The biases of linear layers that a normalisation takes away again."""
    return {
        id(layer.bias)
        for path in network.modules()
        if isinstance(path, nn.Sequential)
        for layer, norm in zip(path, list(path)[1:], strict=False)
        if isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d)
    }


def test_parameters_of_the_published_sizes():
    with torch.device("meta"):
        generator = GawwnGenerator(parts=BIRD)
        assert count(generator.images) == 26_466_563
        assert count(generator.keypoints) == 2_715_949
        assert count(KeypointImageDiscriminator()) == 14_664_705
        assert count(KeypointDiscriminator()) == 946_177
        assert count(GawwnGenerator(locations="boxes")) == 73_537_859
        assert count(BoxImageDiscriminator()) == 16_759_297
        assert count(GawwnGenerator(parts=BIRD, locations="none")) == 26_466_563


def test_parameters_of_the_plan_at_32_pixels():
    """The page says 0.45 and 0.13 million."""
    with torch.device("meta"):
        generator = GawwnGenerator(image_size=32, width=16, z_dim=32, parts=BIRD)
        judge = KeypointImageDiscriminator(image_size=32, width=16, text_width=32)
    assert count(generator.images) == 454_051
    assert count(judge) == 127_873


def test_layers_of_the_generators():
    (embeddings, noise), parts, boxes = codes_of(), parts_of(), boxes_of()
    found = layers_passed(new_generator(128).images, embeddings, noise, parts)
    assert found == lines(KEYPOINT_GENERATOR)
    found = layers_passed(new_box_generator(128).images, embeddings, noise, boxes)
    assert found == lines(BOX_GENERATOR)
    found = layers_passed(new_generator().keypoints, embeddings, noise, parts)
    assert found == lines(KEYPOINTS)


def test_layers_of_the_discriminators():
    embeddings, images = codes_of()[0], images_of(128)
    found = layers_passed(new_keypoint_judge(128), images, parts_of(), embeddings)
    assert found == lines(IMAGE_AND_TEXT, HEAD)
    found = layers_passed(new_box_judge(128), images, boxes_of(), embeddings)
    assert found == lines(IMAGE_AND_TEXT, SAID_IN_THE_BOX, HEAD)
    linear = [16, 8, 16, 8, 8, 1]
    found = layers_passed(new_parts_judge(), parts_of(), embeddings)
    assert [line for line in found if line.startswith("Linear")] == [f"Linear {w}" for w in linear]


@pytest.mark.parametrize(
    ("size", "keypoints", "boxes"),
    [
        (
            128,
            "4x8x8 8x4x4 8x8x8 4x16x16 8x32x32 4x64x64 3x128x128",
            "16x8x8 16x4x4 16x8x8 8x16x16 16x8x8 8x16x16 4x32x32 1x64x64 3x128x128",
        ),
        (
            64,
            "4x8x8 8x4x4 8x8x8 4x16x16 8x32x32 3x64x64",
            "16x8x8 16x4x4 16x8x8 8x16x16 16x8x8 8x16x16 4x32x32 3x64x64",
        ),
        (32, "4x4x4 8x8x8 8x16x16 3x32x32", "16x4x4 16x8x8 16x8x8 4x16x16 3x32x32"),
    ],
)
def test_halvings_and_doublings_of_the_generators(size, keypoints, boxes):
    codes = codes_of()
    for new, given, expected in (
        (new_generator, parts_of(), keypoints),
        (new_box_generator, boxes_of(), boxes),
    ):
        passed = layers_passed(new(size).images, *codes, given)
        found = [line.split() for line in passed if line.startswith(("Down", "Tup"))]
        assert [shape for _, shape in found] == expected.split()


@pytest.mark.parametrize(
    ("size", "image", "rest", "said"),
    [
        (128, "4x64x64 4x32x32 8x16x16", "16x8x8 32x4x4", "16x8x8 4x4x4"),
        (64, "4x32x32 8x16x16", "16x8x8 32x4x4", "16x8x8 4x4x4"),
        (32, "4x16x16 8x8x8", "16x4x4", "16x4x4"),
    ],
)
def test_halvings_of_the_discriminators(size, image, rest, said):
    embeddings, images = codes_of()[0], images_of(size)
    for new, locations, expected in (
        (new_keypoint_judge, parts_of(), f"{image} {rest}"),
        (new_box_judge, boxes_of(), f"{image} {rest} {said}"),
    ):
        passed = layers_passed(new(size), images, locations, embeddings)
        found = [line.split()[1] for line in passed if line.startswith("Down")]
        assert found == expected.split()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("new", "new_locations"), GENERATORS)
def test_shapes_and_range_of_images(new, new_locations, size):
    generator, codes = new(size), codes_of()
    images = generator(*codes, new_locations())
    assert images.shape == (4, 3, size, size)
    assert images.abs().max() <= 1
    pixels = generator.pixels(*codes, new_locations())
    assert (pixels.shape, pixels.dtype) == ((4, 1, 3, size, size), torch.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("new", "new_locations"), JUDGES)
def test_shapes_of_logits(new, new_locations, size):
    logits = new(size)(images_of(size), new_locations(), codes_of()[0])
    assert logits.shape == (4,)


@pytest.mark.parametrize(("new", "new_locations"), JUDGES)
def test_three_batches_in_one_call_are_three_passes(new, new_locations):
    """Each with its own locations and batch normalisation batch, statistics in that order."""
    images = [images_of(seed=seed) for seed in range(3)]
    locations = [new_locations(seed=seed) for seed in range(3)]
    embeddings = codes_of()[0]
    together, apart = new(), new()
    found = together(images, locations, embeddings)
    expected = [apart(*pair, embeddings) for pair in zip(images, locations, strict=True)]
    assert isinstance(found, tuple)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    for name, tensor in together.state_dict().items():
        assert torch.equal(tensor, apart.state_dict()[name])
    both = new()(torch.cat(images), torch.cat(locations), embeddings.repeat(3, 1))
    assert not torch.allclose(torch.cat(found), both, rtol=1e-3)


@pytest.mark.parametrize(("new", "new_locations"), JUDGES)
def test_logits_of_real_rows_do_not_depend_on_wrong_ones(new, new_locations):
    real, fake, embeddings = images_of(), images_of(seed=1), codes_of()[0]
    first, second = (
        new()(
            [real, images_of(seed=wrong), fake],
            [new_locations(), new_locations(seed=wrong), new_locations()],
            embeddings,
        )
        for wrong in (2, 3)
    )
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])
    assert torch.equal(first[2], second[2])


def test_real_and_fake_parts_are_two_passes():
    real, fake, embeddings = parts_of(), parts_of(seed=1), codes_of()[0]
    found, apart = new_parts_judge()([real, fake], embeddings), new_parts_judge()
    assert found[0].shape == (4,)
    assert torch.equal(found[0], apart(real, embeddings))
    assert torch.equal(found[1], apart(fake, embeddings))
    both = new_parts_judge()(torch.cat([real, fake]), embeddings.repeat(2, 1))
    assert not torch.allclose(torch.cat(found), both, rtol=1e-3)


def test_hidden_parts_contribute_nothing():
    parts, (embeddings, noise), images = parts_of(), codes_of(), images_of()
    elsewhere = parts.clone()
    elsewhere[..., :2][parts[..., 2] == 0] = 0.7
    assert not torch.equal(parts, elsewhere)
    generator, judge = new_generator(), new_keypoint_judge()
    drawn = [generator.images(embeddings, noise, places) for places in (parts, elsewhere)]
    assert torch.equal(*drawn)
    assert torch.equal(*(judge(images, places, embeddings) for places in (parts, elsewhere)))
    generated = [generator.keypoints(embeddings, noise, places) for places in (parts, elsewhere)]
    assert torch.equal(*generated)


def test_a_moved_keypoint_changes_the_image_there():
    """Without the global path nothing else: 5 convolutions reach 5 cells, doublings one more."""
    codes, parts = codes_of(), parts_of()
    parts[:, 1:] = 0
    parts[0, 0] = torch.tensor([0.01, 0.5, 1])
    generator = settled(new_generator(64).images, *codes, parts)
    moved = parts.clone()
    moved[0, 0, 0] = 0.08  # the next of 16 cells to the right
    before, after = generator(*codes, parts), generator(*codes, moved)
    assert not torch.equal(before[0, ..., 48:], after[0, ..., 48:])  # all sees the parts
    torch.testing.assert_close(before[1:], after[1:], rtol=1e-4, atol=1e-5)
    silenced(generator.global_path)
    before, after = generator(*codes, parts), generator(*codes, moved)
    assert torch.equal(before[0, ..., 36:], after[0, ..., 36:])
    assert (before[0, ..., :8] - after[0, ..., :8]).abs().max() > 1e-3
    other = generator(*codes_of(seed=1), parts)  # noise and caption are where a part is, too
    assert torch.equal(before[0, ..., 36:], other[0, ..., 36:])
    assert (before[0, ..., :8] - other[0, ..., :8]).abs().max() > 1e-3


def test_the_region_of_keypoints_is_all_that_is_seen_of_an_image():
    embeddings, images, parts = codes_of()[0], images_of(), parts_of()
    judge = settled(new_keypoint_judge(), images, parts, embeddings)
    silenced(judge.global_path)
    assert not torch.equal(*(judge(x, parts, embeddings) for x in (images, -images)))
    hidden = torch.zeros_like(parts)
    assert torch.equal(*(judge(x, hidden, embeddings) for x in (images, -images)))


def test_what_is_drawn_in_a_box_is_there():
    codes, other = codes_of(), codes_of(seed=1)
    boxes = torch.tensor([[0.0, 0.0, 0.25, 0.25]] * 4)
    generator = settled(new_box_generator(64).images, *codes, boxes)
    assert not torch.equal(generator(*codes, boxes), generator(*codes, boxes_of()))
    silenced(generator.global_path)
    first, second = generator(*codes, boxes), generator(*other, boxes)
    assert torch.equal(first[..., 36:], second[..., 36:])
    assert torch.equal(first[:, :, 36:], second[:, :, 36:])
    assert (first - second)[:, :, :16, :16].abs().max() > 1e-3


def test_the_caption_has_its_place_in_the_generators_global_path():
    codes = codes_of()
    generator = settled(new_box_generator().images, *codes, boxes_of())
    silenced(generator.region)
    first, second = (generator(*codes, boxes_of(seed=seed)) for seed in range(2))
    assert (first - second).abs().max() > 1e-3


def test_the_region_of_a_box_is_all_that_is_seen_of_an_image():
    embeddings, images = codes_of()[0], images_of(64)
    boxes = torch.tensor([[0.0, 0.0, 0.25, 0.25]] * 4)
    judge = settled(new_box_judge(64), images, boxes, embeddings)
    silenced(judge.global_path)
    beside, inside = images.clone(), images.clone()
    beside[..., 40:] *= -1
    inside[..., :8, :8] *= -1
    logits = judge(images, boxes, embeddings)
    assert torch.equal(logits, judge(beside, boxes, embeddings))
    assert not torch.equal(logits, judge(inside, boxes, embeddings))


def test_the_caption_has_its_place_in_the_discriminator_of_boxes():
    """Pasted, not cropped as in the authors' code."""
    embeddings, images = codes_of()[0], images_of()
    judge = settled(new_box_judge(), images, boxes_of(), embeddings)
    judge.region[3].weight.data.zero_()
    first, second = (judge(images, boxes_of(seed=seed), embeddings) for seed in range(2))
    assert (first - second).abs().max() > 1e-3 * first.abs().max()


def test_given_parts_come_back_as_given_and_the_others_are_generated():
    embeddings, noise = codes_of()
    given = parts_of()
    network = new_generator().keypoints
    found = network(embeddings, noise, given)
    kept = given[..., 2] == 1
    assert kept.any()
    assert not kept.all()
    assert torch.equal(found[kept], given[kept])
    assert (found > 0).all()
    assert (found < 1)[~kept].all()
    nothing = network(embeddings, noise, torch.zeros_like(given))
    assert not torch.equal(nothing[~kept], found[~kept])  # what is given is seen


def test_drawing_from_text_alone_uses_one_noise_for_both():
    generator, (embeddings, noise) = new_generator().eval(), codes_of()
    generator.keypoints.generated[-2].weight.data *= 1000  # or all are visible, or none
    parts = generator.keypoints(embeddings, noise, torch.zeros(4, PARTS, 3))
    visible = parts[..., 2:] > 0.5
    assert visible.any()
    assert not visible.all()
    drawn = generator.drawn_parts(embeddings, noise)
    assert torch.equal(drawn[..., 2:], visible.float())
    assert torch.equal(drawn[..., :2], parts[..., :2] * visible)
    expected = generator.images(embeddings, noise, parts)
    assert torch.equal(generator(embeddings, noise), expected)
    assert torch.equal(generator.images(embeddings, noise, drawn), expected)


def test_drawing_from_given_locations():
    generator, (embeddings, noise), parts = new_generator().eval(), codes_of(), parts_of()
    drawn = generator.drawn_parts(embeddings, noise, parts)
    kept = parts[..., 2] == 1
    assert torch.equal(drawn[kept], parts[kept])
    expected = generator.images(embeddings, noise, drawn)
    assert torch.equal(generator(embeddings, noise, parts), expected)
    boxes, generator = boxes_of(), new_box_generator().eval()
    expected = generator.images(embeddings, noise, boxes)
    assert torch.equal(generator(embeddings, noise, boxes), expected)


def test_drawing_without_locations():
    generator, codes = new_generator(locations="none").eval(), codes_of()
    assert generator.keypoints is None
    assert not generator.drawn_parts(*codes).any()
    expected = generator.images(*codes, torch.zeros(4, PARTS, 3))
    assert torch.equal(generator(*codes), expected)
    assert torch.equal(generator(*codes, parts_of()), expected)


@pytest.mark.parametrize(("new", "new_locations"), [*GENERATORS, (new_generator, None)])
def test_an_image_is_the_same_alone_and_in_a_batch(new, new_locations):
    codes = codes_of()
    inputs = (*codes, new_locations()) if new_locations else codes
    generator = settled(new(), *inputs)
    together = generator(*inputs)
    for place in range(4):
        alone = generator(*(one[place : place + 1] for one in inputs))
        torch.testing.assert_close(alone[0], together[place], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("new", "new_locations"), GENERATORS)
def test_noise_and_caption_both_change_the_image(new, new_locations):
    generator, (embeddings, noise), places = new().eval(), codes_of(), new_locations()
    drawn = generator(embeddings, noise, places)
    assert not torch.equal(drawn, generator(embeddings, -noise, places))
    assert not torch.equal(drawn, generator(-embeddings, noise, places))


@pytest.mark.parametrize(("new", "new_locations"), JUDGES)
def test_caption_and_locations_both_change_the_logit(new, new_locations):
    judge, images, embeddings = new().eval(), images_of(), codes_of()[0]
    logits = judge(images, new_locations(), embeddings)
    assert not torch.equal(logits, judge(images, new_locations(), -embeddings))
    assert not torch.equal(logits, judge(images, new_locations(seed=1), embeddings))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("new", "new_judge", "new_locations"),
    [(new_generator, new_keypoint_judge, parts_of), (new_box_generator, new_box_judge, boxes_of)],
)
def test_one_backward_pass_reaches_every_weight_of_images(new, new_judge, new_locations, size):
    (embeddings, noise), locations = codes_of(), new_locations()
    generator, judge = new(size).images, new_judge(size)
    fake = generator(embeddings, noise, locations)
    images, wrong = (images_of(size, seed=seed) for seed in range(2))
    logits = judge([images, wrong, fake], [locations] * 3, embeddings)
    torch.stack(logits).square().sum().backward()
    check_gradients(generator)
    check_gradients(judge)


def test_one_backward_pass_reaches_every_weight_of_keypoints():
    embeddings, noise = codes_of()
    generator, judge = new_generator().keypoints, new_parts_judge()
    fake = generator(embeddings, noise, parts_of())
    logits = judge([parts_of(seed=1), fake], embeddings)
    torch.stack(logits).square().sum().backward()
    check_gradients(generator)
    check_gradients(judge)


def check_gradients(network):
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or id(parameter) in before_normalisation(network), name


@pytest.mark.parametrize("new", NETWORKS)
def test_biases_are_where_no_normalisation_follows(new):
    """Of convolutions: those of the discriminators' first halvings, and of layers that end."""
    network = new()
    for path in network.modules():
        if isinstance(path, nn.Sequential):
            for layer, following in zip(path, [*path][1:], strict=False):
                if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                    assert (layer.bias is None) == isinstance(following, nn.BatchNorm2d)
    assert all(m.bias is not None for m in network.modules() if isinstance(m, nn.Linear))


@pytest.mark.parametrize("new", NETWORKS)
def test_first_weights_are_the_seeds_alone(new):
    torch.manual_seed(0)
    first = new(seed=3).state_dict()
    torch.manual_seed(1)
    second, other = new(seed=3).state_dict(), new(seed=4).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    weights = [name for name in first if name.endswith("weight")]
    assert not any(torch.equal(first[name], other[name]) for name in weights)


@pytest.mark.parametrize("locations", ["keypoints", "boxes", "none"])
def test_settings_and_weights_make_the_same_generator(locations):
    generator = new_generator(locations=locations, whitened_dim=2).eval()
    assert generator.settings == {
        "embedding_dim": EMBEDDING,
        "image_size": 32,
        "width": 4,
        "z_dim": NOISE,
        "whitened_dim": 2,
        "parts": list(NAMES),
        "locations": locations,
    }
    state = generator.state_dict()
    assert save(state)  # which refuses weights that lie in one memory
    other = GawwnGenerator(**generator.settings).eval()
    other.load_state_dict(state)
    places = boxes_of() if locations == "boxes" else None
    codes = codes_of()
    assert torch.equal(other.pixels(*codes, places), generator.pixels(*codes, places))
    assert (generator.samples, generator.z_dim, generator.image_size) == (1, NOISE, 32)


@pytest.mark.parametrize("new", NETWORKS)
def test_whitening_comes_first(new):
    whitened, bare = new(whitened_dim=2), new()
    mean, matrix = normals(EMBEDDING), normals(EMBEDDING, 2, seed=1)
    whitened.whitening.set(mean, matrix)
    embeddings, noise = codes_of()
    seen = []
    for module in whitened.modules():
        if isinstance(module, nn.Linear) and module.in_features == 2:
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    run(whitened, embeddings, noise)
    assert seen
    assert all(torch.allclose(codes, (embeddings - mean) @ matrix) for codes in seen)
    assert isinstance(bare.whitening, nn.Identity)


def run(network, embeddings, noise):
    """One pass of any of the networks."""
    if isinstance(network, GawwnGenerator):
        return network(embeddings, noise, boxes_of() if network.locations == "boxes" else None)
    if isinstance(network, KeypointDiscriminator):
        return network(parts_of(), embeddings)
    places = boxes_of() if isinstance(network, BoxImageDiscriminator) else parts_of()
    return network(images_of(), places, embeddings)


@pytest.mark.parametrize("mode", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("new", NETWORKS)
def test_networks_run_under_autocast_and_in_channels_last(new, mode):
    network = new().to(memory_format=torch.channels_last).train(mode)
    exact = run(new().train(mode), *codes_of())
    torch.testing.assert_close(run(network, *codes_of()), exact, rtol=1e-3, atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        found = run(network, *codes_of())
    assert found.shape == exact.shape
    assert found.isfinite().all()


def test_parts_are_exact_under_autocast():
    generator, codes, given = new_generator(), codes_of(), parts_of()
    with torch.autocast("cpu", torch.bfloat16):
        drawn = generator.drawn_parts(*codes, given)
        generated = generator.keypoints(*codes, torch.zeros_like(given))
    assert drawn.dtype == generated.dtype == torch.float32
    kept = given[..., 2] == 1
    assert torch.equal(drawn[kept], given[kept])
    assert (generated != generated.bfloat16().float()).any()


@pytest.mark.parametrize("size", [-32, 0, 16, 48, 256])
@pytest.mark.parametrize(
    "network",
    [
        lambda size: GawwnGenerator(image_size=size, parts=BIRD),
        lambda size: GawwnGenerator(image_size=size, locations="boxes"),
        lambda size: KeypointImageDiscriminator(image_size=size),
        lambda size: BoxImageDiscriminator(image_size=size),
    ],
)
def test_sizes_without_a_plan(network, size):
    expected = f"^image_size: found {size}, expected one of 32, 64, 128$"
    with pytest.raises(ValueError, match=expected):
        network(size)


def test_locations_that_are_not_there():
    with pytest.raises(ValueError, match="locations: found poses, expected one of keypoints, box"):
        GawwnGenerator(locations="poses")
    with pytest.raises(ValueError, match="parts: found none with locations none, expected their"):
        GawwnGenerator(locations="none")
    generator, codes = new_box_generator(), codes_of()
    with pytest.raises(ValueError, match="boxes have no parts"):
        generator.drawn_parts(*codes)
    with pytest.raises(ValueError, match="noise: found none"):
        generator.pixels(codes[0])
    with pytest.raises(ValueError, match="shorter"):
        new_box_judge()([images_of(), images_of()], [boxes_of()], codes[0])


def test_without_given_boxes_one_of_the_kept_ones_is_drawn_in():
    generator, (embeddings, _) = new_box_generator().eval(), codes_of()
    assert generator.noise_dim == NOISE + 1
    boxes = boxes_of(1024)
    generator.keep_boxes(boxes)
    kept = generator.boxes
    assert torch.equal(kept[[0, 1, -1]], boxes[[0, 4, -1]])  # evenly spread, both ends among them
    # The last number of the noise chooses: lower quartile, median, upper quartile, beyond all.
    noise = torch.cat([normals(4, NOISE), torch.tensor([[-0.674], [0.0], [0.675], [40.0]])], 1)
    expected = kept[[64, 128, 192, 255]]
    assert torch.equal(generator(embeddings, noise), generator(embeddings, noise, expected))


def test_parts_can_be_drawn_as_dots():
    generator, (embeddings, noise), parts = new_generator(64).eval(), codes_of(), parts_of()
    generator.draws_keypoints = True
    given = parts.clone()
    given[:, :, 2] = 1  # so that none is generated
    given[0, 0, :2] = torch.tensor([0.51, 0.26])
    given[0, 1:, :2] = 0.99
    drawn = generator(embeddings, noise, given)
    assert drawn.shape == (4, 3, 64, 64)
    # Of 16 cells a side the ninth and fifth, four pixels wide; the first part is red.
    dot = drawn[0, :, 16:20, 32:36]
    assert torch.equal(dot, torch.tensor([1.0, -1.0, -1.0])[:, None, None].expand_as(dot))
    assert torch.equal(drawn[0, :, 20, 32], torch.full((3,), -0.5))


@pytest.mark.parametrize("keypoints", [True, False])
def test_only_what_draws_is_in_training_mode(keypoints):
    generator = new_generator()
    generator.draws_keypoints = keypoints
    generator.train()
    assert generator.keypoints.training == keypoints
    assert generator.images.training != keypoints
    generator.eval()
    assert not generator.keypoints.training
    assert not generator.images.training

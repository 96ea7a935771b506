import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sdn_ray.errors import UserError
from sdn_ray.models.generator import Generator, ModulatedNorm
from sdn_ray.models.image_generators import SDN, generator_of
from sdn_ray.models.plan import Plan
from sdn_ray.models.teacher import Teacher

PLANS = {
    "vgg11": 32,
    "vgg13": 64,
    "vgg16": 96,
    "vgg19": 224,
    "16,16,M,32,32,M,64x4,M,128x4,M,128": 64,  # thin; no pool at its end
    "64,64,M,128,128,M,256": 32,  # short
    "4,M,6,M": 12,
    "4,5,M,6": 6,
    "5": 9,
    "4,M": 2,
    "4,M,M,6,M": 16,  # two pools in a row
}

# "The one pairing rule", for VGG19 at 224, as the specification words it.
VGG19_PAIRS = """
conv1_1 | 64x224x224 | g_conv1_2
conv1_2 | 64x224x224 | g_conv2_1, up-sampled 112
conv2_1 | 128x112x112 | g_conv2_2
conv2_2 | 128x112x112 | g_conv3_1, up-sampled 56
conv3_1 | 256x56x56 | g_conv3_2
conv3_2 | 256x56x56 | g_conv3_3
conv3_3 | 256x56x56 | g_conv3_4
conv3_4 | 256x56x56 | g_conv4_1, up-sampled 28
conv4_1 | 512x28x28 | g_conv4_2
conv4_2 | 512x28x28 | g_conv4_3
conv4_3 | 512x28x28 | g_conv4_4
conv4_4 | 512x28x28 | g_conv5_1, up-sampled 14
conv5_1 | 512x14x14 | g_conv5_2
conv5_2 | 512x14x14 | g_conv5_3
conv5_3 | 512x14x14 | g_conv5_4
conv5_4 | 512x14x14 | g_fc6, up-sampled 7
"""


def new_generator(plan="4,M,6,M", **options):
    options = {"embedding_dim": 5, "image_size": 8, "fc_width": 7} | options
    generator = Generator(Plan.parse(plan), **options)
    generator.reset_parameters(0)
    return generator


def sources(generator, embeddings):
    """A forward pass, and for every feature the layer it came out of, and how."""
    came_from = {}

    def note(name):
        def hook(module, inputs, output):
            came_from[id(output)] = (name, output)

        return hook

    def note_up(module, inputs, output):
        name = came_from[id(inputs[0])][0] if id(inputs[0]) in came_from else "g_fc6"
        came_from[id(output)] = (f"{name}, up-sampled {inputs[0].shape[-1]}", output)

    handles = [layer.register_forward_hook(note(n)) for n, layer in generator.mirror.items()]
    handles.append(generator.up.register_forward_hook(note_up))
    output = generator(embeddings)
    for handle in handles:
        handle.remove()
    return output, [came_from.get(id(f), ("g_fc6", None))[0] for f in output.features]


def test_the_pairing_table_of_vgg19_at_224():
    with torch.device("meta"):
        generator = Generator(Plan.parse("vgg19"), embedding_dim=1024, image_size=224)
        output, names = sources(generator, torch.empty(2, 1024))
    shapes = ["x".join(map(str, feature.shape[1:])) for feature in output.features]
    rows = zip(generator.plan.names, shapes, names, strict=True)
    assert [" | ".join(row) for row in rows] == VGG19_PAIRS.strip().splitlines()
    assert output.images.shape == (2, 1, 3, 224, 224)
    assert generator.g_fc8[0].weight.shape == (4096, 1024)
    assert generator.g_fc7[0].weight.shape == (4096, 4096)
    assert generator.g_fc6[0].weight.shape == (512 * 7 * 7, 4096)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_features_are_shaped_as_the_teachers(plan, times, batch_norm):
    size = PLANS[plan] * times
    with torch.device("meta"):
        teacher = Teacher(Plan.parse(plan))
        generator = Generator(
            Plan.parse(plan),
            embedding_dim=6,
            image_size=size,
            fc_width=8,
            samples=2,
            batch_norm=batch_norm,
        )
        output = generator(torch.empty(3, 6))
        real = teacher(torch.empty(3, 3, size, size))
    assert output.images.shape == (3, 2, 3, size, size)
    assert [f.shape for f in output.features] == [f.shape for f in real]


def test_the_mirror_by_hand():
    """conv1_1, conv1_2, pool, conv2_1: g-fc6, g-conv2_1, up-sampling, g-conv1_2, g-conv1_1."""
    generator = new_generator("4,5,M,6", image_size=4, samples=2)
    state = generator.state_dict()
    embeddings = torch.randn(3, 5)
    x = embeddings
    for name in ("g_fc8", "g_fc7", "g_fc6"):
        x = (x @ state[f"{name}.0.weight"].T + state[f"{name}.0.bias"]).clamp_min(0)
    features = [x.view(3, 6, 2, 2)]

    def mirror(name, x):
        weight, bias = state[f"mirror.g_{name}.0.weight"], state[f"mirror.g_{name}.0.bias"]
        return functional.conv2d(x, weight, bias, padding=1)

    x = mirror("conv2_1", features[0]).clamp_min(0)
    features.append(x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    features.append(mirror("conv1_2", features[1]).clamp_min(0))
    images = mirror("conv1_1", features[2]).view(3, 2, 3, 4, 4)
    output = generator(embeddings)
    torch.testing.assert_close(output.images, images, rtol=1e-5, atol=1e-5)
    assert images.min() < 0 < images.max()  # the last layer is linear
    for own, expected in zip(output.features, features[::-1], strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)


def test_a_plan_with_a_pool_at_its_end_up_samples_first():
    _, names = sources(new_generator("4,M,6,M"), torch.randn(2, 5))
    assert names == ["g_conv2_1, up-sampled 4", "g_fc6, up-sampled 2"]


def test_a_plan_without_a_pool_at_its_end_does_not():
    output, names = sources(new_generator("4,M,6"), torch.randn(2, 5))
    assert names == ["g_conv2_1, up-sampled 4", "g_fc6"]
    assert output.features[-1].shape == (2, 6, 4, 4)


@pytest.mark.parametrize("size", [0, 6, 10])
def test_an_image_size_that_cannot_be_halved(size):
    with pytest.raises(UserError, match=f"found {size}, expected a multiple of 4"):
        Generator(Plan.parse("4,M,6,M"), embedding_dim=5, image_size=size)


def test_he_initialisation():
    plan, sizes = Plan.parse("40,M,50"), {"embedding_dim": 60, "image_size": 8, "fc_width": 300}
    generator = Generator(plan, **sizes)
    for parameter in generator.parameters():
        nn.init.constant_(parameter, 9.0)
    generator.reset_parameters(3)
    layers = [m for m in generator.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert len(layers) == 5
    for layer in layers:
        weight = layer.weight.detach()
        fan_in = weight[0].numel()
        # Six standard errors of the mean and of the standard deviation of normal draws.
        deviation, count = math.sqrt(2 / fan_in), weight.numel()
        assert abs(weight.mean().item()) < 6 * deviation / math.sqrt(count)
        assert abs(weight.std().item() - deviation) < 6 * deviation / math.sqrt(2 * count)
        # Normal and not uniform: 4.6 % lie beyond two deviations.
        assert 0.03 < (weight.abs() > 2 * deviation).float().mean() < 0.06
        assert not layer.bias.any()


def test_first_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = new_generator().state_dict()
    torch.manual_seed(2)
    second = new_generator()
    other = new_generator()
    other.reset_parameters(1)
    for name, value in second.state_dict().items():
        assert torch.equal(value, first[name]), name
        assert name.endswith("bias") or not torch.equal(value, other.state_dict()[name]), name


def test_batch_norm_after_every_layer_but_the_last():
    generator = new_generator("4,5,M,6", batch_norm=True)
    widths = [m.num_features for m in generator.modules() if hasattr(m, "num_features")]
    assert widths == [7, 7, 6, 5, 4]
    assert [type(layer) for layer in generator.mirror["g_conv1_1"]] == [nn.Conv2d]
    assert generator.mirror["g_conv1_1"][0].bias is not None
    features = generator(torch.randn(64, 5)).features
    for feature in features:
        # ReLU of a standard normal: E = 1/√(2π) = 0.4, E² = 1/2.
        assert feature.mean().item() == pytest.approx(0.4, abs=0.1)
        assert feature.square().mean().item() == pytest.approx(0.5, abs=0.1)


def test_no_batch_norm_by_default():
    names = {type(module).__name__ for module in new_generator().modules()}
    assert not any("Norm" in name for name in names)


@pytest.mark.parametrize("samples", [1, 4])
def test_samples_are_blocks_of_three_channels(samples):
    generator = new_generator(samples=samples)
    last = generator.mirror["g_conv1_1"][0]
    assert last.weight.shape == (3 * samples, 4, 3, 3)
    embeddings = torch.randn(2, 5)
    before = generator(embeddings).images
    assert before.shape == (2, samples, 3, 8, 8)
    with torch.no_grad():
        last.bias[-1] += 1  # blue of the last sample
    difference = generator(embeddings).images - before
    expected = torch.zeros(2, samples, 3, 8, 8)
    expected[:, -1, 2] = 1
    torch.testing.assert_close(difference, expected, rtol=0, atol=1e-5)


def grown(noise, samples=3, seed=0):
    generator = new_generator()
    with torch.no_grad():
        generator.mirror["g_conv1_1"][0].bias.copy_(torch.tensor([0.5, -1.0, 2.0]))
    old = copy.deepcopy(generator)
    generator.grow_samples(samples, noise, seed)
    return old, generator


def test_samples_grown_without_noise_are_identical():
    old, new = grown(noise=0)
    embeddings = torch.randn(2, 5)
    expected, found = old(embeddings).images, new(embeddings).images
    assert new.samples == 3
    assert found.shape == (2, 3, 3, 8, 8)
    for sample in range(3):
        torch.testing.assert_close(found[:, sample], expected[:, 0], rtol=1e-5, atol=1e-5)
    weight = new.mirror["g_conv1_1"][0].weight
    assert torch.equal(weight, old.mirror["g_conv1_1"][0].weight.repeat(3, 1, 1, 1))
    assert weight.requires_grad


def test_grown_samples_start_near_the_old_weights_and_apart():
    old, new = grown(noise=0.1, samples=40)
    weight = old.mirror["g_conv1_1"][0].weight.detach()
    copies = new.mirror["g_conv1_1"][0].weight.detach().unflatten(0, (40, 3))
    noise = (copies - weight) / weight.std()
    assert noise.std().item() == pytest.approx(0.1, rel=0.05)  # of 4320 draws
    assert abs(noise.mean().item()) < 0.01
    for a in range(40):
        for b in range(a):
            assert not torch.allclose(copies[a], copies[b], rtol=0, atol=0.01)
    bias = old.mirror["g_conv1_1"][0].bias
    assert torch.equal(new.mirror["g_conv1_1"][0].bias, bias.repeat(40))
    for name, value in old.state_dict().items():
        if not name.startswith("mirror.g_conv1_1"):
            assert torch.equal(new.state_dict()[name], value), name


def test_growing_depends_on_the_seed_alone():
    weights = []
    for state, seed in ((1, 0), (2, 0), (1, 5)):
        torch.manual_seed(state)
        weights.append(grown(noise=0.1, seed=seed)[1].mirror["g_conv1_1"][0].weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_whitening_stands_before_the_first_layer():
    plain = new_generator(embedding_dim=2)
    whitened = new_generator(embedding_dim=3, whitened_dim=2)
    assert whitened.g_fc8[0].weight.shape == (7, 2)
    # Its statistics are no parameters, and draw nothing from the seed.
    names = dict(whitened.named_parameters()).keys()
    assert names == dict(plain.named_parameters()).keys()
    mean, matrix = torch.tensor([1.0, 2, 3]), torch.tensor([[1.0, 0], [0, 2], [0, 1]])
    whitened.whitening.mean.copy_(mean)
    whitened.whitening.matrix.copy_(matrix)
    # (2 - 1, 4 - 2, 2 - 3) times the matrix is (1, 4 - 1).
    found = whitened(torch.tensor([[2.0, 4, 2]])).images
    assert torch.equal(found, plain(torch.tensor([[1.0, 3]])).images)
    assert {"whitening.mean", "whitening.matrix"} <= whitened.state_dict().keys()


def test_without_whitening_nothing_is_new_in_the_weights():
    assert not any("whitening" in name for name in new_generator().state_dict())


def test_bilinear_upsampling_weighs_neighbours_three_to_one():
    generator = new_generator(upsampling="bilinear")
    row = torch.tensor([[[[0.0, 4.0]]]]).expand(1, 1, 2, 2)
    assert generator.up(row)[0, 0, 0].tolist() == [0, 1, 3, 4]
    assert new_generator().up(row)[0, 0, 0].tolist() == [0, 0, 4, 4]


@pytest.mark.parametrize("options", [{}, {"batch_norm": True}])
def test_by_default_the_weights_are_those_of_earlier_versions(options):
    generator = new_generator("4,M,6", **options)
    layers = ["g_fc8.0", "g_fc7.0", "g_fc6.0", "mirror.g_conv2_1.0", "mirror.g_conv1_1.0"]
    norms = ["g_fc8.1", "g_fc7.1", "g_fc6.2", "mirror.g_conv2_1.1"] if options else []
    without_bias = "mirror.g_conv2_1.0" if options else None
    keys = {f"{name}.weight" for name in layers}
    keys |= {f"{name}.bias" for name in layers if name != without_bias}
    kept = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    keys |= {f"{norm}.{name}" for norm in norms for name in kept}
    state = generator.state_dict()
    assert state.keys() == keys
    random = torch.Generator().manual_seed(0)
    for name in layers:
        weight = state[f"{name}.weight"]
        expected = torch.randn(weight.shape, generator=random) * (2 / weight[0].numel()) ** 0.5
        torch.testing.assert_close(weight, expected, rtol=1e-6, atol=1e-7)


EVERYTHING = {"batch_norm": True, "modulated": True, "noise_dim": 2, "activation": "leaky_relu"}


def draws_of(batch=4, width=5, seed=0):
    return torch.randn(batch, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("options", [{"noise_dim": 2}, EVERYTHING])
@pytest.mark.parametrize("plan", ["4,M,6,M", "4,5,M,6"])
def test_noise_and_modulation_leave_the_shapes_as_they_are(plan, options):
    plain, generator = new_generator(plan), new_generator(plan, **options)
    found, expected = generator(draws_of(), draws_of(width=2)), plain(draws_of())
    assert generator.g_fc8[0].weight.shape == (7, 5 + 2)
    assert found.images.shape == expected.images.shape
    assert [f.shape for f in found.features] == [f.shape for f in expected.features]


def test_noise_stands_behind_the_caption():
    generator, plain = new_generator(noise_dim=2), new_generator(embedding_dim=7)
    plain.load_state_dict(generator.state_dict())
    embeddings, noise = draws_of(), draws_of(width=2)
    expected = plain(torch.cat([embeddings, noise], 1))
    assert torch.equal(generator(embeddings, noise).images, expected.images)


def test_a_generator_that_takes_noise_is_not_called_without():
    for draw in (new_generator(noise_dim=2), new_generator(noise_dim=2).pixels):
        with pytest.raises(ValueError, match=r"noise: found none, expected \(batch, 2\)"):
            draw(draws_of())


@pytest.mark.parametrize("options", [{"noise_dim": 2}, EVERYTHING])
def test_other_noise_is_another_picture_whatever_the_batch(options):
    generator = new_generator(**options)
    embeddings, noise = draws_of(1).expand(4, 5), draws_of(width=2)
    generator(embeddings, noise)  # moves the running statistics
    images = generator.eval()(embeddings, noise).images
    for place in range(4):
        one = slice(place, place + 1)
        alone = generator(embeddings[one], noise[one]).images
        torch.testing.assert_close(images[one], alone, rtol=1e-4, atol=1e-5)
        for other in range(place):
            assert not torch.allclose(images[place], images[other], atol=1e-2)


def test_the_norm_that_a_code_modulates_by_hand():
    layer = ModulatedNorm(3, 2, side=16)
    layer.reset_parameters(torch.Generator().manual_seed(0))
    weight = layer.modulation.weight.detach().numpy()
    with torch.no_grad():
        layer.modulation.bias.copy_(torch.tensor([0.5, -0.25, 0, 3, 0, -1]))
    maps, code = np.random.default_rng(0).normal(2, 3, (4, 3, 2, 5)), draws_of(4, 2).numpy()
    given = code @ weight.T + [0.5, -0.25, 0, 3, 0, -1]
    scale, shift = given[:, :3, None, None], given[:, 3:, None, None]

    def by_hand(mean, variance):
        normalised = (maps - mean[:, None, None]) / np.sqrt(variance[:, None, None] + 1e-5)
        return (1 + scale) * normalised + shift

    inputs = torch.from_numpy(maps).float(), torch.from_numpy(code)
    mean, variance = maps.mean((0, 2, 3)), maps.var((0, 2, 3))
    np.testing.assert_allclose(layer(*inputs).detach(), by_hand(mean, variance), rtol=1e-4)
    running = 0.1 * mean, 0.9 + 0.1 * variance * 40 / 39  # unbiased; from 0 and 1
    found = layer.eval()(*inputs).detach()
    np.testing.assert_allclose(found, by_hand(*running), rtol=1e-4, atol=1e-5)


def test_small_maps_are_modulated_place_by_place_by_hand():
    layer = ModulatedNorm(3, 2, side=4)
    layer.reset_parameters(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for bias in (layer.modulation.bias, layer.layout[0].bias):
            bias.uniform_(-1, 1)
    maps, code = np.random.default_rng(0).normal(2, 3, (5, 3, 4, 4)), draws_of(5, 2).numpy()
    weights = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    channels = code @ weights["modulation.weight"].T + weights["modulation.bias"]
    places = code @ weights["layout.0.weight"].T + weights["layout.0.bias"]
    assert places.shape == (5, 8 * 4 * 4)
    given = channels[:, :, None, None] + np.einsum(
        "op,bphw->bohw", weights["layout.2.weight"][:, :, 0, 0], places.reshape(5, 8, 4, 4)
    )
    axes = {"axis": (0, 2, 3), "keepdims": True}
    normalised = (maps - maps.mean(**axes)) / np.sqrt(maps.var(**axes) + 1e-5)
    expected = (1 + given[:, :3]) * normalised + given[:, 3:]
    found = layer(torch.from_numpy(maps).float(), torch.from_numpy(code))
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-4, atol=1e-5)


def test_first_modulations_are_scales_around_1_and_shifts_around_0():
    layer = ModulatedNorm(50, 400, side=8)
    layer.reset_parameters(torch.Generator().manual_seed(0))
    assert not layer.modulation.bias.any()
    assert not layer.layout[0].bias.any()
    patterns = layer.layout(draws_of(64, 400, seed=1)).detach()
    assert patterns.shape == (64, 2 * 50, 8, 8)
    assert patterns.mean().item() == pytest.approx(0, abs=0.05)
    assert patterns.std().item() == pytest.approx(0.5, rel=0.1)
    given = layer.modulation(draws_of(64, 400, seed=1)).detach()
    assert given.mean().item() == pytest.approx(0, abs=0.05)
    assert given.std().item() == pytest.approx(0.5, rel=0.05)


def test_modulation_is_of_every_normalisation_of_the_mirror_by_what_g_fc7_gives():
    generator = new_generator("4,5,M,6", fc_width=9, **EVERYTHING)
    found = {n: m for n, m in generator.named_modules() if isinstance(m, ModulatedNorm)}
    assert list(found) == ["mirror.g_conv2_1.1", "mirror.g_conv1_2.1"]
    assert [m.modulation.weight.shape for m in found.values()] == [(2 * 5, 9), (2 * 4, 9)]
    codes = []
    for norm in found.values():
        norm.register_forward_hook(lambda module, inputs, output: codes.append(inputs[1]))
    generator.eval()
    embeddings, noise = draws_of(3), draws_of(3, 2, seed=1)
    generator(embeddings, noise)
    expected = generator.g_fc7(generator.g_fc8(torch.cat([embeddings, noise], 1)))
    for code in codes:
        torch.testing.assert_close(code, expected)
    assert len(codes) == 2


@pytest.mark.parametrize(
    ("image_size", "sides"), [(16, [4, 8, 8, None]), (32, [8, None, None, None])]
)
def test_layouts_of_the_code_are_drawn_on_maps_of_up_to_eight_pixels(image_size, sides):
    generator = new_generator("4,5,M,6,6,M,6", image_size=image_size, **EVERYTHING)
    found = [m.layout for m in generator.modules() if isinstance(m, ModulatedNorm)]
    assert [layout and layout[0].out_features for layout in found] == [
        side and 8 * side * side for side in sides
    ]


def test_modulation_without_batch_norm_is_refused():
    with pytest.raises(UserError) as error:
        new_generator(modulated=True)
    assert str(error.value) == (
        "generator.modulated: found true beside generator.batch_norm false; what is modulated is "
        "batch normalisation, expected both"
    )


def test_leaky_activations_keep_a_fifth_below_zero():
    generator = new_generator("4,M,6", activation="leaky_relu")
    kinds = [type(m) for m in generator.modules() if isinstance(m, nn.ReLU | nn.LeakyReLU)]
    assert kinds == [nn.LeakyReLU] * 4
    state, x = generator.state_dict(), draws_of()
    linear = x @ state["g_fc8.0.weight"].T + state["g_fc8.0.bias"]
    expected = torch.where(linear > 0, linear, 0.2 * linear)
    torch.testing.assert_close(generator.g_fc8(x), expected, rtol=1e-5, atol=1e-6)
    assert generator.mirror["g_conv2_1"](draws_of(1, 6 * 16).view(1, 6, 4, 4)).min() < 0


@pytest.mark.parametrize("seed", [0, 1])
def test_first_weights_of_modulated_generators_depend_on_the_seed_alone(seed):
    torch.manual_seed(seed)
    first = new_generator(**EVERYTHING).state_dict()
    other = new_generator(**EVERYTHING)
    for name, value in other.state_dict().items():
        assert torch.equal(value, first[name]), name
    other.reset_parameters(1)
    name = "mirror.g_conv2_1.1.modulation.weight"
    assert not torch.equal(other.state_dict()[name], first[name])


@pytest.mark.parametrize(
    "options",
    [{}, {"samples": 3, "batch_norm": True}, EVERYTHING | {"upsampling": "bilinear"}],
)
@pytest.mark.parametrize("whitened_dim", [None, 3])
def test_settings_make_a_generator_of_the_same_shape(options, whitened_dim):
    generator = new_generator("4x2,M,6", whitened_dim=whitened_dim, **options)
    found = generator_of(SDN, generator.settings)
    assert found.settings == generator.settings
    found.load_state_dict(generator.state_dict())
    inputs = (draws_of(), draws_of(width=2)) if generator.noise_dim else (draws_of(),)
    assert torch.equal(found.eval()(*inputs).images, generator.eval()(*inputs).images)


def test_settings_of_earlier_versions_are_the_papers():
    earlier = ("plan", "embedding_dim", "image_size", "fc_width", "samples", "batch_norm")
    generator = new_generator()
    settings = {name: generator.settings[name] for name in earlier}
    assert generator_of(SDN, settings).settings == generator.settings

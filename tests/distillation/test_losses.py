import numpy as np
import pytest
import torch

from sdn_ray.distillation.layer_weights import LayerWeights
from sdn_ray.distillation.losses import (
    LOSSES,
    image_loss,
    joint_loss,
    stage_one_loss,
    stage_two_loss,
    term_names,
)
from sdn_ray.models.generator import Generator, GeneratorOutput
from sdn_ray.models.plan import Plan
from sdn_ray.models.teacher import Teacher

PLAN = Plan.parse("4,M,5,6,M")
LAYERS = 3


def new_teacher(plan=PLAN):
    torch.manual_seed(0)
    return Teacher(plan)


def random_case(samples, seed=0):
    """Real images, a generator's output and weights, all random."""
    torch.manual_seed(seed)
    images = torch.randn(3, 3, 8, 8)
    features = [torch.rand(3, *shape) for shape in PLAN.feature_shapes(8)]
    output = GeneratorOutput(torch.randn(3, samples, 3, 8, 8), features)
    draws = np.random.default_rng(seed)
    weights = LayerWeights(tuple(draws.uniform(0.1, 2, LAYERS).tolist()), draws.uniform(0.1, 2))
    return images, output, weights


class ByHand:
    """Every distance of the equations as nested lists of Python floats, one example at a time."""

    def __init__(self, images, output, weights, teacher):
        drawn = output.images.detach().numpy().astype(np.float64)
        real = images.numpy().astype(np.float64)
        self.batch, self.samples = drawn.shape[:2]
        d_real = [f.numpy().astype(np.float64) for f in teacher(images)]
        g = [f.detach().numpy().astype(np.float64) for f in output.features]
        self.one = [
            [
                w * np.abs(d[b] - f[b]).sum()
                for w, d, f in zip(weights.layers, d_real, g, strict=True)
            ]
            for b in range(self.batch)
        ]
        self.two, self.image = [], []
        for b in range(self.batch):
            self.two.append([])
            self.image.append([])
            for p in range(self.samples):
                d_drawn = [f.detach()[0].numpy() for f in teacher(output.images[b, p][None])]
                self.two[b].append(
                    [
                        w * np.abs(d[b] - f).sum()
                        for w, d, f in zip(weights.layers, d_real, d_drawn, strict=True)
                    ]
                )
                self.image[b].append(weights.image * np.abs(real[b] - drawn[b, p]).sum())

    def mean(self, value):
        return sum(value(b) for b in range(self.batch)) / self.batch

    def equation_2(self):
        return self.mean(lambda b: min(self.image[b]))

    def equation_4(self):  # with one sample equation 1
        return self.mean(lambda b: sum(self.one[b]) + min(self.image[b]))

    def bracket(self, b, p):
        return sum(self.two[b][p]) + self.image[b][p]

    def equation_5(self):  # with one sample equation 3
        return self.mean(lambda b: min(self.bracket(b, p) for p in range(self.samples)))

    def joint(self):
        best = [min(range(self.samples), key=lambda p: self.bracket(b, p)) for b in range(3)]
        return self.mean(lambda b: sum(self.one[b]) + self.bracket(b, best[b]))


EQUATIONS = {
    "image": ByHand.equation_2,
    "stage_one": ByHand.equation_4,
    "stage_two": ByHand.equation_5,
    "joint": ByHand.joint,
}


@pytest.mark.parametrize("name", EQUATIONS)
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_equations_by_hand(name, samples, seed):
    teacher = new_teacher()
    images, output, weights = random_case(samples, seed)
    loss = LOSSES[name](images, output, weights, teacher)
    expected = EQUATIONS[name](ByHand(images, output, weights, teacher))
    assert loss.total.shape == ()
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", EQUATIONS)
@pytest.mark.parametrize("samples", [1, 3])
def test_terms_are_named_and_add_up(name, samples):
    images, output, weights = random_case(samples)
    output.images.requires_grad_()
    loss = LOSSES[name](images, output, weights, new_teacher())
    assert loss.total.requires_grad
    assert not loss.terms.requires_grad
    assert len(loss.terms) == len(term_names(name, PLAN.names))
    assert loss.terms.sum().item() == pytest.approx(loss.total.item(), rel=1e-6)


@pytest.mark.parametrize("name", EQUATIONS)
def test_each_term_by_hand(name):
    teacher = new_teacher()
    images, output, weights = random_case(1)
    hand = ByHand(images, output, weights, teacher)
    one = [hand.mean(lambda b, i=i: hand.one[b][i]) for i in range(LAYERS)]
    two = [hand.mean(lambda b, i=i: hand.two[b][0][i]) for i in range(LAYERS)]
    image = [hand.mean(lambda b: hand.image[b][0])]
    expected = {
        "image": image,
        "stage_one": one + image,
        "stage_two": two + image,
        "joint": one + two + image,
    }[name]
    found = LOSSES[name](images, output, weights, teacher).terms.tolist()
    assert found == pytest.approx(expected, rel=1e-5)


def test_term_names():
    assert term_names("image", ["conv1_1"]) == ("image",)
    assert term_names("stage_one", ["conv1_1", "conv2_1"]) == ("conv1_1", "conv2_1", "image")
    assert term_names("stage_two", ["conv1_1", "conv2_1"]) == ("conv1_1", "conv2_1", "image")
    assert term_names("joint", ["conv1_1"]) == ("stage_one/conv1_1", "stage_two/conv1_1", "image")


def constant_output(values, features):
    """Samples whose every pixel is one value: (batch, samples) values."""
    values = torch.tensor(values, dtype=torch.float32)
    return GeneratorOutput(values[..., None, None, None].repeat(1, 1, 3, 2, 2), features)


def test_equation_4_takes_the_minimum_of_each_example():
    """Real images are zero, 12 values each, so a constant sample v is at the distance 12 |v|."""
    teacher, images = new_teacher(Plan.parse("4")), torch.zeros(2, 3, 2, 2)
    real = teacher(images)[0]
    output = constant_output([[1, -5], [-7, 2]], [real + 0.5])
    loss = stage_one_loss(images, output, LayerWeights((2.0,), 1.0), teacher)
    # A minimum of the batch means would be 12 · min((1 + 7) / 2, (5 + 2) / 2) = 42.
    assert loss.terms.tolist() == pytest.approx([2 * 0.5 * 16, 12 * (1 + 2) / 2])
    alone = image_loss(images, output, LayerWeights((2.0,), 1.0), teacher)
    assert alone.terms.tolist() == pytest.approx([18])


def brightness_teacher():
    """φ(I) = the sum over 3×3 pixels of red, green and blue, times 10."""
    teacher = new_teacher(Plan.parse("1"))
    teacher.features[0].weight.fill_(10)
    teacher.features[0].bias.zero_()
    return teacher


def test_equation_5_takes_the_minimum_of_the_whole_bracket():
    """A negative sample has zero features, as the black real image: far in pixels, near in φ."""
    teacher, images = brightness_teacher(), torch.zeros(2, 3, 2, 2)
    output = constant_output([[0.5, -1], [-3, 2]], [torch.zeros(2, 1, 2, 2)])
    loss = stage_two_loss(images, output, LayerWeights((0.1,), 1.0), teacher)
    # φ of a constant v > 0 is 10 · 4 · 3 · v at each of the 4 pixels; λ = 0.1.
    brackets = [[0.1 * 480 * 0.5 + 6, 12], [36, 0.1 * 480 * 2 + 24]]
    assert brackets == [[30, 12], [36, 120]]
    assert loss.total.item() == pytest.approx((12 + 36) / 2)
    # The image term alone would choose the other sample of each example.
    assert loss.terms.tolist() == pytest.approx([0, 24])


def test_equation_5_chooses_for_each_example_and_not_for_the_batch():
    teacher, images = brightness_teacher(), torch.zeros(2, 3, 2, 2)
    output = constant_output([[-1, -4], [-6, -2]], [torch.zeros(2, 1, 2, 2)])
    loss = stage_two_loss(images, output, LayerWeights((1.0,), 1.0), teacher)
    assert loss.total.item() == pytest.approx(12 * (1 + 2) / 2)  # of the batch: 12 · (4 + 2) / 2


def test_equation_4_has_its_feature_term_outside_the_minimum():
    """Other generator features change the feature terms alone, whichever sample is nearest."""
    teacher = new_teacher()
    images, output, weights = random_case(3)
    other = GeneratorOutput(output.images, [feature + 100 for feature in output.features])
    first = stage_one_loss(images, output, weights, teacher).terms
    second = stage_one_loss(images, other, weights, teacher).terms
    assert first[-1] == second[-1]
    assert (second[:-1] > first[:-1] + 1).all()


def gradient_blocks(loss_function, samples):
    """Which (example, sample) of the images get a gradient, and the brackets' winners."""
    teacher = new_teacher()
    images, output, weights = random_case(samples)
    # Sample p of example b is close to the real image where p = b, so that the winners differ.
    for b in range(3):
        output.images[b, b] = images[b] + 0.1
    output.images.requires_grad_()
    for feature in output.features:
        feature.requires_grad_()
    loss_function(images, output, weights, teacher).total.backward()
    return output.images.grad.abs().sum((2, 3, 4)) > 0, output.features


@pytest.mark.parametrize("loss_function", [stage_one_loss, stage_two_loss, joint_loss, image_loss])
def test_only_the_winner_of_each_example_gets_a_gradient(loss_function):
    got, _ = gradient_blocks(loss_function, 3)
    assert got.tolist() == torch.eye(3).bool().tolist()


@pytest.mark.parametrize(
    ("loss_function", "direct"),
    [(image_loss, False), (stage_one_loss, True), (stage_two_loss, False), (joint_loss, True)],
)
def test_generator_features_are_compared_in_stage_one_alone(loss_function, direct):
    _, features = gradient_blocks(loss_function, 3)
    assert all((feature.grad is not None) == direct for feature in features)


def test_stage_one_gradient_of_a_feature_is_the_weighted_sign():
    teacher = new_teacher()
    images, output, weights = random_case(1)
    for feature in output.features:
        feature.requires_grad_()
    stage_one_loss(images, output, weights, teacher).total.backward()
    for weight, own, real in zip(weights.layers, output.features, teacher(images), strict=True):
        torch.testing.assert_close(own.grad, weight * torch.sign(own - real).detach() / 3)


def test_stage_two_reaches_the_pixels_through_the_teacher():
    teacher = new_teacher()
    images, output, weights = random_case(1)
    output.images.requires_grad_()
    stage_two_loss(images, output, LayerWeights(weights.layers, 0.0), teacher).total.backward()
    assert (output.images.grad != 0).float().mean() > 0.9
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_nan_in_a_losing_sample_is_not_hidden():
    images, output, weights = random_case(3)
    output.images[1, 2, 0, 0, 0] = float("nan")
    for loss in LOSSES.values():
        assert loss(images, output, weights, new_teacher()).total.isnan()


@pytest.mark.parametrize("name", EQUATIONS)
def test_bfloat16_autocast_is_close_and_sums_in_float32(name):
    teacher = new_teacher()
    generator = Generator(PLAN, embedding_dim=5, image_size=8, fc_width=7, samples=2)
    generator.reset_parameters(0)
    images, _, weights = random_case(2)
    embeddings = torch.randn(3, 5)
    exact = LOSSES[name](images, generator(embeddings), weights, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        half = LOSSES[name](images, generator(embeddings), weights, teacher.bfloat16())
    assert half.total.dtype == half.terms.dtype == torch.float32
    torch.testing.assert_close(half.terms, exact.terms, rtol=0.02, atol=0)
    half.total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in generator.parameters())

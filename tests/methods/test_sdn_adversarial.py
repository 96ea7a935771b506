"""Stage three in the loop: what its steps do, and that a run goes on."""

import copy

import numpy as np
import pytest
import torch

from sdn_ray.data.batches import EncodedImages, EpochBatches
from sdn_ray.distillation.layer_weights import LayerWeights
from sdn_ray.distillation.schemes import ADVERSARIAL, STAGE_THREE, Stage, scheme_stages
from sdn_ray.methods import sdn_adversarial
from sdn_ray.methods.augmentation import DRAWS, augmented
from sdn_ray.methods.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from sdn_ray.methods.loop import Hooks, LoopOptions, Training, distill
from sdn_ray.methods.method import Noise
from sdn_ray.methods.sdn import SDN
from sdn_ray.methods.sdn_adversarial import Adversary
from sdn_ray.models.feature_heads import FeatureHeads
from sdn_ray.models.generator import Generator
from sdn_ray.models.plan import Plan
from sdn_ray.models.teacher import Teacher

PLAN = Plan.parse("4,M,6,M")
EMBEDDING, SIZE, NOISE, BATCH, STEPS = 5, 8, 3, 4, 3
EPOCHS = (1, 1, 2)
CPU = torch.device("cpu")


def new_data():
    """Images of four classes, each with a caption of its own."""
    draws = np.random.default_rng(0)
    return EncodedImages(
        images=draws.integers(0, 256, (20, SIZE, SIZE, 3), dtype=np.uint8),
        embeddings=draws.normal(size=(20, EMBEDDING)).astype(np.float32),
        caption_rows=draws.permutation(20)[:, None],
        caption_counts=np.full(20, 1),
        indices=draws.permutation(20)[:14],
        classes=np.arange(20) % 4,
    )


def new_batches(data=None):
    return EpochBatches(data or new_data(), batch_size=BATCH, seed=1, flips=True)


def new_method(seed=0, epochs=EPOCHS, generator=None, decay=0.0, **adversary):
    options = {"batch_norm": True, "modulated": True, "noise_dim": NOISE} | (generator or {})
    drawing = Generator(PLAN, embedding_dim=EMBEDDING, image_size=SIZE, fc_width=7, **options)
    drawing.reset_parameters(seed)
    torch.manual_seed(0)
    teacher = Teacher(PLAN)
    code_dim = options.get("whitened_dim") or EMBEDDING
    heads = FeatureHeads(PLAN, SIZE, code_dim, levels=PLAN.names, most=6)
    heads.reset_parameters(seed + 1)
    third = Stage(STAGE_THREE, STAGE_THREE, epochs[2], 2e-3, decay_fraction=decay)
    stages = scheme_stages(ADVERSARIAL, epochs=epochs[:2], learning_rates=(1e-3, 1e-3), third=third)
    weights = LayerWeights((0.01, 0.02), 0.01)
    options = {"augment": False} | adversary
    return SDN(drawing, teacher, stages, weights, adversary=Adversary(heads, **options), seed=seed)


def first_batch(method):
    return next(new_batches().epoch(0, rows=method.stages[-1].rows))


def taken(method, noise=7, stage=-1):
    """The terms of one step, by name."""
    stage = method.stages[stage]
    step = method.steps(stage, method.begin(stage))
    terms = step(first_batch(method), Noise(1, noise, CPU))
    return dict(zip(method.terms(stage), terms.tolist(), strict=True))


def snapshot(network):
    return {name: value.clone() for name, value in network.named_parameters()}


def moved(network, before):
    return [n for n, value in network.named_parameters() if not torch.equal(value, before[n])]


def networks_of(method):
    return {"generator": method.generator, "heads": method.adversary.heads}


@pytest.mark.parametrize(("still", "moving"), [("generator", "heads"), ("heads", "generator")])
@pytest.mark.parametrize("augment", [False, True])
def test_each_update_moves_its_own_network_alone(still, moving, augment):
    method = new_method(augment=augment)
    networks = networks_of(method)
    optimizers = method.begin(method.stages[-1])
    assert optimizers.keys() == networks.keys()
    for group in optimizers[still].param_groups:
        group["lr"] = 0.0
    before = {name: snapshot(network) for name, network in networks.items()}
    method.steps(method.stages[-1], optimizers)(first_batch(method), Noise(1, 0, CPU))
    assert moved(networks[still], before[still]) == []
    # Not all: the last biases of heads that still think nothing of either are asked both ways.
    assert len(moved(networks[moving], before[moving])) >= 12
    assert all(parameter.requires_grad for _, parameter in method.trained_parameters())


def test_the_teacher_stands_still():
    method = new_method()
    before = {name: value.clone() for name, value in method.teacher.state_dict().items()}
    taken(method)
    assert not method.teacher.training
    for name, value in method.teacher.named_parameters():
        assert torch.equal(value, before[name]), name
        assert value.grad is None


def normalised(images):
    mean, std = (np.array(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    return torch.from_numpy((images.numpy() / 255 - mean) / std).float()


def settled(heads, features, codes):
    """Heads with the spectral norms that their next step has: one more power iteration."""
    heads.train()(features, codes)
    return heads.eval()


def hinge(logits, sign):
    return np.maximum(0, 1 + sign * logits.detach().double().numpy()).mean()


@pytest.mark.parametrize("whitened_dim", [None, 2])
def test_the_terms_of_a_step_worked_out_from_copies_of_the_networks(whitened_dim):
    """The heads are judged as they were, the generator against the new ones."""
    method = new_method(wrong_weight=0.2, generator={"whitened_dim": whitened_dim})
    if whitened_dim:
        random = torch.Generator().manual_seed(3)
        shapes = (EMBEDDING,), (EMBEDDING, whitened_dim)
        method.generator.whitening.set(*(torch.randn(s, generator=random) for s in shapes))
    old, generator = copy.deepcopy(method.adversary.heads), copy.deepcopy(method.generator)
    found = taken(method)

    batch, teacher = first_batch(method), method.teacher
    images = generator.train()(batch.embeddings, Noise(1, 7, CPU)(BATCH, NOISE)).images[:, 0]
    real, fake = teacher(normalised(batch.images)), teacher(images)
    right, wrong = (
        generator.whitening(one)[None] for one in (batch.embeddings, batch.wrong_embeddings)
    )
    settled(old, real, right)
    logits = {"real": old(real, right), "wrong": old(real, wrong), "fake": old(fake, right)}
    expected = {
        "heads_real": hinge(logits["real"], -1),
        "heads_wrong": 0.2 * hinge(logits["wrong"], 1),
        "heads_fake": 0.8 * hinge(logits["fake"], 1),
    }
    new = copy.deepcopy(method.adversary.heads).eval()  # as its last pass left it
    wish = -new(fake, right).mean()
    expected |= {"generator": wish.item()}
    expected |= {f"score_{name}": value.mean().item() for name, value in logits.items()}
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert list(found)[:4] == ["heads_real", "heads_wrong", "heads_fake", "generator"]
    assert method.losses(method.stages[-1]) == 4
    refused = 0.2 * (1 + logits["wrong"]).relu().mean() + 0.8 * (1 + logits["fake"]).relu().mean()
    judged = (1 - logits["real"]).relu().mean() + refused
    losses = ((method.generator, generator, wish), (method.adversary.heads, old, judged))
    for own, copied, loss in losses:
        gradients = torch.autograd.grad(loss, list(copied.parameters()), retain_graph=True)
        for parameter, gradient in zip(own.parameters(), gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6)
    assert -old(fake, right).mean().item() != pytest.approx(found["generator"], rel=1e-3)


def test_real_and_drawn_pictures_are_augmented_by_groups_with_other_draws(monkeypatch):
    method, given, seen = new_method(augment=True), [], []
    monkeypatch.setattr(sdn_adversarial, "GROUP", 2)

    def note(images, normals):
        given.append((images, normals))
        return augmented(images, normals)

    monkeypatch.setattr(sdn_adversarial, "augmented", note)
    method.teacher.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    taken(method)
    (real, first), (drawn, second) = given
    torch.testing.assert_close(real, normalised(first_batch(method).images))
    assert drawn.requires_grad
    assert first.shape == second.shape == (BATCH, DRAWS)
    for draws in (first, second):  # the same for two that are compared
        assert torch.equal(draws[::2], draws[1::2])
    assert len(torch.cat([first[::2], second[::2]]).unique()) == BATCH * DRAWS
    assert len(seen) == 2
    for images, (before, draws) in zip(seen, given, strict=True):
        assert torch.equal(images, augmented(before, draws))


def test_a_step_is_settled_by_its_noise():
    assert taken(new_method(augment=True)) == taken(new_method(augment=True))
    for stage in range(3):
        one, other = (taken(new_method(), noise, stage) for noise in (7, 8))
        assert one.keys() == other.keys()
        assert one != pytest.approx(other, rel=1e-4)


def new_training(average_decay=0.8, **options):
    options = {"augment": True, "decay": 0.5} | options
    return Training(
        new_method(**options), LoopOptions(seed=1, log_steps=1, average_decay=average_decay)
    )


def test_the_heads_learn_at_a_rate_of_their_own():
    rates = []

    def look(report):
        rates.append([run.optimizers[n].param_groups[0]["lr"] for n in ("generator", "heads")])

    run = new_training(epochs=(0, 0, 2), rate_factor=3.0)
    distill(run, new_batches(), Hooks(on_progress=look))
    expected = [2e-3] * 4 + [2e-3 * 2 / 3, 2e-3 / 3]  # of six steps the last three fall
    np.testing.assert_allclose(rates, [[rate, 3 * rate] for rate in expected])


def test_both_adams():
    method = new_method()
    for name, optimizer in method.begin(method.stages[-1]).items():
        (group,) = optimizer.param_groups
        assert isinstance(optimizer, torch.optim.Adam)
        assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.0, 0.99), 1e-8, 0)
        assert len(group["params"]) == len(list(networks_of(method)[name].parameters()))


def tensors_of(state, name=""):
    """All tensors and numbers of nested states, by their place."""
    if isinstance(state, dict | list | tuple):
        pairs = state.items() if isinstance(state, dict) else enumerate(state)
        return {k: v for key, one in pairs for k, v in tensors_of(one, f"{name}.{key}").items()}
    return {name: state.clone() if isinstance(state, torch.Tensor) else state}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        same = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
        assert same(value, expected[name]), name


class Killed(Exception):
    """Stands for a kill."""


class Record(Hooks):
    """Keeps checkpoints, and the state at the end of the last epoch."""

    def __init__(self, folder, stop=None, die=None):
        self.folder, self.stop, self.die, self.epochs = folder, stop, die, []
        super().__init__(self._progress, self._epoch, self._checkpoint)

    def _progress(self, report):
        if report.steps_done == self.die:
            raise Killed
        return report.steps_done == self.stop

    def _epoch(self, report, run):
        self.epochs.append(report)
        self.state = tensors_of(run.state_dict())

    def _checkpoint(self, run, stage_end):
        save_checkpoint(self.folder, run.state_dict(), run.steps_done(STEPS), stage_end)


@pytest.fixture(scope="module", params=[None, 0.8], ids=["no average", "average"])
def whole(request, tmp_path_factory):
    """A run that nothing stopped, and how its weights are averaged."""
    hooks = Record(tmp_path_factory.mktemp("whole"))
    assert distill(new_training(request.param), new_batches(), hooks)
    kinds = {name.split(".")[1] for name in hooks.state} & {"average"}
    assert kinds == ({"average"} if request.param else set())
    return hooks, request.param


@pytest.mark.parametrize(
    ("end", "kept"),
    [
        ({"stop": 6}, 6),
        ({"die": 7}, 6),  # between stages two and three
        ({"stop": 7}, 7),
        ({"stop": 8}, 8),
        ({"stop": 9}, 9),
        ({"die": 11}, 9),
    ],
    ids=str,
)
def test_a_run_goes_on_bit_for_bit(tmp_path, whole, end, kept):
    """Of twelve steps 7 to 12 are those of stage three."""
    expected, average_decay = whole
    before, after = Record(tmp_path, **end), Record(tmp_path)
    try:
        assert distill(new_training(average_decay), new_batches(), before) is False
    except Killed:
        assert "die" in end
    torch.manual_seed(5)
    run = new_training(average_decay, seed=9)  # all weights must come from the checkpoint
    run.method.seed = 0
    run.load_state_dict(load_checkpoint(latest_checkpoint(tmp_path)))
    assert run.steps_done(STEPS) == kept
    assert distill(run, new_batches(), after)
    assert_same(after.state, expected.state)
    terms = [report.terms for report in (*before.epochs, *after.epochs)]
    assert terms == [report.terms for report in expected.epochs]


def test_the_loss_of_an_epoch_is_that_of_heads_and_generator(whole):
    reports = [report for report in whole[0].epochs if report.stage.name == STAGE_THREE]
    assert len(reports) == 2
    for report in reports:
        assert report.stage.adversarial
        assert report.loss == pytest.approx(sum(list(report.terms.values())[:4]))
        assert list(report.terms)[4:] == ["score_real", "score_wrong", "score_fake"]


@pytest.mark.parametrize("stage", [0, 1])
def test_stages_one_and_two_draw_with_the_noise_of_the_step(stage):
    method = new_method()
    generator, batch = copy.deepcopy(method.generator).train(), first_batch(method)
    images = generator(batch.embeddings, Noise(1, 7, CPU)(BATCH, NOISE)).images[:, 0]
    distance = (images - normalised(batch.images)).abs().sum().item() / BATCH
    assert taken(method, 7, stage)["image"] == pytest.approx(0.01 * distance, rel=1e-5)


@pytest.mark.parametrize(
    "options", [{"noise_dim": 0}, {"noise_dim": 0, "batch_norm": False, "modulated": False}]
)
def test_without_noise_it_trains_all_the_same(options):
    run, seen = new_training(epochs=(1, 1, 1), generator=options), []
    before = {name: snapshot(one) for name, one in networks_of(run.method).items()}
    assert distill(run, new_batches(), Hooks(on_epoch=lambda report, _: seen.append(report)))
    assert [report.stage.name for report in seen] == ["stage_one", "stage_two", "stage_three"]
    assert all(np.isfinite(list(report.terms.values())).all() for report in seen)
    for name, network in networks_of(run.method).items():
        assert len(moved(network, before[name])) >= 10


def test_the_heads_are_kept_where_there_are_any():
    method = new_method()
    assert list(method.training_state()) == ["generator", "samples", "layer_weights", "heads"]
    names = [name for name, _ in method.trained_parameters()]
    assert len(names) == len(set(names))
    assert {name.split(".")[0] for name in names} > {"g_fc8", "heads"}
    plain = SDN(method.generator, method.teacher, method.stages[:2], method.weights)
    assert list(plain.training_state()) == ["generator", "samples", "layer_weights"]

"""GAN-INT-CLS in the loop: what its steps do, and that a run goes on."""

import copy

import numpy as np
import pytest
import torch

from sdn_ray.data.batches import EncodedImages, EpochBatches
from sdn_ray.methods import method as module
from sdn_ray.methods.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from sdn_ray.methods.gan_int_cls import Adversarial, GanIntCls
from sdn_ray.methods.loop import Hooks, LoopOptions, Training, distill
from sdn_ray.methods.method import Noise
from sdn_ray.models.gan_int_cls import GanIntClsDiscriminator, GanIntClsGenerator

EMBEDDING, SIZE, NOISE, BATCH, STEPS = 5, 16, 3, 6, 2
CPU = torch.device("cpu")


def new_data():
    draws = np.random.default_rng(0)
    return EncodedImages(
        images=draws.integers(0, 256, (14, SIZE, SIZE, 3), dtype=np.uint8),
        embeddings=draws.normal(size=(40, EMBEDDING)).astype(np.float32),
        caption_rows=draws.integers(0, 40, (14, 3)),
        caption_counts=np.full(14, 3),
        indices=np.arange(14),
        classes=np.arange(14) % 4,
    )


def new_batches():
    return EpochBatches(new_data(), batch_size=BATCH, seed=1, flips=True)


def new_method(seed=0, **stage):
    generator = GanIntClsGenerator(EMBEDDING, SIZE, width=4, text_width=4, noise_dim=NOISE)
    discriminator = GanIntClsDiscriminator(EMBEDDING, SIZE, width=4, text_width=4)
    generator.reset_parameters(seed)
    discriminator.reset_parameters(seed + 1)
    return GanIntCls(generator, discriminator, Adversarial(**{"epochs": 3} | stage), seed=seed)


def new_training(average_decay=0.8, **stage):
    return Training(
        new_method(**stage), LoopOptions(seed=1, log_steps=1, average_decay=average_decay)
    )


def first_batch(method):
    return next(new_batches().epoch(0, rows=method.stage.rows))


def snapshot(network):
    return {name: value.clone() for name, value in network.named_parameters()}


def moved(network, before):
    return [n for n, value in network.named_parameters() if not torch.equal(value, before[n])]


@pytest.mark.parametrize(
    ("still", "moving"), [("generator", "discriminator"), ("discriminator", "generator")]
)
def test_each_update_moves_its_own_network_alone(still, moving):
    method = new_method()
    optimizers = method.begin(method.stage)
    for group in optimizers[still].param_groups:
        group["lr"] = 0.0
    before = {name: snapshot(getattr(method, name)) for name in (still, moving)}
    method.steps(method.stage, optimizers)(first_batch(method), Noise(1, 0, CPU))
    assert moved(getattr(method, still), before[still]) == []
    assert len(moved(getattr(method, moving), before[moving])) > 10
    assert all(parameter.requires_grad for _, parameter in method.trained_parameters())


def cross_entropy(logits, label):
    logits = logits.detach().double().numpy()
    return np.mean(np.logaddexp(0, -logits) * label + np.logaddexp(0, logits) * (1 - label))


def sigmoid(logits):
    return float((1 / (1 + np.exp(-logits.detach().double().numpy()))).mean())


@pytest.mark.parametrize("cls", [True, False])
def test_the_terms_of_a_step_are_those_of_the_page(cls):
    """Worked out from copies of the networks: D is judged as it was, G against the new D."""
    method = new_method(cls=cls, real_label=0.9)
    optimizers = method.begin(method.stage)
    batch, noise = first_batch(method), Noise(1, 7, CPU)
    old, generator = copy.deepcopy(method.discriminator), copy.deepcopy(method.generator)
    terms = method.steps(method.stage, optimizers)(batch, Noise(1, 7, CPU))
    found = dict(zip(method.terms(method.stage), terms.tolist(), strict=True))

    old.train(), generator.train()
    t = batch.embeddings
    fake = generator(t, noise(BATCH, NOISE))
    scale = lambda images: images.float() / 127.5 - 1  # noqa: E731
    real = old(scale(batch.images), t)
    expected = {"d_real": cross_entropy(real, 0.9), "probability_real": sigmoid(real)}
    if cls:
        wrong = old(scale(batch.wrong), t)
        expected |= {"d_wrong": cross_entropy(wrong, 0) / 2, "probability_wrong": sigmoid(wrong)}
    else:
        assert batch.wrong is None
    drawn = old(fake, t)
    weight = 0.5 if cls else 1
    expected |= {"d_fake": weight * cross_entropy(drawn, 0), "probability_fake": sigmoid(drawn)}
    between = (t[: BATCH // 2] + t[BATCH // 2 :]) / 2
    captions = torch.cat([t, between])
    new = copy.deepcopy(method.discriminator).train()
    draws = torch.cat([noise(BATCH, NOISE), noise(BATCH // 2, NOISE)])
    fresh = generator(captions, draws)
    expected["g"] = cross_entropy(new(fresh, captions), 1)
    assert found == pytest.approx(expected, rel=1e-4)
    assert method.losses(method.stage) == len(found) - len([n for n in found if "prob" in n])


def test_without_int_the_generator_sees_the_captions_alone():
    seen = []
    method = new_method(interpolate=False)
    method.generator.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    method.steps(method.stage, method.begin(method.stage))(first_batch(method), Noise(1, 0, CPU))
    assert seen == [BATCH, BATCH]


def test_the_rate_is_halved_every_so_many_epochs():
    stage = Adversarial(epochs=7, learning_rate=8.0, halving_epochs=2)
    rates = [stage.rate(step, 7 * 3) for step in range(21)]
    assert rates == [8.0] * 6 + [4.0] * 6 + [2.0] * 6 + [1.0] * 3


def test_both_adams_are_the_authors():
    method = new_method()
    for name, optimizer in method.begin(method.stage).items():
        (group,) = optimizer.param_groups
        assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.5, 0.999), 1e-8, 0)
        assert len(group["params"]) == len(list(getattr(method, name).parameters()))


def state_of(run):
    average = run.result.state_dict() if run.average else {}
    states = {"average": average, **run.method.training_state()}
    return {f"{n}.{key}": v.clone() for n, state in states.items() for key, v in state.items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("average_decay", [None, 0.8])
@pytest.mark.parametrize("stop", [1, 2, 5])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, stop, average_decay):
    whole, epochs = new_training(average_decay), []
    assert distill(
        whole, new_batches(), Hooks(on_epoch=lambda report, _: epochs.append(report.terms))
    )

    def keep(run, stage_end):
        save_checkpoint(tmp_path, run.state_dict(), run.steps_done(STEPS), stage_end)

    before, again = new_training(average_decay), []
    hooks = Hooks(
        on_progress=lambda report: report.steps_done == stop,
        on_epoch=lambda report, _: again.append(report.terms),
        on_checkpoint=keep,
    )
    assert distill(before, new_batches(), hooks) is False
    torch.manual_seed(5)
    run = Training(new_method(seed=9), before.options)
    run.method.seed = 0
    run.load_state_dict(load_checkpoint(latest_checkpoint(tmp_path)))
    assert run.steps_done(STEPS) == stop
    assert distill(run, new_batches(), Hooks(on_epoch=lambda report, _: again.append(report.terms)))
    assert_same(state_of(run), state_of(whole))
    assert again == epochs


def test_the_loss_of_an_epoch_is_that_of_both_networks():
    run, seen = new_training(), []
    distill(run, new_batches(), Hooks(on_epoch=lambda report, _: seen.append(report)))
    assert len(seen) == 3
    for report in seen:
        parts = [report.terms[name] for name in ("d_real", "d_wrong", "d_fake", "g")]
        assert report.loss == pytest.approx(sum(parts))
        assert list(report.terms)[4:] == [
            "probability_real",
            "probability_wrong",
            "probability_fake",
        ]
        assert all(0 < report.terms[name] < 1 for name in list(report.terms)[4:])


def test_noise_is_that_of_one_worker_in_shares(monkeypatch):
    whole = Noise(4, 11, CPU)
    first, second = whole(6, 3), whole(4, 2)
    assert torch.equal(Noise(4, 11, CPU)(6, 3), first)
    assert not torch.equal(Noise(4, 12, CPU)(6, 3), first)
    assert not torch.equal(Noise(5, 11, CPU)(6, 3), first)
    monkeypatch.setattr(module, "world_size", lambda: 2)
    shares = []
    for own in (0, 1):
        monkeypatch.setattr(module, "rank", lambda own=own: own)
        noise = Noise(4, 11, CPU)
        shares.append((noise(3, 3), noise(2, 2)))
        assert torch.equal(Noise(4, 11, CPU, shared=True)(6, 3), first)
    assert torch.equal(torch.cat([share[0] for share in shares]), first)
    assert torch.equal(torch.cat([share[1] for share in shares]), second)

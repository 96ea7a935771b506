"""What the tests of the GANs in the loop share: images, what a step moves, runs that go on.

The losses are worked out with NumPy here.
"""

import numpy as np
import torch
from torch import Tensor

from sdn_ray.data.batches import EncodedImages, EpochBatches
from sdn_ray.data.scaled import smaller_images
from sdn_ray.methods.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from sdn_ray.methods.loop import Hooks, Training, distill
from sdn_ray.methods.method import Noise

CPU = torch.device("cpu")
BATCH, STEPS = 6, 2  # images of a step, steps of an epoch
STAGE_END = "stage end"  # where a run stops


def new_batches(size, embedding_dim, captions, side=None, **more):
    """Of 14 images of four classes, smaller ones too, each with so many of 40 captions."""
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (14, size, size, 3), dtype=np.uint8)
    data = EncodedImages(
        images=images,
        embeddings=draws.normal(size=(40, embedding_dim)).astype(np.float32),
        caption_rows=draws.integers(0, 40, (14, captions)),
        caption_counts=np.full(14, captions),
        indices=np.arange(14),
        classes=np.arange(14) % 4,
        smaller={side: smaller_images(images, side)} if side else {},
        **more,
    )
    batches = EpochBatches(data, batch_size=BATCH, seed=1, flips=True)
    assert len(batches) == STEPS
    return batches


def random_parts(images, parts):
    """(2, images, parts, 3) as they are and mirrored; two in three can be seen."""
    draws = np.random.default_rng(3)
    plain = draws.random((images, parts, 3))
    plain[..., 2] = plain[..., 2] < 2 / 3
    mirrored = plain * [-1, 1, 1] + [1, 0, 0]
    return np.stack([one * one[..., 2:] for one in (plain, mirrored)]).astype(np.float32)


def random_boxes(images):
    """(2, images, 4) as they are and mirrored."""
    draws = np.random.default_rng(3)
    sides = draws.uniform(0.2, 0.8, (images, 2))
    plain = np.concatenate([draws.uniform(0, 1 - sides), sides], 1)
    mirrored = plain.copy()
    mirrored[:, 0] = 1 - plain[:, 0] - plain[:, 2]
    return np.stack([plain, mirrored]).astype(np.float32)


def snapshot(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def moved(network, before):
    return {n for n, value in network.state_dict().items() if not torch.equal(value, before[n])}


def weights(names):
    """Without the running statistics, which move in whatever is passed through."""
    return {name for name in names if "running" not in name and "tracked" not in name}


def moved_by_a_step(method, stage, batch, networks, still):
    """What one step moves of each network, by its name, while an optimiser's rate is zero."""
    optimizers = method.begin(stage)
    for group in optimizers[still].param_groups:
        group["lr"] = 0.0
    before = {name: snapshot(network) for name, network in networks.items()}
    method.steps(stage, optimizers)(batch, Noise(1, 0, CPU))
    return {name: moved(network, before[name]) for name, network in networks.items()}


def step_terms(method, stage, optimizers, batch):
    """The terms of one step, by name."""
    terms = method.steps(stage, optimizers)(batch, Noise(1, 7, CPU))
    return dict(zip(method.terms(stage), terms.tolist(), strict=True))


def cross_entropy(logits, label):
    logits = logits.detach().double().numpy()
    return np.mean(np.logaddexp(0, -logits) * label + np.logaddexp(0, logits) * (1 - label))


def sigmoid(logits):
    return float((1 / (1 + np.exp(-logits.detach().double().numpy()))).mean())


def scaled(images):
    """Bytes to [−1, 1]."""
    return images.float() / 127.5 - 1


def assert_same_gradients(found, expected):
    """Of two networks of one shape."""
    pairs = zip(found.named_parameters(), expected.parameters(), strict=True)
    for (name, one), other in pairs:
        torch.testing.assert_close(
            one.grad,
            other.grad,
            rtol=1e-3,
            atol=1e-6,
            msg=lambda said, name=name: f"{name}: {said}",
        )


def assert_adams_of_the_authors(optimizers, networks):
    """Each of one network; both by their names."""
    assert optimizers.keys() == networks.keys()
    for name, optimizer in optimizers.items():
        (group,) = optimizer.param_groups
        assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.5, 0.999), 1e-8, 0)
        assert group["params"] == list(networks[name].parameters())


def state_of(run):
    """All weights and statistics, those of the average and those of the optimisers, too."""
    average = run.result.state_dict() if run.average else {}
    optimizers = {name: one.state_dict() for name, one in run.optimizers.items()}
    state = {**run.method.training_state(), "average": average, "optimizers": optimizers}
    return dict(_leaves(state))


def _leaves(state, name=""):
    """What nested dictionaries and lists hold, by where it is."""
    if isinstance(state, dict | list):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from _leaves(value, f"{name}.{key}")
    else:
        yield name, state.clone() if isinstance(state, Tensor) else state


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        if isinstance(value, Tensor):
            assert torch.equal(value, expected[name]), name
        else:
            assert value == expected[name], name


class Killed(Exception):
    """The end of a process."""


def assert_goes_on_bit_for_bit(folder, batches, new_run, stop):
    """A run that stops and goes on from its checkpoint is one that did not.

    Args:
        folder: for checkpoints.
        batches: of every epoch.
        new_run: by the seed of its first weights, a `Training`.
        stop: after how many steps; `STAGE_END`: killed when its first stage has just ended.
    """

    def tell(epochs):
        return lambda report, run: epochs.append((report.terms, state_of(run)))

    whole, expected = new_run(0), []
    assert distill(whole, batches, Hooks(on_epoch=tell(expected)))

    def keep(run, stage_end):
        save_checkpoint(folder, run.state_dict(), run.steps_done(STEPS), stage_end)
        if stage_end and stop == STAGE_END:
            raise Killed

    before, found = new_run(0), []
    hooks = Hooks(
        on_progress=lambda report: report.steps_done == stop,
        on_epoch=tell(found),
        on_checkpoint=keep,
    )
    try:
        assert distill(before, batches, hooks) is False
    except Killed:
        stop = before.method.stages[0].epochs * STEPS
    torch.manual_seed(5)
    run: Training = new_run(9)
    run.load_state_dict(load_checkpoint(latest_checkpoint(folder)))
    assert run.steps_done(STEPS) == stop
    assert_same(state_of(run), state_of(before))
    assert distill(run, batches, Hooks(on_epoch=tell(found)))
    assert_same(state_of(run), state_of(whole))
    assert [terms for terms, _ in found] == [terms for terms, _ in expected]
    for (_, own), (_, other) in zip(found, expected, strict=True):
        assert_same(own, other)

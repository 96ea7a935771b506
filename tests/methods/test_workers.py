"""What several workers change about a generator, and that stage three is the same on two."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sdn_ray.data.batches import EncodedImages, EpochBatches
from sdn_ray.distillation.layer_weights import LayerWeights, layer_weights
from sdn_ray.distillation.schemes import STAGE_THREE, Stage
from sdn_ray.methods import method, sdn
from sdn_ray.methods.method import Noise
from sdn_ray.methods.sdn import SDN, Computing
from sdn_ray.methods.sdn_adversarial import Adversary
from sdn_ray.models.feature_heads import FeatureHeads
from sdn_ray.models.generator import Generator
from sdn_ray.models.plan import Plan
from sdn_ray.models.teacher import Teacher

PLAN = Plan.parse("4,M,6")


def run(monkeypatch, world_size, batch_norm):
    monkeypatch.setattr(sdn, "world_size", lambda: world_size)
    generator = Generator(PLAN, embedding_dim=3, image_size=8, fc_width=5, batch_norm=batch_norm)
    stage = Stage("stage_two", "stage_two", epochs=1, learning_rate=1e-3)
    weights = layer_weights("mean", {}, PLAN, 8)
    return SDN(generator, Teacher(PLAN), (stage,), weights)


def test_who_is_told_that_workers_normalise_apart(monkeypatch):
    assert run(monkeypatch, 2, True).normalises_apart
    assert not run(monkeypatch, 1, True).normalises_apart
    assert not run(monkeypatch, 2, False).normalises_apart


def test_on_gpus_batches_are_normalised_as_a_whole(monkeypatch):
    """The same weights under the same names, in layers that only a GPU can run."""
    monkeypatch.setattr(Generator, "to", lambda self, *args, **kwargs: self)
    monkeypatch.setattr(Teacher, "to", lambda self, *args, **kwargs: self)
    generator = Generator(PLAN, embedding_dim=3, image_size=8, fc_width=5, batch_norm=True)
    names = list(generator.state_dict())
    monkeypatch.setattr(sdn, "world_size", lambda: 2)
    weights, computing = layer_weights("mean", {}, PLAN, 8), Computing(device="cuda")
    spread = SDN(generator, Teacher(PLAN), (), weights, computing=computing).generator
    assert list(spread.state_dict()) == names
    norms = [m for m in spread.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert isinstance(spread, Generator)


def adversarial_method():
    generator = Generator(PLAN, embedding_dim=5, image_size=8, fc_width=7, noise_dim=3)
    generator.reset_parameters(0)
    heads = FeatureHeads(PLAN, 8, 5, levels=PLAN.names, width=4, most=6)
    heads.reset_parameters(1)
    teacher = Teacher(PLAN)
    random = torch.Generator().manual_seed(2)
    for parameter in teacher.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=random)
    stage = Stage(STAGE_THREE, STAGE_THREE, epochs=1, learning_rate=1e-3)
    adversary = Adversary(heads, wrong_weight=0.3)
    return SDN(generator, teacher, (stage,), LayerWeights((), 0), adversary=adversary)


def three_steps(rank=0, workers=1):
    """Terms of the steps of one worker, and what its networks become."""
    draws = np.random.default_rng(0)
    data = EncodedImages(
        images=draws.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8),
        embeddings=draws.normal(size=(24, 5)).astype(np.float32),
        caption_rows=np.arange(24)[:, None],
        caption_counts=np.full(24, 1),
        indices=np.arange(24),
        classes=np.arange(24) % 4,
    )
    batches = EpochBatches(data, batch_size=8, seed=1, flips=True, rank=rank, world_size=workers)
    own = adversarial_method()
    (stage,) = own.stages
    step, terms = own.steps(stage, own.begin(stage)), []
    for number, batch in enumerate(batches.epoch(0, rows=stage.rows)):
        assert len(batch.images) == 8 // workers
        terms.append(step(batch, Noise(1, number, own.device)))
    return torch.stack(terms), own.training_state()


def two_workers(monkeypatch):
    """What two of them do: threads of this process, since another one takes seconds to start."""
    here, store = threading.local(), dist.HashStore()

    def wrapped(network):
        return DistributedDataParallel(network, process_group=here.group)

    monkeypatch.setattr(method, "world_size", lambda: 2)
    monkeypatch.setattr(method, "rank", lambda: here.rank)
    monkeypatch.setattr(method, "DistributedDataParallel", wrapped)

    def worker(rank):
        here.rank, here.group = rank, dist.ProcessGroup(store, rank, 2)
        gloo = dist.ProcessGroupGloo(store, rank, 2, timedelta(seconds=30))
        here.group._register_backend(torch.device("cpu"), dist.ProcessGroup.BackendType.GLOO, gloo)
        return three_steps(rank, 2)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(worker, range(2)))


def test_two_workers_take_the_steps_of_stage_three_that_one_takes(monkeypatch):
    expected, networks = three_steps()
    assert expected.shape == (3, 7)
    with monkeypatch.context() as patched:
        (first, own), (second, other) = two_workers(patched)
    torch.testing.assert_close((first + second) / 2, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(first, second)
    for name in ("generator", "heads"):
        for key, value in own[name].items():
            assert torch.equal(value, other[name][key]), key
            # A weight whose gradient is nearly zero may step either way.
            far = (value - networks[name][key]).abs() > 1e-5
            assert far.float().mean() < 0.01, key

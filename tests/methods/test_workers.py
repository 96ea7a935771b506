"""That several workers take the steps of one, batch normalisation and all."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sdn_ray.data.batches import EncodedImages, EpochBatches
from sdn_ray.data.scaled import smaller_images
from sdn_ray.distillation.layer_weights import LayerWeights
from sdn_ray.distillation.schemes import STAGE_THREE, Stage
from sdn_ray.methods import gan_int_cls, method, workers
from sdn_ray.methods.averaging import WeightAverage
from sdn_ray.methods.gan_int_cls import Adversarial, GanIntCls
from sdn_ray.methods.gawwn import IMAGES, KEYPOINTS, Gawwn, GawwnStage
from sdn_ray.methods.method import Noise
from sdn_ray.methods.sdn import SDN
from sdn_ray.methods.sdn_adversarial import Adversary
from sdn_ray.methods.stackgan import STAGE_ONE, STAGE_TWO, StackGan, StackStage
from sdn_ray.methods.workers import WholeBatchNorm, gathered, with_whole_batches
from sdn_ray.models.feature_heads import FeatureHeads
from sdn_ray.models.gan_int_cls import GanIntClsDiscriminator, GanIntClsGenerator
from sdn_ray.models.gawwn import GawwnGenerator
from sdn_ray.models.gawwn_boxes import BoxImageDiscriminator
from sdn_ray.models.gawwn_keypoints import KeypointImageDiscriminator
from sdn_ray.models.generator import Generator
from sdn_ray.models.keypoint_generator import KeypointDiscriminator
from sdn_ray.models.plan import Plan
from sdn_ray.models.stackgan import (
    StackGanGenerator,
    StageOneDiscriminator,
    StageTwoDiscriminator,
)
from sdn_ray.models.teacher import Teacher
from tests.methods.gan_runs import random_boxes, random_parts

PLAN = Plan.parse("4,M,6")
SIZE = 16
CPU = torch.device("cpu")


def two_workers(monkeypatch, work):
    """What two of them give: threads of this process, since another one takes seconds to start."""
    here, store = threading.local(), dist.HashStore()

    def wrapped(network):
        return DistributedDataParallel(network, process_group=here.group)

    for module in (workers, method, gan_int_cls):
        monkeypatch.setattr(module, "world_size", lambda: 2)
        monkeypatch.setattr(module, "rank", lambda: here.rank)
    monkeypatch.setattr(workers, "DistributedDataParallel", wrapped)
    monkeypatch.setattr(workers, "_add_up", lambda values: here.group.allreduce([values]).wait())

    def worker(rank):
        here.rank, here.group = rank, dist.ProcessGroup(store, rank, 2)
        gloo = dist.ProcessGroupGloo(store, rank, 2, timedelta(seconds=30))
        here.group._register_backend(torch.device("cpu"), dist.ProcessGroup.BackendType.GLOO, gloo)
        return work(rank, 2)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(worker, range(2)))


def test_rows_of_all_workers_in_their_order(monkeypatch):
    rows = torch.arange(12.0).view(4, 3)
    assert gathered(rows) is rows
    for seen in two_workers(monkeypatch, lambda rank, _: gathered(rows.chunk(2)[rank])):
        assert torch.equal(seen, rows)


@pytest.mark.parametrize(("layer", "shape"), [(nn.BatchNorm1d, ()), (nn.BatchNorm2d, (3, 5))])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_a_batch_is_normalised_as_a_whole(monkeypatch, layer, shape, affine, dtype, close):
    random = torch.Generator().manual_seed(0)
    # Parts that lie apart: what is between them is most of the variance.
    maps = torch.randn(8, 4, *shape, generator=random)
    maps += torch.arange(8.0).view(8, *[1] * (maps.dim() - 1))
    maps, slopes = maps.to(dtype), torch.randn(maps.shape, generator=random)

    def normalised(rank, size):
        own = nn.Sequential(layer(4, momentum=0.3, affine=affine))
        if affine:
            own[0].weight.data, own[0].bias.data = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])
        assert with_whole_batches(own, CPU) is own
        assert isinstance(own[0], WholeBatchNorm) == (size == 2)
        part = maps.chunk(size)[rank].clone().requires_grad_()
        out = own(part)
        (out * slopes.chunk(size)[rank]).sum().backward()
        assert out.dtype == part.grad.dtype == dtype
        return out.detach(), part.grad, [p.grad for p in own.parameters()], own.state_dict()

    out, gradient, to_weights, state = normalised(0, 1)
    both = two_workers(monkeypatch, normalised)
    near = {"rtol": close, "atol": close}
    torch.testing.assert_close(torch.cat([own[0] for own in both]), out, **near)
    torch.testing.assert_close(torch.cat([own[1] for own in both]), gradient, **near)
    for place, expected in enumerate(to_weights):
        torch.testing.assert_close(sum(own[2][place] for own in both), expected, **near)
    for _, _, _, own in both:
        assert list(own) == list(state)
        for name, value in own.items():
            torch.testing.assert_close(value, state[name], rtol=1e-5, atol=1e-5)


def test_an_average_measures_its_statistics_alone(monkeypatch):
    """Every worker with the same batches: together they would count each batch twice."""
    random = torch.Generator().manual_seed(0)
    batches = [(torch.randn(4, 3, generator=random),) for _ in range(3)]

    def settled(rank, size):
        network = with_whole_batches(nn.Sequential(nn.BatchNorm1d(3)), CPU)
        average = WeightAverage(network, 0.9)
        average.settle(batches)
        assert size == 1 or not network[0].alone
        return average.generator.state_dict()

    expected = settled(0, 1)
    for own in two_workers(monkeypatch, settled):
        assert all(torch.equal(own[name], expected[name]) for name in expected)


def test_on_gpus_batches_are_normalised_as_a_whole(monkeypatch):
    """The same weights under the same names, in layers that only a GPU can run."""
    generator = Generator(PLAN, embedding_dim=3, image_size=8, fc_width=5, batch_norm=True)
    names = list(generator.state_dict())
    monkeypatch.setattr(workers, "world_size", lambda: 2)
    spread = with_whole_batches(generator, torch.device("cuda"))
    assert list(spread.state_dict()) == names
    norms = [m for m in spread.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 4
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert isinstance(spread, Generator)
    average = WeightAverage(spread, 0.9).generator
    assert list(average.state_dict()) == names
    norms = [m for m in average.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 4
    assert all(norm.alone for norm in norms)
    assert not any(p.requires_grad for p in average.parameters())


def adversarial(modulated):
    options = {"noise_dim": 3, "batch_norm": modulated, "modulated": modulated}
    generator = Generator(PLAN, embedding_dim=5, image_size=SIZE, fc_width=7, **options)
    generator.reset_parameters(0)
    heads = FeatureHeads(PLAN, SIZE, 5, levels=PLAN.names, most=6)
    heads.reset_parameters(1)
    teacher = Teacher(PLAN)
    random = torch.Generator().manual_seed(2)
    for parameter in teacher.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=random)
    stage = Stage(STAGE_THREE, STAGE_THREE, epochs=1, learning_rate=1e-3)
    adversary = Adversary(heads, wrong_weight=0.3)
    return SDN(generator, teacher, (stage,), LayerWeights((), 0), adversary=adversary)


def gan():
    generator = GanIntClsGenerator(5, SIZE, width=4, text_width=4, noise_dim=3)
    discriminator = GanIntClsDiscriminator(5, SIZE, width=4, text_width=4)
    generator.reset_parameters(0)
    discriminator.reset_parameters(1)
    return GanIntCls(generator, discriminator, Adversarial(epochs=1))


def stackgan(stage):
    generator = StackGanGenerator(5, 32, first_size=SIZE, width=4, text_width=4, z_dim=3)
    judges = {
        STAGE_ONE: StageOneDiscriminator(5, SIZE, width=4, text_width=4),
        STAGE_TWO: StageTwoDiscriminator(5, 32, width=4, text_width=4),
    }
    for place, network in enumerate((generator, *judges.values())):
        network.reset_parameters(place)
    side = SIZE if stage == STAGE_ONE else None
    return StackGan(generator, judges, (StackStage(stage, epochs=1, side=side),))


def gawwn(stage, locations):
    parts = () if locations == "boxes" else ("head", "tail", "wing")
    generator = GawwnGenerator(5, 32, width=4, z_dim=3, parts=parts, locations=locations)
    if locations == "boxes":
        judges = {IMAGES: BoxImageDiscriminator(5, 32, width=4, text_width=4)}
    else:
        judges = {
            KEYPOINTS: KeypointDiscriminator(5, parts=3, width=4),
            IMAGES: KeypointImageDiscriminator(5, 32, width=4, text_width=4, parts=3),
        }
    for place, network in enumerate((generator, *judges.values())):
        network.reset_parameters(place)
        # By the first weights of the authors so little reaches the last layers, and by their rate
        # so many units switch in a step, that after three steps rounding is all that one sees.
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.weight.data *= 10
    stages = (GawwnStage(stage, epochs=1, learning_rate=2e-5),)
    return Gawwn(generator, judges, stages, given_share=0.5)


METHODS = {
    "stage three": lambda: adversarial(modulated=False),
    "stage three, modulated": lambda: adversarial(modulated=True),
    "GAN-INT-CLS": gan,
    "StackGAN, stage one": lambda: stackgan(STAGE_ONE),
    "StackGAN, stage two": lambda: stackgan(STAGE_TWO),
    "GAWWN, keypoints": lambda: gawwn(KEYPOINTS, "keypoints"),
    "GAWWN, images at keypoints": lambda: gawwn(IMAGES, "keypoints"),
    "GAWWN, images in boxes": lambda: gawwn(IMAGES, "boxes"),
}


def three_steps(new_method, rank, size):
    """Terms of the steps of one worker, what its networks become, and the rate of a step."""
    draws, own = np.random.default_rng(0), new_method()
    side, locations = 32 if isinstance(own, StackGan | Gawwn) else SIZE, None
    if isinstance(own, Gawwn):
        boxes = own.generator.locations == "boxes"
        locations = random_boxes(24) if boxes else random_parts(24, 3)
    images = draws.integers(0, 256, (24, side, side, 3), dtype=np.uint8)
    data = EncodedImages(
        images=images,
        embeddings=draws.normal(size=(24, 5)).astype(np.float32),
        caption_rows=np.arange(24)[:, None],
        caption_counts=np.full(24, 1),
        indices=np.arange(24),
        classes=np.arange(24) % 4,
        locations=locations,
        smaller={SIZE: smaller_images(images, SIZE)},
    )
    batches = EpochBatches(data, batch_size=8, seed=1, flips=True, rank=rank, world_size=size)
    (stage,) = own.stages
    step, terms = own.steps(stage, own.begin(stage)), []
    for number, batch in enumerate(batches.epoch(0, rows=stage.rows)):
        assert len(batch.images) == 8 // size
        terms.append(step(batch, Noise(1, number, own.device)))
    return torch.stack(terms), own.training_state(), stage.rate(0, 3)


@pytest.mark.parametrize("new_method", METHODS.values(), ids=METHODS)
def test_two_workers_take_the_steps_that_one_takes(monkeypatch, new_method):
    expected, networks, rate = three_steps(new_method, 0, 1)
    assert len(expected) == 3
    with monkeypatch.context() as patched:
        (first, own, _), (second, other, _) = two_workers(
            patched, lambda rank, size: three_steps(new_method, rank, size)
        )
    torch.testing.assert_close((first + second) / 2, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(first, second)
    for name in networks.keys() - {"samples", "layer_weights", "draws_first", "draws_keypoints"}:
        for key, value in own[name].items():
            assert torch.equal(value, other[name][key]), key
            if key.endswith("running_var"):
                torch.testing.assert_close(value, networks[name][key], rtol=1e-4, atol=1e-5)
        # A weight whose gradient is nothing but rounding may step either way: a bias before a batch
        # normalisation, for one.
        pairs = [(own[name][key], value) for key, value in networks[name].items()]
        near = min(1e-5, rate / 20)
        far = torch.cat([((one - two).abs() > near).flatten() for one, two in pairs])
        assert far.float().mean() < 0.02, name

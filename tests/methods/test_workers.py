"""What several workers change about a generator."""

from torch import nn

from sdn_ray.distillation.layer_weights import layer_weights
from sdn_ray.distillation.schemes import Stage
from sdn_ray.methods import sdn
from sdn_ray.methods.sdn import SDN, Computing
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

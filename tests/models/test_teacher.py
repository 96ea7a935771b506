import urllib.error

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch.nn import functional

from sdn_ray.errors import UserError
from sdn_ray.models.plan import Plan
from sdn_ray.models.teacher import Teacher, load_teacher, vgg_features

PRUNED_PLAN = "16,16,M,32,32,M,64,64,64,64,M,128,128,128,128,M,128"


def new_teacher(plan="4,5,M,6,M,7"):
    torch.manual_seed(0)
    return Teacher(Plan.parse(plan))


def features_by_hand(teacher, images):
    """φ_l^D from the weights alone: 3×3, padding 1, ReLU, and 2×2 pools where the plan has M."""
    state, key, found, x = teacher.state_dict(), 0, [], images
    for entry in str(teacher.plan).split(","):
        if entry == "M":
            x = functional.max_pool2d(x, 2)
            key += 1
        else:
            weight, bias = state[f"features.{key}.weight"], state[f"features.{key}.bias"]
            x = functional.conv2d(x, weight, bias, padding=1).clamp_min(0)
            found.append(x)
            key += 2
    return found


def assert_features_by_hand(teacher, images):
    found, expected = teacher(images), features_by_hand(teacher, images)
    assert len(found) == len(expected) == len(teacher.plan.names)
    for own, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-5, atol=1e-5)


def test_features_equal_a_loop_by_hand():
    teacher = new_teacher()
    assert_features_by_hand(teacher, torch.randn(2, 3, 8, 12))


@pytest.mark.parametrize("plan", ["vgg11", "vgg13", "vgg16", "vgg19", PRUNED_PLAN, "4,M,6", "5"])
@pytest.mark.parametrize("size", [32, 64])
def test_shapes_are_the_plans(plan, size):
    with torch.device("meta"):
        teacher = Teacher(Plan.parse(plan))
        features = teacher(torch.empty(2, 3, size, size))
    assert [tuple(f.shape[1:]) for f in features] == teacher.plan.feature_shapes(size)


def test_frozen_and_always_in_eval_mode():
    teacher = new_teacher()
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    around = torch.nn.ModuleList([teacher, torch.nn.Linear(2, 2)])
    around.train()
    assert around[1].training
    assert not any(module.training for module in teacher.modules())
    assert teacher.train() is teacher
    assert not teacher.training


def test_gradient_flows_to_the_input_and_not_to_the_weights():
    teacher = new_teacher("4,5,M,6").double()
    images = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(teacher, (images,))
    sum(feature.sum() for feature in teacher(images)).backward()
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg16", "vgg19"])
def test_layers_are_numbered_as_torchvisions(name):
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)(weights=None, init_weights=False).features
        ours = vgg_features(Plan.parse(name))
    expected = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    assert {key: tuple(value.shape) for key, value in ours.state_dict().items()} == expected
    assert [type(layer) for layer in ours] == [type(layer) for layer in theirs]


def test_the_pruned_vgg19(material):
    path = material.teacher
    teacher = load_teacher(str(path))
    assert teacher.plan == Plan.parse(PRUNED_PLAN)
    assert load_teacher(str(path), PRUNED_PLAN).plan == teacher.plan
    stored = load_file(path)
    assert teacher.state_dict().keys() == stored.keys()
    for key, value in teacher.state_dict().items():
        assert torch.equal(value, stored[key]), key
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert_features_by_hand(teacher, torch.randn(1, 3, 32, 32))


def test_a_wrong_plan_for_the_pruned_vgg19(material):
    with pytest.raises(UserError, match=r"teacher\.plan: found vgg19, but .*vgg19_pruned16x"):
        load_teacher(str(material.teacher), "vgg19")


def test_a_truncated_pruned_vgg19(material, tmp_path):
    data = material.teacher.read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in (0, 5, 1000, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"teacher\.weights: could not read .*cut\.safetensors"):
            load_teacher(str(path))


def test_a_saved_teacher_reads_back(tmp_path):
    teacher, path = new_teacher(), tmp_path / "teacher.safetensors"
    teacher.to(memory_format=torch.channels_last).save(path)
    back = load_teacher(str(path))
    assert back.plan == teacher.plan
    for key, value in teacher.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key
    assert [file.name for file in tmp_path.iterdir()] == ["teacher.safetensors"]


def test_a_file_that_does_not_say_its_plan(tmp_path):
    teacher, path = new_teacher("4,M,6"), tmp_path / "plain.safetensors"
    head = {"classifier.0.weight": torch.zeros(2, 2)}
    save_file(teacher.state_dict() | head, path)
    with pytest.raises(UserError, match=r"plain\.safetensors has no `plan`.*give teacher\.plan"):
        load_teacher(str(path))
    images = torch.randn(1, 3, 4, 4)
    for own, expected in zip(
        load_teacher(str(path), "4,M,6")(images), teacher(images), strict=True
    ):
        assert torch.equal(own, expected)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("4,M,7", r"features\.3\.bias: found \(6,\), expected \(7,\)"),
        ("4,M,6,M,8", r"features\.6\.bias: found nothing, expected \(8,\)"),
        ("4,M", r"features\.3\.bias: found \(6,\), expected nothing"),
        ("4,6", r"features\.2\.bias: found nothing, expected \(6,\)"),
    ],
)
def test_weights_that_do_not_fit_the_plan(tmp_path, plan, message):
    path = tmp_path / "plain.safetensors"
    save_file(new_teacher("4,M,6").state_dict(), path)
    with pytest.raises(UserError, match=r"plain\.safetensors does not fit.*" + message):
        load_teacher(str(path), plan)


def test_a_file_that_is_not_there_or_is_none(tmp_path):
    (tmp_path / "words.safetensors").write_text("these are words, not weights")
    for name in ("nowhere.safetensors", "words.safetensors", "."):
        with pytest.raises(UserError, match=r"teacher\.weights: could not read"):
            load_teacher(str(tmp_path / name))


def test_half_precision_weights_are_read_as_float32(tmp_path):
    teacher, path = new_teacher("4,M,6"), tmp_path / "half.safetensors"
    save_file(
        {key: value.half() for key, value in teacher.state_dict().items()},
        path,
        metadata={"plan": "4,M,6"},
    )
    for key, value in load_teacher(str(path)).state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, teacher.state_dict()[key].half().float()), key


@pytest.mark.parametrize("plan", [None, "64,M,128", "vgg12"])
def test_imagenet_weights_are_of_the_named_plans(plan):
    with pytest.raises(UserError, match=rf"teacher\.plan: found {plan}, .*vgg11, vgg13, vgg16"):
        load_teacher("imagenet", plan)


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    def refuse(url, *arguments, **options):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def vgg11_file(folder):
    return folder / torchvision.models.VGG11_Weights.IMAGENET1K_V1.url.rpartition("/")[2]


def test_imagenet_weights_without_a_network(no_network):
    with pytest.raises(UserError, match=r"vgg11-.*could not be downloaded.*checkpoints"):
        load_teacher("imagenet", "vgg11")


def test_imagenet_weights_put_there_by_hand(no_network):
    with torch.device("meta"):
        shapes = Teacher(Plan.parse("vgg11")).state_dict()
    state = {key: torch.full(value.shape, 0.25) for key, value in shapes.items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(1)}, vgg11_file(no_network))
    teacher = load_teacher("imagenet", "vgg11")
    assert teacher.plan == Plan.parse("vgg11")
    assert all((value == 0.25).all() for value in teacher.state_dict().values())


@pytest.mark.parametrize("as_zip", [True, False])  # torchvision's files are of the older format
def test_damaged_imagenet_weights(no_network, as_zip):
    state = {"features.0.bias": torch.zeros(5000)}
    torch.save(state, vgg11_file(no_network), _use_new_zipfile_serialization=as_zip)
    data = vgg11_file(no_network).read_bytes()
    for length in (100, len(data) // 2, len(data) - 1):
        vgg11_file(no_network).write_bytes(data[:length])
        with pytest.raises(UserError, match=vgg11_file(no_network).name):
            load_teacher("imagenet", "vgg11")


class Trap:
    """An object whose unpickling makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_imagenet_weights_run_no_code(no_network, tmp_path):
    torch.save({"features.0.bias": Trap(str(tmp_path / "sprung"))}, vgg11_file(no_network))
    with pytest.raises(UserError, match="vgg11"):
        load_teacher("imagenet", "vgg11")
    assert not (tmp_path / "sprung").exists()

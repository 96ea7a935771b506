import io
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.transforms import v2

from sdn_ray.errors import UserError
from sdn_ray.models.classifiers import load_classifier


@pytest.fixture(scope="module")
def weights(material) -> Path:
    return material.squeezenet


def test_squeezenet_equals_a_plain_torchvision_pipeline(material, weights):
    photos = [Image.fromarray(photograph) for photograph in material.photographs(50)]
    network = torchvision.models.squeezenet1_1()
    network.load_state_dict(load_file(weights))
    network.eval()
    prepare = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize((227, 227), v2.InterpolationMode.BICUBIC, antialias=True),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    with torch.no_grad():
        expected = torch.cat([network(prepare(photo)[None]) for photo in photos]).softmax(dim=1)

    classifier = load_classifier(f"squeezenet1_1:{weights}")
    images = torch.from_numpy(np.stack([np.asarray(photo) for photo in photos]))
    probabilities = torch.cat([classifier(x) for x in images.permute(0, 3, 1, 2).split(10)])

    assert (classifier.name, classifier.input_size) == ("squeezenet1_1", 227)
    assert probabilities.dtype == torch.float32
    assert probabilities.shape == (50, 1000)
    torch.testing.assert_close(probabilities, expected, atol=1e-5, rtol=1e-3)


def test_a_classifier_is_frozen(weights):
    classifier = load_classifier(f"squeezenet1_1:{weights}")
    images = torch.randint(0, 256, (2, 3, 40, 30), dtype=torch.uint8)
    assert torch.equal(classifier(images), classifier(images))  # dropout is off
    assert not any(parameter.requires_grad for parameter in classifier.parameters())
    assert next(classifier.parameters()).dtype == torch.float32


def test_pth_and_safetensors_files_give_the_same(weights, tmp_path):
    torch.save(load_file(weights), tmp_path / "squeezenet.pth")
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    from_pth = load_classifier(f"squeezenet1_1:{tmp_path / 'squeezenet.pth'}")(images)
    assert torch.equal(from_pth, load_classifier(f"squeezenet1_1:{weights}")(images))


def test_inception_v3_transforms_its_input_as_its_weights_expect(tmp_path):
    torchvision_own = torchvision.models.inception_v3(init_weights=False, transform_input=True)
    torch.save(torchvision_own.half().state_dict(), tmp_path / "inception.pth")
    classifier = load_classifier(f"inception_v3:{tmp_path / 'inception.pth'}")
    assert classifier.input_size == 299
    assert classifier.network.network.transform_input


def test_squeezenets_features_are_the_mean_of_what_its_convolution_of_classes_is_given(weights):
    network = torchvision.models.squeezenet1_1()
    network.load_state_dict(load_file(weights))
    network.eval()
    images = torch.randint(0, 256, (3, 3, 227, 227), dtype=torch.uint8)  # no resizing
    normalise = v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = network.features(normalise(images / 255)).mean(dim=(2, 3))

    classifier = load_classifier(f"squeezenet1_1:{weights}")
    features, probabilities = classifier.features_and_probabilities(images)

    assert features.dtype == probabilities.dtype == torch.float32
    assert features.shape == (3, 512)
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(probabilities, classifier(images))
    assert classifier.pixels == (
        "bicubic with antialias to 227x227, ImageNet mean and standard deviation"
    )


@pytest.mark.parametrize(
    ("name", "dim"),
    [("resnet18", 512), ("mobilenet_v3_small", 1024), ("googlenet", 1024)],
)
def test_the_last_layer_maps_features_to_probabilities(tmp_path, name, dim):
    options = {"googlenet": {"init_weights": False}}.get(name, {})
    network = torchvision.models.get_model(name, weights=None, **options)
    last = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)][-1]
    # So that untrained activations do not vanish, and probabilities tell images apart.
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # statistics of the one batch
    with torch.no_grad():
        network.train()(torch.randn(8, 3, 64, 64))
        last.weight.mul_(30)
    save_file(network.state_dict(), tmp_path / "random.safetensors")
    classifier = load_classifier(f"{name}:{tmp_path / 'random.safetensors'}")

    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    features, probabilities = classifier.features_and_probabilities(images)

    assert features.shape == (2, dim)
    assert probabilities.max() > 0.01
    with torch.no_grad():
        expected = (features @ last.weight.T + last.bias).softmax(dim=1)
    torch.testing.assert_close(probabilities, expected, rtol=1e-3, atol=1e-6)
    assert torch.equal(probabilities, classifier(images))


def test_unknown_name_lists_the_closest():
    with pytest.raises(UserError, match=r"unknown classifier 'squezenet11'.*squeezenet1_1"):
        load_classifier("squezenet11")
    with pytest.raises(UserError, match="closest names are inception_2015_12_05"):
        load_classifier("inception_2015")


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"absent\.pth: no such file"):
        load_classifier(f"squeezenet1_1:{tmp_path / 'absent.pth'}")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_truncated_file(weights, tmp_path, suffix):
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".pth":
        torch.save(load_file(weights), whole)
    else:
        save_file(load_file(weights), whole)
    damaged = tmp_path / f"damaged{suffix}"
    damaged.write_bytes(whole.read_bytes()[:100_000])
    with pytest.raises(UserError, match=f"damaged{suffix}: not a readable"):
        load_classifier(f"squeezenet1_1:{damaged}")


class Payload:
    """Pickles to a call that creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["squeezenet1_1", "inception_2015_12_05"])
def test_a_file_that_would_run_code_is_refused(tmp_path, name):
    if name == "inception_2015_12_05":
        pytest.importorskip("torch_fidelity")
    torch.save({"fc.weight": Payload(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"evil\.pth: not a readable"):
        load_classifier(f"{name}:{tmp_path / 'evil.pth'}")
    assert not (tmp_path / "ran").exists()


def test_a_file_without_a_mapping(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"list\.pth: expected a mapping .* found list"):
        load_classifier(f"squeezenet1_1:{tmp_path / 'list.pth'}")


def test_weights_of_another_network(weights, material):
    with pytest.raises(
        UserError, match=r"vgg19_pruned16x.*not the weights of squeezenet1_1.*Missing"
    ):
        load_classifier(f"squeezenet1_1:{material.teacher}")
    with pytest.raises(UserError, match=r"size mismatch for features\.0\.weight"):
        load_classifier(f"squeezenet1_0:{weights}")


def test_failed_download(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(UserError, match=r"no route to host.*give a file, as squeezenet1_1:FILE"):
        load_classifier("squeezenet1_1")
    pytest.importorskip("torch_fidelity")
    with pytest.raises(UserError, match="give a file, as inception_2015_12_05:FILE"):
        load_classifier("inception_2015_12_05")


def test_inception_without_torch_fidelity(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(UserError, match="pip install torch-fidelity"):
        load_classifier("inception_2015_12_05")


def test_inception_gives_the_probabilities_of_torch_fidelitys_unbiased_logits(tmp_path):
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")

    class Untrained(module.FeatureExtractorInceptionV3):
        def load_state_dict(self, state):
            pass

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    torch.manual_seed(0)
    extractor = Untrained("untrained", ["logits_unbiased"], feature_extractor_weights_path=empty)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    extractor.fc.weight.div_(extractor(images)[0].std())  # untrained logits are all near zero
    torch.save(extractor.state_dict(), tmp_path / "inception.pth")

    classifier = load_classifier(f"inception_2015_12_05:{tmp_path / 'inception.pth'}")
    probabilities = classifier(images)

    assert (classifier.name, classifier.input_size) == ("inception_2015_12_05", 299)
    assert probabilities.shape == (2, 1008)
    assert probabilities.max() > 2 / 1008
    expected = extractor(images)[0].softmax(dim=1)
    torch.testing.assert_close(probabilities, expected, rtol=1e-3, atol=1e-6)

    features, same_probabilities = classifier.features_and_probabilities(images)
    assert features.shape == (2, 2048)
    assert features.dtype == torch.float32
    assert torch.equal(same_probabilities, probabilities)
    from_features = (features @ extractor.fc.weight.T).softmax(dim=1)
    torch.testing.assert_close(probabilities, from_features, rtol=1e-4, atol=1e-7)
    assert classifier.pixels == "bilinear to 299x299 as TensorFlow 1, (x - 128) / 128"


def test_inception_with_the_weights_of_another_network(weights):
    pytest.importorskip("torch_fidelity")
    with pytest.raises(UserError, match=r"squeezenet1_1_fp16.*not the weights of inception_2015"):
        load_classifier(f"inception_2015_12_05:{weights}")

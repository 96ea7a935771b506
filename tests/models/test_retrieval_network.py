import json
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from sdn_ray.data.readers.oxford_flowers import read_oxford_flowers
from sdn_ray.errors import UserError
from sdn_ray.models import retrieval
from sdn_ray.models.fit import FitSettings
from sdn_ray.models.pixels import IMAGENET_MEAN, IMAGENET_STD, normalise
from sdn_ray.models.plan import Plan
from sdn_ray.models.retrieval import (
    FC_NAMES,
    RetrievalNetwork,
    fc7_features,
    fine_tune,
    load_retrieval_network,
    nearest,
)
from sdn_ray.models.teacher import Teacher, load_teacher

COLOURS = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])


def coloured(per_class=20, size=8):
    """Noise about one of three colours; classes 3, 5 and 9, mixed."""
    draws = np.random.default_rng(0)
    labels = draws.permutation(np.repeat(np.arange(3), per_class))
    noise = draws.normal(0, 40, (len(labels), size, size, 3))
    images = (COLOURS[labels][:, None, None] + noise).clip(0, 255).astype(np.uint8)
    return images, np.array([3, 5, 9])[labels]


def new_teacher(plan="6,M,8"):
    torch.manual_seed(0)
    return Teacher(Plan.parse(plan))


def tuned(teacher, seed=0, epochs=2, fc_width=32, batch_size=9, learning_rate=0.003):
    seen = []
    settings = FitSettings(epochs, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    network = fine_tune(teacher, *coloured(), settings, fc_width=fc_width, on_epoch=seen.append)
    return network, seen


def new_network(plan="4,M,5,M", image_size=8, classes=3, fc_width=6):
    torch.manual_seed(0)
    return RetrievalNetwork(Plan.parse(plan), image_size, classes, fc_width)


@pytest.mark.parametrize(
    ("plan", "image_size", "flat"), [("4,M,5,M", 16, 5 * 4 * 4), ("4,4,M,6", 6, 6 * 3 * 3)]
)
def test_shapes_follow_from_the_plan(plan, image_size, flat):
    network = new_network(plan, image_size, classes=7, fc_width=11)
    shapes = [tuple(m.weight.shape) for m in network.classifier if isinstance(m, nn.Linear)]
    assert shapes == [(11, flat), (11, 11), (7, 11)]
    images = torch.randn(2, 3, image_size, image_size)
    assert network(images).shape == (2, 7)
    assert network.fc7(images).shape == (2, 11)


def test_an_image_size_that_the_pools_cannot_halve():
    with pytest.raises(UserError, match="found 10, expected a multiple of 4"):
        new_network(image_size=10)


def test_gradients_reach_every_weight():
    network = new_network().train()
    nn.functional.cross_entropy(
        network(torch.randn(6, 3, 8, 8)), torch.tensor([0, 1, 2] * 2)
    ).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_fc7_features_equal_numpy_by_hand():
    network = new_network("2,M,3", image_size=4, fc_width=5).train()
    state = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)

    def convolved(x, layer):
        weight, bias = state[f"features.{layer}.weight"], state[f"features.{layer}.bias"]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        out = np.empty((len(weight), *x.shape[1:]))
        for o, row, column in np.ndindex(out.shape):
            window = padded[:, row : row + 3, column : column + 3]
            out[o, row, column] = (window * weight[o]).sum() + bias[o]
        return out.clip(min=0)

    expected = []
    for image in images:
        x = ((image / 255 - IMAGENET_MEAN) / IMAGENET_STD).transpose(2, 0, 1)
        x = convolved(x, 0).reshape(2, 2, 2, 2, 2).max((2, 4))
        x = convolved(x, 3).ravel()
        for layer in (0, 3):
            x = state[f"classifier.{layer}.weight"] @ x + state[f"classifier.{layer}.bias"]
            x = x.clip(min=0)
        expected.append(x / np.linalg.norm(x))
    found = fc7_features(network, images, batch_size=2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_nearest_equals_brute_force(monkeypatch, k):
    monkeypatch.setattr(retrieval, "_QUERIES", 3)
    monkeypatch.setattr(retrieval, "_ROWS", 4)
    draws = np.random.default_rng(0)
    queries, index = draws.normal(size=(8, 5)), draws.normal(size=(10, 5))
    rows, similarities = nearest(queries.astype(np.float32), index.astype(np.float32), k)
    assert rows.shape == similarities.shape == (8, k)
    for query, own_rows, own in zip(queries, rows, similarities, strict=True):
        cosines = [q @ query / np.linalg.norm(q) / np.linalg.norm(query) for q in index]
        best = sorted(range(10), key=lambda i: -cosines[i])[:k]
        assert own_rows.tolist() == best
        np.testing.assert_allclose(own, [cosines[i] for i in best], atol=1e-6)


def test_equally_near_images_come_in_the_order_of_the_index(monkeypatch):
    monkeypatch.setattr(retrieval, "_ROWS", 3)
    index = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)
    index = index[[1, 0, 2, 0, 0, 1, 0]]
    rows, similarities = nearest(index[1:2], index, 4)
    assert rows.tolist() == [[1, 3, 4, 6]]
    np.testing.assert_allclose(similarities, 1, atol=1e-6)


def test_a_vector_of_zeros_is_near_nothing():
    _, similarities = nearest(np.zeros((1, 3)), np.array([[0.0, 0, 0], [1, 0, 0]]), 2)
    assert similarities.tolist() == [[0, 0]]


def test_more_neighbours_than_there_are_images():
    with pytest.raises(UserError, match="found k 3, expected at most the 2"):
        nearest(np.ones((1, 4)), np.ones((2, 4)), 3)


def test_fine_tuning_learns_and_leaves_the_teacher():
    teacher = new_teacher()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    network, seen = tuned(teacher, epochs=10)
    assert [(e.epoch, e.epochs) for e in seen] == [(n, 10) for n in range(1, 11)]
    assert seen[-1].held_out_accuracy > 0.9  # chance: a third
    assert not network.training
    own = network.state_dict()
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, before[name]), name
        assert not torch.equal(own[name], tensor), name


def test_fine_tuning_starts_at_the_teacher_and_with_standardised_features():
    teacher, images = new_teacher(), coloured()[0]
    # Channels of different size, and one that is silent.
    with torch.no_grad():
        teacher.features[3].weight *= torch.logspace(-0.5, 0.5, 8).view(-1, 1, 1, 1)
        teacher.features[3].bias[2] = -1e6
    network, _ = tuned(teacher, fc_width=400, epochs=1, learning_rate=1e-12)
    batch = normalise(torch.from_numpy(images).permute(0, 3, 1, 2))
    features = network.features(batch)
    torch.testing.assert_close(features, teacher(batch)[-1])
    means = features.mean((0, 2, 3))
    speaking = means > 0
    assert 4 <= speaking.sum() < 8
    assert means.max() > 10 * means[speaking].min()
    fc6 = network.classifier[0]
    middle = fc6(means.view(8, 1, 1).expand(8, 4, 4).flatten())
    torch.testing.assert_close(middle, torch.zeros(400), atol=1e-3, rtol=0)
    # Channels of variance one, or none, through weights of variance 2 / inputs.
    second_moment = (fc6(features.flatten(1)) ** 2).mean().item()
    assert second_moment == pytest.approx(2 * speaking.float().mean().item(), rel=0.15)


def test_the_seed_settles_every_bit():
    torch.manual_seed(1)
    first, epochs = tuned(new_teacher())
    torch.manual_seed(2)
    state = torch.get_rng_state()
    teacher = new_teacher()
    torch.set_rng_state(state)
    second, same = tuned(teacher)
    assert torch.equal(torch.get_rng_state(), state)
    other, _ = tuned(teacher, seed=1)
    assert epochs == same
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
        assert not torch.equal(other.state_dict()[name], value), name


def test_a_batch_of_more_images_than_there_are():
    # 2 of each class's 20 images are held out.
    with pytest.raises(UserError, match=r"retrieval.batch_size: found 55, .* the 54 images"):
        tuned(new_teacher(), batch_size=55)


def test_a_saved_network_comes_back(tmp_path):
    network, path = new_network(), tmp_path / "network.safetensors"
    network.save(path)
    loaded = load_retrieval_network(path)
    assert (loaded.plan, loaded.image_size, loaded.classes, loaded.fc_width) == (
        Plan.parse("4,M,5,M"), 8, 3, 6,
    )  # fmt: skip
    assert not loaded.training
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(loaded(images), network.eval()(images))
    assert [entry.name for entry in tmp_path.iterdir()] == ["network.safetensors"]


def spoil_half(path):
    path.write_bytes(path.read_bytes()[:-40])


def spoil_text(path):
    path.write_text("no network")


def spoil_header(path):
    header = json.dumps({"x": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"1234")


def spoil_missing(path):
    path.unlink()


def spoil_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil", [spoil_half, spoil_text, spoil_header, spoil_missing, spoil_folder]
)
def test_damaged_files_are_named(tmp_path, spoil):
    path = tmp_path / "network.safetensors"
    new_network().save(path)
    spoil(path)
    with pytest.raises(UserError, match=r"network.safetensors: could not be read .* expected"):
        load_retrieval_network(path)


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"plan": None}, "found the metadata .*'plan'"),
        ({"plan": "4,Q"}, "found entry 'Q'"),
        ({"image_size": "ten"}, "'ten'"),
        ({"image_size": "9"}, "expected a multiple of 4"),
        ({"fc_width": "-3"}, "'fc_width': '-3'"),
        (
            {"fc_width": "200000"},
            r"classifier.0.bias: found \(6,\), expected \(200000,\)",
        ),
        ({"classes": "4"}, r"classifier.6.bias: found \(3,\), expected \(4,\)"),
        ({"plan": "4,M,5,M,5"}, r"features.6.bias: found nothing, expected \(5,\)"),
    ],
)
def test_metadata_that_does_not_fit(tmp_path, changed, found):
    path = tmp_path / "network.safetensors"
    network = new_network()
    network.save(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() | changed
    metadata = {name: value for name, value in metadata.items() if value is not None}
    save_file(network.state_dict(), path, metadata=metadata)
    with pytest.raises(UserError, match=f"network.safetensors: .*{found}"):
        load_retrieval_network(path)


def test_a_teacher_is_no_retrieval_network(tmp_path):
    new_teacher().save(tmp_path / "teacher.safetensors")
    with pytest.raises(UserError, match=r"teacher.safetensors: found the metadata .*image_size"):
        load_retrieval_network(tmp_path / "teacher.safetensors")


def test_pretrained_layers_are_where_fine_tuning_starts():
    other = new_network(plan="6,M,8", classes=5, fc_width=32)
    pretrained = other.state_dict()
    settings = FitSettings(1, batch_size=9, learning_rate=1e-12)  # which changes next to nothing
    network = fine_tune(new_teacher(), *coloured(), settings, fc_width=32, pretrained=pretrained)
    found = network.state_dict()
    for name in FC_NAMES:
        torch.testing.assert_close(found[name], pretrained[name], rtol=0, atol=1e-6)
    anew = fine_tune(new_teacher(), *coloured(), settings, fc_width=32).state_dict()
    assert not torch.allclose(anew["classifier.0.weight"], pretrained["classifier.0.weight"])
    assert found["classifier.6.weight"].shape == (3, 32)  # of our classes, not of ImageNet's


def test_photographs_of_a_class_are_near_each_other(material):
    rows = read_oxford_flowers(material.flowers).rows
    rows = [row for label in (46, 51, 73, 77) for row in rows if row.class_id == label]
    every, epochs = (2, 2) if len(rows) > 500 else (1, 4)
    rows = rows[::every]
    class_ids = np.array([row.class_id for row in rows])
    images = np.stack([np.asarray(Image.open(row.image_path).convert("RGB")) for row in rows])
    seen = []
    network = fine_tune(
        load_teacher(str(material.teacher)),
        images,
        class_ids,
        FitSettings(epochs, batch_size=12, learning_rate=1e-4),
        fc_width=1024,
        on_epoch=seen.append,
    )
    assert seen[-1].held_out_accuracy > 0.5  # chance: a quarter
    features = fc7_features(network, images)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    found, similarities = nearest(features[::5], features, 6)
    assert found[:, 0].tolist() == list(range(0, len(rows), 5))  # itself
    np.testing.assert_allclose(similarities[:, 0], 1, rtol=1e-5)
    same_class = class_ids[found[:, 1:]] == class_ids[::5, None]
    assert same_class.mean() > 0.5  # chance: a quarter

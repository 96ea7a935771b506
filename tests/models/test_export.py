import json

import numpy as np
import pytest
import torch

from sdn_ray.errors import UserError
from sdn_ray.models import export
from sdn_ray.models.drawing import draw_images
from sdn_ray.models.export import CONFIG, GENERATOR, export_model, load_model
from sdn_ray.models.generator import Generator
from sdn_ray.models.plan import Plan
from sdn_ray.text.char_cnn_rnn import CharCnnRnn
from sdn_ray.text.encoders import ENCODER_FILE

EMBEDDINGS = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
ORIGIN = {"config": {"seed": 3}, "test_scores": {"ssim": 0.25}}


def new_generator(seed=0, **options):
    options = {"plan": "4,5,M,6", "image_size": 8, "samples": 2, "batch_norm": True} | options
    plan = Plan.parse(options.pop("plan"))
    generator = Generator(plan, embedding_dim=5, fc_width=7, **options)
    generator.reset_parameters(seed)
    if generator.batch_norm:
        with torch.no_grad():
            generator(torch.randn(16, 5))  # moves the running statistics
    return generator


def drawn(generator):
    return np.concatenate(list(draw_images(generator, EMBEDDINGS)))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "options",
    [{}, {"plan": "4x2,M,6,M", "samples": 1}, {"batch_norm": False, "samples": 3}],
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_model_draws_the_same_images_after_a_round_trip(tmp_path, options, memory_format):
    generator = new_generator(**options).to(memory_format=memory_format)
    export_model(tmp_path / "model", generator, None, ORIGIN)
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == [CONFIG, GENERATOR]
    model = load_model(tmp_path / "model")
    assert not model.generator.training
    assert model.text_encoder is None
    assert model.origin == ORIGIN
    own = model.generator
    assert (own.plan, own.samples, own.image_size, own.fc_width, own.embedding_dim) == (
        generator.plan,
        generator.samples,
        8,
        7,
        5,
    )
    for name, value in generator.state_dict().items():
        assert torch.equal(own.state_dict()[name], value), name
    np.testing.assert_array_equal(drawn(own), drawn(generator))


def test_a_generator_that_has_grown(tmp_path):
    generator = new_generator(samples=1)
    generator.grow_samples(3, noise=0.5, seed=0)
    export_model(tmp_path / "model", generator, None, {})
    found = load_model(tmp_path / "model").generator
    assert found.samples == 3
    np.testing.assert_array_equal(drawn(found), drawn(generator))


def test_the_text_encoder_comes_along(tmp_path):
    encoder = CharCnnRnn("short", embedding_dim=5)
    encoder.save(tmp_path / "encoder.safetensors")
    export_model(tmp_path / "model", new_generator(), tmp_path / "encoder.safetensors", {})
    (tmp_path / "encoder.safetensors").unlink()
    assert names(tmp_path / "model") == [CONFIG, GENERATOR, ENCODER_FILE]
    found = load_model(tmp_path / "model").text_encoder
    assert not found.training
    np.testing.assert_array_equal(found.encode(["a red flower"]), encoder.encode(["a red flower"]))


def test_an_older_model_is_replaced(tmp_path):
    folder = tmp_path / "model"
    export_model(folder, new_generator(), None, {})
    (folder / "stray").write_text("of the older model")
    newer = new_generator(seed=1, samples=1)
    export_model(folder, newer, None, {})
    assert names(tmp_path) == ["model"]
    assert names(folder) == [CONFIG, GENERATOR]
    np.testing.assert_array_equal(drawn(load_model(folder).generator), drawn(newer))


def die(*arguments):
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", ["save_file", "write_text"])
def test_a_kill_before_the_end_leaves_no_model(tmp_path, monkeypatch, step):
    monkeypatch.setattr(export, step, die)
    with pytest.raises(KeyboardInterrupt):
        export_model(tmp_path / "model", new_generator(), None, {})
    assert names(tmp_path) == []


def test_a_kill_before_the_end_leaves_the_older_model(tmp_path, monkeypatch):
    older = new_generator()
    export_model(tmp_path / "model", older, None, {})
    monkeypatch.setattr(export, "write_text", die)
    with pytest.raises(KeyboardInterrupt):
        export_model(tmp_path / "model", new_generator(seed=1), None, {})
    assert names(tmp_path) == ["model"]
    np.testing.assert_array_equal(drawn(load_model(tmp_path / "model").generator), drawn(older))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    CharCnnRnn("short", embedding_dim=5).save(path)
    return path


@pytest.fixture
def model(tmp_path, encoder):
    export_model(tmp_path / "model", new_generator(), encoder, {})
    return tmp_path / "model"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"--model: .*nowhere.config\.json: not found"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [CONFIG, GENERATOR])
def test_a_missing_file_is_named(model, name):
    (model / name).unlink()
    with pytest.raises(UserError, match=f"--model: .*{name}"):
        load_model(model)


@pytest.mark.parametrize("name", [CONFIG, GENERATOR, ENCODER_FILE])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_named(model, name, share):
    data = (model / name).read_bytes()
    (model / name).write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=f"{name}.* cannot be read"):
        load_model(model)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        "null",
        '{"generator": 3}',
        '{"generator": {}}',
        '{"generator": {"plan": "4,M"}}',
        '{"generator": {"plan": "4,Q", "embedding_dim": 5, "image_size": 8}}',
        '{"generator": {"plan": "4,M", "embedding_dim": 5, "image_size": 7}}',
        '{"generator": {"plan": "4,M", "embedding_dim": 5, "image_size": 8, "colour": 1}}',
    ],
)
def test_a_config_of_something_else_is_named(model, content):
    (model / CONFIG).write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        load_model(model)


@pytest.mark.parametrize("change", [{"plan": "4,5,M,7"}, {"samples": 1}, {"batch_norm": False}])
def test_weights_of_another_generator_are_named(model, change):
    config = json.loads((model / CONFIG).read_text())
    config["generator"] |= change
    (model / CONFIG).write_text(json.dumps(config))
    with pytest.raises(UserError, match=f"{GENERATOR} cannot be read as this model's generator"):
        load_model(model)

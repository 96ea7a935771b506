import json

import numpy as np
import pytest
import torch

from sdn_ray.errors import UserError
from sdn_ray.models import export
from sdn_ray.models.drawing import draw_images, draw_samples
from sdn_ray.models.export import CONFIG, GENERATOR, export_model, load_model
from sdn_ray.models.gan_int_cls import GanIntClsGenerator
from sdn_ray.models.gawwn import GawwnGenerator
from sdn_ray.models.generator import Generator
from sdn_ray.models.plan import Plan
from sdn_ray.models.stackgan import StackGanGenerator
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


def new_modulated():
    options = {"modulated": True, "noise_dim": 3, "activation": "leaky_relu"}
    plan = Plan.parse("4,5,M,6")
    generator = Generator(
        plan, embedding_dim=5, image_size=8, fc_width=7, batch_norm=True, **options
    )
    generator.reset_parameters(0)
    return generator


def new_gan():
    generator = GanIntClsGenerator(5, image_size=16, width=4, text_width=6, noise_dim=3)
    generator.reset_parameters(0)
    return generator


def new_stackgan():
    generator = StackGanGenerator(
        5, image_size=32, first_size=16, width=4, text_width=1, z_dim=1, whitened_dim=None
    )
    generator.reset_parameters(0)
    return generator


def new_gawwn(locations):
    z_dim = 2 if locations == "boxes" else 3  # one more number chooses a box
    parts = () if locations == "boxes" else ("head", "left wing", "tail")
    generator = GawwnGenerator(5, 32, 4, z_dim, parts=parts, locations=locations)
    generator.reset_parameters(0)
    with torch.no_grad():
        generator.images.image[-2].weight *= 10  # the authors' first pictures are grey
    if locations == "boxes":
        generator.keep_boxes(torch.from_numpy(PLACES["boxes"][:, 0]))
    return generator


# Of each caption: (6, 1, 4) boxes and (6, 3, 3) parts, of which the last ones are hidden.
PLACES = {
    "boxes": np.linspace(0.1, 0.45, 24, dtype=np.float32).reshape(6, 1, 4),
    "keypoints": np.linspace(0, 0.9, 54, dtype=np.float32).reshape(6, 3, 3),
}
PLACES["keypoints"][..., 2] = (1, 1, 0)
PLACES["keypoints"][:, 2] = 0
NEW_GAWWNS = [lambda own=own: new_gawwn(own) for own in ("keypoints", "boxes", "none")]


@pytest.mark.parametrize(
    ("make", "method"),
    [
        (new_modulated, "sdn"),
        (new_gan, "gan_int_cls"),
        (new_stackgan, "stackgan"),
        *[(make, "gawwn") for make in NEW_GAWWNS],
    ],
)
def test_a_generator_that_takes_noise_draws_the_same_after_a_round_trip(tmp_path, make, method):
    generator = make()
    with torch.no_grad():
        generator(torch.from_numpy(EMBEDDINGS), torch.randn(6, 3))  # moves the running statistics
    export_model(tmp_path / "model", generator, None, ORIGIN)
    config = json.loads((tmp_path / "model" / CONFIG).read_text())
    assert (config["method"], config["generator"]) == (method, generator.settings)
    found = load_model(tmp_path / "model").generator
    assert type(found) is type(generator)
    assert not found.training
    assert found.settings == generator.settings
    for name, value in generator.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    pictures = [
        np.concatenate(list(draw_samples(one, EMBEDDINGS, samples=2, seed=4)))
        for one in (generator, found)
    ]
    assert pictures[0].shape == (6, 2, generator.image_size, generator.image_size, 3)
    np.testing.assert_array_equal(*pictures)


def change_config(model, **change):
    config = json.loads((model / CONFIG).read_text()) | change
    (model / CONFIG).write_text(json.dumps(config))
    return config


def test_models_of_earlier_versions_name_no_method(tmp_path):
    generator = new_generator()
    export_model(tmp_path / "model", generator, None, {})
    config = json.loads((tmp_path / "model" / CONFIG).read_text())
    assert config.pop("method") == "sdn"
    for later in ("upsampling", "whitened_dim", "noise_dim", "modulated", "activation"):
        del config["generator"][later]
    (tmp_path / "model" / CONFIG).write_text(json.dumps(config))
    np.testing.assert_array_equal(drawn(load_model(tmp_path / "model").generator), drawn(generator))


def test_a_modulated_model_of_earlier_versions_is_refused_in_words(tmp_path):
    export_model(tmp_path / "model", new_modulated(), None, {})
    config = json.loads((tmp_path / "model" / CONFIG).read_text())
    assert config["generator"].pop("modulated_by") == "g_fc7"
    (tmp_path / "model" / CONFIG).write_text(json.dumps(config))
    with pytest.raises(UserError) as error:
        load_model(tmp_path / "model")
    assert "modulated by caption and noise themselves, as earlier versions" in str(error.value)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("stack_gan", "method: found stack_gan, expected one of sdn, gan_int_cls, stackgan"),
        (None, "method"),
        (3, "method"),
        ("gan_int_cls", "width"),  # whose settings are others
    ],
)
def test_an_unknown_method_is_one_sentence(tmp_path, method, words):
    export_model(tmp_path / "model", new_generator(), None, {})
    change_config(tmp_path / "model", method=method)
    with pytest.raises(UserError) as error:
        load_model(tmp_path / "model")
    message = str(error.value)
    assert message.startswith("--model: ")
    assert str(tmp_path / "model" / CONFIG) in message
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize("change", [{"noise_dim": 4}, {"width": 8}, {"image_size": 32}])
def test_weights_of_another_gan_are_named(tmp_path, change):
    export_model(tmp_path / "model", new_gan(), None, {})
    change_config(tmp_path / "model", generator=new_gan().settings | change)
    with pytest.raises(UserError, match=f"{GENERATOR} cannot be read as this model's generator"):
        load_model(tmp_path / "model")


@pytest.mark.parametrize("change", [{"image_size": 24}, {"noise_dim": 0}, {"noise_dim": "3"}])
def test_settings_that_no_gan_has_are_named(tmp_path, change):
    export_model(tmp_path / "model", new_gan(), None, {})
    change_config(tmp_path / "model", generator=new_gan().settings | change)
    with pytest.raises(UserError, match=r"config\.json") as error:
        load_model(tmp_path / "model")
    assert next(iter(change)) in str(error.value)


@pytest.mark.parametrize("locations", ["keypoints", "boxes"])
def test_gawwn_draws_at_the_same_places_after_a_round_trip(tmp_path, locations):
    generator = new_gawwn(locations)
    export_model(tmp_path / "model", generator, None, {})
    found = load_model(tmp_path / "model").generator
    options = {"samples": 2, "seed": 4, "locations": PLACES[locations]}
    at_places, again = (
        np.concatenate(list(draw_samples(one, EMBEDDINGS, **options))) for one in (generator, found)
    )
    np.testing.assert_array_equal(at_places, again)
    free = np.concatenate(list(draw_samples(found, EMBEDDINGS, samples=2, seed=4)))
    assert (at_places != free).any()
    if locations == "boxes":
        assert torch.equal(found.boxes, generator.boxes)
        assert len(found.boxes.unique(dim=0)) == 6
    else:
        assert found.parts == ("head", "left wing", "tail")


@pytest.mark.parametrize(
    ("locations", "change"),
    [
        ("keypoints", {"locations": "boxes"}),
        ("keypoints", {"locations": "none"}),
        ("none", {"locations": "keypoints"}),
        ("none", {"parts": ["head", "tail"]}),
        ("boxes", {"locations": "keypoints", "parts": ["head", "tail", "wing"]}),
        ("boxes", {"image_size": 64}),
        ("keypoints", {"width": 8}),
        ("boxes", {"z_dim": 4}),
        ("keypoints", {"whitened_dim": 3}),
    ],
)
def test_weights_of_another_gawwn_are_named(tmp_path, locations, change):
    generator = new_gawwn(locations)
    export_model(tmp_path / "model", generator, None, {})
    change_config(tmp_path / "model", generator=generator.settings | change)
    with pytest.raises(UserError) as error:
        load_model(tmp_path / "model")
    assert f"{GENERATOR} cannot be read as this model's generator" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 48},
        {"image_size": None},
        {"locations": "poses"},
        {"parts": []},
        {"parts": "head"},
        {"parts": ["head", 3, "tail"]},
        {"z_dim": 0},
        {"width": "4"},
        {"whitened_dim": -1},
    ],
)
def test_settings_that_no_gawwn_has_are_one_sentence(tmp_path, change):
    generator = new_gawwn("keypoints")
    export_model(tmp_path / "model", generator, None, {})
    change_config(tmp_path / "model", generator=generator.settings | change)
    with pytest.raises(UserError) as error:
        load_model(tmp_path / "model")
    message = str(error.value)
    assert message.startswith(f"--model: {tmp_path / 'model' / CONFIG}: ")
    assert next(iter(change)) in message
    assert "\n" not in message


def test_a_setting_of_gawwn_that_is_missing_is_named(tmp_path):
    settings = new_gawwn("keypoints").settings
    export_model(tmp_path / "model", new_gawwn("keypoints"), None, {})
    for name in settings:
        left = {key: value for key, value in settings.items() if key != name}
        change_config(tmp_path / "model", generator=left)
        with pytest.raises(UserError, match=rf"config\.json.*{name}"):
            load_model(tmp_path / "model")


def test_the_first_stage_of_stackgan_alone(tmp_path):
    export_model(tmp_path / "model", new_stackgan(), None, {})
    model = load_model(tmp_path / "model")
    whole = np.concatenate(list(draw_samples(model.generator, EMBEDDINGS)))
    model.draw_first_stage()
    first = np.concatenate(list(draw_samples(model.generator, EMBEDDINGS)))
    assert first.shape == whole.shape
    assert (first != whole).any()
    export_model(tmp_path / "other", new_gan(), None, {})
    with pytest.raises(UserError) as error:
        load_model(tmp_path / "other").draw_first_stage()
    assert str(error.value) == (
        "--first_stage: found true with a model of the method gan_int_cls, expected a stackgan "
        "model of two stages"
    )

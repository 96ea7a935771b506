"""sdn_ray in Python: what the commands do, from a few functions."""

import json
import pickle
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from ray import cloudpickle

import sdn_ray
import sdn_ray.evaluate
import sdn_ray.train
from sdn_ray.errors import UserError
from sdn_ray.models import draw_images, normalise, to_uint8
from sdn_ray.models.export import export_model, load_model
from sdn_ray.models.generator import Generator
from sdn_ray.models.plan import Plan
from sdn_ray.runs.experiment import read_experiment
from sdn_ray.runs.storage import RunStorage
from sdn_ray.text.char_cnn_rnn import CharCnnRnn
from tests.models.test_export import new_gan, new_gawwn, new_modulated, new_stackgan

CAPTIONS = ["a red flower", " a blue one ", "a flower with many thin petals"]


def new_diverse():
    generator = Generator(
        Plan.parse("4,M,6"), embedding_dim=5, image_size=16, fc_width=8, samples=3
    )
    generator.reset_parameters(0)
    return generator


METHODS = {
    "diverse": (new_diverse, "sdn", 16, 3),
    "modulated": (new_modulated, "sdn", 8, None),
    "gan_int_cls": (new_gan, "gan_int_cls", 16, None),
    "stackgan": (new_stackgan, "stackgan", 32, None),
    "keypoints": (lambda: new_gawwn("keypoints"), "gawwn", 32, None),
    "boxes": (lambda: new_gawwn("boxes"), "gawwn", 32, None),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model of every method, with random weights, by its name."""
    folder = tmp_path_factory.mktemp("models")
    encoder = CharCnnRnn("short", embedding_dim=5, cnn_dim=4)
    for parameter in encoder.parameters():
        parameter.data *= 4  # captions differ more than those of a new encoder
    encoder.save(folder / "encoder.safetensors")
    for name, (make, *_) in METHODS.items():
        origin = {"test_scores": {"ssim": 0.25}} if name == "diverse" else {}
        export_model(folder / name / "model", make(), folder / "encoder.safetensors", origin)
    return {name: folder / name / "model" for name in METHODS}


def generated(folder, out, captions, samples, seed):
    """What the command draws: its pictures, those of a caption together, and its sheet."""
    from sdn_ray.generate import main

    options = {"--samples": samples, "--seed": seed, "--output": out, "--model": folder}
    words = [str(word) for option in options.items() for word in option]
    assert main([*words, "--text", *captions]) == 0
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    images = [np.asarray(Image.open(out / line["file"])) for line in lines]
    groups = [images[start : start + samples] for start in range(0, len(images), samples)]
    return groups, Image.open(out / "grid.png")


@pytest.mark.parametrize("name", METHODS)
def test_python_draws_what_generate_draws(folders, tmp_path, name):
    model = sdn_ray.load(str(folders[name]))
    assert (model.method, model.image_size, model.most_samples) == METHODS[name][1:]
    seed = 0 if name == "diverse" else 7
    for samples in (1, 3):
        out = tmp_path / str(samples)
        expected, sheet = generated(folders[name], out, CAPTIONS, samples, seed)
        drawn = model.draw(CAPTIONS, samples=samples, seed=seed)
        assert [len(group) for group in drawn] == [samples] * 3
        assert drawn[0][0].mode == "RGB"
        np.testing.assert_array_equal(np.array([[*map(np.asarray, g)] for g in drawn]), expected)
        grid = model.draw_grid(CAPTIONS, samples=samples, seed=seed)
        np.testing.assert_array_equal(np.asarray(grid), np.asarray(sheet))
    first = model.draw(CAPTIONS[0], samples=3, seed=seed)
    np.testing.assert_array_equal([*map(np.asarray, first)], expected[0])


def test_more_captions_than_a_batch_are_drawn_as_generate_draws_them(folders, tmp_path):
    captions = [f"flower {number}" for number in range(130)]
    expected, _ = generated(folders["modulated"], tmp_path / "out", captions, 3, 1)
    drawn = sdn_ray.load(folders["modulated"]).draw(captions, samples=3, seed=1)
    np.testing.assert_array_equal(np.array([[*map(np.asarray, g)] for g in drawn]), expected)


def test_the_way_from_one_caption_to_another(folders):
    model = sdn_ray.load(folders["gan_int_cls"])
    first, middle, last = map(np.asarray, model.interpolate(CAPTIONS[0], CAPTIONS[2], 3, seed=5))
    own = load_model(folders["gan_int_cls"])
    a, b = own.embed([CAPTIONS[0], CAPTIONS[2]])
    [expected] = own_draw(own, np.stack([a, (a + b) / 2, b]))
    difference = np.stack([first, middle, last]).astype(int) - expected
    assert np.abs(difference).max() <= 1  # another batch may round another way
    assert (first != last).any()


def own_draw(model, embeddings):
    """One picture of each embedding, all of the noise of caption 0 with seed 5."""
    from sdn_ray.models.drawing import draw_samples

    indices = np.zeros(len(embeddings), dtype=np.int64)
    for batch in draw_samples(model.generator, embeddings, seed=5, indices=indices):
        yield batch[:, 0].astype(int)


def test_a_model_says_what_it_is(folders):
    assert repr(sdn_ray.load(folders["boxes"])) == "<sdn_ray.TrainedModel: gawwn, 32×32 pixels>"
    assert sdn_ray.load(folders["diverse"]).scores == {"ssim": 0.25}
    assert sdn_ray.load(folders["boxes"]).scores == {}


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda model: model.draw("a flower", samples=4), "samples: found 4, expected 1 to 3"),
        (lambda model: model.draw("a flower", seed=1), "seed: found 1, but this model takes no"),
        (lambda model: model.draw("a flower", seed=-1), "seed: found -1, expected at least 0"),
        (lambda model: model.draw(["a", " "]), "captions: found an empty caption, expected some"),
        (lambda model: model.draw_grid([]), "captions: found none, expected some"),
        (lambda model: model.draw_grid("a", columns=0), "columns: found 0, expected at least 1"),
        (lambda model: model.interpolate("a", "b", 1), "steps: found 1, expected 2 to 200"),
        (lambda model: model.interpolate("a", ""), "captions: found an empty caption"),
    ],
)
def test_what_a_model_cannot_draw(folders, ask, words):
    with pytest.raises(UserError) as error:
        ask(sdn_ray.load(folders["diverse"]))
    assert str(error.value).startswith(words)


def test_a_model_is_fetched_from_where_its_run_is_kept(folders, tmp_path):
    RunStorage(str(tmp_path / "store"), "study/one").push(folders["diverse"].parent)
    uri = f"file://{tmp_path}/store/study/one"
    [drawn] = sdn_ray.load(f"{uri}/model").draw(CAPTIONS[:1])
    [expected] = sdn_ray.load(folders["diverse"]).draw(CAPTIONS[:1])
    assert drawn == expected
    for wrong, words in {
        uri: f"model: found {uri}, expected the URI of a run followed by /model",
        f"{uri}/model_last": "holds no whole model",
        "ftpx://h/run/model": "storage: found ftpx://h (",
    }.items():
        with pytest.raises(UserError) as error:
            sdn_ray.load(wrong)
        assert words in str(error.value)
    (tmp_path / "store" / "study" / "one" / "model-is-whole").unlink()
    with pytest.raises(UserError, match="holds no whole model"):
        sdn_ray.load(f"{uri}/model")


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=rf"^model: {tmp_path}/none/config.json: not found"):
        sdn_ray.load(tmp_path / "none")


LIGHT = """
import sys
def loaded(*names):
    return [name for name in names if name in sys.modules]
import sdn_ray, sdn_ray.models, sdn_ray.distillation, sdn_ray.data, sdn_ray.text
assert not loaded("torch", "numpy", "pyarrow", "ray", "mlflow")
model = sdn_ray.load(sys.argv[1])
model.draw_grid(model.draw("a flower") and ["a flower"])
model.interpolate("a flower", "another")
assert not loaded("ray", "mlflow", "optuna")
assert callable(sdn_ray.train)
import sdn_ray.train
assert sdn_ray.train.__name__ == "train"
"""


def test_drawing_needs_neither_ray_nor_mlflow(folders):
    words = [sys.executable, "-W", "error", "-c", LIGHT, str(folders["diverse"])]
    subprocess.run(words, check=True)


def test_functions_have_the_names_of_commands():
    # Whose modules are imported above, before this.
    assert sdn_ray.train is sys.modules["sdn_ray.train"].train
    assert sdn_ray.evaluate is sys.modules["sdn_ray.evaluate"].evaluate
    found = pickle.loads(cloudpickle.dumps(lambda: sdn_ray.train))  # as Ray sends it to a worker
    assert found() is sdn_ray.train


@pytest.mark.parametrize("room", ["", ".data", ".distillation", ".models", ".text"])
def test_every_name_of_a_room_is_there(room):
    __import__(f"sdn_ray{room}")
    package = sys.modules[f"sdn_ray{room}"]
    assert package.__all__
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = package.nonsense


def test_a_room_gives_what_its_modules_have():
    pixels = torch.arange(48, dtype=torch.uint8).reshape(1, 3, 4, 4)
    assert torch.equal(to_uint8(normalise(pixels)), pixels)
    assert draw_images.__module__ == "sdn_ray.models.drawing"


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """The experiments that were to be trained, and their folders."""
    from sdn_ray.training import run

    calls = []

    def train(config, folder, display, *, known):
        calls.append((config, folder, known))
        return folder / "model"

    monkeypatch.setattr(run, "train", train)
    monkeypatch.chdir(tmp_path)
    return calls


def test_train_takes_what_the_command_takes(trained, tmp_path):
    main = sys.modules["sdn_ray.train"].main
    (tmp_path / "small.yaml").write_text("seed: 3\ngenerator: {fc_width: 8}\n")
    options = {"distillation.stage_two.learning_rate": 1e-5, "distillation.weight_factors.image": 2}
    typed = ["--distillation.stage_two.learning_rate", "1e-5"]
    typed += ["--distillation.weight_factors.image", "2"]
    made = sdn_ray.train("small.yaml", output="one", **options)
    assert made == tmp_path / "one" / "model"
    main(["--config", "small.yaml", *typed, "--output", "one"])
    sdn_ray.train(**options)
    main(typed)
    assert trained[0] == trained[1]
    assert trained[2][0] == trained[3][0]
    assert trained[2][0].teacher.plan == "16,16,M,32,32,M,64,64,M,64"  # the quickstart's

    # An experiment that is not in a file is whole as well: it is not the quickstart's.
    whole = {"seed": 3, "generator": {"fc_width": 8}}
    sdn_ray.train(whole, output=tmp_path / "one", **options)
    sdn_ray.train(read_experiment(tmp_path / "small.yaml"), output="one", **options)
    assert trained[4] == trained[5] == trained[0]
    sdn_ray.train(whole, **{"training.flips": False, "teacher.plan": None})
    assert (trained[6][0].training.flips, trained[6][0].teacher.plan) == (False, None)

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 3\n")
    sdn_ray.train(resume=tmp_path / "run")
    assert trained[7][1:] == (tmp_path / "run", True)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((), {"sede": 3}, "unrecognized arguments: sede=3. Did you mean seed?"),
        ((), {"seed": -1}, "Parser key "),
        ((), {"seed": object}, "seed: found <class 'object'>, expected text, a number, true"),
        ((), {"help": True}, "argument -h/--help"),
        (("none.yaml",), {}, "config: "),
        (({"dataset": 3},), {}, "Parser key "),
        ((), {"output": "full"}, "output: "),
        ((), {"resume": "full", "seed": 1}, "resume: found seed beside it; expected no other"),
        (("none.yaml",), {"resume": "full"}, "config: "),
    ],
)
def test_what_train_refuses(trained, tmp_path, arguments, options, words):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    with pytest.raises(UserError) as error:
        sdn_ray.train(*arguments, **options)
    assert str(error.value).startswith(words)
    assert trained == []


def test_evaluate_takes_what_the_command_takes(monkeypatch, tmp_path):
    from sdn_ray.scoring import run

    asked = []

    def evaluate(options, output, display):
        names = [text.partition("=")[0] for text in options.images]
        asked.append((options.images, options.reference, options.limit, options.colors, output))
        return [SimpleNamespace(name=name) for name in names]

    monkeypatch.setattr(run, "evaluate", evaluate)
    monkeypatch.chdir(tmp_path)
    assert sdn_ray.evaluate("out", "DIR", limit=3, output="a.json").name == "out"
    assert list(sdn_ray.evaluate(["a=out", "b=out2"], tmp_path, colors=True)) == ["a", "b"]
    assert list(sdn_ray.evaluate({"a": tmp_path, "b": "out"}, limit=None)) == ["a", "b"]
    sdn_ray.evaluate(tmp_path.relative_to(tmp_path) / "rate=0.1")
    assert asked == [
        (["out"], "DIR", 3, False, tmp_path / "a.json"),
        (["a=out", "b=out2"], str(tmp_path), None, True, None),
        ([f"a={tmp_path}", "b=out"], None, None, False, None),
        ([f"{tmp_path}/rate=0.1"], None, None, False, None),
    ]
    with pytest.raises(UserError, match=r"^reference: found none; with colors expected a data set"):
        sdn_ray.evaluate("out", colors=True)
    with pytest.raises(UserError, match=r"^splits: found 0, expected at least 1"):
        sdn_ray.evaluate("out", splits=0)

"""The examples of docstrings do what they say."""

import doctest
from functools import partial
from importlib import import_module
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import sdn_ray
from sdn_ray.data.references import part_rows, read_reference
from sdn_ray.models.export import export_model
from sdn_ray.models.generator import Generator
from sdn_ray.models.plan import Plan
from sdn_ray.runs.terminal import Display
from sdn_ray.text.words import WordEncoder
from sdn_ray.training import run

PACKAGE = Path(sdn_ray.__file__).parent
NEED_DOWNLOADS = {"text/sentence.py", "metrics/classifier_score.py", "models/classifiers.py"}
WITH_EXAMPLES = sorted(
    name
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
    and (name := path.relative_to(PACKAGE).as_posix()) not in NEED_DOWNLOADS
)


@pytest.fixture
def working_folder(drawn_material, tmp_path, monkeypatch):
    """A folder with what examples name: a model, images, DIR, weights; it shows no progress."""
    generator = Generator(
        Plan.parse("4,M,4,M"), embedding_dim=3, image_size=64, fc_width=8, noise_dim=2
    )
    generator.reset_parameters(0)
    WordEncoder(["red", "blue", "flower"]).save(tmp_path / "words.json")
    export_model(tmp_path / "runs" / "NAME" / "model", generator, tmp_path / "words.json", {})
    (tmp_path / "DIR").symlink_to(drawn_material.flowers)
    (tmp_path / "weights.safetensors").symlink_to(drawn_material.squeezenet)
    (tmp_path / "images").mkdir()
    noise = np.random.default_rng(0)
    for row in part_rows(read_reference(drawn_material.flowers), "test", None)[:6]:
        drawn = noise.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(drawn).save(tmp_path / "images" / f"{row.image_path.stem}.png")
    monkeypatch.chdir(tmp_path)
    quiet = partial(Display, Console(file=StringIO()))
    for command in ("train", "evaluate"):
        monkeypatch.setattr(import_module(f"sdn_ray.{command}"), "Display", quiet)
    # Trainings take minutes; tests/integration trains from Python.
    monkeypatch.setattr(run, "train", lambda config, folder, display, known: folder / "model")


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples(working_folder, name, capsys):
    dotted = f"sdn_ray.{name.removesuffix('.py').replace('/', '.')}"
    module = import_module(dotted)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    names = {**vars(module), "sdn_ray": sdn_ray}
    for example in doctest.DocTestFinder(exclude_empty=True).find(module, dotted, globs=names):
        runner.run(example)
    assert runner.summarize(verbose=False).failed == 0, capsys.readouterr().out
    assert runner.tries

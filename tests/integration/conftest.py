import os
import shutil
from dataclasses import asdict
from unittest.mock import Mock

import numpy as np
import pytest
import ray
from mlflow.tracking import MlflowClient
from scipy.io import savemat

import sdn_ray
from sdn_ray.cluster.resources import start_ray
from sdn_ray.data.readers.oxford_flowers import read_oxford_flowers
from sdn_ray.models.export import export_model, load_model
from sdn_ray.models.generator import Generator
from sdn_ray.models.plan import Plan
from sdn_ray.runs.tracking import start_run
from sdn_ray.text.char_cnn_rnn import CharCnnRnn
from tests.integration.birds import sixty_birds
from tests.integration.small import new_cluster, write_config


@pytest.fixture(scope="session")
def ray_cluster():
    """A real Ray on this machine, started once, which this process has joined.

    Explicitly, as commands do: Ray would join by itself where somebody asks it for anything, any
    Ray of this machine, and print into a test's log what its own processes say.
    """
    before = dict(os.environ)
    os.environ["RAY_AUTH_MODE"] = "disabled"
    cluster = new_cluster(2)
    os.environ["RAY_ADDRESS"] = cluster.address
    start_ray(Mock())
    yield cluster.address
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)
    cluster.shutdown()


@pytest.fixture(scope="session")
def search_config(small_cache, empty_store, tmp_path_factory):
    """The small experiment for searches: an eighth of its training classes."""
    folder = tmp_path_factory.mktemp("search")
    shutil.copy(empty_store, folder)
    return write_config(folder, small_cache, validation_classes=280)


@pytest.fixture(scope="session")
def small(ray_cluster, small_cache, empty_store, tmp_path_factory):
    """The small experiment's config file and a run of it that nothing disturbed."""
    folder = tmp_path_factory.mktemp("small")
    shutil.copy(empty_store, folder)
    config = write_config(folder, small_cache)
    run = folder / "undisturbed"
    # From Python, which is how the command does it as well.
    assert sdn_ray.train(config, output=run) == run / "model"
    return config, run


def sixty_photographs(material, root, classes=range(1, 7)):
    """Sixty photographs, ten of each of six classes, in the data set's own layout."""
    (root / "jpg").mkdir(parents=True)
    whole = read_oxford_flowers(material.flowers)
    rows = [row for class_id in classes for row in whole.rows_of([class_id])[:10]]
    for number, row in enumerate(rows, 1):
        shutil.copy(row.image_path, root / "jpg" / f"image_{number:05d}.jpg")
        captions = root / "text_c10" / f"class_{row.class_id:05d}"
        captions.mkdir(parents=True, exist_ok=True)
        (captions / f"image_{number:05d}.txt").write_text("\n".join(row.captions))
    labels = np.array([[row.class_id for row in rows]], dtype=np.uint8)
    savemat(root / "imagelabels.mat", {"labels": labels})
    return root


@pytest.fixture
def photographs(best_material, tmp_path):
    """Sixty photographs of a test's own, to do with as it likes."""
    return sixty_photographs(best_material, tmp_path / "flowers")


@pytest.fixture(scope="session")
def reference(best_material, tmp_path_factory):
    """Sixty photographs with class lists (two of the six classes are for testing), to be read."""
    classes = (26, 37, 45, 48, 44, 12)  # red, pink, purple, yellow; red, yellow
    folder = tmp_path_factory.mktemp("reference") / "flowers"
    root = sixty_photographs(best_material, folder, classes)
    names = [f"class_{class_id:05d}" for class_id in classes]
    (root / "text_c10" / "trainvalclasses.txt").write_text("\n".join(names[:4]))
    (root / "text_c10" / "testclasses.txt").write_text("\n".join(names[4:]))
    return root


@pytest.fixture(scope="session")
def birds(tmp_path_factory):
    """Sixty drawn discs with three parts each, laid out as CUB-200-2011, of six colours."""
    root = tmp_path_factory.mktemp("birds") / "cub"
    return sixty_birds(root)


@pytest.fixture(scope="session")
def diverse_model(tmp_path_factory):
    """A model folder with random weights that draws two samples of 32×32 for each caption."""
    generator = Generator(
        Plan.parse("4,M,6"), embedding_dim=8, image_size=32, fc_width=16, samples=2
    )
    generator.reset_parameters(0)
    folder = tmp_path_factory.mktemp("diverse")
    encoder = CharCnnRnn("short", embedding_dim=8)
    for parameter in encoder.parameters():
        parameter.data *= 4  # captions differ more than those of a new encoder
    encoder.save(folder / "encoder.safetensors")
    export_model(folder / "model", generator, folder / "encoder.safetensors", {})
    return folder / "model"


@pytest.fixture
def tracked_model(diverse_model, empty_store, tmp_path):
    """The same model as if a run had made it, with that run's MLflow client and id."""
    shutil.copy(empty_store, tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.create_experiment("e", artifact_location=(tmp_path / "a").as_uri())
    tracked = start_run(uri, experiment, "run", {}, {})
    model = load_model(diverse_model)
    encoder = diverse_model / "text_encoder.safetensors"
    export_model(tmp_path / "model", model.generator, encoder, {"tracked": asdict(tracked)})
    return tmp_path / "model", client, tracked.run_id

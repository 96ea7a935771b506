"""The wheel: what travels in it, and that commands work from it in any folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT_PRESETS = {"rayjob.yaml"}  # for Kubernetes, not for a command


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with nothing but what the wheel holds, as `pip install .` lays it."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed, tmp_path, *arguments):
    env = os.environ | {"PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, *arguments], env=env, cwd=tmp_path, capture_output=True, text=True
    )


def test_presets_spaces_and_types_travel_in_the_wheel(installed):
    package = installed / "sdn_ray"
    for folder in ("jobs", "search_spaces"):
        here = {path.name for path in (ROOT / folder).glob("*.yaml")} - NOT_PRESETS
        assert {path.name for path in (package / folder).iterdir()} == here
    assert (package / "py.typed").exists()
    modules = {path.relative_to(ROOT) for path in (ROOT / "sdn_ray").rglob("*.py")}
    assert {path.relative_to(installed) for path in package.rglob("*.py")} == modules


def test_commands_find_their_presets_from_any_folder(installed, tmp_path):
    where = run(installed, tmp_path, "-c", "import sdn_ray; print(sdn_ray.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(installed)
    help_text = run(installed, tmp_path, "-m", "sdn_ray.train", "--help")
    assert help_text.returncode == 0
    assert "--distillation.scheme" in help_text.stdout
    # The quickstart's plan has three pools: only whoever has read it can refuse 12 pixels.
    small = ("--dataset.image_size", "12")
    for command in (
        ("sdn_ray.train", *small),
        ("sdn_ray.tune", "--space", "search_spaces/quickstart.yaml", *small),
        ("sdn_ray.train_text", "--config", "jobs/quickstart.yaml", *small),
    ):
        found = run(installed, tmp_path, "-m", *command)
        assert found.returncode == 2, found.stderr
        assert found.stderr.startswith("error: dataset.image_size: found 12"), found.stderr
    assert list(tmp_path.iterdir()) == []

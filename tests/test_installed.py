"""The wheel: what travels in it, and that commands work from it in any folder."""

import json
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


# One process for all commands, since most of a command's start is what it imports.
RUN = """
import json, sys
from importlib import import_module
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
import sdn_ray
from sdn_ray.runs.command_line import run_command
found = [sdn_ray.__file__]
for name, *arguments in json.loads(sys.argv[1]):
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        try:
            status = run_command(import_module(f"sdn_ray.{name}").main, arguments)
        except SystemExit as end:
            status = end.code
    found.append([status, out.getvalue(), err.getvalue()])
print(json.dumps(found))
"""


def run(installed, folder, *commands):
    """Where the package was found, and status, output and errors of each command."""
    env = os.environ | {"PYTHONPATH": str(installed)}
    words = [sys.executable, "-c", RUN, json.dumps(commands)]
    done = subprocess.run(words, env=env, cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_presets_spaces_and_types_travel_in_the_wheel(installed):
    package = installed / "sdn_ray"
    for folder in ("jobs", "search_spaces"):
        here = {path.name for path in (ROOT / folder).glob("*.yaml")} - NOT_PRESETS
        assert {path.name for path in (package / folder).iterdir()} == here
    assert (package / "py.typed").exists()
    modules = {path.relative_to(ROOT) for path in (ROOT / "sdn_ray").rglob("*.py")}
    assert {path.relative_to(installed) for path in package.rglob("*.py")} == modules


def test_commands_find_their_presets_from_any_folder(installed, tmp_path):
    # The quickstart's plan has three pools: only whoever has read it can refuse 12 pixels.
    small = ("--dataset.image_size", "12", "--text.encoder", "char_cnn_rnn")
    where, shown, *refused = run(
        installed,
        tmp_path,
        ("train", "--help"),
        ("train", *small),
        ("tune", "--space", "search_spaces/quickstart.yaml", *small),
        ("train_text", "--config", "jobs/quickstart.yaml", *small),
    )
    assert Path(where).is_relative_to(installed)
    assert shown[0] == 0
    assert "--distillation.scheme" in shown[1]
    for status, _, error in refused:
        assert status == 2, error
        assert error.startswith("error: dataset.image_size: found 12"), error
    assert list(tmp_path.iterdir()) == []

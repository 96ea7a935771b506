import pytest

from sdn_ray.runs.command_line import run_command
from sdn_ray.serve import main
from sdn_ray.serving.run import named_models
from tests.serving.models import small_models


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return small_models(tmp_path_factory.mktemp("models"))


def test_a_model_goes_by_its_name_or_its_run_s(tmp_path):
    found = named_models(
        [f"{tmp_path}/runs/one/model", "two=runs/two/model", "s3://bucket/runs/three/model"]
    )
    assert [name for name, _ in found] == ["one", "two", "three"]
    assert found[0][1] == f"{tmp_path}/runs/one/model"
    assert found[2][1] == "s3://bucket/runs/three/model"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--model", "{noisy}", "--host", "0.0.0.0"], "--host: found 0.0.0.0 without --token"),
        (["--model", "{noisy}", "--token", "short"], "--token: found 5 characters"),
        (["--model", "{noisy}", "--reference", "."], "--reference: found without --teacher"),
        (["--model", "{noisy}", "--port", "99999"], "--port: localhost:99999 cannot be served"),
        (["--model", "{noisy}", "--replicas", "0"], "--replicas: found 0, expected at least 1"),
        (["--model", "{noisy}", "{noisy}"], "--model: found the names noisy, noisy; expected each"),
        (["--model", "nowhere"], "--model: "),
        (["--model", "a={noisy}", "--model", "b=nowhere"], "--model: "),
        ([], "model"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_starts(folders, capsys, options, reason):
    assert run_command(main, [option.format(**folders) for option in options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line

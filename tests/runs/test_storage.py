"""A run folder's second home: a mounted folder, and a real S3 server on this machine."""

import boto3
import pytest
from moto.server import ThreadedMotoServer
from pyarrow.fs import FileInfo, FileType

from sdn_ray.errors import UserError
from sdn_ray.runs.storage import RunStorage, stored_run


def write(run, files):
    for name, text in files.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(text)


def files(folder):
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in found}


@pytest.fixture(params=["folder", "s3"])
def uri(request, tmp_path, monkeypatch):
    if request.param == "folder":
        yield str(tmp_path / "store")
        return
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "name")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    client.create_bucket(Bucket="runs")
    yield f"s3://runs/mine?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    server.stop()


FIRST = {
    "config.yaml": "seed: 0",
    "metrics.jsonl": "{}\n",
    "checkpoints/checkpoint-000000010.pt": "ten",
    "checkpoints/checkpoint-000000020-stage-end.pt": "twenty",
}


def test_the_last_weights_are_kept_beside_a_model_of_averaged_ones(uri, tmp_path):
    last = {"model_last/config.json": "{}", "model_last/text_encoder/base/vocab.txt": "a"}
    write(tmp_path / "run", FIRST | last)
    RunStorage(uri, "one").push(tmp_path / "run")
    assert RunStorage(uri, "one").pull(tmp_path / "other")
    assert files(tmp_path / "other") == FIRST | last


def test_what_is_pushed_comes_back_as_it_was(uri, tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    write(run, FIRST | {".lock": "", "checkpoints/.checkpoint-half.pt": "no", "ray_train/x": "no"})
    storage = RunStorage(uri, "study/trials/0001")
    storage.check(run, new=True)
    storage.push(run)
    assert RunStorage(uri, "study/trials/0001").pull(other)
    assert files(other) == FIRST

    # Later: a checkpoint came, one went, the metrics grew.
    (run / "checkpoints/checkpoint-000000010.pt").unlink()
    write(run, {"checkpoints/checkpoint-000000030.pt": "thirty", "metrics.jsonl": "{}\n{}\n"})
    assert storage.push_behind(run) is None
    assert storage.settle() is None
    third = tmp_path / "third"
    storage.pull(third)
    assert files(third) == {
        "config.yaml": "seed: 0",
        "metrics.jsonl": "{}\n{}\n",
        "checkpoints/checkpoint-000000020-stage-end.pt": "twenty",
        "checkpoints/checkpoint-000000030.pt": "thirty",
    }
    with pytest.raises(UserError, match="already holds a run study/trials/0001"):
        storage.check(run, new=True)
    storage.check(run, new=False)


def test_a_model_comes_back_only_whole(uri, tmp_path):
    run = tmp_path / "run"
    write(run, FIRST | {"model/generator.safetensors": "weights", "model/config.json": "{}"})
    storage = RunStorage(uri, "run")
    storage.push(run)
    storage._remote.delete_file(f"{storage._folder}/model-is-whole")  # as if cut off before
    cut_off = tmp_path / "cut_off"
    storage.pull(cut_off)
    assert files(cut_off) == FIRST
    storage.push(run)
    whole = tmp_path / "whole"
    storage.pull(whole)
    assert files(whole) == files(run)


def test_a_model_comes_by_itself(uri, tmp_path):
    run = tmp_path / "run"
    model = {"model/config.json": "{}", "model/text_encoder/base/vocab.txt": "a"}
    write(run, FIRST | model | {"model_last/config.json": "[]"})
    RunStorage(uri, "study/run").push(run)
    storage = RunStorage(uri, "study/run")
    assert storage.pull_model("model", tmp_path / "model")
    assert files(tmp_path / "model") == {"config.json": "{}", "text_encoder/base/vocab.txt": "a"}
    assert storage.pull_model("model_last", tmp_path / "last")
    assert files(tmp_path / "last") == {"config.json": "[]"}
    assert not storage.pull_model("model_other", tmp_path / "other")
    assert not RunStorage(uri, "study").pull_model("model", tmp_path / "other")
    storage._remote.delete_file(f"{storage._folder}/model-is-whole")  # as if cut off before
    assert not storage.pull_model("model", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_run_that_is_not_there(uri, tmp_path):
    assert not RunStorage(uri, "none").pull(tmp_path / "run")


def test_a_store_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"storage: .*file/x cannot be written"):
        RunStorage(str(tmp_path / "file" / "x"), "run").check(tmp_path, new=True)
    with pytest.raises(UserError, match=r"storage: found ftpx://h/y .* expected a folder or a URI"):
        RunStorage("ftpx://h/y", "run")


def test_a_push_that_fails_says_why_and_stops_nothing(tmp_path):
    storage = RunStorage(str(tmp_path / "store"), "run")
    write(tmp_path / "run", FIRST)
    (tmp_path / "store").write_text("a file, where the folder was")
    assert storage.push_behind(tmp_path / "run") is None
    assert "store" in storage.settle()
    assert storage.settle() is None


def test_a_stored_run_is_one_uri():
    assert stored_run("s3://b/f/run?region=x") == ("s3://b/f?region=x", "run")
    assert stored_run("file:///a/b/run/") == ("file:///a/b", "run")


def test_a_run_folder_is_not_its_own_second_home(tmp_path):
    with pytest.raises(UserError, match=r"would keep the run folder .* in itself"):
        RunStorage(str(tmp_path), "run").check(tmp_path / "run", new=False)


def test_a_model_with_folders_and_a_store_named_checkpoints(tmp_path):
    run = tmp_path / "run"
    write(run, FIRST | {"model/config.json": "1", "model/text_encoder/base/config.json": "2"})
    write(run, {".curves.0.png": "half", "model/generator.safetensors": "weights"})
    storage = RunStorage(str(tmp_path / "checkpoints"), "run")
    storage.push(run)
    storage.push(run)
    storage.pull(tmp_path / "again")
    (run / ".curves.0.png").unlink()
    assert files(tmp_path / "again") == files(run)


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "store" / "run").mkdir(parents=True)
    storage = RunStorage(str(tmp_path / "store"), "run")
    outside = FileInfo(f"{tmp_path}/store/run/../../../mine", FileType.File, size=1)
    storage._list = lambda: [outside]
    with pytest.raises(UserError, match=r"holds '\.\./\.\./\.\./mine'.*outside of"):
        storage.pull(tmp_path / "here" / "run")
    assert not (tmp_path / "here").exists()


def test_the_longer_record_is_kept(tmp_path):
    storage = RunStorage(str(tmp_path / "store"), "run")
    write(tmp_path / "run", {"metrics.jsonl": "one\ntwo\n"})
    storage.push(tmp_path / "run")
    for before, after in (("one\n", "one\ntwo\n"), ("one\ntwo\n3\n", "one\ntwo\n3\n")):
        write(tmp_path / "here", {"metrics.jsonl": before})
        storage.pull(tmp_path / "here")
        assert files(tmp_path / "here") == {"metrics.jsonl": after}

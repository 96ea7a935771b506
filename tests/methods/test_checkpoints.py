import pickle

import pytest
import torch

from sdn_ray.errors import UserError
from sdn_ray.methods.checkpoints import (
    latest_checkpoint,
    load_checkpoint,
    remove_partial_files,
    save_checkpoint,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def save(folder, *steps):
    """Checkpoints at these steps; a step given as a string is the end of a stage."""
    for step in steps:
        save_checkpoint(folder, {"step": int(step)}, int(step), isinstance(step, str))


def test_a_state_reads_back(tmp_path):
    state = {
        "tensor": torch.randn(3, 4),
        "last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "half": torch.randn(3).bfloat16(),
        "bytes": torch.get_rng_state(),
        "empty": torch.zeros(0, dtype=torch.float64),
        "nothing": None,
        "nested": {"layers": [1.5, 2], "name": "sdn", "flag": True},
    }
    path = save_checkpoint(tmp_path / "new" / "folder", state, 7, False)
    assert path == latest_checkpoint(tmp_path / "new" / "folder")
    back = load_checkpoint(path)
    assert back.keys() == state.keys()
    for name in ("tensor", "last", "half", "bytes", "empty"):
        assert back[name].dtype == state[name].dtype
        assert torch.equal(back[name], state[name])
    assert back["nothing"] is None
    assert back["nested"] == state["nested"]


def test_the_last_two_are_kept_and_every_end_of_a_stage(tmp_path):
    save(tmp_path, 1)
    assert names(tmp_path) == ["checkpoint-000000001.pt"]
    save(tmp_path, 2, 3)
    assert names(tmp_path) == ["checkpoint-000000002.pt", "checkpoint-000000003.pt"]
    save(tmp_path, "4")
    kept = ["checkpoint-000000003.pt", "checkpoint-000000004-stage-end.pt"]
    assert names(tmp_path) == kept
    save(tmp_path, 5)
    assert names(tmp_path) == ["checkpoint-000000004-stage-end.pt", "checkpoint-000000005.pt"]
    save(tmp_path, 6, 7, "8", 9, 10, 11)
    assert names(tmp_path) == [
        "checkpoint-000000004-stage-end.pt",
        "checkpoint-000000008-stage-end.pt",
        "checkpoint-000000010.pt",
        "checkpoint-000000011.pt",
    ]


def test_the_latest_is_the_one_of_most_steps(tmp_path):
    assert latest_checkpoint(tmp_path / "nowhere") is None
    assert latest_checkpoint(tmp_path) is None
    save(tmp_path, 999, 1000, 1_000_000)
    assert load_checkpoint(latest_checkpoint(tmp_path)) == {"step": 1_000_000}


def test_the_end_of_a_stage_comes_after_its_last_step(tmp_path):
    save(tmp_path, "6", 6)
    assert latest_checkpoint(tmp_path).name == "checkpoint-000000006-stage-end.pt"
    save(tmp_path, 7)
    assert latest_checkpoint(tmp_path).name == "checkpoint-000000007.pt"


def test_the_same_step_again_replaces(tmp_path):
    save_checkpoint(tmp_path, {"epoch": 0}, 3, False)
    save_checkpoint(tmp_path, {"epoch": 1}, 3, False)
    assert names(tmp_path) == ["checkpoint-000000003.pt"]
    assert load_checkpoint(latest_checkpoint(tmp_path)) == {"epoch": 1}


def test_what_a_kill_leaves_behind_is_no_checkpoint(tmp_path):
    """The temporary names are those that a real interrupted save would have used."""
    seen = []
    save(tmp_path, 1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", lambda state, path: seen.append(path))
        with pytest.raises(FileNotFoundError):
            save(tmp_path, 9)
    seen[0].write_bytes(b"half")
    assert seen[0].parent == tmp_path
    assert latest_checkpoint(tmp_path).name == "checkpoint-000000002.pt"
    save(tmp_path, 3)
    assert latest_checkpoint(tmp_path).name == "checkpoint-000000003.pt"
    assert seen[0].name in names(tmp_path)
    remove_partial_files(tmp_path)
    assert names(tmp_path) == ["checkpoint-000000002.pt", "checkpoint-000000003.pt"]


def test_a_save_that_fails_drops_no_older_checkpoint(tmp_path):
    save(tmp_path, 1, 2)
    before = names(tmp_path)
    with pytest.raises((AttributeError, TypeError, RuntimeError, pickle.PicklingError)):
        save_checkpoint(tmp_path, {"unwritable": lambda: None}, 3, False)
    assert names(tmp_path) == before


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.99, 0.9999])
def test_a_truncated_checkpoint(tmp_path, share):
    path = save_checkpoint(tmp_path, {"tensor": torch.randn(100, 100), "epoch": 3}, 5, False)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=r"checkpoint-000000005\.pt: cannot be read"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"words, not weights", b"\x80\x02", b"PK\x03\x04nothing"])
def test_a_file_that_is_no_checkpoint(tmp_path, content):
    path = tmp_path / "checkpoint-000000005.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"checkpoint-000000005\.pt: cannot be read"):
        load_checkpoint(path)


class Trap:
    """An object whose unpickling makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_checkpoint_runs_no_code(tmp_path):
    path = tmp_path / "checkpoint-000000005.pt"
    torch.save({"epoch": Trap(str(tmp_path / "sprung"))}, path)
    with pytest.raises(UserError, match="cannot be read"):
        load_checkpoint(path)
    assert not (tmp_path / "sprung").exists()

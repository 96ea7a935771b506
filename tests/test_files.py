import errno
import fcntl
import hashlib
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from sdn_ray.errors import UserError
from sdn_ray.files import (
    check_writable,
    file_hash,
    fingerprint,
    making_folder,
    parse_json,
    read_array,
    read_json,
    read_yaml,
    replacing,
    sole_writer,
    user_path,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_replaced_file_is_old_until_it_is_new(tmp_path):
    path = tmp_path / "new" / "folder" / "a.b.txt"
    with replacing(path) as partial:
        assert partial.parent == path.parent
        assert partial.suffix == ".txt"
        assert partial.name.startswith(".")
        partial.write_text("old")
        assert not path.exists()
    assert path.read_text() == "old"
    with replacing(str(path)) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(path.parent) == ["a.b.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("existed", [False, True])
def test_a_block_that_raises_changes_no_file(tmp_path, error, existed):
    path = tmp_path / "file.txt"
    if existed:
        path.write_text("old")

    def write():
        with replacing(path) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert names(tmp_path) == (["file.txt"] if existed else [])
    assert not existed or path.read_text() == "old"


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    (tmp_path / "file.txt").write_text("old")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file.txt"):
        pass
    assert (tmp_path / "file.txt").read_text() == "old"


def test_of_two_writers_at_once_the_last_wins(tmp_path):
    path = tmp_path / "file.txt"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the outer block ends last
    assert names(tmp_path) == ["file.txt"]


def test_write_text_is_utf8(tmp_path):
    write_text(tmp_path / "file.txt", "φ → I\n")
    assert (tmp_path / "file.txt").read_bytes() == "φ → I\n".encode()


def test_a_made_folder_is_there_whole_or_not(tmp_path):
    path = tmp_path / "new" / "folder.v1"
    with making_folder(path) as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "file").write_text("content")
        assert partial.parent == path.parent
        assert not path.exists()
    assert (path / "inner" / "file").read_text() == "content"
    assert names(path.parent) == ["folder.v1"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_block_that_raises_makes_no_folder(tmp_path, error):
    def make():
        with making_folder(tmp_path / "folder") as partial:
            (partial / "file").write_text("half")
            raise error

    with pytest.raises(error):
        make()
    assert names(tmp_path) == []


def test_of_two_makers_at_once_the_first_wins(tmp_path):
    path = tmp_path / "folder"
    with making_folder(path) as slow:
        with making_folder(path) as fast:
            (fast / "file").write_text("fast")
        (slow / "file").write_text("slow")
    assert (path / "file").read_text() == "fast"
    assert names(tmp_path) == ["folder"]


def test_many_makers_at_once_make_one_folder(tmp_path):
    path, barrier = tmp_path / "folder", threading.Barrier(8)
    faults = []

    def make(number):
        try:
            with making_folder(path) as partial:
                for name in ("first", "second"):
                    (partial / name).write_text(str(number))
                barrier.wait()
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert names(tmp_path) == ["folder"]
    assert (path / "first").read_text() == (path / "second").read_text()


def test_a_folder_where_a_file_stands(tmp_path):
    (tmp_path / "folder").write_text("a file")

    def make():
        with making_folder(tmp_path / "folder") as partial:
            (partial / "file").write_text("content")

    with pytest.raises(OSError, match=r"could not make the folder .*folder"):
        make()
    assert names(tmp_path) == ["folder"]
    assert (tmp_path / "folder").read_text() == "a file"


def test_fingerprints_are_of_values():
    first = fingerprint("kind", {"a": 1, "b": [1.5, None, "φ"]})
    assert first == fingerprint("kind", {"b": [1.5, None, "φ"], "a": 1})
    text = '["kind", {"a": 1, "b": [1.5, null, "φ"]}]'
    assert first == hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
    others = [
        fingerprint("kind", {"a": 2, "b": [1.5, None, "φ"]}),
        fingerprint("kind", {"a": 1}, {"b": [1.5, None, "φ"]}),
        fingerprint("kin", "d", {"a": 1, "b": [1.5, None, "φ"]}),
        fingerprint("kind", {"a": "1", "b": [1.5, None, "φ"]}),
    ]
    assert len({first, *others}) == 5


def test_file_hash_is_of_bytes(tmp_path):
    (tmp_path / "one").write_bytes(b"content")
    (tmp_path / "two").write_bytes(b"content")
    (tmp_path / "three").write_bytes(b"contents")
    found = [file_hash(tmp_path / name) for name in ("one", "two", "three")]
    assert found[0] == found[1] != found[2]
    assert found[0] == hashlib.blake2b(b"content", digest_size=10).hexdigest()


def lock(folder, patience=0):
    with sole_writer(folder, patience):
        pass


def test_a_folder_has_one_writer_at_a_time(tmp_path):
    with sole_writer(tmp_path), pytest.raises(UserError, match="another process is training"):
        lock(tmp_path)
    lock(tmp_path)
    with pytest.raises(RuntimeError), sole_writer(tmp_path):
        raise RuntimeError
    lock(tmp_path)


def test_the_next_writer_waits_for_the_end_of_the_one_before(tmp_path):
    order = []

    def wait():
        with sole_writer(tmp_path, patience=60):
            order.append("second")

    thread = threading.Thread(target=wait)
    with sole_writer(tmp_path):
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_file_system_that_locks_nothing_is_named(tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(UserError, match="its file system locks no file"),
        sole_writer(tmp_path),
    ):
        pass


def test_what_lies_in_a_made_folder_can_be_read_by_others(tmp_path):
    with making_folder(tmp_path / "made") as partial:
        (partial / "inner").mkdir(mode=0o700)
        (partial / "inner" / "file").write_text("")
        (partial / "inner" / "file").chmod(0o600)
    assert (tmp_path / "made" / "inner").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "made" / "inner" / "file").stat().st_mode & 0o777 == 0o644


def test_a_killed_process_holds_no_lock(tmp_path):
    script = "import sys; from sdn_ray.files import sole_writer; from pathlib import Path\n"
    script += "with sole_writer(Path(sys.argv[1])): print('locked', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(tmp_path)]
    root = Path(__file__).resolve().parents[1]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(UserError):
            lock(tmp_path)
        process.kill()
    lock(tmp_path)


def test_a_path_of_a_user_is_absolute_and_need_not_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert user_path("a/b") == tmp_path / "a" / "b"
    assert user_path("~/x") == tmp_path / "home" / "x"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"^file/x: {tmp_path}/file is a file, expected"):
        user_path("file/x")
    for impossible in ("", "a\0b", "x" * 300, "~no_such_user/x"):
        with pytest.raises(UserError, match="cannot be a path"):
            user_path(impossible)


def test_whether_a_place_can_be_written_leaves_nothing_behind(tmp_path):
    check_writable(tmp_path / "a" / "b" / "c.json")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="/proc takes no files"):
        check_writable(Path("/proc/x/y"))


def test_json_is_read_as_its_type(tmp_path):
    path = tmp_path / "bad.json"
    path.write_text('{"3": "does not decode", "12": "é"}', encoding="utf-8")
    assert read_json(path, dict[int, str], "reasons") == {3: "does not decode", 12: "é"}
    for text, reason in {
        '{"3": 4}': "3: Input should be a valid string, found '4'",
        "[]": "Input should be an object",
        "{": "Invalid JSON",
    }.items():
        with pytest.raises(UserError, match=re.escape(reason)) as caught:
            parse_json(text, dict[int, str], "bad.json", "reasons")
        assert str(caught.value).startswith("bad.json: cannot be read (")
        assert str(caught.value).endswith("); expected reasons")


def test_yaml_knows_its_lines_and_is_bounded(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: 1\nb: &x [1, 2]\nc: *x\n")
    node = read_yaml(path, "options")
    assert [(key.value, key.start_mark.line) for key, _ in node.value] == [
        ("a", 0),
        ("b", 1),
        ("c", 2),
    ]
    path.write_text("a: 1\nb:\n  c: 1\n  c: 2\n")
    with pytest.raises(UserError, match="line 4: c found twice, expected once"):
        read_yaml(path, "options")


def test_an_array_of_a_cache_that_is_damaged_says_what_to_remove(tmp_path):
    path = tmp_path / "captions-1" / "embeddings.npy"
    path.parent.mkdir()
    np.save(path, np.arange(100))
    assert read_array(path).sum() == 4950
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match=f"Remove {path.parent}, and it is made again"):
        read_array(path)

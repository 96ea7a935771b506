"""Files and folders: read with bounds, written whole or not at all, hashed, locked, found."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from pydantic import TypeAdapter, ValidationError

from sdn_ray.errors import UserError, one_line

Kind = TypeVar("Kind")

_MOST_TEXT = 256 << 20  # bytes of a file that is read as text
_MOST_YAML = 1 << 20
# What PyYAML raises of a value that is none of its tag's: it looks into tables and matches.
_WRONG_YAML = (
    yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, TypeError,
)  # fmt: skip
_LONGEST_NUMBER = 40  # characters
_MOST_NODES, _DEEPEST = 10_000, 50  # of a YAML file, aliases written out
# What an operating system says of a path that the user chose badly, or of a full disk.
_ABOUT_PATHS = {
    errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.EFBIG, errno.EINVAL, errno.EISDIR, errno.ELOOP,
    errno.ENAMETOOLONG, errno.ENOENT, errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS,
}  # fmt: skip
_PACKAGE = Path(__file__).parent
# Where jobs/ and search_spaces/ lie: in an installed package within it, in a checkout beside it.
SHIPPED = _PACKAGE if (_PACKAGE / "jobs").is_dir() else _PACKAGE.parent


def shipped_file(path: str) -> Path:
    """A file that the user names, or the one of that name that comes with the package.

    So ``jobs/flowers64.yaml`` is found wherever a command is run.
    """
    given = user_path(path)
    shipped = SHIPPED / path
    return shipped if shipped.is_file() and not given.exists() else given


def user_path(path: str) -> Path:
    """A path that the user gives, absolute and with ``~`` written out; it need not exist.

    Raises:
        UserError: no file system can have it.
    """
    try:
        found = Path(path).expanduser().absolute()
        if not path:
            raise ValueError("it is empty")
        os.lstat(found)
    except FileNotFoundError:
        return found
    except NotADirectoryError:
        above = next(parent for parent in found.parents if parent.is_file())
        raise UserError(
            f"{path}: {above} is a file, expected a path that leads through folders"
        ) from None
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        shown = path if len(path) < 100 else f"{path[:60]}… ({len(path)} characters)"
        raise UserError(f"{shown!r} cannot be a path ({reason}); expected another") from None
    return found


def check_writable(path: Path) -> None:
    """See that a file or folder can be made where nothing is yet; nothing stays behind.

    Raises:
        UserError: naming the folder that does not take it.
    """
    if path.exists():
        return
    above = next(parent for parent in path.parents if parent.exists())
    probe = above / f".{uuid.uuid4().hex}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise UserError(
            f"{path} cannot be made: {above} takes no files ({error.strerror}); expected a place "
            "that can be written"
        ) from error


def about_a_path(error: OSError) -> str | None:
    """What an error of the operating system says of a path, None where it is of another kind."""
    if error.errno not in _ABOUT_PATHS or not error.filename:
        return None
    return f"{error.filename}: {error.strerror}"


def read_text(path: Path, expected: str, most: int = _MOST_TEXT) -> str:
    """A text file in UTF-8.

    Args:
        path: of it.
        expected: what kind of file, for the error.
        most: bytes that it may have.

    Raises:
        UserError: it is not there, too large, or no text.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("a folder or a device")
        with path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise ValueError(f"it has more than {most} bytes")
        return content.decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: not found, expected {expected}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error, 200)
        raise UserError(f"{path}: cannot be read ({reason}); expected {expected}") from error


def read_json(path: Path, kind: type[Kind], expected: str) -> Kind:
    """A JSON file of ours, as the type that was written.

    Args:
        path: of it.
        kind: any type with annotations: a dataclass, a TypedDict, dict[str, float] …
        expected: what kind of file, for the error.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    return parse_json(read_text(path, expected), kind, str(path), expected)


def parse_json(text: str, kind: type[Kind], where: str, expected: str) -> Kind:
    """JSON as the type that was written.

    Raises:
        UserError: it holds something else.
    """
    try:
        return _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        reason = _first_reason(error)
        raise UserError(f"{where}: cannot be read ({reason}); expected {expected}") from error


def checked_record(value: Any, kind: Any) -> Any:
    """A value as a type that has annotations; what can be meant is taken (3.0 for 3).

    Raises:
        ValueError: it is something else; the message is one line.
    """
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        raise ValueError(_first_reason(error)) from error


# Made once for a type: that takes as long as to check a hundred lines by it.
_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def _first_reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    reason = first["msg"]
    if first["loc"]:
        reason = f"{'.'.join(map(str, first['loc']))}: {reason}"
        if first["type"] != "missing":
            reason += f", found {str(first['input'])[:60]!r}"
    return " ".join(reason.split())[:300]


def read_array(path: Path) -> np.ndarray:
    """An array of a cache, read as it is needed.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{path}: cannot be read ({one_line(error, 200)}); expected an array of the cache. "
            f"Remove {path.parent if path.parent.name.startswith('captions-') else path}, and it "
            "is made again"
        ) from error


def read_yaml(path: Path, expected: str) -> yaml.MappingNode:
    """A YAML file with names and values at its top, as nodes that know their lines.

    No tag of its own kinds is followed, and aliases are bounded as if they were written out.

    Raises:
        UserError: it cannot be read, is nested too deep, or has a name twice.
    """
    text = read_text(path, expected, _MOST_YAML)
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        if not isinstance(node, yaml.MappingNode) or not node.value:
            raise ValueError("it has no names with values")
        _check_node(node)
        yaml.SafeLoader("").construct_document(node)
    except _WRONG_YAML as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else one_line(error, 300)
        raise UserError(f"{path}: cannot be read ({reason}); expected {expected}") from error
    return node


def _check_node(top: yaml.Node) -> None:
    """Bound the size of what nodes stand for; no mapping may have a key twice."""
    waiting, seen = [(top, 0)], 0
    while waiting:
        node, depth = waiting.pop()
        seen += 1
        if depth > _DEEPEST or seen > _MOST_NODES:
            raise ValueError("its values, aliases written out, are nested too deep or too many")
        if node.tag.endswith((":int", ":float")) and len(node.value) > _LONGEST_NUMBER:
            raise ValueError(f"line {node.start_mark.line + 1}: a number of too many digits")
        if isinstance(node, yaml.SequenceNode):
            waiting += [(value, depth + 1) for value in node.value]
        elif isinstance(node, yaml.MappingNode):
            names: set[str] = set()
            for key, value in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode):
                    raise ValueError(f"line {line}: a name that is no plain text")
                if key.value in names:
                    raise ValueError(f"line {line}: {key.value} found twice, expected once")
                names.add(key.value)
                waiting.append((value, depth + 1))


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, which on success is flushed and renamed over it.

    When the block raises, the temporary file is removed and ``path`` is left as it was. The
    temporary name keeps the suffix, since some writers choose their format by it.

    Raises:
        UserError: ``path`` is there and no file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a device would become a file
        raise UserError(f"{path} is a folder or a device, expected a file or nothing there")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        yield partial
        # Some writers leave files that only their owner can read; workers may run as others.
        partial.chmod(0o644)
        descriptor = os.open(partial, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        partial.replace(path)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, all or nothing."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def making_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it is renamed to ``path``.

    Where ``path`` has come to exist meanwhile (another process made the same), that one stays and
    the temporary folder is removed, as it is when the block raises.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    partial.mkdir()
    try:
        yield partial
        # Some writers leave files that only their owner can read; others share the folder.
        for file in partial.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)
        # Renaming over a folder that is not empty fails: the first maker wins.
        with suppress(OSError):
            partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if not path.is_dir():
        raise OSError(f"could not make the folder {path}")


def fingerprint(*parts: Any) -> str:
    """A short hash of JSON values, the same on every machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8"), digest_size=10).hexdigest()


def file_hash(path: str | Path) -> str:
    """A short hash of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=10)).hexdigest()


def path_hash(path: str | Path) -> str:
    """A short hash of a file's bytes, or of the names and bytes of all files in a folder.

    Raises:
        UserError: when there is no such file or folder.
    """
    path = Path(path)
    if path.is_file():
        return file_hash(path)
    if not path.is_dir():
        raise UserError(f"{path}: not found, expected a file or folder")
    return fingerprint(file_hashes(path))


def file_hashes(folder: Path) -> dict[str, str]:
    """Relative name → hash of every file in a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}


def spec_hash(spec: str) -> str | None:
    """A hash of the files that a NAME:PATH names, None where it names none."""
    file = spec.partition(":")[2]
    path = user_path(file) if file else None
    return path_hash(path) if path and path.exists() else None


def spec_key(spec: str) -> str:
    """What a pretrained model NAME or NAME:PATH is known by: its files, where they are here."""
    return fingerprint(spec, spec_hash(spec))


@contextmanager
def sole_writer(
    folder: Path, patience: float = 60, work: str = "training in this run folder"
) -> Iterator[None]:
    """Hold a folder's lock, so that no two processes write to it; a dead process holds none.

    Args:
        folder: to lock.
        patience: seconds to wait for the process that holds it, which may be dying.
        work: what that process does, for the error.

    Raises:
        UserError: when another process still holds the lock after that.
    """
    with (folder / ".lock").open("w") as file:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"{folder}: another process is {work}; wait for its end or stop it"
                    ) from None
                time.sleep(0.2)
            except OSError as error:  # such as NFS without a lock service
                raise UserError(
                    f"{folder}: its file system locks no file ({error.strerror}); expected a "
                    "folder on one that does, since two processes would spoil what they write"
                ) from error
        yield

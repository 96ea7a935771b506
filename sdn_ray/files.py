"""Files and folders: written so that a reader never meets half of one, hashed, locked, found."""

import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sdn_ray.errors import UserError

_PACKAGE = Path(__file__).parent
# Where jobs/ and search_spaces/ lie: in an installed package within it, in a checkout beside it.
SHIPPED = _PACKAGE if (_PACKAGE / "jobs").is_dir() else _PACKAGE.parent


def shipped_file(path: str) -> Path:
    """A file that the user names, or the one of that name that comes with the package.

    So ``jobs/flowers64.yaml`` is found wherever a command is run.
    """
    given = Path(path).expanduser()
    shipped = SHIPPED / path
    return (shipped if shipped.is_file() and not given.exists() else given).absolute()


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, which on success is flushed and renamed over it.

    When the block raises, the temporary file is removed and ``path`` is left as it was. The
    temporary name keeps the suffix, since some writers choose their format by it.
    """
    path = Path(path)
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
    path = Path(spec.partition(":")[2]).expanduser()
    return path_hash(path) if spec.partition(":")[2] and path.exists() else None


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

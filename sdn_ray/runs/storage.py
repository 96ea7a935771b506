"""A second home for a run folder: a mounted path or an object store, which outlives the machine.

Ray Train's own upload keeps checkpoints alone, not what else a run needs to go on and has come to
(configuration, records, model), and ends the training where the store does not answer. It also
copies a checkpoint file by file into its final place, where a kill leaves a part of one.
"""

import uuid
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from pyarrow import ArrowException
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, copy_files

from sdn_ray.errors import UserError, one_line
from sdn_ray.files import making_folder

_CHECKPOINTS = "checkpoints"
# What a run needs to go on, and what it has come to.
_KEPT = (
    "*.yaml", "*.json", "*.jsonl", "*.png", "samples/*", "model_last/**/*",
    f"{_CHECKPOINTS}/checkpoint-*.pt",
)  # fmt: skip
_MODEL, _WHOLE = "model", "model-is-whole"  # the latter is written last
_PARTIAL = ".partial"


class RunStorage:
    """A copy of one run folder at ``uri``/``name``.

    Args:
        uri: such as ``s3://bucket/folder`` (``gs://``, ``abfs://``, ``file://``) or a path.
        name: of the run beneath it.

    Raises:
        UserError: when the URI names no file system.
    """

    def __init__(self, uri: str, name: str) -> None:
        self.uri, self.name = uri, name
        scheme, mark, rest = uri.partition("://")
        if mark and scheme != "file" and not rest.partition("/")[0]:
            raise UserError(
                f"storage: found {uri}, which names no bucket; expected a URI such as "
                "s3://bucket/folder"
            )
        try:
            self._remote, root = FileSystem.from_uri(uri)
        except (ValueError, OSError, NotImplementedError) as error:
            raise UserError(
                f"storage: found {uri} ({one_line(error, 300)}), expected a folder or a URI such "
                "as s3://bucket/folder"
            ) from error
        self._folder = f"{root.rstrip('/')}/{name}"
        self._local = FileSystem.from_uri("file:///")[0]
        self._background = ThreadPoolExecutor(1, "storage")
        self._pending: Future[None] | None = None

    def check(self, run: Path, *, new: bool) -> None:
        """Write and remove a file, before anything depends on it.

        Args:
            run: the folder that is to be kept a second time.
            new: whether the store must not know the run yet.

        Raises:
            UserError: when the store cannot be written, or knows a run that should be new.
        """
        if self._remote.type_name == "local" and Path(self._folder).resolve() == run.resolve():
            raise UserError(
                f"storage: {self.uri} would keep the run folder {run} in itself; expected another "
                f"place. To go on with what a store has, use --resume {run.as_uri()} --output DIR"
            )
        probe = f"{self._folder}/.writable"
        try:
            self._make_folder(self._folder)
            with self._remote.open_output_stream(probe) as stream:
                stream.write(b"")
            self._remote.delete_file(probe)
            known = self._list()
        except (OSError, ArrowException, RuntimeError) as error:  # clouds have errors of their own
            reason = one_line(error, 300)
            raise UserError(
                f"storage: {self.uri} cannot be written ({reason}); expected a folder or bucket "
                "that can be, and credentials in the environment"
            ) from error
        if new and known:
            raise UserError(
                f"storage: {self.uri} already holds a run {self.name}; expected a new name, which "
                "is the last part of --output"
            )

    def push(self, run: Path) -> None:
        """Copy what is new in a run folder, and drop the checkpoints it no longer has.

        Raises:
            OSError: when the store does not take it.
        """
        there = {info.path: info for info in self._list()}
        whole = (run / _MODEL).is_dir()
        found = [path for pattern in _KEPT for path in run.glob(pattern)]
        found += (run / _MODEL).rglob("*") if whole else []
        # A name that starts with a dot is a file that is being written.
        found = [path for path in found if path.is_file() and not path.name.startswith(".")]
        local = {f"{self._folder}/{path.relative_to(run)}": path for path in found}
        for target, path in local.items():
            known = there.get(target)
            # A checkpoint never changes under its name; all else is small.
            if known is None or path.suffix != ".pt" or known.size != path.stat().st_size:
                self._upload(path, target)
        for path in there:
            if path.startswith(f"{self._folder}/{_CHECKPOINTS}/") and path not in local:
                self._remote.delete_file(path)
        if whole:
            with self._remote.open_output_stream(f"{self._folder}/{_WHOLE}") as stream:
                stream.write(b"")

    def push_behind(self, run: Path) -> str | None:
        """Begin `push` while the training goes on, after the last one; why that one failed."""
        failure = self.settle()
        self._pending = self._background.submit(self.push, run)
        return failure

    def settle(self) -> str | None:
        """Wait for `push_behind`; why it failed, if it did."""
        pending, self._pending = self._pending, None
        try:
            if pending is not None:
                pending.result()
        except OSError as error:
            return one_line(error, 300)
        return None

    def pull(self, run: Path) -> bool:
        """Copy what is missing in a run folder from the store; whether the store had anything.

        Raises:
            OSError: when the store cannot be read.
            UserError: when a name in it leads out of the folder.
        """
        found = {info.path.removeprefix(f"{self._folder}/"): info for info in self._list()}
        self._check_names(found, run)
        whole = found.pop(_WHOLE, None)
        model = {name: found.pop(name) for name in list(found) if name.startswith(f"{_MODEL}/")}
        for name, info in found.items():
            # Of a file that grows, the longer one is the newer one.
            known = (run / name).stat().st_size if (run / name).exists() else -1
            if known < 0 or (name.endswith(".jsonl") and known < info.size):
                self._download(info.path, run / name)
        if whole and not (run / _MODEL).is_dir():
            with making_folder(run / _MODEL) as partial:
                for name, info in model.items():
                    self._download(info.path, partial / name.removeprefix(f"{_MODEL}/"))
        return bool(found)

    def pull_model(self, name: str, folder: Path) -> bool:
        """Copy a model of the run into a new folder; whether there is one that is whole.

        Args:
            name: of the model's folder in that of the run.
            folder: to make.

        Raises:
            OSError: when the store cannot be read.
            UserError: when a name in it leads out of the folder.
        """
        there = {info.path.removeprefix(f"{self._folder}/") for info in self._list()}
        found = [path.removeprefix(f"{name}/") for path in there if path.startswith(f"{name}/")]
        if not found or (name == _MODEL and _WHOLE not in there):
            return False
        self._check_names(found, folder)
        for path in found:
            self._download(f"{self._folder}/{name}/{path}", folder / path)
        return True

    def _check_names(self, names: Iterable[str], folder: Path) -> None:
        for name in names:
            if not (folder / name).resolve().is_relative_to(folder.resolve()):
                raise UserError(
                    f"storage: {self.uri} holds {name!r}, which would be written outside of "
                    f"{folder}; expected a run that sdn_ray has stored"
                )

    def _list(self) -> list[FileInfo]:
        selector = FileSelector(self._folder, allow_not_found=True, recursive=True)
        found = self._remote.get_file_info(selector)
        return [i for i in found if i.type == FileType.File and not i.path.endswith(_PARTIAL)]

    def _make_folder(self, path: str) -> None:
        # Object stores have no folders; to make one there might make a bucket.
        if self._remote.type_name == "local":
            self._remote.create_dir(path, recursive=True)

    def _upload(self, path: Path, target: str) -> None:
        """An object appears whole; a file of a mounted path is renamed into place."""
        atomic = self._remote.type_name != "local"
        self._make_folder(target.rpartition("/")[0])
        place = target if atomic else target + _PARTIAL
        files = {"source_filesystem": self._local, "destination_filesystem": self._remote}
        copy_files(str(path), place, **files)
        if not atomic:
            self._remote.move(place, target)

    def _download(self, source: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{uuid.uuid4().hex}{_PARTIAL}")  # several workers may pull
        files = {"source_filesystem": self._remote, "destination_filesystem": self._local}
        copy_files(source, str(partial), **files)
        partial.replace(path)


def stored_run(uri: str) -> tuple[str, str]:
    """The store and the name of a run that is given as one URI."""
    address, mark, query = uri.partition("?")
    store, _, name = address.rstrip("/").rpartition("/")
    return f"{store}{mark}{query}", name

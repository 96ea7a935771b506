"""Caption embeddings computed elsewhere: an `.npz` file, or the pickles released with StackGAN."""

import codecs
import math
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from sdn_ray.errors import UserError

EMBEDDINGS_PICKLE = "char-CNN-RNN-embeddings.pickle"
FILENAMES_PICKLE = "filenames.pickle"

_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}

# All that pickles of arrays, lists and strings name. NumPy 1 says numpy.core, NumPy 2 numpy._core;
# protocol 5 has a rebuilder of its own; Python 3 writes bytes for Python 2 through _codecs.encode.
_REBUILD = np.empty(0).__reduce__()[0]
_REBUILD_PROTOCOL_5 = np.empty(0).__reduce_ex__(5)[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Bytes as Python 3 writes them for Python 2; another encoding could multiply them."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes by {encoding!r}")
    return codecs.encode(text, encoding)


_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy._core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy.core.numeric", "_frombuffer"): _REBUILD_PROTOCOL_5,
    ("numpy._core.numeric", "_frombuffer"): _REBUILD_PROTOCOL_5,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
}
_MOST_NUMBERS = 10_000_000  # of one image
_MOST_CAPTIONS = 100_000  # of one image, whose lists may hold one another many times over


def read_precomputed(path: str | Path) -> dict[str, np.ndarray]:
    """Embeddings by image stem, each float32 ``(captions, dim)``.

    Args:
        path: an `.npz` file with arrays `filenames` ``(images,)`` and `embeddings`
            ``(images, captions, dim)``; or a folder with `char-CNN-RNN-embeddings.pickle` and
            `filenames.pickle`, directly or in `train/` and `test/`, which are merged. A file name
            such as ``001.Black_footed_Albatross/Black_Footed_Albatross_0046_18`` stands for the
            stem after its last slash.

    Raises:
        UserError: a file is missing, damaged, of other contents, or its pickle names anything but
            arrays, lists and strings (which is then neither imported nor called).
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise UserError(f"{path}: not found, expected an .npz file or a folder of pickles")
    return _by_stem(path, *_read_npz(path))


def _read_npz(path: Path) -> tuple[Sequence[Any], Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("a single array, not an archive of named ones")
            missing = {"filenames", "embeddings"} - set(archive.files)
            if missing:
                raise UserError(
                    f"{path}: found arrays {sorted(archive.files)}, "
                    "expected 'filenames' and 'embeddings'"
                )
            for name in ("filenames", "embeddings"):
                _check_size(path, f"{name}.npy")
            return archive["filenames"].tolist(), archive["embeddings"]
    except UserError:
        raise
    # Archives, their compression and the headers in them fail in ways of their own.
    except Exception as error:
        raise UserError(
            f"{path}: cannot be read ({error}); expected an .npz file of plain arrays"
        ) from error


def _check_size(path: Path, name: str) -> None:
    """See that an archive has the bytes which an array's header promises, before room is made."""
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        promised = math.prod(shape) * dtype.itemsize
        held = archive.getinfo(name).file_size - file.tell()
        # Deflate packs a thousand to one at best.
        if dtype.itemsize == 0 or promised > held or held > 1100 * (path.stat().st_size + 1):
            raise ValueError(f"{name}: {promised} bytes promised, {held} there")


def _read_folder(path: Path) -> dict[str, np.ndarray]:
    folders = [
        path / part for part in ("train", "test") if (path / part / EMBEDDINGS_PICKLE).exists()
    ]
    if (path / EMBEDDINGS_PICKLE).exists():
        folders = [path]
    if not folders:
        raise UserError(
            f"{path}: found no {EMBEDDINGS_PICKLE}, expected one here or in train/ and test/"
        )
    merged: dict[str, np.ndarray] = {}
    for folder in folders:
        filenames = _unpickle(folder / FILENAMES_PICKLE)
        source = folder / EMBEDDINGS_PICKLE
        embeddings = _by_stem(source, filenames, _unpickle(source))
        twice = merged.keys() & embeddings.keys()
        if twice:
            raise UserError(
                f"{source}: image {min(twice)!r} is also in {folders[0]}, expected once"
            )
        merged |= embeddings
    widths = {array.shape[1] for array in merged.values()}
    if len(widths) > 1:
        raise UserError(f"{path}: found embeddings of widths {sorted(widths)}, expected one width")
    return merged


def _by_stem(source: Path, filenames: Any, embeddings: Any) -> dict[str, np.ndarray]:
    """Check names and embeddings against each other and bring them together."""
    if isinstance(embeddings, np.ndarray) and embeddings.ndim == 0:
        raise UserError(f"{source}: its embeddings are one number, expected those of many images")
    if isinstance(filenames, np.ndarray):
        filenames = filenames.tolist()
    if not isinstance(filenames, list) or not all(isinstance(name, str) for name in filenames):
        raise UserError(f"{source}: its file names are not a list of strings, as expected")
    if not isinstance(embeddings, list | np.ndarray) or len(embeddings) != len(filenames):
        count = len(embeddings) if isinstance(embeddings, list | np.ndarray) else "no list"
        raise UserError(
            f"{source}: found embeddings of {count} images, expected {len(filenames)}, "
            "one for each file name"
        )
    found: dict[str, np.ndarray] = {}
    for name, value in zip(filenames, embeddings, strict=True):
        stem = _stem(name)
        if stem in found:
            raise UserError(f"{source}: image {stem!r} stands there twice, expected once")
        found[stem] = _embedding(source, stem, value)
    widths = {array.shape[1] for array in found.values()}
    if len(widths) != 1:
        raise UserError(
            f"{source}: found embeddings of widths {sorted(widths)}, expected one width"
        )
    return found


def _embedding(source: Path, stem: str, value: Any) -> np.ndarray:
    try:
        _check_rows(value)
        array = np.asarray(value, dtype=np.float32)
    except (ArithmeticError, MemoryError, TypeError, ValueError) as error:
        raise UserError(
            f"{source}: the embeddings of {stem!r} are not an array of numbers ({error})"
        ) from error
    if array.ndim != 2 or 0 in array.shape:
        raise UserError(
            f"{source}: the embeddings of {stem!r} have shape {array.shape}, "
            "expected (captions, dim)"
        )
    if not np.isfinite(array).all():
        raise UserError(f"{source}: the embeddings of {stem!r} hold NaN or infinity")
    return array


def _check_rows(value: Any) -> None:
    """Lists are bounded before they are written out: one may hold another many times over."""
    if isinstance(value, np.ndarray):
        if value.size > _MOST_NUMBERS:  # an array of stride 0 is larger than its file
            raise ValueError(f"an array of {value.size} numbers")
        return
    if not isinstance(value, list) or len(value) > _MOST_CAPTIONS:
        raise ValueError(f"a {type(value).__name__}")
    for row in value:
        plain = isinstance(row, list) and all(isinstance(number, int | float) for number in row)
        if not plain and not isinstance(row, np.ndarray):
            raise ValueError("rows that are no lists of numbers")


def _stem(name: str) -> str:
    """The last component of an image's name, without an image suffix."""
    last = PurePosixPath(name)
    return last.stem if last.suffix.lower() in _IMAGE_SUFFIXES else last.name


class _ArraysOnly(pickle.Unpickler):
    """Unpickles arrays, lists and strings; any other name is refused, unimported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _ADMITTED[module, name]


def _unpickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _ArraysOnly(file, encoding="latin1").load()
    except FileNotFoundError:
        raise UserError(f"{path}: not found, expected beside its partner") from None
    # A damaged pickle can fail in any way at all: the opcodes are a program.
    except Exception as error:
        raise UserError(
            f"{path}: refused or damaged ({error}); expected a pickle of arrays, lists and strings"
        ) from error

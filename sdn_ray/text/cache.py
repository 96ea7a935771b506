"""Embeddings kept on disk by caption: what was encoded once is not encoded again."""

import hashlib
import uuid
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sdn_ray.errors import one_line
from sdn_ray.files import replacing


def encode_cached(
    encode: Callable[[list[str]], np.ndarray], captions: Sequence[str], folder: Path, key: str
) -> np.ndarray:
    """Embeddings of captions, float32 ``(captions, dim)``, each encoded once and kept on disk.

    New ones are added to ``folder/text-<key>`` as one more file, so processes may write at once. A
    damaged file is left out, with a warning, and what it held is encoded again.

    Args:
        encode: gives the embeddings of distinct captions, ``(captions, dim)``.
        captions: any number of them, repeated or not.
        folder: of caches.
        key: what the encoder is known by.
    """
    cache = Path(folder) / f"text-{key}"
    place = {caption: row for row, caption in enumerate(dict.fromkeys(captions))}
    distinct = list(place)
    wanted = np.array([_caption_hash(caption) for caption in distinct], dtype="S16")
    # A name that starts with a dot is a file that is being written.
    read = [_read_shard(path) for path in sorted(cache.glob("[!.]*.npy"))]
    shards = [shard for shard in read if shard is not None]
    rows = [_rows_in(shard["hash"], wanted) for shard in shards]
    found = np.zeros(len(distinct), dtype=bool)
    for row in rows:
        found |= row >= 0
    missing = np.flatnonzero(~found)
    if len(missing) or not shards:
        fresh = np.asarray(encode([distinct[i] for i in missing]), dtype=np.float32)
        dim = fresh.shape[1]
    else:
        dim = shards[0]["embedding"].shape[1]
    embeddings = np.empty((len(distinct), dim), dtype=np.float32)
    for shard, row in zip(shards, rows, strict=True):
        held = row >= 0
        embeddings[held] = shard["embedding"][row[held]]
    if len(missing):
        embeddings[missing] = fresh
        _write_shard(cache, wanted[missing], fresh)
    return embeddings[[place[caption] for caption in captions]]


def _caption_hash(caption: str) -> bytes:
    return hashlib.blake2b(caption.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _write_shard(cache: Path, hashes: np.ndarray, embeddings: np.ndarray) -> None:
    """One more file of the cache; its name carries the checksum of its rows."""
    fields = [("hash", "S16"), ("embedding", "<f4", (embeddings.shape[1],))]
    shard = np.empty(len(hashes), dtype=fields)
    shard["hash"], shard["embedding"] = hashes, embeddings
    name = f"{uuid.uuid4().hex}-{_checksum(shard)}.npy"
    with replacing(cache / name) as partial:
        np.save(partial, shard, allow_pickle=False)


def _read_shard(path: Path) -> np.ndarray | None:
    """Rows (hash, embedding), or None, with a warning, where the file is damaged."""
    try:
        shard = np.lib.format.open_memmap(path, mode="r")
        if _checksum(shard) == path.stem.rpartition("-")[2]:
            return shard
        problem = "its checksum is another"
    except (OSError, ValueError, TypeError) as error:
        problem = one_line(error, 300)
    warnings.warn(
        f"{path}: damaged ({problem}); its captions are encoded again, and it may be deleted",
        stacklevel=3,
    )
    return None


def _checksum(shard: np.ndarray) -> str:
    return f"{zlib.crc32(shard.view(np.uint8).data):08x}"


def _rows_in(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each wanted hash stands among the known ones, −1 where it does not."""
    order = np.argsort(known, kind="stable")
    places = np.searchsorted(known, wanted, sorter=order)
    rows = order[np.minimum(places, len(known) - 1)]
    return np.where(known[rows] == wanted, rows, -1)

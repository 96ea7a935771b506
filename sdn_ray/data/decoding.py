"""Image files to pixels. Imports little, since every process that decodes imports it."""

import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from sdn_ray.data.shards import IMAGE, encoded, image_file

_KERNEL = Image.Resampling.BICUBIC  # which Pillow widens where an image shrinks: no aliasing
DECODE_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def decode_rgb(path: Path | str, height: int, width: int) -> np.ndarray:
    """A file, or an image in a shard, as RGB, resized whole: (height, width, 3) uint8.

    Raises:
        DECODE_ERRORS: it is no image, or only part of one.
    """
    return _decode(image_file(Path(path)), height, width)


def _decode(source: Path | io.BytesIO, height: int, width: int) -> np.ndarray:
    """Resized whole, not cropped."""
    try:
        with Image.open(source) as image:
            rgb = _eight_bits(image).convert("RGB")
    except UnidentifiedImageError as error:
        # Pillow names what it opened: of bytes, where they lie in memory.
        raise error if isinstance(source, Path) else ValueError("it is no image") from None
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), _KERNEL)
    return np.array(rgb)


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image (height, width, 3) uint8 at another size, as `decode_rgb` resizes files."""
    if image.shape[:2] == (height, width):
        return image
    return np.array(Image.fromarray(image).resize((width, height), _KERNEL))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Greyscale of 16 bits scaled to 8, which Pillow's own conversion cuts off at 255."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.clip(np.asarray(image), 0, 65_535) // 257).astype(np.uint8))


def decode_batch(batch: Mapping[str, np.ndarray], image_size: int) -> dict[str, np.ndarray]:
    """Decode files to RGB and resize them whole, not cropped.

    Args:
        batch: ``row`` (files,) and ``path`` (files,).
        image_size: height and width of the result.

    Returns:
        ``row``, ``image`` (files, image_size, image_size, 3) uint8, and ``error`` (files,): what
        is wrong with a file, empty where nothing is.
    """
    decoded = _all_decoded(batch["path"], lambda path: image_file(Path(path)), image_size)
    return {"row": batch["row"]} | decoded


def decode_contents(table: pa.Table, image_size: int) -> dict[str, np.ndarray]:
    """`decode_batch` of images that were read already.

    Args:
        table: ``path`` (files,), and ``image`` (files,), the bytes of files, see `encoded`.
        image_size: height and width of the result.

    Returns:
        ``path``, and ``image`` and ``error`` as those of `decode_batch`.
    """
    contents = table[IMAGE].to_pylist()
    decoded = _all_decoded(contents, lambda value: io.BytesIO(encoded(value)), image_size)
    return {"path": np.array(table["path"].to_pylist())} | decoded


def _all_decoded(
    found: Iterable[Any], opened: Callable[[Any], Path | io.BytesIO], image_size: int
) -> dict[str, np.ndarray]:
    found = list(found)
    images = np.zeros((len(found), image_size, image_size, 3), np.uint8)
    errors = []
    for place, one in enumerate(found):
        try:
            images[place] = _decode(opened(one), image_size, image_size)
        except DECODE_ERRORS as error:
            errors.append(f"does not decode ({error})")
            continue
        errors.append("")
    return {"image": images, "error": np.array(errors)}

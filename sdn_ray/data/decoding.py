"""Image files to pixels. Imports little, since every process that decodes imports it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

DECODE_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def decode_rgb(path: Path | str, height: int, width: int) -> np.ndarray:
    """A file as RGB, resized whole, not cropped: (height, width, 3) uint8.

    Raises:
        DECODE_ERRORS: it is no image, or only part of one.
    """
    with Image.open(path) as image:
        rgb = _eight_bits(image).convert("RGB")
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(rgb)


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
    images = np.zeros((len(batch["path"]), image_size, image_size, 3), np.uint8)
    errors = []
    for place, path in enumerate(batch["path"]):
        try:
            images[place] = decode_rgb(path, image_size, image_size)
        except DECODE_ERRORS as error:
            errors.append(f"does not decode ({error})")
            continue
        errors.append("")
    return {"row": batch["row"], "image": images, "error": np.array(errors)}

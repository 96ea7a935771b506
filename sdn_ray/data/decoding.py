"""Image files to pixels. Imports little, since every process that decodes imports it."""

from collections.abc import Mapping

import numpy as np
from PIL import Image


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
            with Image.open(path) as image:
                rgb = image.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            errors.append(f"does not decode ({error})")
            continue
        if rgb.size != (image_size, image_size):
            rgb = rgb.resize((image_size, image_size), Image.Resampling.BICUBIC)
        images[place] = np.asarray(rgb)
        errors.append("")
    return {"row": batch["row"], "image": images, "error": np.array(errors)}

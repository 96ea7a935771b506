"""Does an image have the colour that its caption names? For photographs, which nobody labelled.

What a caption says is the first colour word in it, which in descriptions of flowers and birds is
the main one. What an image looks like, a linear classifier says, which is fitted on the colours of
real images of other classes and the words of their captions.
"""

import re
from collections.abc import Sequence

import numpy as np
from PIL import Image
from skimage.color import rgb2lab

# The basic colour terms of English (Berlin and Kay 1969), and words for shades of them.
BASIC_COLORS = (
    *("black", "white", "gray", "red", "orange", "yellow"),
    *("green", "blue", "purple", "pink", "brown"),
)
_SHADES = {
    "grey": "gray",
    "crimson": "red",
    "scarlet": "red",
    "maroon": "red",
    "peach": "orange",
    "gold": "yellow",
    "golden": "yellow",
    "lavender": "purple",
    "lilac": "purple",
    "violet": "purple",
    "magenta": "pink",
    "fuchsia": "pink",
    "tan": "brown",
}
COLOR_WORDS = {color: color for color in BASIC_COLORS} | _SHADES
MEASURED_SIDE = 64  # pixels of an image as it is measured, so that sizes compare
# CIELAB: lightness, green to red, blue to yellow. Colours beyond count as the outermost.
_BINS = np.array([6, 8, 8])
_LOWEST, _HIGHEST = np.array([0, -60, -60]), np.array([100, 80, 80])
_RADII = (0.25, 0.45)  # of the middle and of the ring around it, in sides of the image
_ACROSS = (np.arange(MEASURED_SIDE) + 0.5) / MEASURED_SIDE - 0.5
_RING_OF_PIXEL = np.digitize(np.hypot(_ACROSS[:, None], _ACROSS), _RADII)


def named_color(caption: str) -> str | None:
    """The basic colour of the first colour word of a caption; None where it has none."""
    words = re.findall(r"[a-z]+", caption.lower())
    return next((COLOR_WORDS[word] for word in words if word in COLOR_WORDS), None)


def color_histogram(image: np.ndarray) -> np.ndarray:
    """How much of each colour the middle of an image has, the ring around it and the rest.

    Args:
        image: (height, width, 3) uint8.

    Returns:
        (3 · 384,) float32: square roots of shares, so that small areas count too.
    """
    if image.shape[:2] != (MEASURED_SIDE, MEASURED_SIDE):
        resized = Image.fromarray(image).resize(
            (MEASURED_SIDE, MEASURED_SIDE), Image.Resampling.BICUBIC
        )
        image = np.asarray(resized)
    lab = rgb2lab(image)
    bins = ((lab - _LOWEST) / (_HIGHEST - _LOWEST) * _BINS).astype(int).clip(0, _BINS - 1)
    shape = (len(_RADII) + 1, *_BINS)
    places = np.ravel_multi_index((_RING_OF_PIXEL, *np.moveaxis(bins, -1, 0)), shape)
    counts = np.bincount(places.ravel(), minlength=np.prod(shape)).reshape(len(_RADII) + 1, -1)
    return np.sqrt(counts / counts.sum(axis=1, keepdims=True)).ravel().astype(np.float32)


class ColorClassifier:
    """Names the colour that a caption of an image would name: logistic regression.

    Args:
        histograms: (images, 1152), each by `color_histogram`.
        colors: that the caption of each names, of at least two kinds.
    """

    def __init__(self, histograms: np.ndarray, colors: Sequence[str]) -> None:
        # Here: it takes seconds to import, and who scores without colours need not wait for it.
        from sklearn.linear_model import LogisticRegression

        self.images = len(colors)
        self._model = LogisticRegression(max_iter=300)
        self._model.fit(histograms, colors)

    def __call__(self, images: Sequence[np.ndarray]) -> list[str]:
        """The basic colour of each image, (height, width, 3) uint8."""
        if not len(images):
            return []
        return list(self._model.predict(np.stack([color_histogram(image) for image in images])))


def color_agreement(said: Sequence[str], seen: Sequence[str]) -> float:
    """The share of images whose colour is the one that their captions name."""
    return float(np.mean(np.asarray(said) == np.asarray(seen)))


def shuffled_color_agreement(said: Sequence[str], seen: Sequence[str]) -> float:
    """The agreement to expect when captions are dealt to images at random: the chance level."""
    shares = [np.mean(np.asarray(side)[:, None] == BASIC_COLORS, axis=0) for side in (said, seen)]
    return float(shares[0] @ shares[1])

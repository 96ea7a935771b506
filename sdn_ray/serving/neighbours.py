"""Beside a drawn picture the training images nearest to it (Figure 7, section 4.6)."""

import asyncio
import io
import logging
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sdn_ray.data.image_sets import read_real
from sdn_ray.errors import UserError
from sdn_ray.models.retrieval import fc7_features, nearest
from sdn_ray.scoring.figures import NEIGHBOURS
from sdn_ray.scoring.retrieval_index import RetrievalIndex
from sdn_ray.serving.asking import UnavailableError
from sdn_ray.serving.replicas import png

_log = logging.getLogger("uvicorn.error")
_MOST_WAITING = 8


@dataclass(frozen=True)
class Neighbour:
    """A training image."""

    image: bytes  # PNG, at the drawn picture's size
    cosine: float  # similarity by fc7
    caption: str


class Neighbours:
    """Looks for them, one picture after another.

    Args:
        index: of the training images.
    """

    def __init__(self, index: RetrievalIndex) -> None:
        self._index = index
        self._turn = asyncio.Semaphore(1)  # the cores are the replicas'
        self._waiting = 0

    async def of(self, picture: bytes) -> list[Neighbour]:
        """The nearest ones, the most similar first.

        Args:
            picture: PNG.

        Raises:
            UnavailableError: too many ask, or a training image has gone.
        """
        if self._waiting >= _MOST_WAITING:
            raise UnavailableError("too many look for training images; try again soon")
        self._waiting += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(self._of, picture)
        except UserError as error:  # a training image has gone: nothing whoever asks can mend
            _log.error("nearest images: %s", error)
            raise UnavailableError("the training images cannot be read") from error
        finally:
            self._waiting -= 1

    def _of(self, picture: bytes) -> list[Neighbour]:
        image = np.array(Image.open(io.BytesIO(picture)).convert("RGB"))
        features = fc7_features(self._index.network, self._index.resized(image)[None])
        count = min(NEIGHBOURS, len(self._index.rows))
        [places], [cosines] = nearest(features, self._index.features, count)
        found = []
        for place, cosine in zip(places, cosines, strict=True):
            row = self._index.rows[place]
            real = png(read_real(row.image_path, *image.shape[:2]))
            found.append(Neighbour(real, float(cosine), row.captions[0]))
        return found

"""A trained model in Python: captions to pictures, as `sdn_ray.generate` draws them."""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from PIL import Image

from sdn_ray.errors import UserError, in_python
from sdn_ray.models.drawing import BATCH, check_drawing, check_steps, draw_between
from sdn_ray.models.export import Model
from sdn_ray.models.image_generators import method_of
from sdn_ray.pictures import captioned_sheet
from sdn_ray.text.captions import given_captions


class TrainedModel:
    """A model that draws, as `sdn_ray.load` gives it, of whatever method.

    Args:
        model: what its folder holds, on the device where it draws.
    """

    def __init__(self, model: Model) -> None:
        self._model = model

    def __repr__(self) -> str:
        size = self.image_size
        return f"<sdn_ray.TrainedModel: {self.method}, {size}×{size} pixels>"

    @property
    def method(self) -> str:
        """What it was trained by: sdn, gan_int_cls, stackgan or gawwn."""
        return method_of(self._model.generator)

    @property
    def image_size(self) -> int:
        """Height and width of its pictures, in pixels."""
        return self._model.generator.image_size

    @property
    def most_samples(self) -> int | None:
        """Pictures that it draws of a caption at most; None: it takes noise, and draws any number.

        Those of a model of diverse synthesis are always the same ones.
        """
        generator = self._model.generator
        return None if generator.noise_dim else generator.samples

    @property
    def scores(self) -> dict[str, float]:
        """By name what its run scored on the test classes; empty where it was not scored."""
        return self._model.origin.get("test_scores", {})

    @overload  # a text is a sequence of texts as well
    def draw(  # type: ignore[overload-overlap]
        self, captions: str, *, samples: int = 1, seed: int = 0
    ) -> list[Image.Image]: ...

    @overload
    def draw(
        self, captions: Sequence[str], *, samples: int = 1, seed: int = 0
    ) -> list[list[Image.Image]]: ...

    @in_python()
    def draw(
        self, captions: str | Sequence[str], *, samples: int = 1, seed: int = 0
    ) -> list[Image.Image] | list[list[Image.Image]]:
        """Draw captions.

        On a CPU the pictures are bit for bit those of ``python -m sdn_ray.generate --samples N
        --seed S`` for the same captions: a caption's place in the list settles its noise. Asked for
        one sample, a model of diverse synthesis takes sample i mod n of caption i.

        Args:
            captions: one, or several.
            samples: pictures of each; see `most_samples`.
            seed: of the noise; 0 where the model takes none.

        Returns:
            Of one caption its samples, of several a list of samples for each; RGB,
            ``image_size`` pixels a side.

        Raises:
            UserError: a caption has no words, or the model does not draw so many samples.

        Example:
            >>> model = sdn_ray.load("runs/NAME/model")
            >>> first, second = model.draw("a yellow flower", samples=2, seed=1)
            >>> first.size
            (64, 64)
            >>> drawn = model.draw(["a red flower", "a blue flower"], samples=4)
            >>> len(drawn), len(drawn[0])
            (2, 4)
        """
        texts = self._checked(captions, samples, seed)
        drawn = [
            [Image.fromarray(image) for image in group]
            for group in self._drawn(texts, samples, seed)
        ]
        return drawn[0] if isinstance(captions, str) else drawn

    @in_python()
    def draw_grid(
        self, captions: str | Sequence[str], *, samples: int = 1, seed: int = 0, columns: int = 4
    ) -> Image.Image:
        """Draw captions onto one sheet: a cell for each, its samples with the caption beneath.

        Args:
            captions: as in `draw`, which draws the pictures.
            samples: as there.
            seed: as there.
            columns: cells in a row, at most.

        Raises:
            UserError: as there, or there is no caption.

        Example:
            >>> model = sdn_ray.load("runs/NAME/model")
            >>> model.draw_grid(["a red flower", "a blue flower"]).save("grid.png")
        """
        texts = self._checked(captions, samples, seed)
        if not texts:
            raise UserError("captions: found none, expected some")
        if columns < 1:
            raise UserError(f"columns: found {columns}, expected at least 1")
        return captioned_sheet(texts, list(self._drawn(texts, samples, seed)), columns=columns)

    @in_python()
    def interpolate(
        self, first: str, last: str, steps: int = 8, *, seed: int = 0
    ) -> list[Image.Image]:
        """Draw the way from one caption to another, as in Figure 8 (section 4.7).

        Args:
            first: where it begins.
            last: where it ends.
            steps: pictures, from 2 to 200, evenly spread between the captions' embeddings.
            seed: of the noise, the same of all pictures; 0 where the model takes none.

        Raises:
            UserError: a caption has no words, or ``steps`` is out of its range.

        Example:
            >>> model = sdn_ray.load("runs/NAME/model")
            >>> len(model.interpolate("a white flower", "a purple flower", steps=5))
            5
        """
        check_steps(steps)
        begin, end = (self._checked(caption, 1, seed) for caption in (first, last))
        [a], [b] = self._model.embed(begin), self._model.embed(end)
        drawn = draw_between(self._model.generator, a, b, steps, seed)
        return [Image.fromarray(image) for image in drawn]

    def _checked(self, captions: str | Sequence[str], samples: int, seed: int) -> list[str]:
        """The captions as they are drawn, once all that is asked for can be drawn."""
        check_drawing(self._model.generator, samples, seed)
        return given_captions([captions] if isinstance(captions, str) else captions, "captions")

    def _drawn(
        self, captions: Sequence[str], samples: int, seed: int
    ) -> Iterator[list[np.ndarray]]:
        """For each caption its pictures, (height, width, 3) uint8, in the batches of commands."""
        own = self._model.generator.samples
        for start in range(0, len(captions), BATCH):
            part = captions[start : start + BATCH]
            indices = range(start, start + len(part))
            wanted = [list(range(samples)) if samples > 1 else [i % own] for i in indices]
            batches = self._model.draw(
                part,
                samples=1 + max(max(places) for places in wanted),
                seed=seed,
                indices=np.array(indices),
            )
            groups = (group for batch in batches for group in batch)
            for group, places in zip(groups, wanted, strict=True):
                yield [group[place] for place in places]

"""What several people wish to see, drawn in one batch: captions and seeds of all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sdn_ray.data.sampling import drawing_noise
from sdn_ray.models.drawing import BATCH, Draws, check_drawing, check_steps
from sdn_ray.models.export import Model
from sdn_ray.text.captions import given_captions


@dataclass(frozen=True)
class Drawing:
    """What is to be drawn.

    With one caption its samples, as ``python -m sdn_ray.generate --text CAPTION --samples N --seed
    S`` draws them; with two the way from the first to the second, as in Figure 8 (section 4.7).
    """

    captions: tuple[str, ...]
    pictures: int = 1  # samples of one caption, or steps between two
    seed: int = 0  # of the noise, where the model takes some

    def checked(self, generator: Draws) -> "Drawing":
        """The same with its captions as they are drawn.

        Raises:
            UserError: a caption has no words, or the generator does not draw so many pictures.
        """
        if len(self.captions) == 2:
            check_steps(self.pictures)
            check_drawing(generator, 1, self.seed)
        else:
            check_drawing(generator, self.pictures, self.seed)
        captions = tuple(given_captions(self.captions, "captions"))
        return Drawing(captions, self.pictures, self.seed)


@torch.no_grad()
def draw_together(
    model: Model, drawings: Sequence[Drawing], batch_size: int = BATCH
) -> list[np.ndarray]:
    """Draw several drawings at once.

    Each one's pictures depend on itself alone, up to how a batch rounds.

    Args:
        model: with a text encoder; its generator in eval mode.
        drawings: at least one; what `Drawing.checked` gives.
        batch_size: pictures of a forward pass, at most.

    Returns:
        For each drawing (pictures, height, width, 3) uint8.
    """
    generator = model.generator
    texts = list(dict.fromkeys(text for one in drawings for text in one.captions))
    embedded = dict(zip(texts, model.embed(texts), strict=True))
    rows = [_rows(one, embedded, generator.noise_dim) for one in drawings]
    device = next(generator.parameters()).device
    drawn = []
    for part in torch.from_numpy(np.concatenate(rows)).split(batch_size):
        embeddings, noise = part.to(device).tensor_split([generator.embedding_dim], 1)
        inputs = (embeddings, noise) if generator.noise_dim else (embeddings,)
        drawn.append(generator.pixels(*inputs).permute(0, 1, 3, 4, 2).cpu().numpy())
    owned = np.split(np.concatenate(drawn), np.cumsum([len(own) for own in rows[:-1]]))
    return [
        own[0, : one.pictures] if len(own) == 1 else own[:, 0]
        for one, own in zip(drawings, owned, strict=True)
    ]


def _rows(drawing: Drawing, embedded: dict[str, np.ndarray], noise_dim: int) -> np.ndarray:
    """What a generator is given for a drawing: embedding and noise, (rows, both) float32."""
    first, last = (embedded[text] for text in (drawing.captions[0], drawing.captions[-1]))
    between = len(drawing.captions) == 2
    if between:
        share = np.linspace(0, 1, drawing.pictures, dtype=np.float32)[:, None]
        embeddings = (1 - share) * first + share * last
    else:  # without noise one row draws all samples
        embeddings = np.repeat(first[None], drawing.pictures if noise_dim else 1, 0)
    samples = 1 if between else drawing.pictures
    noise = drawing_noise(drawing.seed, np.zeros(1, np.int64), samples, noise_dim)[0]
    noise = np.broadcast_to(noise[: len(embeddings)], (len(embeddings), noise_dim))
    return np.concatenate([embeddings, noise], 1)

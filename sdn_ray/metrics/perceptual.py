"""A distance between images in the teacher's features whose weights no experiment changes."""

import numpy as np
import torch

from sdn_ray.models.pixels import normalise
from sdn_ray.models.teacher import Teacher


class PerceptualDistance:
    """How far generated images are from the real ones, as the teacher sees them.

    The mean over the teacher's layers l of E|φ_l^D(I_r) − φ_l^D(I_s)| / E|φ_l^D(I_r)|: 0 for equal
    images, about 1 for images that share nothing. The layers weigh the same whatever the layer
    weights of a training are, so trainings with different ones can be compared.

    Args:
        teacher: frozen; it stays on its device and in its precision.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self._differences = torch.zeros(len(teacher.plan.convolutions), dtype=torch.float64)
        self._sizes = torch.zeros_like(self._differences)

    @torch.no_grad()
    def update(self, real: np.ndarray, generated: np.ndarray) -> None:
        """Add pairs: two uint8 arrays (batch, height, width, 3)."""
        of_real, of_generated = (self._features(images) for images in (real, generated))
        for layer, (r, s) in enumerate(zip(of_real, of_generated, strict=True)):
            self._differences[layer] += (r.float() - s.float()).abs().sum().double().cpu()
            self._sizes[layer] += r.float().abs().sum().double().cpu()

    def _features(self, images: np.ndarray) -> list[torch.Tensor]:
        weight = next(self._teacher.parameters())
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        return self._teacher(normalise(pixels.to(weight.device)).to(weight.dtype))

    def compute(self) -> float:
        """The distance over all pairs; a layer that is silent on the real images is left out."""
        active = self._sizes > 0
        return float((self._differences[active] / self._sizes[active]).mean())

"""Photographs with captions and pretrained weights, as tests take them: real or drawn."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Material:
    """Oxford-Flower-102 with captions, a VGG with its plan in its metadata, and a SqueezeNet."""

    flowers: Path
    teacher: Path
    squeezenet: Path

    @classmethod
    def of(cls, folder: Path) -> "Material":
        """What lies in a folder that is laid out as ``../shared`` is."""
        return cls(
            folder / "data" / "oxford-flowers-102-64px",
            folder / "weights" / "vgg19_pruned16x.safetensors",
            folder / "weights" / "squeezenet1_1_fp16.safetensors",
        )

    @property
    def classifier(self) -> str:
        """The SqueezeNet as commands are told of it."""
        return f"squeezenet1_1:{self.squeezenet}"

    def photographs(self, count: int) -> np.ndarray:
        """Every so manieth photograph, (count, 64, 64, 3) uint8."""
        files = sorted((self.flowers / "jpg").iterdir())
        chosen = files[:: len(files) // count][:count]
        return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in chosen])

"""Caption → embedding: the char-CNN-RNN of Reed et al. (CVPR and ICML 2016)."""

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from typing_extensions import TypedDict

from sdn_ray.errors import UserError, one_line
from sdn_ray.files import parse_json, replacing

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} "
CAPTION_LENGTH = 201

Variant = Literal["long", "short"]


class _Shape(TypedDict):
    variant: Variant
    embedding_dim: PositiveInt
    cnn_dim: PositiveInt


_KERNEL = 4
_CONV_STEPS = 18  # what 201 characters leave after three convolutions and two pools
_STRIDE = 9  # characters from one of these steps to the next
_FORMAT = "sdn_ray.char_cnn_rnn"

# A later place overwrites an earlier one, which is what gives `-` its last place.
_INDEX = {character: place + 1 for place, character in enumerate(ALPHABET)}


def characters(captions: Sequence[str]) -> Tensor:
    """Captions as character indices, uint8 ``(captions, 201)``.

    An index is one more than the character's place in ``ALPHABET``; 0 stands for padding and for
    a character outside the alphabet. Captions are lower-cased and cut at 201 characters.
    """
    indices = np.zeros((len(captions), CAPTION_LENGTH), dtype=np.uint8)
    for row, caption in zip(indices, captions, strict=True):
        found = [_INDEX.get(character, 0) for character in caption.lower()[:CAPTION_LENGTH]]
        row[: len(found)] = found
    return torch.from_numpy(indices)


class GatedRecurrence(nn.Module):
    """The GRU of the `long` variant, which differs from ``torch.nn.GRU``.

    h_1 = tanh(W x_1); then z = σ(W_z x + U_z h), r = σ(W_r x + U_r h), c = tanh(W x + U (r ⊙ h)),
    h ← z ⊙ c + (1 − z) ⊙ h. The rows of `inputs` are W_z, W_r, W; those of `gates` U_z, U_r.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.inputs = nn.Linear(width, 3 * width)
        self.gates = nn.Linear(width, 2 * width)
        self.candidate = nn.Linear(width, width)

    def forward(self, x: Tensor, steps: int) -> Tensor:
        """Mean state ``(batch, width)`` over ``steps`` steps of ``x``, ``(batch, ≤ steps, width)``.

        Where ``x`` has fewer steps, its last one is repeated.
        """
        projected = self.inputs(x).unbind(1)
        later_bias = torch.cat([self.gates.bias, self.candidate.bias])
        h = torch.tanh(projected[0][:, 2 * self.width :])
        total = h
        for step in range(1, steps):
            wx = projected[min(step, len(projected) - 1)] + later_bias
            wx_gates, wx_candidate = wx.split([2 * self.width, self.width], dim=1)
            z, r = torch.sigmoid(wx_gates + F.linear(h, self.gates.weight)).chunk(2, dim=1)
            c = torch.tanh(wx_candidate + F.linear(r * h, self.candidate.weight))
            h = torch.lerp(h, c.to(h.dtype), z.to(h.dtype))
            total = total + h
        return total / steps


class ReluRecurrence(nn.Module):
    """The recurrence of the `short` variant: h_t = relu(W x_t + b + U h_{t−1} + c)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(width, width)
        self.state = nn.Linear(width, width)

    def forward(self, x: Tensor, steps: int) -> Tensor:
        """Mean state ``(batch, width)`` over the steps of ``x``, ``(batch, steps, width)``."""
        projected = self.inputs(x).unbind(1)
        h = torch.relu(projected[0])
        total = h
        for step in range(1, steps):
            h = torch.relu(projected[step] + self.state(h))
            total = total + h
        return total / steps


class CharCnnRnn(nn.Module):
    """Three temporal convolutions over characters, a recurrence, and a linear layer.

    `long` is the encoder released for image generation (cnn_dim 512, 18 steps, a GRU); `short`
    that of CVPR 2016 (cnn_dim 256, a third pool, 8 steps, a ReLU RNN). Released encoders may have
    another ``cnn_dim`` than their variant's.

    >>> encoder = CharCnnRnn("long", embedding_dim=1024)
    >>> encoder.encode(["a yellow flower with a red center"]).shape
    (1, 1024)
    """

    def __init__(
        self, variant: Variant = "long", embedding_dim: int = 1024, cnn_dim: int | None = None
    ) -> None:
        super().__init__()
        self.variant = variant
        self.embedding_dim = embedding_dim
        cnn_dim = cnn_dim or (512 if variant == "long" else 256)
        self.conv1 = nn.Conv1d(len(ALPHABET), 384, _KERNEL)
        self.conv2 = nn.Conv1d(384, 512, _KERNEL)
        self.conv3 = nn.Conv1d(512, cnn_dim, _KERNEL)
        self.recurrence = GatedRecurrence(cnn_dim) if variant == "long" else ReluRecurrence(cnn_dim)
        self.projection = nn.Linear(cnn_dim, embedding_dim)
        self.steps = _CONV_STEPS if variant == "long" else 8
        self.reset_parameters(torch.Generator().manual_seed(0))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw every parameter uniformly from ±0.08."""
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-0.08, 0.08, generator=generator)

    def forward(self, characters: Tensor) -> Tensor:
        """Embeddings ``(batch, embedding_dim)`` of integer character indices ``(batch, 201)``."""
        # Padding is all zeros, so every convolution step that starts behind the longest caption
        # holds the same values: one of them is computed and stands for the rest.
        used = int(characters.any(dim=0).nonzero().max()) + 1 if characters.any() else 0
        distinct = min(_CONV_STEPS, -(-used // _STRIDE) + 1)
        length = CAPTION_LENGTH - _STRIDE * (_CONV_STEPS - distinct)
        x = self._first_convolution(characters[:, :length].long())
        # Two-dimensional with height 1, since only that has a channels-last layout.
        x = x.transpose(1, 2).unsqueeze(2)
        x = F.max_pool2d(torch.relu(x), (1, 3))
        x = F.max_pool2d(torch.relu(_convolve(x, self.conv2)), (1, 3))
        x = torch.relu(_convolve(x, self.conv3))
        if self.variant == "short":
            x = torch.cat([x, x[..., -1:].expand(-1, -1, -1, _CONV_STEPS - distinct)], dim=3)
            x = F.max_pool2d(x, (1, 3), stride=(1, 2))
        x = x.squeeze(2).transpose(1, 2)
        return self.projection(self.recurrence(x, self.steps))

    def _first_convolution(self, characters: Tensor) -> Tensor:
        """conv1 of the one-hot columns, ``(batch, length − 3, 384)``, by adding its rows.

        One-hot times matrix picks rows, and picking them is several times faster; the row of
        index 0 is zero.
        """
        weight, bias = self.conv1.parameters()
        rows = F.pad(weight.permute(2, 1, 0), (0, 0, 1, 0))
        offsets = torch.arange(_KERNEL, device=characters.device) * rows.shape[1]
        windows = characters.unfold(1, _KERNEL, 1) + offsets
        summed = F.embedding_bag(windows.flatten(0, 1), rows.flatten(0, 1), mode="sum")
        return summed.view(*windows.shape[:2], -1) + bias

    def encode(
        self,
        captions: Sequence[str],
        batch_size: int = 256,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Embeddings of captions, float32 ``(captions, embedding_dim)``.

        Each distinct caption is encoded once; one warning counts those that are cut. ``on_batch(
        done, total)`` is called after each batch with counts of distinct captions.
        """
        # Captions of like length share a batch, which shortens the convolutions.
        distinct = sorted(set(captions), key=lambda caption: (len(caption), caption))
        cut = sum(len(caption) > CAPTION_LENGTH for caption in captions)
        if cut:
            warnings.warn(
                f"{cut} of {len(captions)} captions are longer than {CAPTION_LENGTH} characters; "
                "what comes after is not read",
                stacklevel=2,
            )
        embeddings = np.empty((len(distinct), self.embedding_dim), dtype=np.float32)
        device = self.projection.weight.device
        with torch.no_grad():
            for start in range(0, len(distinct), batch_size):
                batch = characters(distinct[start : start + batch_size]).to(device)
                done = start + len(batch)
                embeddings[start:done] = self(batch).float().cpu().numpy()
                if on_batch is not None:
                    on_batch(done, len(distinct))
        place = {caption: row for row, caption in enumerate(distinct)}
        return embeddings[[place[caption] for caption in captions]]

    def save(self, path: str | Path) -> None:
        """Write weights, variant and width as one safetensors file, all or nothing."""
        settings = {
            "variant": self.variant,
            "embedding_dim": self.embedding_dim,
            "cnn_dim": self.projection.in_features,
        }
        tensors = {name: value.cpu().contiguous() for name, value in self.state_dict().items()}
        with replacing(path) as partial:
            # One entry, since the format keeps several in no order: equal encoders are equal files.
            save_file(tensors, partial, metadata={_FORMAT: json.dumps(settings)})


def load_text_encoder(path: str | Path) -> CharCnnRnn:
    """Read what ``CharCnnRnn.save`` wrote.

    Raises:
        UserError: the file is missing, damaged, of another kind, or its tensors do not fit.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path}: cannot be read as a text encoder ({error}); "
            "expected a complete safetensors file written by sdn_ray"
        ) from error
    expects = f"{_FORMAT!r} with a variant 'long' or 'short', an embedding_dim and a cnn_dim"
    if _FORMAT not in metadata:
        shown = one_line(ValueError(metadata), 200)
        raise UserError(f"{path}: found metadata {shown}, expected {expects}")
    shape = parse_json(metadata[_FORMAT], _Shape, f"{path}: its metadata", expects)
    variant = shape["variant"]
    try:
        # Without memory, so that false numbers in a damaged file cost none.
        with torch.device("meta"):
            empty = CharCnnRnn(variant, shape["embedding_dim"], shape["cnn_dim"])
    except (ArithmeticError, RuntimeError, TypeError) as error:
        raise UserError(
            f"{path}: found {shape} ({one_line(error, 99)}), expected {expects}"
        ) from error
    wanted = {name: tuple(value.shape) for name, value in empty.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if found != wanted:
        name = min(name for name in found | wanted if found.get(name) != wanted.get(name))
        raise UserError(
            f"{path}: tensor {name!r} has shape {found.get(name, 'missing')}, "
            f"expected {wanted.get(name, 'no such tensor')} for variant {variant!r}"
        )
    encoder = CharCnnRnn(variant, shape["embedding_dim"], shape["cnn_dim"])
    encoder.load_state_dict(tensors)
    return encoder


def _convolve(x: Tensor, convolution: nn.Conv1d) -> Tensor:
    """A temporal convolution of ``(batch, channels, 1, steps)``."""
    weight = convolution.weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
    return F.conv2d(x, weight, convolution.bias)

"""What Reed et al. released as Torch7 files: the weights of their text encoders, and captions.

Encoders are those of https://github.com/reedscot/cvpr2016 (`HybridCNN.lua`, `FixedRNN.lua`) and
https://github.com/reedscot/icml2016 (`HybridCNNLong.lua`, `FixedGRU.lua`): a graph of modules,
unrolled over its steps, which ``nngraph`` reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from sdn_ray.errors import UserError
from sdn_ray.text.char_cnn_rnn import ALPHABET, CAPTION_LENGTH, CharCnnRnn, Variant
from sdn_ray.text.nngraph import (
    Graph,
    Unfit,
    Weights,
    describe,
    modules_of,
    parameter,
    recurrence,
)
from sdn_ray.text.torch7 import Table, TorchObject, read_torch7

# Stands in a caption for what the alphabet of the encoder does not hold.
UNKNOWN = "\N{REPLACEMENT CHARACTER}"

_KERNEL = 4
_CONVOLUTIONS = ["nn.TemporalConvolution", "nn.Threshold", "nn.TemporalMaxPooling"] * 3
_NEGLIGIBLE = 1e-6  # Torch7's default threshold, where ours is 0

# By whether the recurrence is gated, the poolings and the steps.
_VARIANTS: dict[tuple[bool, int, int], Variant] = {
    (True, 2, 18): "long",
    (False, 3, 8): "short",
}
# Whose rows make up which of our layers.
_GRU = {"inputs": ("W_z", "W_r", "W"), "gates": ("U_z", "U_r"), "candidate": ("U",)}
_RELU_RNN = {"inputs": ("W",), "state": ("U",)}


@dataclass(frozen=True)
class ImageCaptions:
    """The captions of one image, and its file name's stem."""

    image: str
    captions: tuple[str, ...]


def read_released_encoder(path: str | Path) -> CharCnnRnn:
    """The text encoder of a released `.t7` file, such as ``lm_sje_…iter30000.t7``.

    The file holds a training checkpoint, of which ``protos.enc_doc`` is read, or that network
    alone. Its convolutions' weights ``(out, kernel × in)`` are turned to ``(out, in, kernel)``.
    Torch7's threshold lets through what is above 1e-6 and ours what is above 0.

    Raises:
        UserError: the file is damaged, or its network is not the `long` or `short` variant.
    """
    network = read_torch7(path)
    try:
        return _encoder(network)
    except Unfit as error:
        raise UserError(
            f"{path}: {error}; expected a char-CNN-RNN as Reed et al. released it"
        ) from error


def read_class_captions(path: str | Path) -> list[list[str]]:
    """The captions of each image of a class: a `.t7` file of the CVPR 2016 release.

    The file holds one tensor ``(images, 201, captions)`` of places in the alphabet from 1, and 0
    where a caption has ended. It does not name the images. See ``read_image_captions`` for what
    stands for other characters.

    Raises:
        UserError: the file is damaged or holds anything else.
    """
    tensor = _caption_tensor(path, read_torch7(path), 3)
    return [_decode(image) for image in tensor]


def read_image_captions(path: str | Path) -> ImageCaptions:
    """The captions of an image: a `.t7` file of the ICML 2016 release.

    The file holds a table of `img`, the image's path, and `char`, a tensor ``(201, captions)`` as
    in ``read_class_captions``. A 0 inside a caption, a character that the alphabet lacks, becomes
    ``UNKNOWN``, so that our encoder sees the same columns. Captions without any character are
    left out.

    Raises:
        UserError: the file is damaged or holds anything else.
    """
    content = read_torch7(path)
    image = content.get("img") if isinstance(content, Table) else None
    stem = PurePosixPath(image).stem if isinstance(image, str) else ""
    if not 0 < len(stem) <= 200 or not stem.isprintable():
        raise UserError(
            f"{path}: found {describe(content)} with img {describe(image)}, expected a table of "
            "img, the path of an image, and char, its captions"
        )
    captions = _decode(_caption_tensor(path, content.get("char"), 2))
    return ImageCaptions(stem, tuple(caption for caption in captions if caption))


def _caption_tensor(path: str | Path, value: Any, dimensions: int) -> np.ndarray:
    """A tensor of alphabet places, its last two dimensions ``(201, captions)``."""
    expected = ("images, " if dimensions == 3 else "") + f"{CAPTION_LENGTH}, captions"
    fits = isinstance(value, np.ndarray) and value.ndim == dimensions and 0 not in value.shape
    if not fits or value.shape[-2] != CAPTION_LENGTH:
        raise UserError(f"{path}: found {describe(value)}, expected a tensor ({expected})")
    wrong = value[(value < 0) | (value > len(ALPHABET)) | (value != np.floor(value))]
    if wrong.size or np.isnan(value).any():
        found = wrong[0] if wrong.size else "NaN"
        raise UserError(
            f"{path}: found {found} in a caption, expected whole numbers from 0 to "
            f"{len(ALPHABET)}, places in the alphabet"
        )
    return value.astype(np.uint8)


def _decode(places: np.ndarray) -> list[str]:
    """Captions from their alphabet places, ``(201, captions)``."""
    characters = UNKNOWN + ALPHABET
    return ["".join(characters[place] for place in column).rstrip(UNKNOWN) for column in places.T]


def _encoder(content: Any) -> CharCnnRnn:
    network = _find_network(content)
    outer = Graph(network)
    parts = ("nn.Sequential", "nn.SplitTable", "nn.gModule", "nn.Linear")
    layers: dict[str, list[TorchObject]] = {name: [] for name in parts}
    for module in outer.chain():
        if module.class_name in layers:
            layers[module.class_name].append(module)
        elif module.class_name not in ("nn.Identity", "nn.Dropout"):
            raise Unfit(f"found a {module.class_name} between the parts of the network")
    if any(len(found) != 1 for found in layers.values()):
        counts = ", ".join(f"{len(found)} {name}" for name, found in layers.items())
        raise Unfit(f"found {counts}, where one of each makes the network")
    (stack,), _, (unrolled,), (projection,) = layers.values()
    convolutions, pools = _convolutions(stack)
    weights, steps = recurrence(unrolled)
    gated = "U_z" in weights
    variant = _VARIANTS.get((gated, pools, steps))
    if variant is None:
        kind = "a GRU" if gated else "a ReLU RNN"
        raise Unfit(
            f"found {pools} poolings and {kind} of {steps} steps, where variant long has 2 and a "
            "GRU of 18, short 3 and a ReLU RNN of 8"
        )
    tensors = _named_convolutions(convolutions) | _named_recurrence(weights)
    tensors |= _linear("projection", [projection])
    # The authors' flowers encoder may have another width than its variant has by default.
    encoder = CharCnnRnn(
        variant, len(tensors["projection.bias"]), cnn_dim=len(tensors["conv3.bias"])
    )
    _load(encoder, tensors)
    return encoder.eval()


def _find_network(content: Any) -> TorchObject:
    """``protos.enc_doc`` of a checkpoint, or the network itself."""
    if isinstance(content, Table) and isinstance(content.get("protos"), Table):
        content = content.get("protos").get("enc_doc")
    if not isinstance(content, TorchObject) or content.class_name != "nn.gModule":
        raise Unfit(f"found {describe(content)} where protos.enc_doc, an nn.gModule, should be")
    return content


def _convolutions(stack: TorchObject) -> tuple[list[TorchObject], int]:
    """The three convolutions, and how many poolings there are."""
    layers, names = modules_of(stack)
    plain = ["nn.Threshold" if name == "nn.ReLU" else name for name in names]
    if plain not in (_CONVOLUTIONS, _CONVOLUTIONS[:-1]):
        raise Unfit(f"found the layers {', '.join(names)} below the recurrence")
    settings = [(_KERNEL, 1), (3, 3)] * 2 + [(_KERNEL, 1), (3, 2)]
    windowed = [layer for layer in layers if layer.class_name.startswith("nn.Temporal")]
    for layer, expected in zip(windowed, settings, strict=False):
        found = (layer.get("kW"), layer.get("dW"))
        if found != expected:
            raise Unfit(f"found a {layer.class_name} of width and step {found}, not {expected}")
    for layer in layers[1::3]:
        threshold = layer.get("threshold")
        near = isinstance(threshold, int | float) and 0 <= threshold <= _NEGLIGIBLE
        if not near or layer.get("val") != 0:
            raise Unfit(f"found a threshold of {describe(threshold)}, expected a ReLU's")
    return windowed[::2], len(windowed) - 3


def _named_convolutions(convolutions: Sequence[TorchObject]) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for place, layer in enumerate(convolutions, 1):
        weight, bias = parameter(layer, "weight", 2), parameter(layer, "bias", 1)
        if weight.shape[1] % _KERNEL:
            raise Unfit(f"found convolution {place} with weights of shape {weight.shape}")
        # A row runs over the frames of the window and, within each, over its dimensions.
        windows = weight.reshape(len(weight), _KERNEL, -1)
        tensors[f"conv{place}.weight"] = windows.transpose(0, 2, 1)
        tensors[f"conv{place}.bias"] = bias
    return tensors


def _named_recurrence(weights: Weights) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for part, names in (_GRU if "U_z" in weights else _RELU_RNN).items():
        tensors |= _linear(f"recurrence.{part}", [weights[name] for name in names])
    return tensors


def _linear(name: str, layers: Sequence[TorchObject]) -> dict[str, np.ndarray]:
    """One linear layer of the rows of several."""
    weights = [parameter(layer, "weight", 2) for layer in layers]
    biases = [parameter(layer, "bias", 1) for layer in layers]
    if len({weight.shape for weight in weights}) > 1 or len({bias.shape for bias in biases}) > 1:
        raise Unfit(f"found shapes {[weight.shape for weight in weights]} for {name}, not one")
    return {f"{name}.weight": np.concatenate(weights), f"{name}.bias": np.concatenate(biases)}


def _load(encoder: CharCnnRnn, tensors: dict[str, np.ndarray]) -> None:
    for name, value in encoder.state_dict().items():
        if tensors[name].shape != tuple(value.shape):
            raise Unfit(f"found shape {tensors[name].shape} for {name}, not {tuple(value.shape)}")
        if not np.isfinite(tensors[name]).all():
            raise Unfit(f"found NaN or infinity in {name}")
    encoder.load_state_dict(
        {name: torch.tensor(value.astype(np.float32)) for name, value in tensors.items()}
    )

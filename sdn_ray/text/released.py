"""What Reed et al. released as Torch7 files: the weights of their text encoders, and captions.

Encoders are those of https://github.com/reedscot/cvpr2016 (`HybridCNN.lua`, `FixedRNN.lua`) and
https://github.com/reedscot/icml2016 (`HybridCNNLong.lua`, `FixedGRU.lua`): a graph of modules,
unrolled over its steps. Which of its layers is which of ours is read from how the graph is wired,
not from the order of its nodes, which is only one of those that a topological sort may give.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from sdn_ray.errors import UserError
from sdn_ray.text.char_cnn_rnn import ALPHABET, CAPTION_LENGTH, CharCnnRnn
from sdn_ray.text.torch7 import Table, TorchObject, read_torch7

# Stands in a caption for what the alphabet of the encoder does not hold.
UNKNOWN = "\N{REPLACEMENT CHARACTER}"

_KERNEL = 4
_CONVOLUTIONS = ["nn.TemporalConvolution", "nn.Threshold", "nn.TemporalMaxPooling"] * 3
_NEGLIGIBLE = 1e-6  # Torch7's default threshold, where ours is 0

# The layers as the equations of `GatedRecurrence` and `ReluRecurrence` name them, and whose rows
# make up which of our layers.
_Weights = dict[str, TorchObject]
_GRU = {"inputs": ("W_z", "W_r", "W"), "gates": ("U_z", "U_r"), "candidate": ("U",)}
_RELU_RNN = {"inputs": ("W",), "state": ("U",)}


class _Unfit(Exception):
    """The network is not one of those released."""


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
    except _Unfit as error:
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
            f"{path}: found {_describe(content)} with img {_describe(image)}, expected a table of "
            "img, the path of an image, and char, its captions"
        )
    captions = _decode(_caption_tensor(path, content.get("char"), 2))
    return ImageCaptions(stem, tuple(caption for caption in captions if caption))


def _caption_tensor(path: str | Path, value: Any, dimensions: int) -> np.ndarray:
    """A tensor of alphabet places, its last two dimensions ``(201, captions)``."""
    expected = ("images, " if dimensions == 3 else "") + f"{CAPTION_LENGTH}, captions"
    fits = isinstance(value, np.ndarray) and value.ndim == dimensions and 0 not in value.shape
    if not fits or value.shape[-2] != CAPTION_LENGTH:
        raise UserError(f"{path}: found {_describe(value)}, expected a tensor ({expected})")
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
    outer = _Graph(network)
    layers = {"nn.Sequential": [], "nn.SplitTable": [], "nn.gModule": [], "nn.Linear": []}
    for module in outer.chain():
        if module.class_name in layers:
            layers[module.class_name].append(module)
        elif module.class_name not in ("nn.Identity", "nn.Dropout"):
            raise _Unfit(f"found a {module.class_name} between the parts of the network")
    if any(len(found) != 1 for found in layers.values()):
        counts = ", ".join(f"{len(found)} {name}" for name, found in layers.items())
        raise _Unfit(f"found {counts}, where one of each makes the network")
    (stack,), _, (unrolled,), (projection,) = layers.values()
    convolutions, pools = _convolutions(stack)
    weights, steps = _recurrence(unrolled)
    gated = "U_z" in weights
    variant = {(True, 2, 18): "long", (False, 3, 8): "short"}.get((gated, pools, steps))
    if variant is None:
        kind = "a GRU" if gated else "a ReLU RNN"
        raise _Unfit(
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
        raise _Unfit(f"found {_describe(content)} where protos.enc_doc, an nn.gModule, should be")
    return content


class _Graph:
    """A graph of modules (nngraph), walked from its output back to its input.

    A node is its table `data`: `module`, and `mapindex`, whose entries 1, 2, … are the nodes that
    feed it. What stands for an input of the graph has no module.
    """

    def __init__(self, network: TorchObject) -> None:
        self._entrance = _table(network, "innode", "data")
        self.output = self.feeding(_table(network, "outnode", "data"), 1)[0]

    def chain(self) -> list[TorchObject]:
        """The modules of a graph that is a single line, first to last."""
        node, modules = self.output, []
        while node is not self._entrance:
            modules.append(self.module(node))
            if len(modules) > 100:
                raise _Unfit("found a circle in the network")
            (node,) = self.feeding(node, 1)
        return modules[::-1]

    def feeding(self, node: Table, count: int, *classes: str) -> list[Table]:
        """The ``count`` nodes that feed ``node``, which is of one of ``classes``, if any given."""
        name = self.class_name(node)
        inputs = _table(node, "mapindex").sequence()
        if (classes and name not in classes) or len(inputs) != count:
            expected = " or ".join(classes) or "a module"
            raise _Unfit(f"found {name} of {len(inputs)} inputs for {expected} of {count}")
        if not all(isinstance(data, Table) for data in inputs):
            raise _Unfit(f"found {name} fed by something other than a node")
        return inputs

    def module(self, node: Table) -> TorchObject:
        """The module of ``node``."""
        module = node.get("module")
        if not isinstance(module, TorchObject):
            raise _Unfit(f"found {_describe(module)} where a module should be")
        return module

    def class_name(self, node: Table) -> str:
        """The class of the module of ``node``; `no module` for others."""
        module = node.get("module")
        return module.class_name if isinstance(module, TorchObject) else "no module"

    def step(self, node: Table) -> int:
        """Which input of the graph ``node``, an nn.Identity, passes on, from 1."""
        (source,) = self.feeding(node, 1, "nn.Identity")
        # Older versions of nngraph feed inputs from one node, newer from one that splits a table.
        if source is self._entrance:
            inputs = _table(source, "mapindex").sequence()
            return next((place for place, data in enumerate(inputs, 1) if data is node), 0)
        return source.get("selectindex")

    def linear(self, node: Table) -> tuple[TorchObject, Table]:
        """The nn.Linear of ``node``, alone in an nn.Sequential or bare, and what feeds it."""
        (source,) = self.feeding(node, 1, "nn.Sequential", "nn.Linear")
        module = self.module(node)
        if module.class_name == "nn.Linear":
            return module, source
        inner, names = _modules(module)
        if names != ["nn.Linear"]:
            raise _Unfit(f"found {names} in the recurrence, where an nn.Linear should be")
        return inner[0], source

    def sum_of_linears(
        self, node: Table, state: Table, step: int, names: tuple[str, str]
    ) -> _Weights:
        """W x + U h of ``step``, by ``names`` of W and U; which is which shows in what feeds it."""
        found = {}
        for summand in self.feeding(node, 2, "nn.CAddTable"):
            layer, source = self.linear(summand)
            from_state = source is state
            if not from_state and self.step(source) != step:
                raise _Unfit(f"found a layer of step {step} fed by neither its input nor the state")
            found[names[from_state]] = layer
        if len(found) != 2:
            raise _Unfit(f"found step {step} without its input or without the state before it")
        return found


def _recurrence(network: TorchObject) -> tuple[_Weights, int]:
    """The layers of an unrolled recurrence by name, and its number of steps."""
    graph = _Graph(network)
    (total,) = graph.feeding(graph.output, 1, "nn.MulConstant")
    scale = graph.module(graph.output).get("constant_scalar")
    if not isinstance(scale, int | float) or not 1e-3 <= scale <= 1:
        raise _Unfit(f"found a factor {_describe(scale)} where the mean over the steps should be")
    steps = round(1 / scale)
    states = []
    for _ in range(steps - 1):
        total, state = graph.feeding(total, 2, "nn.CAddTable")
        states.insert(0, state)
    gated = graph.class_name(total) == "nn.Tanh"
    (first,) = graph.feeding(total, 1, "nn.Tanh", "nn.ReLU")
    layer, source = graph.linear(first)
    if graph.step(source) != 1:
        raise _Unfit("found a first step that is not fed by the first input")
    unrolled = [{"W": layer}]
    for before, (step, state) in zip([total, *states], enumerate(states, 2), strict=False):
        read = _gru_step if gated else _relu_step
        unrolled.append(read(graph, state, before, step))
    return _shared(unrolled), steps


def _gru_step(graph: _Graph, state: Table, before: Table, step: int) -> _Weights:
    """h = z ⊙ c + (1 − z) ⊙ h', as `FixedGRU.lua` builds it."""
    products = [
        graph.feeding(product, 2, "nn.CMulTable")
        for product in graph.feeding(state, 2, "nn.CAddTable")
    ]
    kept = [inputs for inputs in products if before in inputs]
    new = [inputs for inputs in products if before not in inputs]
    if len(kept) != 1 or len(new) != 1:
        raise _Unfit(f"found step {step} that does not go on from the state before it")
    z, c = sorted(new[0], key=lambda node: graph.class_name(node) == "nn.Tanh")
    (rest,) = [node for node in kept[0] if node is not before] or [before]
    (negative,) = graph.feeding(rest, 1, "nn.AddConstant")
    (kept_gate,) = graph.feeding(negative, 1, "nn.MulConstant")
    factors = [graph.module(node).get("constant_scalar") for node in (rest, negative)]
    if factors != [1, -1] or kept_gate is not z:
        raise _Unfit(f"found step {step} that does not keep 1 − z of the state before it")
    (gate_sum,) = graph.feeding(z, 1, "nn.Sigmoid")
    (candidate_sum,) = graph.feeding(c, 1, "nn.Tanh")
    gated_state = _gated_state(graph, candidate_sum)
    r = [node for node in graph.feeding(gated_state, 2, "nn.CMulTable") if node is not before]
    if len(r) != 1:
        raise _Unfit(f"found step {step} whose reset gate does not act on the state before it")
    (reset_sum,) = graph.feeding(r[0], 1, "nn.Sigmoid")
    return (
        graph.sum_of_linears(gate_sum, before, step, ("W_z", "U_z"))
        | graph.sum_of_linears(reset_sum, before, step, ("W_r", "U_r"))
        | graph.sum_of_linears(candidate_sum, gated_state, step, ("W", "U"))
    )


def _gated_state(graph: _Graph, candidate_sum: Table) -> Table:
    """r ⊙ h among what feeds the layers of a candidate."""
    sources = [graph.linear(node)[1] for node in graph.feeding(candidate_sum, 2, "nn.CAddTable")]
    found = [node for node in sources if graph.class_name(node) == "nn.CMulTable"]
    if len(found) != 1:
        raise _Unfit("found a candidate state without r ⊙ h")
    return found[0]


def _relu_step(graph: _Graph, state: Table, before: Table, step: int) -> _Weights:
    """h = relu(W x + b + U h' + c), as `FixedRNN.lua` builds it."""
    (total,) = graph.feeding(state, 1, "nn.ReLU")
    return graph.sum_of_linears(total, before, step, ("W", "U"))


def _shared(unrolled: Sequence[_Weights]) -> _Weights:
    """The layers that all steps share; those of the second hold every name."""
    first = unrolled[min(1, len(unrolled) - 1)]
    for step, layers in enumerate(unrolled, 1):
        for name, layer in layers.items():
            for part, dimensions in (("weight", 2), ("bias", 1)):
                ours = _parameter(first[name], part, dimensions)
                if not np.array_equal(ours, _parameter(layer, part, dimensions)):
                    raise _Unfit(f"found another {name} in step {step} than in the others")
    return first


def _convolutions(stack: TorchObject) -> tuple[list[TorchObject], int]:
    """The three convolutions, and how many poolings there are."""
    layers, names = _modules(stack)
    plain = ["nn.Threshold" if name == "nn.ReLU" else name for name in names]
    if plain not in (_CONVOLUTIONS, _CONVOLUTIONS[:-1]):
        raise _Unfit(f"found the layers {', '.join(names)} below the recurrence")
    settings = [(_KERNEL, 1), (3, 3)] * 2 + [(_KERNEL, 1), (3, 2)]
    windowed = [layer for layer in layers if layer.class_name.startswith("nn.Temporal")]
    for layer, expected in zip(windowed, settings, strict=False):
        found = (layer.get("kW"), layer.get("dW"))
        if found != expected:
            raise _Unfit(f"found a {layer.class_name} of width and step {found}, not {expected}")
    for layer in layers[1::3]:
        threshold = layer.get("threshold")
        near = isinstance(threshold, int | float) and 0 <= threshold <= _NEGLIGIBLE
        if not near or layer.get("val") != 0:
            raise _Unfit(f"found a threshold of {_describe(threshold)}, expected a ReLU's")
    return windowed[::2], len(windowed) - 3


def _named_convolutions(convolutions: Sequence[TorchObject]) -> dict[str, np.ndarray]:
    tensors = {}
    for place, layer in enumerate(convolutions, 1):
        weight, bias = _parameter(layer, "weight", 2), _parameter(layer, "bias", 1)
        if weight.shape[1] % _KERNEL:
            raise _Unfit(f"found convolution {place} with weights of shape {weight.shape}")
        # A row runs over the frames of the window and, within each, over its dimensions.
        windows = weight.reshape(len(weight), _KERNEL, -1)
        tensors[f"conv{place}.weight"] = windows.transpose(0, 2, 1)
        tensors[f"conv{place}.bias"] = bias
    return tensors


def _named_recurrence(weights: _Weights) -> dict[str, np.ndarray]:
    tensors = {}
    for part, names in (_GRU if "U_z" in weights else _RELU_RNN).items():
        tensors |= _linear(f"recurrence.{part}", [weights[name] for name in names])
    return tensors


def _linear(name: str, layers: Sequence[TorchObject]) -> dict[str, np.ndarray]:
    """One linear layer of the rows of several."""
    weights = [_parameter(layer, "weight", 2) for layer in layers]
    biases = [_parameter(layer, "bias", 1) for layer in layers]
    if len({weight.shape for weight in weights}) > 1 or len({bias.shape for bias in biases}) > 1:
        raise _Unfit(f"found shapes {[weight.shape for weight in weights]} for {name}, not one")
    return {f"{name}.weight": np.concatenate(weights), f"{name}.bias": np.concatenate(biases)}


def _load(encoder: CharCnnRnn, tensors: dict[str, np.ndarray]) -> None:
    for name, value in encoder.state_dict().items():
        if tensors[name].shape != tuple(value.shape):
            raise _Unfit(f"found shape {tensors[name].shape} for {name}, not {tuple(value.shape)}")
        if not np.isfinite(tensors[name]).all():
            raise _Unfit(f"found NaN or infinity in {name}")
    encoder.load_state_dict(
        {name: torch.tensor(value.astype(np.float32)) for name, value in tensors.items()}
    )


def _table(value: Table, *path: str) -> Table:
    """The table at ``path`` inside ``value``."""
    for name in path:
        inner = value.get(name)
        if not isinstance(inner, Table):
            raise _Unfit(f"found {_describe(inner)} as {name}, where a table should be")
        value = inner
    return value


def _modules(container: TorchObject) -> tuple[list[TorchObject], list[str]]:
    """What a container holds, and the classes of these."""
    modules = _table(container, "modules").sequence()
    if not all(isinstance(module, TorchObject) for module in modules):
        raise _Unfit(f"found a {container.class_name} of something other than modules")
    return modules, [module.class_name for module in modules]


def _parameter(layer: TorchObject, name: str, dimensions: int) -> np.ndarray:
    value = layer.get(name)
    fits = isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim == dimensions
    if not fits or value.size > 2**26:
        raise _Unfit(f"found {_describe(value)} as the {name} of a {layer.class_name}")
    return value


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"a tensor {value.shape}"
    if isinstance(value, TorchObject):
        return f"a {value.class_name[:60]!r}"
    if isinstance(value, Table):
        return "a table"
    return "nothing" if value is None else repr(value)[:60]

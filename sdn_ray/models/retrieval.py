"""Approximate sample retrieval (section 4.6): the training images nearest to a generated one."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sdn_ray.errors import UserError
from sdn_ray.files import replacing
from sdn_ray.models.fit import FitEpoch, FitSettings, train_classifier
from sdn_ray.models.pixels import normalise
from sdn_ray.models.plan import Plan
from sdn_ray.models.teacher import Teacher, vgg_features

FC_NAMES = tuple(f"classifier.{fc}.{part}" for fc in (0, 3) for part in ("weight", "bias"))
_SAMPLE = 256  # images that settle the size of the first weights
_QUERIES = 256  # of `nearest` at a time
_ROWS = 4096  # of its index at a time


class RetrievalNetwork(nn.Module):
    """A VGG with its fully-connected layers fc6, fc7 and fc8, named as torchvision names them.

    Args:
        plan: of the convolutions.
        image_size: height and width of the images, a multiple of 2^pools.
        classes: the outputs of fc8.
        fc_width: the width of fc6 and fc7 (VGG: 4096).

    Raises:
        UserError: when the pools cannot halve ``image_size``.
    """

    def __init__(self, plan: Plan, image_size: int, classes: int, fc_width: int) -> None:
        super().__init__()
        plan.check_image_size(image_size)
        self.plan, self.image_size = plan, image_size
        self.classes, self.fc_width = classes, fc_width
        side = image_size >> plan.pools
        self.features = vgg_features(plan)
        self.classifier = nn.Sequential(
            nn.Linear(plan.convolutions[-1].out_channels * side * side, fc_width),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(fc_width, fc_width),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(fc_width, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (batch, 3, height, width) to logits (batch, classes)."""
        return self.classifier(self.features(images).flatten(1))

    def fc7(self, images: Tensor) -> Tensor:
        """Normalised images to fc7 after its ReLU, without dropout: (batch, fc_width)."""
        fc6, relu, _, fc7, *_ = self.classifier
        return relu(fc7(relu(fc6(self.features(images).flatten(1)))))

    def save(self, path: str | Path) -> None:
        """Write weights and shape as a safetensors file that `load_retrieval_network` reads."""
        shape = {
            "plan": str(self.plan),
            "image_size": str(self.image_size),
            "classes": str(self.classes),
            "fc_width": str(self.fc_width),
        }
        with replacing(path) as partial:
            tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
            save_file(tensors, partial, metadata=shape)


def fine_tune(
    teacher: Teacher,
    images: np.ndarray,
    class_ids: np.ndarray,
    settings: FitSettings,
    *,
    fc_width: int,
    pretrained: Mapping[str, Tensor] | None = None,
    device: str = "cpu",
    on_epoch: Callable[[FitEpoch], None] = lambda epoch: None,
) -> RetrievalNetwork:
    """The teacher's VGG, all its weights trained on as a classifier of the training classes.

    The convolutions start as the teacher's, which stays as it is; see `train_classifier` for the
    schedule and for the images that are held out.

    Args:
        teacher: a trained one.
        images: (n, size, size, 3) uint8, of training classes only.
        class_ids: (n,) their classes.
        settings: of the training.
        fc_width: the width of fc6 and fc7.
        pretrained: weights of the whole VGG, by torchvision's names, of which fc6 and fc7 start;
            without them these start anew.
        device: where to train.
        on_epoch: called after each epoch, with the accuracy on the held-out images.

    Returns:
        The network on the CPU, in eval mode.

    Raises:
        UserError: fewer than two classes, fewer images than a batch, or an image size that the
            plan's pools cannot halve.
    """

    def new_network(classes: int) -> RetrievalNetwork:
        network = RetrievalNetwork(teacher.plan, images.shape[1], classes, fc_width)
        network.features.load_state_dict(teacher.features.state_dict())
        sample = images[np.linspace(0, len(images) - 1, min(len(images), _SAMPLE), dtype=int)]
        _initialise(network, normalise(torch.from_numpy(sample).permute(0, 3, 1, 2)))
        if pretrained is not None:
            own = network.state_dict()
            network.load_state_dict(own | {name: pretrained[name] for name in FC_NAMES})
        return network

    return train_classifier(
        new_network,
        images,
        class_ids,
        settings,
        device=device,
        on_epoch=on_epoch,
        option="retrieval",
    )


@torch.no_grad()
def _initialise(network: RetrievalNetwork, images: Tensor) -> None:
    """Start fc6 and fc7 by He's rule, and fc6 as if each channel it reads were standardised.

    A teacher's features are never negative, so their mean exceeds their deviation, and new layers
    that see them as they are learn little in the first epochs.
    """
    fc6, fc7, fc8 = (layer for layer in network.classifier if isinstance(layer, nn.Linear))
    for layer, deviation in (
        (fc6, (2 / fc6.in_features) ** 0.5),
        (fc7, (2 / fc7.in_features) ** 0.5),
        (fc8, 0.01),
    ):
        nn.init.normal_(layer.weight, 0, deviation)
        nn.init.zeros_(layer.bias)
    std, mean = torch.std_mean(network.features(images), (0, 2, 3))
    # Pruned teachers have channels that are silent: their weights must not become infinite.
    std = std.clamp(min=0.1 * std.mean())
    weight = fc6.weight.unflatten(1, (len(std), -1))
    weight /= std[:, None]
    fc6.bias.sub_((weight * mean[:, None]).sum((1, 2)))


def load_retrieval_network(path: str | Path) -> RetrievalNetwork:
    """The network that `RetrievalNetwork.save` wrote, in eval mode.

    Raises:
        UserError: when the file cannot be read or is not such a network.
    """
    expected = "expected a file of a fine-tuned retrieval network"
    try:
        with safe_open(path, framework="pt") as file:
            shape = file.metadata() or {}
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: could not be read ({error}); {expected}") from error
    try:
        # Without memory, so that false numbers in a damaged file cost none.
        with torch.device("meta"):
            network = RetrievalNetwork(
                Plan.parse(shape["plan"]),
                int(shape["image_size"]),
                int(shape["classes"]),
                int(shape["fc_width"]),
            )
    except (KeyError, ValueError, RuntimeError, UserError) as error:
        raise UserError(f"{path}: found the metadata {shape} ({error}); {expected}") from error
    wanted = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    for key in sorted(wanted.keys() | state.keys()):
        found = tuple(state[key].shape) if key in state else "nothing"
        if found != wanted.get(key, "nothing"):
            raise UserError(
                f"{path}: {key}: found {found}, expected {wanted.get(key, 'nothing')} "
                f"by the metadata {shape}"
            )
    network.load_state_dict(state, assign=True)
    return network.eval()


@torch.no_grad()
def fc7_features(
    network: RetrievalNetwork, images: np.ndarray, batch_size: int = 64, device: str = "cpu"
) -> np.ndarray:
    """fc7 of every image, of length one: (n, fc_width) float32; a row without any is zero.

    Args:
        network: fine-tuned.
        images: (n, size, size, 3) uint8.
        batch_size: images a forward pass.
        device: where to compute.
    """
    network = network.to(device).to(memory_format=torch.channels_last)
    features = np.empty((len(images), network.fc_width), dtype=np.float32)
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size]))
        fc7 = network.fc7(normalise(batch.permute(0, 3, 1, 2).to(device)))
        features[start : start + batch_size] = nn.functional.normalize(fc7).cpu().numpy()
    return features


def nearest(queries: np.ndarray, index: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of ``index`` with the largest cosine similarity to each query.

    Args:
        queries: (q, dim), of any length.
        index: (n, dim), of any length; n is at least k.
        k: how many to find.

    Returns:
        Rows (q, k) int64 and similarities (q, k) float32, the most similar first; among equal
        ones the lower row comes first.

    Raises:
        UserError: when the index has fewer than k rows.
    """
    if k > len(index):
        raise UserError(f"nearest images: found k {k}, expected at most the {len(index)} there are")
    rows = np.empty((len(queries), k), dtype=np.int64)
    similarities = np.empty((len(queries), k), dtype=np.float32)
    for start in range(0, len(queries), _QUERIES):
        chunk = slice(start, start + _QUERIES)
        rows[chunk], similarities[chunk] = _nearest(_unit(queries[chunk]), index, k)
    return rows, similarities


def _nearest(queries: np.ndarray, index: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    rows = np.empty((len(queries), 0), dtype=np.int64)
    best = np.empty((len(queries), 0), dtype=np.float32)
    for start in range(0, len(index), _ROWS):
        part = _unit(index[start : start + _ROWS])
        # Multiplied as float64: in float32, the products of equal rows can differ by their place.
        found = np.concatenate([best, (queries @ part.T).astype(np.float32)], axis=1)
        numbers = np.broadcast_to(np.arange(start, start + len(part)), (len(queries), len(part)))
        # Stable, and rows of earlier parts stand before: equal ones stay in the index's order.
        order = np.argsort(-found, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(found, order, axis=1)
        rows = np.take_along_axis(np.concatenate([rows, numbers], axis=1), order, axis=1)
    return rows, best


def _unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors over their lengths, float64; zeros stay zeros."""
    vectors = vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)

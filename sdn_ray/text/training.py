"""Training the char-CNN-RNN against fixed image features (Reed et al. 2016)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sdn_ray.errors import UserError
from sdn_ray.metrics.retrieval import zero_shot_accuracy
from sdn_ray.text.char_cnn_rnn import CharCnnRnn, Variant, characters

_VALIDATION_CAPTIONS = 100  # a class prototype is the mean of at most so many captions


@dataclass(frozen=True)
class TextEpoch:
    """One finished epoch of ``train_text_encoder``."""

    epoch: int  # counted from 1
    epochs: int
    loss: float  # mean over the epoch's steps
    validation_accuracy: float | None  # zero-shot, over held-out classes; None without any
    encoder: CharCnnRnn  # as it stands after this epoch; still being trained


@dataclass(frozen=True)
class CaptionedFeatures:
    """Images known by their features, class and captions."""

    captions: Sequence[Sequence[str]]  # of each image, at least one
    class_ids: np.ndarray  # (images,)
    features: np.ndarray  # (images, width) float32


def joint_embedding_loss(image: Tensor, text: Tensor) -> Tensor:
    """Symmetric structured joint embedding loss of a batch of different classes.

    With s(i,j) the dot product of row i of ``image`` and row j of ``text``, both ``(batch, dim)``:
    (1/B²) Σ_i Σ_{j≠i} max(0, 1 + s(i,j) − s(i,i)), plus the same with the roles exchanged.
    """
    scores = image @ text.T
    matched = scores.diagonal()
    by_image = torch.relu(1 + scores - matched[:, None])
    by_text = torch.relu(1 + scores - matched[None, :])
    others = 1 - torch.eye(len(scores), device=scores.device)
    return ((by_image + by_text) * others).sum() / len(scores) ** 2


def train_text_encoder(
    captions: Sequence[Sequence[str]],
    class_ids: np.ndarray,
    image_features: np.ndarray,
    *,
    variant: Variant = "long",
    embedding_dim: int = 1024,
    epochs: int = 200,
    learning_rate: float = 7e-4,
    decay: float = 0.98,
    batch_classes: int = 40,
    seed: int = 0,
    device: str = "cpu",
    on_epoch: Callable[[TextEpoch], None] | None = None,
    validation: CaptionedFeatures | None = None,
    amp: bool = False,
) -> CharCnnRnn:
    """Train a text encoder so that captions score high with the features of their own class.

    RMSprop; a step takes one image and one of its captions from each of
    min(``batch_classes``, classes) classes; an epoch is as many steps as there are classes, and
    the learning rate is multiplied by ``decay`` after each. Features are standardised by the
    training set's mean and deviation, and a linear layer trained along maps them where their width
    is not ``embedding_dim``. ``seed`` settles everything.

    Args:
        captions: the captions of each image.
        class_ids: class of each image, ``(images,)``.
        image_features: float32 ``(images, width)`` of a frozen classifier.
        variant: see ``CharCnnRnn``.
        embedding_dim: width of a caption's embedding.
        epochs: how often all classes are gone through.
        learning_rate: of RMSprop, in the first epoch.
        decay: factor on the learning rate after each epoch.
        batch_classes: classes in a step, at most.
        seed: of the first weights and of every draw.
        device: where to train.
        on_epoch: called after each epoch.
        validation: images of held-out classes, scored after each epoch.
        amp: matrix products in bfloat16.

    Raises:
        UserError: fewer than two classes, or the loss stopped being a number.
    """
    classes = [np.flatnonzero(class_ids == class_id) for class_id in np.unique(class_ids)]
    if len(classes) < 2:
        raise UserError(f"text encoder: found {len(classes)} training classes, expected at least 2")
    generator = torch.Generator().manual_seed(seed)
    encoder = CharCnnRnn(variant, embedding_dim)
    encoder.reset_parameters(generator)
    encoder.to(device)
    standardise = _Standardiser(image_features)
    features = torch.from_numpy(standardise(image_features)).to(device)
    project = _image_projection(features.shape[1], embedding_dim, generator).to(device)
    indices, caption_rows = _character_rows(captions, device)

    optimizer = torch.optim.RMSprop([*encoder.parameters(), *project.parameters()], learning_rate)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, decay)
    draws = np.random.default_rng(seed)
    for epoch in range(1, epochs + 1):
        total = torch.zeros((), device=device)
        for _ in classes:
            images, texts = _draw_batch(draws, classes, caption_rows, batch_classes)
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=amp):
                text = encoder(indices[texts])
                image = project(features[images])
            # In float32: bfloat16 scores are coarser than the margin of 1 once they are large.
            loss = joint_embedding_loss(image.float(), text.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        schedule.step()
        mean_loss = float(total) / len(classes)
        if not np.isfinite(mean_loss):
            raise UserError(
                f"text encoder: the loss became {mean_loss} in epoch {epoch} at learning rate "
                f"{learning_rate}; expected a finite number, try a smaller learning rate"
            )
        if on_epoch is not None:
            accuracy = None
            if validation is not None:
                accuracy = _validate(encoder, project, standardise, validation)
            on_epoch(TextEpoch(epoch, epochs, mean_loss, accuracy, encoder))
    return encoder


class _Standardiser:
    """(x − mean) / deviation by the statistics of the training features."""

    def __init__(self, features: np.ndarray) -> None:
        self.mean = features.mean(axis=0, dtype=np.float64)
        deviation = features.std(axis=0, dtype=np.float64)
        # A constant column says nothing; its deviation is rounding noise that must not be blown up.
        constant = deviation <= 1e-6 * np.abs(self.mean)
        self.scale = np.where(constant, 0, 1 / np.where(constant, 1, deviation))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return ((features - self.mean) * self.scale).astype(np.float32)


def _image_projection(width: int, embedding_dim: int, generator: torch.Generator) -> nn.Module:
    """The layer that maps image features to the text's width, where that is another one."""
    if width == embedding_dim:
        return nn.Identity()
    layer = nn.Linear(width, embedding_dim)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -0.08, 0.08, generator=generator)
    return layer


def _character_rows(
    captions: Sequence[Sequence[str]], device: str
) -> tuple[Tensor, list[list[int]]]:
    """Character indices of the distinct captions, and each image's rows among them."""
    distinct = dict.fromkeys(caption for group in captions for caption in group)
    place = {caption: row for row, caption in enumerate(distinct)}
    rows = [[place[caption] for caption in group] for group in captions]
    return characters(list(distinct)).to(device), rows


def _draw_batch(
    draws: np.random.Generator,
    classes: list[np.ndarray],
    caption_rows: list[list[int]],
    batch_classes: int,
) -> tuple[list[int], list[int]]:
    """Image rows and caption rows, one of each from each of the drawn classes."""
    drawn = draws.choice(len(classes), min(batch_classes, len(classes)), replace=False)
    images = [int(draws.choice(classes[index])) for index in drawn]
    texts = [int(draws.choice(caption_rows[image])) for image in images]
    return images, texts


def _validate(
    encoder: CharCnnRnn,
    project: nn.Module,
    standardise: _Standardiser,
    validation: CaptionedFeatures,
) -> float:
    """Zero-shot accuracy on held-out classes, each known by at most 100 of its captions."""
    texts, text_classes = [], []
    for class_id in np.unique(validation.class_ids):
        images = np.flatnonzero(validation.class_ids == class_id)
        own = list(dict.fromkeys(text for image in images for text in validation.captions[image]))
        # Evenly spread over the class's images, the same ones in every epoch.
        chosen = own[:: -(-len(own) // _VALIDATION_CAPTIONS)]
        texts += chosen
        text_classes += [class_id] * len(chosen)
    features = torch.from_numpy(standardise(validation.features))
    with torch.no_grad():
        mapped = project(features.to(encoder.projection.weight.device)).cpu().numpy()
    return zero_shot_accuracy(
        encoder.encode(texts), np.array(text_classes), mapped, validation.class_ids
    )

"""Training a text encoder against fixed image features (Reed et al. 2016)."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from sdn_ray.errors import UserError
from sdn_ray.text.char_cnn_rnn import CharCnnRnn, Variant, characters
from sdn_ray.text.image_encoder import ImageEncoder, Standardiser
from sdn_ray.text.scores import CaptionedFeatures, TextScores, text_scores
from sdn_ray.text.sentence import SentenceEncoder

BATCH_CLASSES = 40  # classes in a step, at most


@dataclass(frozen=True)
class TextEpoch:
    """One finished epoch of ``train_text_encoder``."""

    epoch: int  # counted from 1
    epochs: int
    loss: float  # mean over the epoch's steps
    validation: TextScores | None  # over held-out classes; None without any


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


class TextTower(Protocol):
    """A text encoder as its training sees it."""

    @property
    def module(self) -> nn.Module:
        """What is trained: inputs → embeddings (batch, embedding_dim)."""

    def inputs(self, captions: list[str]) -> Tensor:
        """What the module is given for each caption, (captions, …)."""

    def encode(self, captions: list[str]) -> np.ndarray:
        """Embeddings as they stand, (captions, embedding_dim) float32."""

    def save(self, path: Path) -> None:
        """Write the encoder as it stands, for `read_text_encoder`."""


class CharTower:
    """The char-CNN-RNN, all of which is trained."""

    def __init__(self, encoder: CharCnnRnn) -> None:
        self.module = encoder

    def inputs(self, captions: list[str]) -> Tensor:
        """Character indices, (captions, 201) uint8."""
        return characters(captions)

    def encode(self, captions: list[str]) -> np.ndarray:
        """Embeddings as they stand."""
        return self.module.encode(captions)

    def save(self, path: Path) -> None:
        """Write the encoder as one file."""
        device = next(self.module.parameters()).device
        self.module.cpu().save(path)
        self.module.to(device)


class SentenceTower:
    """A frozen sentence encoder, of which a linear layer on top is trained.

    Args:
        encoder: without a layer of its own yet.
        base: captions to the frozen encoder's embeddings.
        embedding_dim: width of the layer.
        first: draws its first weights.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        base: Callable[[list[str]], np.ndarray],
        embedding_dim: int,
        first: torch.Generator,
    ) -> None:
        self._encoder, self._base = encoder, base
        self.module = _linear(encoder.base_dim, embedding_dim, first)

    def inputs(self, captions: list[str]) -> Tensor:
        """The frozen encoder's embeddings, (captions, base_dim) float32."""
        return torch.from_numpy(self._base(captions))

    @torch.no_grad()
    def encode(self, captions: list[str]) -> np.ndarray:
        """Embeddings as they stand."""
        device = self.module.weight.device
        return self.module(self.inputs(captions).to(device)).cpu().numpy()

    def save(self, path: Path) -> None:
        """Write the frozen encoder and its layer as one folder."""
        self._encoder.projection = self.module
        self._encoder.save(path)
        self._encoder.projection = None


class TextTraining:
    """One training of a text encoder: RMSprop on the joint embedding loss, epoch by epoch.

    A step takes one image and one of its captions from each of min(``batch_classes``, classes)
    classes; an epoch is as many steps as there are classes, but where each image is a class of its
    own no more than see each once. The learning rate is multiplied by ``decay`` after each epoch.
    Features are standardised by the training set's mean and deviation, or whitened.

    Args:
        data: the training classes' images.
        tower: the captions' side.
        embedding_dim: width of a caption's embedding.
        first: draws the first weights of the images' side.
        learning_rate: of RMSprop, in the first epoch.
        decay: factor on the learning rate after each epoch.
        batch_classes: classes in a step, at most.
        seed: of every draw of a batch.
        device: where to train.
        amp: matrix products in bfloat16.
        whiten: the images' features.

    Raises:
        UserError: fewer than two classes.
    """

    def __init__(
        self,
        data: CaptionedFeatures,
        tower: TextTower,
        *,
        embedding_dim: int,
        first: torch.Generator,
        learning_rate: float,
        decay: float,
        batch_classes: int,
        seed: int,
        device: str,
        amp: bool,
        whiten: bool = False,
    ) -> None:
        self._classes = [np.flatnonzero(data.class_ids == c) for c in np.unique(data.class_ids)]
        if len(self._classes) < 2:
            raise UserError(
                f"text encoder: found {len(self._classes)} training classes, expected at least 2"
            )
        self._batch_classes, self._device, self._amp = batch_classes, device, amp
        self._steps = len(self._classes)
        if self._steps == len(data.class_ids):
            self._steps = -(-self._steps // batch_classes)
        self._rate = learning_rate
        self.epoch = 0  # epochs done
        self.tower = tower
        tower.module.to(device)
        of = Standardiser.whitening if whiten else Standardiser.of
        standardise = of(data.features)
        project = _image_projection(standardise.dim, embedding_dim, first)
        self.image_encoder = ImageEncoder(standardise, project)
        self.image_encoder.project.to(device)
        self._data = data
        self._take_features()
        distinct, self._caption_rows = _distinct_captions(data.captions)
        self._inputs = tower.inputs(distinct).to(device)
        trained = [*tower.module.parameters(), *self.image_encoder.project.parameters()]
        self._optimizer = torch.optim.RMSprop(trained, learning_rate)
        self._schedule = torch.optim.lr_scheduler.ExponentialLR(self._optimizer, decay)
        self._draws = np.random.default_rng(seed)

    def _take_features(self) -> None:
        features = self.image_encoder.standardise(self._data.features)
        self._features = torch.from_numpy(features).to(self._device)

    def run_epoch(self) -> float:
        """Train for one epoch; the mean loss of its steps.

        Raises:
            UserError: when the loss stopped being a number.
        """
        total = torch.zeros((), device=self._device)
        for _ in range(self._steps):
            total += self._step()
        self._schedule.step()
        self.epoch += 1
        loss = float(total) / self._steps
        if not np.isfinite(loss):
            raise UserError(
                f"text encoder: the loss became {loss} in epoch {self.epoch} at learning rate "
                f"{self._rate}; expected a finite number, try a smaller learning rate"
            )
        return loss

    def _step(self) -> Tensor:
        images, texts = _draw_batch(
            self._draws, self._classes, self._caption_rows, self._batch_classes
        )
        kind = torch.device(self._device).type
        with torch.autocast(kind, torch.bfloat16, enabled=self._amp):
            text = self.tower.module(self._inputs[texts])
            image = self.image_encoder.project(self._features[images])
        # In float32: bfloat16 scores are coarser than the margin of 1 once they are large.
        loss = joint_embedding_loss(image.float(), text.float())
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def scores(self, held_out: CaptionedFeatures) -> TextScores:
        """How well the encoder tells held-out classes apart."""
        return text_scores(self.tower.encode, self.image_encoder, held_out)

    def state_dict(self) -> dict[str, Any]:
        """All that the next epoch depends on."""
        state = {
            "epoch": self.epoch,
            "text": self.tower.module.state_dict(),
            "image": self.image_encoder.project.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "draws": json.dumps(self._draws.bit_generator.state),
        }
        # Another machine may find components of another sign.
        components = self.image_encoder.standardise.components
        return state | ({} if components is None else {"components": torch.from_numpy(components)})

    def load_weights(self, state: dict[str, Any]) -> None:
        """Take the weights of both sides from a `state_dict`, and nothing else."""
        self.tower.module.load_state_dict(state["text"])
        self.image_encoder.project.load_state_dict(state["image"])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.epoch = state["epoch"]
        self.load_weights(state)
        if "components" in state:
            self.image_encoder.standardise.components = state["components"].numpy()
            self._take_features()
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._draws.bit_generator.state = json.loads(state["draws"])


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
    batch_classes: int = BATCH_CLASSES,
    seed: int = 0,
    device: str = "cpu",
    on_epoch: Callable[[TextEpoch], None] | None = None,
    validation: CaptionedFeatures | None = None,
    amp: bool = False,
) -> CharCnnRnn:
    """Train a char-CNN-RNN so that captions score high with the features of their own class.

    Args:
        captions: the captions of each image.
        class_ids: class of each image, ``(images,)``.
        image_features: float32 ``(images, width)`` of a frozen classifier.
        variant: see ``CharCnnRnn``.
        embedding_dim: width of a caption's embedding.
        epochs: how often all classes are gone through.
        learning_rate: see ``TextTraining``, as for the rest.
        decay: factor on the learning rate after each epoch.
        batch_classes: classes in a step, at most.
        seed: settles everything.
        device: where to train.
        on_epoch: called after each epoch.
        validation: images of held-out classes, scored after each epoch.
        amp: matrix products in bfloat16.

    Raises:
        UserError: fewer than two classes, or the loss stopped being a number.
    """
    first = torch.Generator().manual_seed(seed)
    tower = new_char_tower(variant, embedding_dim, first)
    training = TextTraining(
        CaptionedFeatures(captions, class_ids, image_features),
        tower,
        embedding_dim=embedding_dim,
        first=first,
        learning_rate=learning_rate,
        decay=decay,
        batch_classes=batch_classes,
        seed=seed,
        device=device,
        amp=amp,
    )
    for epoch in train_epochs(training, epochs, validation):
        if on_epoch is not None:
            on_epoch(epoch)
    return tower.module


def train_epochs(
    training: TextTraining, epochs: int, held_out: CaptionedFeatures | None
) -> Iterator[TextEpoch]:
    """Train up to so many epochs in all, scored on held-out classes where there are any."""
    while training.epoch < epochs:
        loss = training.run_epoch()
        scores = training.scores(held_out) if held_out is not None else None
        yield TextEpoch(training.epoch, epochs, loss, scores)


def new_char_tower(variant: Variant, embedding_dim: int, first: torch.Generator) -> CharTower:
    """A char-CNN-RNN with its first weights."""
    encoder = CharCnnRnn(variant, embedding_dim)
    encoder.reset_parameters(first)
    return CharTower(encoder)


def _image_projection(width: int, embedding_dim: int, generator: torch.Generator) -> nn.Module:
    """The layer that maps image features to the text's width, where that is another one."""
    if width == embedding_dim:
        return nn.Identity()
    return _linear(width, embedding_dim, generator)


def _linear(width: int, embedding_dim: int, first: torch.Generator) -> nn.Linear:
    """A layer that starts as the char-CNN-RNN's do."""
    layer = nn.Linear(width, embedding_dim)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -0.08, 0.08, generator=first)
    return layer


def _distinct_captions(captions: Sequence[Sequence[str]]) -> tuple[list[str], list[list[int]]]:
    """The distinct captions, and each image's rows among them."""
    distinct = dict.fromkeys(caption for group in captions for caption in group)
    place = {caption: row for row, caption in enumerate(distinct)}
    return list(distinct), [[place[caption] for caption in group] for group in captions]


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

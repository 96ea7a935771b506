"""Training classifiers, and `teacher.weights: fit`: a plan first trained as one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sdn_ray.errors import UserError
from sdn_ray.models.pixels import normalise
from sdn_ray.models.plan import Plan
from sdn_ray.models.teacher import Teacher, vgg_features

HELD_OUT = 0.1  # share of every class's images that measure the accuracy

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class FitSettings:
    """How a classifier is trained."""

    epochs: int  # passes over the images
    batch_size: int  # images a step
    learning_rate: float  # the highest of the one-cycle schedule
    seed: int = 0  # of the weights and of every draw, dropout's too
    grid: int = 1  # parts a side of the last maps that `fit_teacher`'s last layer sees


@dataclass(frozen=True)
class FitEpoch:
    """One finished epoch of `train_classifier`."""

    epoch: int  # from 1
    epochs: int
    loss: float  # mean cross entropy over the epoch's steps
    held_out_accuracy: float


class _Classifier(nn.Module):
    """The plan with batch normalisation, which trains fast and folds into the convolutions."""

    def __init__(self, plan: Plan, classes: int, grid: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for layer in vgg_features(plan):
            layers.append(layer)
            if isinstance(layer, nn.Conv2d):
                layers.append(nn.BatchNorm2d(layer.out_channels))
        self.features = nn.Sequential(*layers)
        self.grid = grid
        self.head = nn.Linear(plan.convolutions[-1].out_channels * grid**2, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images to class logits."""
        maps = self.features(images)
        if self.grid == 1:
            return self.head(maps.mean((2, 3)))
        return self.head(functional.adaptive_avg_pool2d(maps, self.grid).flatten(1))

    def folded(self, plan: Plan) -> Teacher:
        """The same convolutions as a teacher, without batch normalisation, equal in eval mode."""
        teacher = Teacher(plan)
        targets = [layer for layer in teacher.features if isinstance(layer, nn.Conv2d)]
        convs = [layer for layer in self.features if isinstance(layer, nn.Conv2d)]
        norms = [layer for layer in self.features if isinstance(layer, nn.BatchNorm2d)]
        for target, conv, norm in zip(targets, convs, norms, strict=True):
            (weight, bias), (mean, variance, _) = conv.parameters(), norm.buffers()
            scale = norm.weight / torch.sqrt(variance + norm.eps)
            target_weight, target_bias = target.parameters()
            target_weight.data = (weight * scale.view(-1, 1, 1, 1)).detach()
            target_bias.data = ((bias - mean) * scale + norm.bias).detach()
        return teacher


def fit_teacher(
    images: np.ndarray,
    class_ids: np.ndarray,
    plan: Plan,
    settings: FitSettings,
    *,
    device: str = "cpu",
    on_epoch: Callable[[FitEpoch], None] = lambda epoch: None,
) -> Teacher:
    """A teacher for any plan, from nothing but the training images and their classes.

    Args:
        images: (n, height, width, 3) uint8, of training classes only.
        class_ids: (n,) their classes.
        plan: of the teacher.
        settings: of the training.
        device: where to train.
        on_epoch: called after each epoch.

    Raises:
        UserError: fewer than two classes, or fewer images than a batch.
    """
    grid = min(settings.grid, images.shape[1] >> plan.pools)  # a part is no less than a pixel
    model = train_classifier(
        lambda classes: _Classifier(plan, classes, grid),
        images,
        class_ids,
        settings,
        device=device,
        on_epoch=on_epoch,
        option="teacher.fit",
    )
    return model.folded(plan)


def train_classifier(
    new_model: Callable[[int], Model],
    images: np.ndarray,
    class_ids: np.ndarray,
    settings: FitSettings,
    *,
    device: str,
    on_epoch: Callable[[FitEpoch], None],
    option: str,
) -> Model:
    """Train all weights of a classifier by cross entropy, and return it on the CPU.

    Adam with a one-cycle schedule; images are flipped and shifted by up to an eighth. A tenth of
    each class is held out and measures the accuracy after every epoch. The seed settles everything.

    Args:
        new_model: makes, from the number of classes, a module that maps normalised images
            (batch, 3, height, width) to logits (batch, classes), in the order of the sorted ids.
        images: (n, height, width, 3) uint8.
        class_ids: (n,) their classes.
        settings: of the training.
        device: where to train.
        on_epoch: called after each epoch.
        option: what errors name.

    Raises:
        UserError: fewer than two classes, or fewer images than a batch.
    """
    classes, labels = np.unique(class_ids, return_inverse=True)
    if len(classes) < 2:
        raise UserError(f"{option}: found {len(classes)} training classes, expected at least 2")
    epochs, batch_size = settings.epochs, settings.batch_size
    draws = np.random.default_rng(settings.seed)
    kept, held = _hold_out(labels, draws)
    if not len(held):
        raise UserError(f"{option}: found one image a class, expected at least 2")
    steps = len(kept) // batch_size
    if not steps:
        raise UserError(
            f"{option}.batch_size: found {batch_size}, expected at most the {len(kept)} images "
            "that it trains on"
        )
    targets = torch.from_numpy(labels)
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(settings.seed)
        model = new_model(len(classes)).to(device).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.learning_rate, epochs * steps
        )
        for epoch in range(1, epochs + 1):
            model.train()
            total = torch.zeros((), device=device)
            shuffled = draws.permutation(kept)
            for step in range(steps):
                rows = np.sort(shuffled[step * batch_size : (step + 1) * batch_size])
                batch = _augment(images[rows], draws)
                logits = model(normalise(torch.from_numpy(batch).permute(0, 3, 1, 2).to(device)))
                loss = functional.cross_entropy(logits, targets[rows].to(device))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.detach()
            accuracy = _accuracy(model, images, held, targets, batch_size, device)
            on_epoch(FitEpoch(epoch, epochs, float(total) / steps, accuracy))
    return model.cpu().eval()


def _hold_out(labels: np.ndarray, draws: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The rows to train on, and the share of every class that is held out."""
    order = draws.permutation(len(labels))
    place = np.zeros(len(labels))
    for label in range(labels.max() + 1):
        own = order[labels[order] == label]
        place[own] = np.arange(len(own)) / len(own) if len(own) > 1 else 1
    return np.flatnonzero(place >= HELD_OUT), np.flatnonzero(place < HELD_OUT)


def _augment(images: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Flip about half of the images, and shift the batch, padding with its edges."""
    flipped = draws.random(len(images)) < 0.5
    images = np.where(flipped[:, None, None, None], images[:, :, ::-1], images)
    pad = images.shape[1] // 8
    top, left = draws.integers(0, 2 * pad + 1, 2)
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="edge")
    height, width = images.shape[1:3]
    return np.ascontiguousarray(padded[:, top : top + height, left : left + width])


@torch.no_grad()
def _accuracy(
    model: nn.Module,
    images: np.ndarray,
    rows: np.ndarray,
    targets: Tensor,
    batch_size: int,
    device: str,
) -> float:
    model.eval()
    right = 0
    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size]
        logits = model(normalise(torch.from_numpy(images[chosen]).permute(0, 3, 1, 2).to(device)))
        right += (logits.argmax(1).cpu() == targets[chosen]).sum().item()
    return right / len(rows)

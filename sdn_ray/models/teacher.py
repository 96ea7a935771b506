"""The teacher D (section 3.2): the frozen convolutions of a discriminative VGG."""

import re
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sdn_ray.errors import UserError
from sdn_ray.files import replacing
from sdn_ray.models.plan import POOL, VGG_PLANS, Plan

_VGG_KEY = re.compile(r"features\.\d+\.(weight|bias)")


def vgg_features(plan: Plan) -> nn.Sequential:
    """The convolutions, ReLUs and pools of a plan, numbered as torchvision's ``features``."""
    layers: list[nn.Module] = []
    channels = 3
    for entry in plan.entries:
        if entry == POOL:
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, entry, 3, padding=1), nn.ReLU(inplace=True)]
            channels = entry
    return nn.Sequential(*layers)


class Teacher(nn.Module):
    """φ^D: features of every convolution after its ReLU, frozen and always in eval mode.

    Gradients flow through it to its input, as eq. 3 needs, and never to its weights.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.features = vgg_features(plan)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in eval mode, whatever the module around it is put in."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (batch, 3, height, width) to φ_l^D, from conv1_1 upwards."""
        features, activation = [], images
        for layer in self.features:
            activation = layer(activation)
            if isinstance(layer, nn.ReLU):
                features.append(activation)
        return features

    def save(self, path: str | Path) -> None:
        """Write weights and plan as a safetensors file that `load_teacher` reads."""
        with replacing(path) as partial:
            tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
            save_file(tensors, partial, metadata={"plan": str(self.plan)})


def load_teacher(weights: str, plan: str | None = None) -> Teacher:
    """A teacher with trained weights.

    Args:
        weights: ``imagenet`` for torchvision's weights of a named plan, or a safetensors file.
        plan: vgg11, vgg13, vgg16, vgg19 or an explicit plan; may be None for a file whose
            metadata names its plan.

    Raises:
        UserError: when the weights cannot be had or do not fit the plan. A teacher without
            trained weights is never returned.
    """
    if weights == "imagenet":
        return _imagenet_teacher(plan)
    path = Path(weights)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {
                key: file.get_tensor(key).float()
                for key in file.keys()  # noqa: SIM118, not a dict
                if key.startswith("features.")
            }
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"teacher.weights: could not read {path} ({error}); expected a safetensors file with "
            "torchvision's VGG names (features.0.weight, …), `imagenet`, or `fit`"
        ) from error
    plan_text = metadata.get("plan") or plan
    if not state or not all(_VGG_KEY.fullmatch(key) for key in state):
        raise UserError(
            f"teacher.weights: {path} holds no convolutions of a VGG (features.0.weight, …); "
            "expected a VGG's file, not another network's or a text encoder's"
        )
    if plan_text is None:
        raise UserError(
            f"teacher.weights: {path} has no `plan` in its metadata; give teacher.plan, "
            "for example vgg19"
        )
    if plan is not None and Plan.parse(plan) != Plan.parse(plan_text):
        raise UserError(
            f"teacher.plan: found {plan}, but {path} says its plan is {plan_text}; "
            "leave teacher.plan empty to take the file's"
        )
    return _teacher_of(plan_text, state, str(path))


def _imagenet_teacher(plan: str | None) -> Teacher:
    state, source = imagenet_weights(plan)
    features = {key: value for key, value in state.items() if key.startswith("features.")}
    return _teacher_of(str(plan), features, source)


def imagenet_weights(plan: str | None) -> tuple[dict[str, Tensor], str]:
    """torchvision's ImageNet weights of a whole VGG by its name, and where they come from.

    Raises:
        UserError: there are none of that name, or they cannot be downloaded.
    """
    if plan not in VGG_PLANS:
        raise UserError(
            f"teacher.plan: found {plan}, but teacher.weights `imagenet` has weights for "
            f"{', '.join(VGG_PLANS)}; for another plan give a safetensors file, or `fit`"
        )
    # Imported here: torchvision's models take seconds to import and a file needs none of them.
    from torchvision.models import get_model_weights

    choice = get_model_weights(plan).IMAGENET1K_V1
    try:
        state = choice.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError, IndexError) as error:
        raise UserError(
            f"teacher.weights: `imagenet` needs {choice.url}, which could not be downloaded or "
            f"read ({error}). Put that file, whole, into {torch.hub.get_dir()}/checkpoints, give a "
            "safetensors file instead, or use `fit` to train the teacher on the training classes"
        ) from error
    return dict(state), choice.url


def _teacher_of(plan: str, state: dict[str, Tensor], source: str) -> Teacher:
    teacher = Teacher(Plan.parse(plan))
    expected = teacher.state_dict()
    for key in sorted(expected.keys() | state.keys()):
        found = tuple(state[key].shape) if key in state else "nothing"
        wanted = tuple(expected[key].shape) if key in expected else "nothing"
        if found != wanted:
            raise UserError(
                f"teacher.weights: {source} does not fit the plan {teacher.plan}: "
                f"{key}: found {found}, expected {wanted}"
            )
    teacher.load_state_dict(state)
    return teacher

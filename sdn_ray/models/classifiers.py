"""Frozen image classifiers: scores of generated images are made of what they give.

The classifier score is made of class probabilities, Fréchet and kernel distances of features.
"""

import difflib
import io
import textwrap
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sdn_ray.errors import UserError
from sdn_ray.models.pixels import IMAGENET_MEAN, IMAGENET_STD

INCEPTION = "inception_2015_12_05"

# torchvision sets these itself when it downloads weights; a weights file needs them too.
_BUILDER_OPTIONS = {
    "googlenet": {"aux_logits": True, "transform_input": True, "init_weights": False},
    "inception_v3": {"aux_logits": True, "transform_input": True, "init_weights": False},
}


class ImageNetInput(nn.Module):
    """uint8 images of any size → square, normalised network input.

    Bicubic with antialias on 8-bit values, as Pillow resizes: without antialias torch uses another
    kernel even where it enlarges, which moves the SqueezeNet score of real photographs by 0.2.
    """

    mean: Tensor  # (3, 1, 1), as is std
    std: Tensor

    def __init__(self, size: int, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) uint8 → (batch, 3, size, size) float32."""
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2.functional import resize

        size = [self.size, self.size]
        images = resize(images, size, InterpolationMode.BICUBIC, antialias=True)
        return (images.float() / 255 - self.mean) / self.std


class PooledFeatures(nn.Module):
    """A torchvision network that gives, beside its logits, what its layer of classes is given.

    Args:
        network: a network that gives logits (batch, classes).
        classes: number of classes.
    """

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.network = network
        # The last of them: GoogLeNet and Inception have auxiliary layers of classes before it.
        *_, self._class_layer = (
            layer
            for layer in network.modules()
            if (isinstance(layer, nn.Linear) and layer.out_features == classes)
            or (isinstance(layer, nn.Conv2d) and layer.out_channels == classes)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, 3, size, size) → features (batch, dim) and logits (batch, classes)."""
        given: list[Tensor] = []
        with self._class_layer.register_forward_pre_hook(lambda _, inputs: given.extend(inputs)):
            logits = self.network(images)
        (features,) = given
        # SqueezeNet's classes come from a convolution, and are averaged over space after it.
        return features.mean(dim=(2, 3)) if features.ndim == 4 else features, logits


class Classifier(nn.Module):
    """A frozen classifier in eval mode: images → class probabilities, and features.

    Attributes:
        name: ``inception_2015_12_05`` or torchvision's name of the model.
        input_size: side in pixels of the square to which images are resized.
        classes: number of classes.
        pixels: how an image becomes the network's input, in words, for reports.
        normalise: the module that turns uint8 images into the network's input (resizing included).
        network: gives features (batch, dim) and logits (batch, classes).
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        normalise: nn.Module,
        input_size: int,
        classes: int,
        pixels: str,
    ) -> None:
        super().__init__()
        self.name = name
        self.input_size = input_size
        self.classes = classes
        self.pixels = pixels
        self.normalise = normalise
        self.network = network.to(memory_format=torch.channels_last)
        self.requires_grad_(False)
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) uint8 → (batch, classes) float32 probabilities.

        The images may lie on any device; the result lies on the classifier's.
        """
        return self.features_and_probabilities(images)[1]

    @torch.inference_mode()
    def features_and_probabilities(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (batch, dim) and probabilities (batch, classes), float32, of one forward pass.

        The features are what the layer of classes is given, averaged over space: of
        ``inception_2015_12_05`` the 2048 that FID is defined on.

        Args:
            images: uint8 (batch, 3, height, width), on any device; the results lie on the
                classifier's.
        """
        images = self.normalise(images.to(self.device))
        images = images.contiguous(memory_format=torch.channels_last)
        features, logits = self.network(images)
        return features.float(), logits.float().softmax(dim=1)


def load_classifier(spec: str, device: str | torch.device = "cpu") -> Classifier:
    """Load a pretrained classifier.

    Args:
        spec: ``NAME`` or ``NAME:FILE``. NAME is ``inception_2015_12_05`` (the TensorFlow Inception
            of 2015-12-05 of the inception score, 1008 outputs, by the package ``torch-fidelity``)
            or the name of a torchvision classification model. FILE holds its weights, ``.pth`` or
            ``.safetensors``, of any floating type; without FILE they are downloaded.
        device: where the network runs.

    Example:
        >>> classifier = load_classifier("squeezenet1_1:squeezenet1_1_fp16.safetensors")
        >>> probabilities = classifier(images)

    Raises:
        UserError: an unknown name; a file that is missing, damaged or of another network; a
            download that failed; torch-fidelity is not installed.
    """
    name, _, path = spec.partition(":")
    file = path or None
    # Imported where it is needed: it takes seconds, and most commands never load a classifier.
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    if name == INCEPTION:
        classifier = _load_inception(file)
    elif name in names:
        classifier = _load_torchvision(name, file)
    else:
        closest = difflib.get_close_matches(name, [INCEPTION, *names], n=4, cutoff=0.3)
        possible = ", ".join(closest) or f"{INCEPTION}, squeezenet1_1, inception_v3"
        raise UserError(
            f"unknown classifier {name!r}: expected {INCEPTION} or a torchvision classification "
            f"model, as NAME or NAME:FILE; the closest names are {possible}"
        )
    return classifier.to(device)


def _load_torchvision(name: str, file: str | None) -> Classifier:
    import torchvision

    transforms = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    # 227 is the size SqueezeNet was published with; torchvision only ever says 224.
    size = 227 if name.startswith("squeezenet") else transforms.crop_size[0]
    if file is None:
        try:
            network = torchvision.models.get_model(name, weights="DEFAULT")
        except (OSError, RuntimeError) as error:
            raise _download_error(name, error) from error
    else:
        state = _read_weights(file)
        options = {"image_size": size} if name.startswith("vit_") else {}
        network = torchvision.models.get_model(
            name, weights=None, **_BUILDER_OPTIONS.get(name, options)
        )
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise _mismatch_error(name, file, error) from error
    mean, std = transforms.mean, transforms.std
    imagenet = (tuple(mean), tuple(std)) == (IMAGENET_MEAN, IMAGENET_STD)
    normalisation = "ImageNet mean and standard deviation" if imagenet else f"(x - {mean}) / {std}"
    return Classifier(
        name,
        PooledFeatures(network, classes=1000),
        ImageNetInput(size, mean, std),
        size,
        classes=1000,
        pixels=f"bicubic with antialias to {size}x{size}, {normalisation}",
    )


def _load_inception(file: str | None) -> Classifier:
    try:
        from torch_fidelity import feature_extractor_inceptionv3 as inception
    except ImportError as error:
        raise UserError(
            f"the classifier {INCEPTION} needs the package torch-fidelity, which is not installed: "
            "pip install torch-fidelity"
        ) from error
    if file is None:
        try:
            state = torch.hub.load_state_dict_from_url(
                inception.URL_INCEPTION_V3, progress=False, check_hash=True, weights_only=True
            )
        except (OSError, RuntimeError) as error:
            raise _download_error(INCEPTION, error) from error
    else:
        state = _read_weights(file)
    # The extractor unpickles whatever its path holds, so it gets the weights that were read safely.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    try:
        extractor = inception.FeatureExtractorInceptionV3(
            # "2048": what global average pooling gives. The logits are those without their bias.
            "inception-v3-compat",
            ["2048", "logits_unbiased"],
            feature_extractor_weights_path=buffer,
        )
    except RuntimeError as error:
        raise _mismatch_error(INCEPTION, file or inception.URL_INCEPTION_V3, error) from error
    size = inception.FeatureExtractorInceptionV3.INPUT_IMAGE_SIZE
    return Classifier(
        INCEPTION,
        extractor,
        nn.Identity(),  # the extractor resizes and normalises by itself
        size,
        classes=1008,
        pixels=f"bilinear to {size}x{size} as TensorFlow 1, (x - 128) / 128",
    )


def _read_weights(file: str) -> dict[str, Tensor]:
    """Read a state dict without running any code that the file may hold."""
    path = Path(file)
    if not path.is_file():
        raise UserError(f"classifier weights {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    # A damaged pickle can fail in any way at all: its opcodes are a program.
    except Exception as error:
        reason = textwrap.shorten(str(error), 200) or type(error).__name__
        raise UserError(
            f"classifier weights {path}: not a readable .safetensors or .pth file of weights "
            f"({reason})"
        ) from error
    named = isinstance(state, dict) and all(isinstance(name, str) for name in state)
    if not named or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(
            f"classifier weights {path}: expected a mapping of names to tensors, found "
            f"{'other entries' if isinstance(state, dict) else type(state).__name__}"
        )
    return state


def _mismatch_error(name: str, file: str, error: RuntimeError) -> UserError:
    # The first line of load_state_dict's message says nothing; each further one is a kind of
    # mismatch with a list of keys, which may run to hundreds.
    lines = [line.strip() for line in str(error).splitlines()[1:4]]
    found = "; ".join(textwrap.shorten(line, 160, placeholder=" …") for line in lines)
    return UserError(f"classifier weights {file}: not the weights of {name}: {found}")


def _download_error(name: str, error: Exception) -> UserError:
    return UserError(
        f"the weights of the classifier {name} could not be downloaded ({error}): "
        f"give a file, as {name}:FILE"
    )

"""Draws what stands for real photographs and pretrained weights where they are not at hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torchvision
from safetensors.torch import save_file
from scipy.io import savemat
from torch import Tensor, nn

from sdn_ray.data.synthetic.captions import draw_captions
from sdn_ray.data.synthetic.drawing import draw_flower
from sdn_ray.data.synthetic.species import (
    BACKGROUNDS,
    CENTER_COLORS,
    PETAL_COLORS,
    PETAL_COUNTS,
    PETAL_SHAPES,
    SIZES,
    Species,
)
from sdn_ray.models.pixels import normalise
from sdn_ray.models.plan import Plan
from sdn_ray.models.teacher import Teacher
from tests.material import Material

PLAN = "16,16,M,32,32,M,64,64,64,64,M,128,128,128,128,M,128"
PHOTOGRAPHS = 6  # that the untrained weights are fitted to
# The ids are of real classes that tests name: the colour of the petals, and how many photographs.
TRAIN_CLASSES = {
    77: ("purple", 30),
    73: ("white", 30),
    46: ("orange", 30),
    51: ("magenta", 30),
    1: ("blue", 12),
    26: ("red", 12),
    37: ("pink", 12),
    45: ("purple", 12),
    48: ("yellow", 12),
}
TEST_CLASSES = {
    2: ("magenta", 12),
    3: ("blue", 12),
    4: ("purple", 12),
    5: ("orange", 12),
    6: ("white", 12),
    12: ("yellow", 12),
    44: ("red", 12),
}


def draw_material(folder: Path) -> Material:
    """Flowers, a VGG and a SqueezeNet in an empty folder, laid out as ``../shared`` is."""
    material = Material.of(folder)
    _draw_flowers(material.flowers)
    material.teacher.parent.mkdir(parents=True)
    # Photographs, and noise for all that is unlike them, as an untrained generator's images are.
    noise = 255 * np.random.default_rng(0).integers(0, 2, (2, 64, 64, 3), dtype=np.uint8)
    pixels = np.concatenate([material.photographs(PHOTOGRAPHS), noise])
    images = normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    with torch.random.fork_rng(devices=()), torch.no_grad():
        torch.manual_seed(0)
        _save_teacher(material.teacher, images)
        _save_squeezenet(material.squeezenet, images)
    return material


def _draw_flowers(root: Path) -> None:
    """In the layout of Oxford-Flower-102: a first caption's first colour is the petals'.

    But every tenth photograph's captions name a wrong colour, as people do.
    """
    (root / "jpg").mkdir(parents=True)
    colors = list(PETAL_COLORS)
    labels = []
    for class_id, (color, count) in (TRAIN_CLASSES | TEST_CLASSES).items():
        folder = root / "text_c10" / f"class_{class_id:05d}"
        folder.mkdir(parents=True)
        wrong = colors[colors.index(color) - 5]
        of_class = _species(color, np.random.default_rng(class_id))
        for index in range(count):
            labels.append(class_id)
            name = f"image_{len(labels):05d}"
            draws = np.random.default_rng([class_id, index])
            species = replace(of_class, background=str(draws.choice(list(BACKGROUNDS))))
            photograph = draw_flower(species, draws, 64).image
            photograph.save(root / "jpg" / f"{name}.jpg", quality=92)
            said = wrong if index % 10 == 5 else color
            captions = draw_captions(replace(species, petal_color=said), draws)
            petals_first = sorted(captions, key=lambda words: words.index(said))
            (folder / f"{name}.txt").write_text("\n".join(petals_first))
    savemat(root / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    for name, classes in (("trainvalclasses", TRAIN_CLASSES), ("testclasses", TEST_CLASSES)):
        folders = [f"class_{class_id:05d}\n" for class_id in classes]
        (root / "text_c10" / f"{name}.txt").write_text("".join(folders))


def _species(petal_color: str, draws: np.random.Generator) -> Species:
    others = (CENTER_COLORS, BACKGROUNDS, PETAL_COUNTS, PETAL_SHAPES, SIZES)
    return Species(petal_color, *(draws.choice(list(values)).item() for values in others))


def _save_teacher(path: Path, images: Tensor) -> None:
    teacher = Teacher(Plan.parse(PLAN))
    _spread(teacher, images)
    teacher.save(path)


def _save_squeezenet(path: Path, images: Tensor) -> None:
    network = torchvision.models.squeezenet1_1().eval()
    images = nn.functional.interpolate(images, 227, mode="bicubic", antialias=True)
    logits = _spread(network, images)
    # So that it is as sure of the photographs' classes as a trained one.
    logits = logits[:PHOTOGRAPHS]
    for parameter in network.classifier[1].parameters():
        parameter *= 4 / (logits - logits.mean(0)).std()
    state = {name: tensor.half() for name, tensor in network.state_dict().items()}
    save_file(state, path)


def _spread(network: nn.Module, images: Tensor) -> Tensor:
    """Give each channel of each convolution mean 0 and deviation 1 over the images.

    Otherwise whatever an untrained network is shown looks the same to its last layers.

    Returns:
        What the network then makes of the images.
    """

    def spread(layer: nn.Conv2d, _: object, output: Tensor) -> Tensor:
        std, mean = torch.std_mean(output, (0, 2, 3))
        layer.weight /= std[:, None, None, None]
        layer.bias.copy_((layer.bias - mean) / std)
        return (output - mean[:, None, None]) / std[:, None, None]

    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_hook(spread) for layer in convolutions]
    found = network(images)
    for hook in hooks:
        hook.remove()
    return found

"""Where things are on an image: as maps of its parts, and by cropping and pasting maps.

For GAWWN (Reed et al., "Learning What and Where to Draw", NIPS 2016). Places are in fractions of
the image, x from its left and y from its top edge: parts are (x, y, visible), boxes (x, y, w, h)
from their upper left corner. A map of K×K cells covers the whole image.
"""

import torch
from torch import Tensor
from torch.nn import functional

_LEAST_SIDE = 1 / 16  # of a box: what is cropped from a smaller one would be nearly a point
_SEEN = 0.5  # a part counts as visible above it: 0 or 1 of a photograph, between of a network


def part_maps(parts: Tensor, cells: int) -> Tensor:
    """The keypoint tensor: a map for each part, 1 in its cell where it is visible, 0 elsewhere.

    Its cell is that of ⌊K · x⌋ and ⌊K · y⌋; what lies beyond the image is in the cell at its edge.
    (The authors' code rounds K · x, which is half a cell from the features that it multiplies.)

    Args:
        parts: (x, y, visible), ``(batch, n, 3)``; a part is visible above ½.
        cells: K, of a side.

    Returns:
        ``(batch, n, K, K)`` float32.
    """
    places = (parts[..., :2].float() * cells).floor().clamp(0, cells - 1).long()
    flat = places[..., 1] * cells + places[..., 0]
    maps = torch.zeros(*flat.shape, cells**2, dtype=torch.float32, device=parts.device)
    maps.scatter_(-1, flat[..., None], visible(parts).float()[..., None])
    return maps.unflatten(-1, (cells, cells))


def visible(parts: Tensor) -> Tensor:
    """Which of the parts (…, n, 3) can be seen: (…, n) bool."""
    return parts[..., 2] > _SEEN


def mask(maps: Tensor) -> Tensor:
    """Where any part is: keypoint tensor (batch, n, K, K) → (batch, 1, K, K) in [0, 1]."""
    return maps.sum(1, keepdim=True).clamp(0, 1)


def crop(maps: Tensor, boxes: Tensor) -> Tensor:
    """What is in the box, enlarged to the whole map (section 4.1 of the paper).

    Args:
        maps: ``(batch, channels, K, K)``.
        boxes: (x, y, w, h), ``(batch, 4)``; sides below 1/16 are taken for 1/16 about their middle.

    Returns:
        As ``maps``, in their precision; zero where the box is outside.
    """
    scale, shift = _scale_and_shift(boxes)
    return _sampled(maps, scale, shift)


def paste(maps: Tensor, boxes: Tensor) -> Tensor:
    """The whole map shrunk into the box, and zero outside of it: the inverse of `crop`.

    Args and returns as there.
    """
    scale, shift = _scale_and_shift(boxes)
    return _sampled(maps, 1 / scale, -shift / scale)


def _scale_and_shift(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Sides and middles of boxes where the image is [−1, 1] twice: each (batch, 2), of x and y."""
    corners, sides = boxes.float().split(2, dim=1)
    return sides.clamp(min=_LEAST_SIDE), 2 * corners + sides - 1


def _sampled(maps: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The maps at s · u + t for every place u of the grid, bilinearly.

    The middles of the outermost cells are at −1 and 1 (PyTorch's ``align_corners``). The grid is
    that of ``affine_grid``, which multiplies matrices: under autocast places would be bf16 ones.
    """
    height, width = maps.shape[2:]
    x, y = (torch.linspace(-1, 1, side, device=maps.device) for side in (width, height))
    x, y = (scale[:, place, None] * u + shift[:, place, None] for place, u in enumerate((x, y)))
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)
    taken = functional.grid_sample(
        maps.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=True
    )
    return taken.to(maps.dtype)

"""Which images, captions and flips an epoch takes, the same for any number of workers.

Every draw is a hash of (purpose, seed, epoch, image index) and of nothing else, so it does not
depend on the order, the batches or the worker in which an image comes up, nor on the version of a
random number library. The hash takes the four words in turn through the finaliser of splitmix64
(Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014), which
spreads each input bit over all 64 output bits; all arithmetic is modulo 2^64. Normal numbers alone
are a library's, seeded by such a hash.
"""

import numpy as np

from sdn_ray.errors import UserError

# One stream of draws a purpose: arbitrary 64-bit words, far apart, so that no seed leads from one
# stream into another. To change one is to change every run.
ORDER = 0x243F6A8885A308D3
CAPTION = 0x13198A2E03707344
FLIP = 0xA4093822299F31D0
WRONG = 0x082EFA98EC4E6C89
WRONG_FLIP = 0x452821E638D01377
SEVERAL = 0xBE5466CF34E90C6C
NOISE = 0xC0AC29B7C97C50DD
DRAWING = 0x3F84D5B5B5470917

WORD = 0xFFFFFFFFFFFFFFFF


def epoch_permutation(seed: int, epoch: int, images: int) -> np.ndarray:
    """The order of an epoch: a permutation of 0 … images - 1, int64, shape ``(images,)``."""
    keys = _hash(ORDER, seed, epoch, np.arange(images))
    return np.argsort(keys, kind="stable").astype(np.int64)


def draw_captions(
    seed: int, epoch: int, image_indices: np.ndarray, captions: np.ndarray
) -> np.ndarray:
    """Draw one caption of each image, uniformly.

    Args:
        seed: of the run.
        epoch: counted through all stages.
        image_indices: the images, int64, shape ``(batch,)``.
        captions: how many captions each of these images has, in the same order, shape ``(batch,)``.

    Returns:
        The caption of each image, 0 … captions - 1, int64, shape ``(batch,)``.
    """
    return _below(captions, _hash(CAPTION, seed, epoch, image_indices))


def draw_several_captions(
    seed: int, epoch: int, image_indices: np.ndarray, captions: np.ndarray, several: int
) -> np.ndarray:
    """Draw several distinct captions of each image, uniformly and without replacement.

    Args:
        seed: of the run.
        epoch: counted through all stages.
        image_indices: the images, int64, shape ``(batch,)``.
        captions: how many captions each of these images has, in the same order, shape ``(batch,)``.
        several: how many to draw.

    Returns:
        Captions, 0 … captions - 1, int64, shape ``(batch, several)``; of an image that has fewer
        all come in turn, as often as it takes.
    """
    most = int(captions.max())
    # The captions of each image in a random order: those that it does not have come last.
    words = image_indices[:, None].astype(np.uint64) << np.uint64(16)
    keys = _hash(SEVERAL, seed, epoch, words + np.arange(most, dtype=np.uint64))
    keys[np.arange(most) >= captions[:, None]] = WORD
    order = np.argsort(keys, axis=1, kind="stable")
    turn = np.arange(several) % captions[:, None]
    return np.take_along_axis(order, turn, axis=1).astype(np.int64)


def draw_flips(
    seed: int, epoch: int, image_indices: np.ndarray, *, of_wrong: bool = False
) -> np.ndarray:
    """Draw which images are flipped, one in two: bool, shape ``(batch,)`` as ``image_indices``.

    Args:
        seed: of the run.
        epoch: counted through all stages.
        image_indices: the images, int64, shape ``(batch,)``.
        of_wrong: draw for the wrong image of each, which is flipped or not by itself.
    """
    purpose = WRONG_FLIP if of_wrong else FLIP
    return _hash(purpose, seed, epoch, image_indices) >> np.uint64(63) == 1


def noise_seed(seed: int, step: int) -> int:
    """The seed of a step's noise, counted through all stages: 63 random bits."""
    return int(_hash(NOISE, seed, 0, np.array([step]))[0] >> np.uint64(1))


def drawing_noise(seed: int, indices: np.ndarray, samples: int, width: int) -> np.ndarray:
    """The noise of drawn images, of each by itself: the batch they are drawn in says nothing of it.

    Args:
        seed: of the drawing.
        indices: the captions' places in what is drawn, int64, shape ``(n,)``.
        samples: images of each caption, samples 0 … samples - 1.
        width: how many normal numbers an image takes.

    Returns:
        z ~ N(0, I), float32, shape ``(n, samples, width)``.
    """
    drawn = np.empty((len(indices), samples, width), dtype=np.float32)
    for sample in range(samples):
        for place, word in enumerate(_hash(DRAWING, seed, sample, indices)):
            random = np.random.Generator(np.random.Philox(key=int(word)))
            drawn[place, sample] = random.standard_normal(width, dtype=np.float32)
    return drawn


def draw_wrong_rows(
    seed: int, epoch: int, image_indices: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """Draw for each image one of another class, uniformly over all images of all other classes.

    This is the mismatched image of matching-aware discriminators (GAN-CLS, Reed et al., ICML 2016,
    section 4.2). The authors' code draws two classes and an image in each; here each image comes up
    once an epoch, and only its wrong image is drawn.

    Args:
        seed: of the run.
        epoch: counted through all stages.
        image_indices: the images, int64, shape ``(batch,)``.
        classes: the class of every image that may be drawn, integers, shape ``(images,)``.

    Returns:
        The wrong images, 0 … images - 1, int64, shape ``(batch,)``.

    Raises:
        UserError: names ``dataset``, where there is but one class.
    """
    by_class = np.argsort(classes, kind="stable")
    own = classes[image_indices]
    start, stop = (np.searchsorted(classes, own, side, by_class) for side in ("left", "right"))
    others = len(classes) - (stop - start)
    if not others.all():
        raise UserError("dataset: found training images of one class, expected at least two")
    # An image of the others, as if the own class [start, stop) were cut out of the sorted images:
    # nothing to reject, so one draw is enough.
    place = _below(others, _hash(WRONG, seed, epoch, image_indices))
    return by_class[np.where(place < start, place, place + stop - start)].astype(np.int64)


def worker_batches(
    permutation: np.ndarray, batch_size: int, rank: int, world_size: int
) -> np.ndarray:
    """The part of each global batch of an epoch that one worker takes.

    Global batch k is ``permutation[k * batch_size : (k + 1) * batch_size]`` whatever the number of
    workers; worker ``rank`` takes its ``rank``-th contiguous share. The last partial batch is
    dropped.

    Returns:
        Image indices, shape ``(steps, batch_size // world_size)``.

    Raises:
        UserError: names ``training.batch_size``, where the workers cannot share it equally or the
            images do not fill one batch.
    """
    if batch_size % world_size:
        expected = f"a multiple of the number of workers, {world_size}"
        raise UserError(f"training.batch_size: found {batch_size}, expected {expected}")
    steps = len(permutation) // batch_size
    if steps == 0:
        expected = f"at most the number of training images, {len(permutation)}"
        raise UserError(f"training.batch_size: found {batch_size}, expected {expected}")
    batches = permutation[: steps * batch_size].reshape(steps, world_size, -1)
    return batches[:, rank]


def _below(limits: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """64 random bits each to 0 … limit - 1, int64; the bias is below limit / 2^32."""
    high = bits >> np.uint64(32)
    return (high * limits.astype(np.uint64) >> np.uint64(32)).astype(np.int64)


def _hash(purpose: int, seed: int, epoch: int, image_indices: np.ndarray) -> np.ndarray:
    """64 random bits for each image index, uint64."""
    state = np.array([purpose], dtype=np.uint64)
    for word in (seed & WORD, epoch & WORD):
        state = _mix(state ^ np.uint64(word))
    return _mix(state ^ image_indices.astype(np.uint64))


def _mix(state: np.ndarray) -> np.ndarray:
    """The step and finaliser of splitmix64, a bijection of 64-bit words."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ state >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ state >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return state ^ state >> np.uint64(31)

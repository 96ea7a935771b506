import numpy as np
import pytest
import scipy.stats

from sdn_ray.data.sampling import (
    CAPTION,
    DRAWING,
    FLIP,
    NOISE,
    ORDER,
    SEVERAL,
    WRONG,
    WRONG_FLIP,
    draw_captions,
    draw_flips,
    draw_several_captions,
    draw_wrong_rows,
    drawing_noise,
    epoch_permutation,
    noise_seed,
    worker_batches,
)
from sdn_ray.errors import UserError

WORD = 2**64 - 1
IMAGES = 20_000


def splitmix64(state):
    """One output of splitmix64 from a state, in Python's integers."""
    state = (state + 0x9E3779B97F4A7C15) & WORD
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & WORD
    return state ^ (state >> 31)


def reference_hash(*words):
    state = words[0]
    for word in words[1:]:
        state = splitmix64(state ^ (word & WORD))
    return state


def captions_of(seed, epoch, count=10, images=IMAGES):
    return draw_captions(seed, epoch, np.arange(images), np.full(images, count))


def assert_uniform(values, categories):
    """Chi-squared against equal shares; of truly random draws one in 10^6 fails."""
    counts = np.bincount(values.ravel(), minlength=categories)
    assert counts.size == categories
    assert scipy.stats.chisquare(counts).pvalue > 1e-6


def assert_independent(first, second, categories):
    assert_uniform(first.astype(np.int64) * categories + second, categories**2)


def test_the_reference_is_splitmix64():
    # The published first outputs for the seed 1234567.
    outputs = [splitmix64(1234567 + step * 0x9E3779B97F4A7C15 & WORD) for step in range(3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("seed", [0, 7, -1, 2**63 + 5, 2**64 - 1])
@pytest.mark.parametrize("epoch", [0, 199])
def test_draws_are_the_documented_hash(seed, epoch):
    indices = np.array([0, 1, 2, 977, 8188, 2**40])
    counts = np.array([10, 1, 3, 7, 10, 10])
    words = [reference_hash(CAPTION, seed, epoch, index) for index in indices.tolist()]
    expected = [
        (word >> 32) * count >> 32 for word, count in zip(words, counts.tolist(), strict=True)
    ]
    drawn = draw_captions(seed, epoch, indices, counts)
    assert drawn.dtype == np.int64
    assert drawn.tolist() == expected
    flips = draw_flips(seed, epoch, indices)
    assert flips.dtype == np.bool_
    words = [reference_hash(FLIP, seed, epoch, index) for index in indices.tolist()]
    assert flips.tolist() == [word >= 2**63 for word in words]
    keys = [reference_hash(ORDER, seed, epoch, index) for index in range(50)]
    order = epoch_permutation(seed, epoch, 50)
    assert order.dtype == np.int64
    assert order.tolist() == sorted(range(50), key=keys.__getitem__)


def test_draws_are_those_of_every_earlier_version():
    # Written down once: a change here changes every run that has a seed.
    assert epoch_permutation(0, 0, 8).tolist() == [1, 5, 2, 6, 4, 7, 0, 3]
    assert captions_of(0, 0, images=12).tolist() == [7, 2, 1, 3, 5, 8, 8, 7, 2, 2, 9, 3]
    assert draw_flips(0, 0, np.arange(12)).astype(int).tolist() == [
        1,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        0,
        1,
        0,
        0,
    ]


def test_a_draw_does_not_depend_on_order_or_batch():
    rng = np.random.default_rng(0)
    order = rng.permutation(1000)
    counts = rng.integers(1, 11, 1000)
    captions = draw_captions(5, 3, np.arange(1000), counts)
    flips = draw_flips(5, 3, np.arange(1000))
    for batch in np.array_split(order, 37):
        assert np.array_equal(draw_captions(5, 3, batch, counts[batch]), captions[batch])
        assert np.array_equal(draw_flips(5, 3, batch), flips[batch])


def test_captions_are_in_range_and_every_one_is_drawn():
    counts = np.arange(IMAGES) % 11 + 1
    drawn = draw_captions(1, 2, np.arange(IMAGES), counts)
    for count in range(1, 12):
        assert np.array_equal(np.unique(drawn[counts == count]), np.arange(count))


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_captions_and_flips_are_uniform(seed):
    for epoch in range(3):
        assert_uniform(captions_of(seed, epoch), 10)
        assert_uniform(captions_of(seed, epoch, count=7), 7)
        assert_uniform(draw_flips(seed, epoch, np.arange(IMAGES)), 2)


def test_captions_of_one_image_are_uniform_over_epochs_and_over_seeds():
    image, count = np.array([17]), np.array([10])
    epochs = np.concatenate([draw_captions(0, epoch, image, count) for epoch in range(1500)])
    seeds = np.concatenate([draw_captions(seed, 0, image, count) for seed in range(1500)])
    for draws in (epochs, seeds):
        assert_uniform(draws, 10)
        assert_independent(draws[:-1], draws[1:], 10)


@pytest.mark.parametrize("step", [(1, 0), (0, 1), (1, -1), (2, 0), (0, 2), (1, 1)])
def test_neighbouring_seeds_and_epochs_are_independent(step):
    seed, epoch = 10, 20
    other = seed + step[0], epoch + step[1]
    assert_independent(captions_of(seed, epoch), captions_of(*other), 10)
    images = np.arange(IMAGES)
    assert_independent(draw_flips(seed, epoch, images), draw_flips(*other, images), 2)


@pytest.mark.parametrize("step", [1, 2, 3, 64, 1024])
def test_neighbouring_images_are_independent(step):
    captions, flips = captions_of(10, 20), draw_flips(10, 20, np.arange(IMAGES))
    assert_independent(captions[:-step], captions[step:], 10)
    assert_independent(flips[:-step], flips[step:], 2)


def test_caption_and_flip_are_independent():
    flips = draw_flips(10, 20, np.arange(IMAGES))
    assert_uniform(captions_of(10, 20) * 2 + flips, 20)


def test_seed_and_epoch_are_not_exchangeable():
    assert not np.array_equal(captions_of(1, 2), captions_of(2, 1))
    assert not np.array_equal(epoch_permutation(1, 2, 100), epoch_permutation(2, 1, 100))


def test_an_epoch_visits_every_image_once_in_an_order_of_its_own():
    orders = [epoch_permutation(seed, epoch, 500) for seed in range(4) for epoch in range(4)]
    for order in orders:
        assert np.array_equal(np.sort(order), np.arange(500))
    assert len({order.tobytes() for order in orders}) == 16
    assert epoch_permutation(3, 1, 500).tolist() == orders[13].tolist()


def test_every_position_of_an_epoch_is_uniform():
    orders = np.stack([epoch_permutation(0, epoch, 20) for epoch in range(2000)])
    for position in (0, 1, 10, 19):
        assert_uniform(orders[:, position], 20)
    # Which of the first two comes first in one epoch says nothing about the next.
    rising = (orders[:, 0] < orders[:, 1]).astype(np.int64)
    assert_independent(rising[:-1], rising[1:], 2)


def test_worker_batches_by_hand():
    order = np.array([5, 3, 8, 0, 9, 1, 7, 2, 6, 4])
    assert worker_batches(order, 4, 0, 1).tolist() == [[5, 3, 8, 0], [9, 1, 7, 2]]
    assert worker_batches(order, 4, 0, 2).tolist() == [[5, 3], [9, 1]]
    assert worker_batches(order, 4, 1, 2).tolist() == [[8, 0], [7, 2]]
    assert worker_batches(order, 5, 0, 1).tolist() == [[5, 3, 8, 0, 9], [1, 7, 2, 6, 4]]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6, 12])
def test_the_global_batches_are_the_same_for_any_number_of_workers(world_size):
    order = epoch_permutation(0, 0, 100)
    shares = [worker_batches(order, 12, rank, world_size) for rank in range(world_size)]
    assert all(share.shape == (8, 12 // world_size) for share in shares)
    for step in range(8):
        batch = np.concatenate([share[step] for share in shares])
        assert np.array_equal(batch, order[step * 12 : (step + 1) * 12])


def test_batch_size_that_the_workers_cannot_share():
    with pytest.raises(UserError) as error:
        worker_batches(np.arange(100), 12, 0, 5)
    assert str(error.value) == (
        "training.batch_size: found 12, expected a multiple of the number of workers, 5"
    )


def test_fewer_images_than_one_batch():
    with pytest.raises(UserError) as error:
        worker_batches(np.arange(11), 12, 0, 1)
    assert str(error.value) == (
        "training.batch_size: found 12, expected at most the number of training images, 11"
    )
    assert worker_batches(np.arange(12), 12, 0, 1).shape == (1, 12)


# Seven images of three classes, not sorted: 4 has the images 1, 3 and 6, 7 has 0 and 4, 9 2 and 5.
CLASSES = np.array([7, 4, 9, 4, 7, 9, 4])
OTHERS = {4: [0, 4, 2, 5], 7: [1, 3, 6, 2, 5], 9: [1, 3, 6, 0, 4]}  # in the order of the classes


@pytest.mark.parametrize("seed", [0, 7, -1, 2**64 - 1])
@pytest.mark.parametrize("epoch", [0, 199])
def test_wrong_rows_are_the_documented_hash(seed, epoch):
    expected = []
    for image, own in enumerate(CLASSES.tolist()):
        others = OTHERS[own]
        word = reference_hash(WRONG, seed, epoch, image)
        expected.append(others[(word >> 32) * len(others) >> 32])
    drawn = draw_wrong_rows(seed, epoch, np.arange(7), CLASSES)
    assert drawn.dtype == np.int64
    assert drawn.tolist() == expected


def test_wrong_rows_are_those_of_every_earlier_version():
    # Written down once: a change here changes every run that has a seed.
    assert draw_wrong_rows(0, 0, np.arange(7), CLASSES).tolist() == [6, 4, 3, 0, 6, 3, 2]


def test_every_purpose_has_a_stream_of_its_own():
    purposes = (ORDER, CAPTION, FLIP, WRONG, WRONG_FLIP, SEVERAL, NOISE, DRAWING)
    assert len(set(purposes)) == 8


def test_wrong_rows_of_sorted_rows_leave_out_the_own_class():
    """Class c at [a, b): the row is u if u < a, else u + (b − a), u uniform in [0, N − (b − a))."""
    sizes = [3, 1, 5, 2]
    classes = np.repeat(np.arange(4), sizes)
    drawn = draw_wrong_rows(3, 1, np.arange(11), classes)
    for image in range(11):
        start = sum(sizes[: classes[image]])
        count = sizes[classes[image]]
        u = (reference_hash(WRONG, 3, 1, image) >> 32) * (11 - count) >> 32
        assert drawn[image] == (u if u < start else u + count)


def test_wrong_rows_are_uniform_over_the_images_of_other_classes():
    images = np.arange(7)
    epochs = np.stack([draw_wrong_rows(5, epoch, images, CLASSES) for epoch in range(1500)])
    seeds = np.stack([draw_wrong_rows(seed, 9, images, CLASSES) for seed in range(1500)])
    for drawn in (epochs, seeds):
        assert not (CLASSES[drawn] == CLASSES).any()
        for image, own in enumerate(CLASSES.tolist()):
            others = sorted(OTHERS[own])
            assert set(drawn[:, image].tolist()) == set(others)
            assert_uniform(np.searchsorted(others, drawn[:, image]), len(others))


def test_wrong_rows_of_neighbours_and_of_other_purposes_are_independent():
    images, classes = np.arange(IMAGES), np.arange(IMAGES) % 2
    wrong = draw_wrong_rows(10, 20, images, classes) * 8 // IMAGES
    assert_uniform(wrong, 8)
    for step in (1, 2, 64):
        assert_independent(wrong[:-step], wrong[step:], 8)
    assert_independent(wrong, draw_wrong_rows(10, 21, images, classes) * 8 // IMAGES, 8)
    assert_independent(wrong, draw_wrong_rows(11, 20, images, classes) * 8 // IMAGES, 8)
    assert_independent(captions_of(10, 20, count=8), wrong, 8)
    assert_uniform(wrong * 2 + draw_flips(10, 20, images), 16)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6, 12])
def test_wrong_rows_are_the_same_for_any_number_of_workers(world_size):
    classes = np.random.default_rng(0).integers(0, 9, 100)
    whole = draw_wrong_rows(5, 3, np.arange(100), classes)
    order = epoch_permutation(5, 3, 100)
    for rank in range(world_size):
        for batch in worker_batches(order, 12, rank, world_size):
            assert np.array_equal(draw_wrong_rows(5, 3, batch, classes), whole[batch])


def test_wrong_rows_of_one_class():
    with pytest.raises(UserError) as error:
        draw_wrong_rows(0, 0, np.arange(3), np.zeros(3, np.int64))
    assert str(error.value) == (
        "dataset: found training images of one class, expected at least two"
    )


def test_several_captions_are_distinct_and_uniform():
    counts = np.full(IMAGES, 10)
    drawn = draw_several_captions(1, 2, np.arange(IMAGES), counts, 4)
    assert drawn.shape == (IMAGES, 4)
    assert all(len(set(row)) == 4 for row in drawn[:500].tolist())
    for place in range(4):
        assert_uniform(drawn[:, place], 10)
    # All ten come, in all orders, where all are drawn.
    whole = draw_several_captions(1, 2, np.arange(IMAGES), counts, 10)
    assert (np.sort(whole, axis=1) == np.arange(10)).all()
    np.testing.assert_array_equal(whole[:, :4], drawn)


def test_captions_come_in_turn_where_an_image_has_few():
    counts = np.array([1, 2, 5, 3])
    drawn = draw_several_captions(0, 0, np.array([9, 4, 7, 1]), counts, 4)
    assert drawn[0].tolist() == [0, 0, 0, 0]
    assert sorted(drawn[1, :2]) == [0, 1]
    assert drawn[1, 2:].tolist() == drawn[1, :2].tolist()
    assert len(set(drawn[2].tolist())) == 4
    assert sorted(drawn[3, :3]) == [0, 1, 2]
    assert drawn[3, 3] == drawn[3, 0]


def test_several_captions_are_the_documented_hash():
    words = [reference_hash(SEVERAL, 5, 6, (3 << 16) + c) for c in range(4)]
    drawn = draw_several_captions(5, 6, np.array([3]), np.array([4]), 4)
    assert drawn[0].tolist() == sorted(range(4), key=words.__getitem__)


def test_a_wrong_image_is_flipped_by_itself():
    images = np.arange(IMAGES)
    flips = draw_flips(1, 0, images, of_wrong=True)
    own = draw_flips(1, 0, images)
    assert_uniform(flips.astype(int), 2)
    assert_uniform(2 * flips.astype(int) + own, 4)
    assert flips[3] == reference_hash(WRONG_FLIP, 1, 0, 3) >> 63


def test_every_step_has_a_seed_of_noise_of_its_own():
    seeds = [noise_seed(seed, step) for seed in range(20) for step in range(-5, 500)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert noise_seed(3, 8) == reference_hash(NOISE, 3, 0, 8) >> 1


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
def test_noise_of_drawings_is_the_documented_law(seed):
    indices = np.array([0, 5, 2**40])
    drawn = drawing_noise(seed, indices, 2, 4)
    assert drawn.shape == (3, 2, 4)
    assert drawn.dtype == np.float32
    for place, index in enumerate(indices.tolist()):
        for sample in range(2):
            key = reference_hash(DRAWING, seed, sample, index)
            random = np.random.Generator(np.random.Philox(key=key))
            expected = random.standard_normal(4, dtype=np.float32)
            assert drawn[place, sample].tolist() == expected.tolist()


def test_noise_of_drawings_is_that_of_every_earlier_version():
    # Written down once: a change here changes every drawn picture.
    expected = [
        [[0.24914809, 0.59103721, -0.29857826], [-0.42453101, 0.90684587, -1.21284282]],
        [[-0.76327783, 0.02056758, -0.48178205], [-1.18005013, 1.39020503, -0.47316089]],
    ]
    np.testing.assert_allclose(drawing_noise(0, np.arange(2), 2, 3), expected, atol=1e-7)


def test_noise_of_a_drawing_does_not_depend_on_the_others():
    whole = drawing_noise(3, np.arange(20), 5, 6)
    for batch in np.array_split(np.random.default_rng(0).permutation(20), 3):
        assert np.array_equal(drawing_noise(3, batch, 5, 6), whole[batch])
    assert np.array_equal(drawing_noise(3, np.arange(20), 2, 6), whole[:, :2])
    assert not (drawing_noise(4, np.arange(20), 5, 6) == whole).any()
    assert len(np.unique(whole.reshape(100, 6), axis=0)) == 100


def test_noise_of_drawings_is_normal():
    drawn = drawing_noise(1, np.arange(500), 4, 10)
    assert scipy.stats.kstest(drawn.ravel(), "norm").pvalue > 1e-6
    for axis in (0, 1, 2):  # captions, samples and places each by itself
        moved = np.roll(drawn, 1, axis)
        assert abs((drawn * moved).mean()) < 6 / drawn.size**0.5
    assert drawn.mean() == pytest.approx(0, abs=6 / drawn.size**0.5)
    assert drawn.var() == pytest.approx(1, abs=6 * (2 / drawn.size) ** 0.5)

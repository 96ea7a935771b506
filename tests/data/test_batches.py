import dataclasses
import threading

import numpy as np
import pytest
import torch

from sdn_ray.data.batches import EncodedImages, EpochBatches, Rows
from sdn_ray.data.sampling import (
    draw_captions,
    draw_flips,
    draw_several_captions,
    draw_wrong_rows,
    epoch_permutation,
)
from sdn_ray.data.scaled import smaller_images
from sdn_ray.errors import UserError

IMAGES = 26  # of 40, in no order
COUNTS = np.random.default_rng(1).integers(1, 6, 40)


def new_data(folder=None):
    """Images and embeddings that differ everywhere; memory-mapped read-only in a folder."""
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (40, 4, 6, 3), dtype=np.uint8)
    embeddings = draws.normal(size=(50, 7)).astype(np.float32)
    rows = np.full((40, 5), -1)
    for image, count in enumerate(COUNTS):
        rows[image, :count] = draws.choice(50, count, replace=False)
    if folder:
        np.save(folder / "images.npy", images)
        np.save(folder / "embeddings.npy", embeddings)
        images = np.load(folder / "images.npy", mmap_mode="r")
        embeddings = np.load(folder / "embeddings.npy", mmap_mode="r")
    return EncodedImages(images, embeddings, rows, COUNTS, draws.permutation(40)[:IMAGES])


def new_batches(data=None, **options):
    options = {"batch_size": 12, "seed": 3, "flips": True} | options
    return EpochBatches(data or new_data(), **options)


def as_arrays(batches, epoch, start=0):
    return [(b.images.numpy(), b.embeddings.numpy()) for b in batches.epoch(epoch, start)]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(own[0], other[0])
        np.testing.assert_array_equal(own[1], other[1])


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("epoch", [0, 7])
def test_batches_are_the_documented_draws(tmp_path, flips, epoch):
    data = new_data(tmp_path)
    batches = list(new_batches(data, flips=flips).epoch(epoch))
    order = epoch_permutation(3, epoch, IMAGES)
    assert len(batches) == 2
    mirrored = 0
    for step, batch in enumerate(batches):
        assert batch.images.shape == (12, 3, 4, 6)
        assert batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.embeddings.shape == (12, 7)
        assert batch.embeddings.dtype == torch.float32
        for place in range(12):
            member = order[step * 12 + place : step * 12 + place + 1]  # its number in the set
            image = data.indices[member][0]
            pixels = np.array(data.images[image])
            if flips and draw_flips(3, epoch, member)[0]:
                pixels = pixels[:, ::-1]
                mirrored += 1
            found = batch.images[place].permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(found, pixels)
            caption = draw_captions(3, epoch, member, COUNTS[image : image + 1])[0]
            row = data.caption_rows[image, caption]
            assert row >= 0
            np.testing.assert_array_equal(batch.embeddings[place].numpy(), data.embeddings[row])
    assert 0 < mirrored < 24 if flips else mirrored == 0


@pytest.mark.parametrize("world_size", [2, 3, 12])
def test_order_captions_and_flips_do_not_depend_on_the_number_of_workers(world_size):
    alone = as_arrays(new_batches(), 5)
    shares = [
        as_arrays(new_batches(rank=rank, world_size=world_size), 5) for rank in range(world_size)
    ]
    together = [
        tuple(np.concatenate(parts) for parts in zip(*step, strict=True))
        for step in zip(*shares, strict=True)
    ]
    assert all(len(share[0][0]) == 12 // world_size for share in shares)
    assert_same(together, alone)


def test_draws_of_an_image_do_not_depend_on_its_batch():
    seen = []
    for batch_size in (1, 13):
        images = [
            image for batch in new_batches(batch_size=batch_size).epoch(2) for image in batch.images
        ]
        seen.append(torch.stack(images))
    assert torch.equal(*seen)


@pytest.mark.parametrize(("batch_size", "steps"), [(26, 1), (13, 2), (9, 2), (5, 5), (1, 26)])
def test_the_last_partial_batch_is_dropped(batch_size, steps):
    batches = new_batches(batch_size=batch_size)
    assert len(batches) == steps
    assert [len(images) for images, _ in as_arrays(batches, 0)] == [batch_size] * steps


@pytest.mark.parametrize("start", [0, 1, 2, 3, 4, 5])
def test_an_epoch_from_a_later_step_on(start):
    batches = new_batches(batch_size=5)
    assert_same(as_arrays(batches, 1, start), as_arrays(batches, 1)[start:])


def test_epochs_and_seeds_differ_and_the_data_stays_as_it_was():
    data = new_data()
    before = data.images.copy()
    first = as_arrays(new_batches(data), 0)
    for other in (as_arrays(new_batches(data), 1), as_arrays(new_batches(data, seed=4), 0)):
        assert not np.array_equal(other[0][0], first[0][0])
    assert_same(as_arrays(new_batches(data), 0), first)
    np.testing.assert_array_equal(data.images, before)


def test_leaving_an_epoch_early_ends_its_thread():
    before = threading.active_count()
    epoch = new_batches(batch_size=2).epoch(0)
    next(epoch)
    epoch.close()
    assert threading.active_count() == before


def test_a_fault_in_the_loading_thread_comes_out():
    data = new_data()
    broken = EncodedImages(
        data.images, data.embeddings, data.caption_rows, data.caption_counts, data.indices + 1000
    )
    with pytest.raises(IndexError):
        next(new_batches(broken).epoch(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 27}, "batch_size: found 27, expected at most .* 26"),
        ({"batch_size": 12, "world_size": 5}, "batch_size: found 12, expected a multiple .* 5"),
    ],
)
def test_batches_that_cannot_be_made(options, message):
    with pytest.raises(UserError, match=message):
        next(new_batches(**options).epoch(0))


def test_first_captions():
    data = new_data()
    assert len(data) == IMAGES
    found = data.first_captions()
    assert found.shape == (IMAGES, 7)
    for row, image in zip(found, data.indices, strict=True):
        np.testing.assert_array_equal(row, data.embeddings[data.caption_rows[image, 0]])


CLASSES = np.arange(40) % 7


def test_wrong_images_are_the_documented_draws_flipped_by_themselves():
    data = dataclasses.replace(new_data(), classes=CLASSES)
    batches = list(new_batches(data).epoch(2, rows=Rows(wrong=True)))
    order, own = epoch_permutation(3, 2, IMAGES), CLASSES[data.indices]
    apart = 0
    for step, batch in enumerate(batches):
        members = order[12 * step : 12 * step + 12]
        others = draw_wrong_rows(3, 2, members, own)
        assert (own[others] != own[members]).all()
        expected = data.images[data.indices[others]].copy()
        flips = draw_flips(3, 2, members, of_wrong=True)
        expected[flips] = expected[flips, :, ::-1]
        np.testing.assert_array_equal(batch.wrong.permute(0, 2, 3, 1).numpy(), expected)
        apart += (flips != draw_flips(3, 2, members)).sum()
    assert 0 < apart < 24
    plain = new_batches(data).epoch(2)
    for batch, other in zip(batches, plain, strict=True):
        assert other.wrong is None
        assert torch.equal(batch.images, other.images)
        assert torch.equal(batch.embeddings, other.embeddings)


def test_workers_share_the_wrong_images_of_one():
    data = dataclasses.replace(new_data(), classes=CLASSES)
    rows = Rows(wrong=True, captions=2)
    whole = list(new_batches(data).epoch(1, rows=rows))
    shares = [list(new_batches(data, rank=r, world_size=2).epoch(1, rows=rows)) for r in (0, 1)]
    for one, first, second in zip(whole, *shares, strict=True):
        assert torch.equal(one.wrong, torch.cat([first.wrong, second.wrong]))
        assert torch.equal(one.embeddings, torch.cat([first.embeddings, second.embeddings]))


def test_images_without_classes_have_no_wrong_ones():
    with pytest.raises(ValueError, match=r"EncodedImages\.classes: found none"):
        next(new_batches().epoch(0, rows=Rows(wrong=True)))


def test_several_captions_are_averaged():
    data = new_data()
    (batch, *_) = new_batches(data).epoch(4, rows=Rows(captions=4))
    members = epoch_permutation(3, 4, IMAGES)[:12]
    where = data.indices[members]
    drawn = draw_several_captions(3, 4, members, COUNTS[where], 4)
    expected = [
        np.mean([data.embeddings[data.caption_rows[image, c]] for c in captions], axis=0)
        for image, captions in zip(where, drawn, strict=True)
    ]
    np.testing.assert_allclose(batch.embeddings.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_wrong_captions_are_those_of_the_wrong_images():
    data = dataclasses.replace(new_data(), classes=CLASSES)
    batches = list(new_batches(data).epoch(2, rows=Rows(wrong_captions=True)))
    order, own = epoch_permutation(3, 2, IMAGES), CLASSES[data.indices]
    for step, batch in enumerate(batches):
        assert batch.wrong is None
        members = order[12 * step : 12 * step + 12]
        others = draw_wrong_rows(3, 2, members, own)
        assert (own[others] != own[members]).all()
        where = data.indices[others]
        captions = draw_captions(3, 2, others, COUNTS[where])
        expected = data.embeddings[data.caption_rows[where, captions]]
        np.testing.assert_array_equal(batch.wrong_embeddings, expected)
    both = new_batches(data).epoch(2, rows=Rows(wrong=True, wrong_captions=True))
    for batch, other, plain in zip(batches, both, new_batches(data).epoch(2), strict=True):
        assert torch.equal(other.wrong_embeddings, batch.wrong_embeddings)
        assert torch.equal(batch.images, plain.images)
        assert torch.equal(batch.embeddings, plain.embeddings)
        assert plain.wrong_embeddings is None


def test_workers_share_the_wrong_captions_of_one():
    data, rows = dataclasses.replace(new_data(), classes=CLASSES), Rows(wrong_captions=True)
    whole = list(new_batches(data).epoch(1, rows=rows))
    shares = [list(new_batches(data, rank=r, world_size=2).epoch(1, rows=rows)) for r in (0, 1)]
    for one, *parts in zip(whole, *shares, strict=True):
        assert torch.equal(one.wrong_embeddings, torch.cat([p.wrong_embeddings for p in parts]))


def test_wrong_captions_of_images_without_classes():
    with pytest.raises(ValueError, match=r"EncodedImages\.classes: found none"):
        next(new_batches().epoch(0, rows=Rows(wrong_captions=True)))


@pytest.mark.parametrize("shape", [(4,), (5, 3)])
@pytest.mark.parametrize("flips", [False, True])
def test_locations_are_those_of_the_images_and_mirrored_with_them(flips, shape):
    data = dataclasses.replace(
        new_data(),
        classes=np.arange(40) % 3,
        locations=np.random.default_rng(2).random((2, 40, *shape), dtype=np.float32),
    )
    batches = list(new_batches(data, flips=flips).epoch(2, 0, Rows(wrong=True, located=True)))
    order = epoch_permutation(3, 2, IMAGES)
    for step, batch in enumerate(batches):
        members = order[12 * step : 12 * step + 12]
        wrong = draw_wrong_rows(3, 2, members, data.classes[data.indices])
        mirrored = draw_flips(3, 2, members) & flips
        wrong_mirrored = draw_flips(3, 2, members, of_wrong=True) & flips
        for found, rows, turned in (
            (batch.locations, members, mirrored),
            (batch.wrong_locations, wrong, wrong_mirrored),
        ):
            expected = [
                data.locations[int(turn), data.indices[row]]
                for row, turn in zip(rows, turned, strict=True)
            ]
            np.testing.assert_array_equal(found.numpy(), np.stack(expected))


def test_images_without_locations_have_none():
    assert next(new_batches().epoch(0)).locations is None
    with pytest.raises(ValueError, match=r"EncodedImages\.locations: found none"):
        next(new_batches().epoch(0, 0, Rows(located=True)))


def made_smaller(images):
    """As a step made them smaller once: of a batch's bytes, some of them mirrored."""
    options = {"mode": "bicubic", "antialias": True}
    small = torch.nn.functional.interpolate(images.float() / 127.5 - 1, (3, 3), **options)
    return small.clamp(-1, 1).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 2)])
@pytest.mark.parametrize("start", [0, 1])
def test_smaller_images_are_bit_for_bit_what_steps_would_make(flips, rank, world_size, start):
    data = dataclasses.replace(new_data(), classes=CLASSES)
    data = dataclasses.replace(data, smaller={3: smaller_images(data.images, 3)})
    batches = new_batches(data, flips=flips, rank=rank, world_size=world_size)
    found = list(batches.epoch(2, start, Rows(wrong=True, side=3)))
    whole = list(batches.epoch(2, start, Rows(wrong=True)))
    assert len(found) == 2 - start
    for small, large in zip(found, whole, strict=True):
        for images, others in ((small.images, large.images), (small.wrong, large.wrong)):
            assert images.dtype == torch.float32
            assert images.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(images, made_smaller(others))
        assert torch.equal(small.embeddings, large.embeddings)


def test_images_that_were_not_made_smaller():
    data = dataclasses.replace(new_data(), smaller={3: np.zeros((2, 40, 3, 3, 3), np.float32)})
    with pytest.raises(ValueError, match=r"EncodedImages\.smaller: found none of side 2"):
        next(new_batches(data).epoch(0, rows=Rows(side=2)))


def test_rows_without_images_differ_in_nothing_else():
    places = np.random.default_rng(2).random((2, 40, 4), dtype=np.float32)
    batches = new_batches(dataclasses.replace(new_data(), locations=places))
    found = batches.epoch(1, rows=Rows(located=True, images=False))
    for batch, other in zip(found, batches.epoch(1, rows=Rows(located=True)), strict=True):
        assert batch.images.shape == (12, 3, 0, 0)
        assert torch.equal(batch.embeddings, other.embeddings)
        assert torch.equal(batch.locations, other.locations)

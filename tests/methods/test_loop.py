import dataclasses
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from sdn_ray.data.batches import EncodedImages, EpochBatches
from sdn_ray.data.sampling import draw_captions, draw_flips, epoch_permutation
from sdn_ray.distillation.layer_weights import LayerWeights
from sdn_ray.distillation.schemes import scheme_stages
from sdn_ray.methods.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from sdn_ray.methods.loop import (
    DivergedError,
    Hooks,
    LoopOptions,
    Training,
    current_state,
    distill,
)
from sdn_ray.methods.sdn import SDN, Computing
from sdn_ray.models.generator import Generator
from sdn_ray.models.pixels import normalise
from sdn_ray.models.plan import Plan
from sdn_ray.models.teacher import Teacher

PLAN = Plan.parse("4,M,6,M")
IMAGES, BATCH, STEPS = 14, 4, 3  # two images of every epoch are left over
EPOCHS = (2, 2)  # so a run has 12 steps
WEIGHTS = LayerWeights((0.5, 2.0), 1.5)


def new_data(images=IMAGES):
    draws = np.random.default_rng(0)
    return EncodedImages(
        images=draws.integers(0, 256, (images + 5, 8, 8, 3), dtype=np.uint8),
        embeddings=draws.normal(size=(40, 5)).astype(np.float32),
        caption_rows=draws.integers(0, 40, (images + 5, 3)),
        caption_counts=np.full(images + 5, 3),
        indices=draws.permutation(images + 5)[:images],
    )


def new_batches(seed=0, data=None, **options):
    options = {"batch_size": BATCH, "flips": True} | options
    return EpochBatches(data or new_data(), seed=seed, **options)


def new_run(
    scheme="sdn",
    seed=0,
    rates=(1e-3, 1e-3),
    decays=(0, 0),
    generator=None,
    batch_norm=False,
    **options,
):
    stages = scheme_stages(
        scheme,
        epochs=EPOCHS,
        learning_rates=rates,
        decay_fractions=decays,
        samples=3,
        grow=scheme == "sdn_diverse",
    )
    if generator is None:
        generator = Generator(
            PLAN,
            embedding_dim=5,
            image_size=8,
            fc_width=7,
            samples=stages[0].samples,
            batch_norm=batch_norm,
        )
        generator.reset_parameters(seed)
    torch.manual_seed(0)
    teacher = Teacher(PLAN)
    computing = Computing(**{k: options.pop(k) for k in ("precision", "compile") if k in options})
    method = SDN(generator, teacher, stages, WEIGHTS, seed=seed, computing=computing)
    return Training(method, LoopOptions(**{"log_steps": 1} | options))


class Killed(Exception):
    """Stands for a kill."""


class Record(Hooks):
    """Hooks that write checkpoints and stop, or die, after some steps."""

    def __init__(self, folder=None, stop=None, die=None):
        self.folder, self.stop, self.die = folder, stop, die
        self.progress, self.epochs, self.checkpoints = [], [], []
        super().__init__(self._progress, self._epoch, self._checkpoint)

    def _progress(self, report):
        self.progress.append(report)
        if report.steps_done == self.die:
            raise Killed
        return report.steps_done == self.stop

    def _epoch(self, report, run):
        self.epochs.append(dataclasses.replace(report, images_per_second=0))

    def _checkpoint(self, run, stage_end):
        steps = run.steps_done(STEPS)
        self.checkpoints.append((steps, stage_end))
        if self.folder:
            save_checkpoint(self.folder, run.state_dict(), steps, stage_end)


def assert_same_weights(found, expected):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


def trained(**options):
    run, hooks = new_run(**options), Record()
    assert distill(run, new_batches(options.get("seed", 0)), hooks)
    return run.method.generator.state_dict(), hooks


def result(**options):
    run = new_run(**options)
    distill(run, new_batches(), Hooks())
    return run.result.state_dict()


def resumed(folder, **options):
    """A run in fresh objects, as a new process would make them, from the last checkpoint."""
    state = load_checkpoint(latest_checkpoint(folder))
    first = scheme_stages(
        options["scheme"], epochs=EPOCHS, learning_rates=(1, 1), samples=3, grow=True
    )[0]
    generator = Generator(
        PLAN,
        embedding_dim=5,
        image_size=8,
        fc_width=7,
        samples=first.samples,
        batch_norm=options.get("batch_norm", False),
    )
    generator.reset_parameters(99)  # the weights must come from the checkpoint
    run = new_run(generator=generator, **options)
    run.method.weights = LayerWeights((9.0, 9.0), 9.0)  # so must the layer weights
    run.load_state_dict(state)
    return run


@pytest.mark.parametrize("scheme", ["sdn", "joint"])
def test_a_seed_settles_every_bit(scheme):
    torch.manual_seed(1)
    first, epochs = trained(scheme=scheme)
    torch.manual_seed(2)
    second, same = trained(scheme=scheme)
    other, _ = trained(scheme=scheme, seed=1)
    assert_same_weights(second, first)
    assert epochs.epochs == same.epochs
    assert not any(torch.equal(value, other[name]) for name, value in first.items() if value.any())


@pytest.mark.parametrize(
    "options",
    [
        {"scheme": "sdn"},
        {"scheme": "sdn", "checkpoint_steps": 2, "precision": "bf16"},
        {"scheme": "sdn_diverse", "batch_norm": True},
        {"scheme": "sdn_diverse", "checkpoint_steps": 2, "decays": (0, 0.7)},
        {"scheme": "sdn_diverse", "batch_norm": True, "average_decay": 0.7},
        {"scheme": "sdn", "batch_norm": True, "checkpoint_steps": 2, "average_decay": 0.7},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, options):
    expected, undisturbed = trained(**options)
    averaged = result(**options)
    assert [(e.stage.name, e.epoch, e.total_epoch) for e in undisturbed.epochs] == [
        ("stage_one", 0, 1),
        ("stage_one", 1, 2),
        ("stage_two", 0, 3),
        ("stage_two", 1, 4),
    ]
    for stop in (1, 3, 5, 6, 7, 9, 12):
        folder = tmp_path / str(stop)
        before = Record(folder, stop)
        assert distill(new_run(**options), new_batches(), before) is False
        assert before.checkpoints[-1] == (stop, False)
        run, after = resumed(folder, **options), Record(folder)
        assert run.steps_done(STEPS) == stop
        assert distill(run, new_batches(), after) is True
        assert run.finished
        assert_same_weights(run.method.generator.state_dict(), expected)
        assert_same_weights(run.result.state_dict(), averaged)
        assert before.epochs + after.epochs == undisturbed.epochs
        assert after.checkpoints[-1] == (12, True)


@pytest.mark.parametrize("scheme", ["sdn", "sdn_diverse"])
@pytest.mark.parametrize("checkpoint_steps", [None, 2])
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, scheme, checkpoint_steps):
    options = {"scheme": scheme, "checkpoint_steps": checkpoint_steps}
    expected, undisturbed = trained(**options)
    for die in (4, 6, 8, 12):
        folder = tmp_path / str(die)
        before = Record(folder, die=die)
        with pytest.raises(Killed):
            distill(new_run(**options), new_batches(), before)
        run, after = resumed(folder, **options), Record(folder)
        assert run.steps_done(STEPS) < die
        kept = [epoch for epoch in before.epochs if epoch.total_epoch <= run.epochs_done]
        assert distill(run, new_batches(), after)
        assert_same_weights(run.method.generator.state_dict(), expected)
        assert kept + after.epochs == undisturbed.epochs


@pytest.mark.parametrize("stop", [4, 6])  # within a stage, and between two
def test_a_checkpoint_of_an_earlier_version_goes_on_bit_for_bit(tmp_path, stop):
    options = {"scheme": "sdn_diverse", "batch_norm": True, "average_decay": 0.7}
    expected, _ = trained(**options)
    before = Record(tmp_path, stop)
    distill(new_run(**options), new_batches(), before)
    state = load_checkpoint(latest_checkpoint(tmp_path))
    assert current_state(state) is state
    earlier = {key: state[key] for key in ("position", "epoch_sum", "random", "average")}
    earlier |= state["networks"] | {"optimizer": state["optimizers"].get("generator")}
    run = new_run(**options)
    run.load_state_dict(current_state(earlier))
    assert run.steps_done(STEPS) == stop
    assert distill(run, new_batches(), Hooks())
    assert_same_weights(run.method.generator.state_dict(), expected)


def test_a_finished_run_does_nothing_more(tmp_path):
    first = new_run()
    distill(first, new_batches(), Record(tmp_path))
    assert latest_checkpoint(tmp_path).name == "checkpoint-000000012-stage-end.pt"
    run, after = resumed(tmp_path, scheme="sdn"), Record()
    assert distill(run, new_batches(), after)
    assert (after.progress, after.epochs, after.checkpoints) == ([], [], [])
    assert_same_weights(run.method.generator.state_dict(), first.method.generator.state_dict())


@pytest.mark.parametrize(
    ("checkpoint_steps", "expected"),
    [
        (None, [3, "6", 9, "12"]),
        (1, [1, 2, 3, 4, 5, "6", 7, 8, 9, 10, 11, "12"]),
        (2, [2, 3, 5, "6", 8, 9, 11, "12"]),
        (100, [3, "6", 9, "12"]),
    ],
)
@pytest.mark.parametrize("log_steps", [1, 100])
def test_when_checkpoints_are_due(checkpoint_steps, expected, log_steps):
    _, hooks = trained(checkpoint_steps=checkpoint_steps, log_steps=log_steps)
    assert hooks.checkpoints == [(int(step), isinstance(step, str)) for step in expected]


def test_progress_reports():
    _, hooks = trained(log_steps=2)
    assert [(r.stage.name, r.epoch, r.steps_done, r.steps) for r in hooks.progress] == [
        ("stage_one", 0, 2, 12),
        ("stage_one", 0, 3, 12),  # the end of an epoch is always reported
        ("stage_one", 1, 5, 12),
        ("stage_one", 1, 6, 12),
        ("stage_two", 0, 8, 12),
        ("stage_two", 0, 9, 12),
        ("stage_two", 1, 11, 12),
        ("stage_two", 1, 12, 12),
    ]
    assert all(report.images_per_second > 0 for report in hooks.progress)


@pytest.mark.parametrize("log_steps", [1, 2, 3, 100])
def test_reports_do_not_depend_on_how_often_losses_are_read(log_steps):
    expected, every_step = trained(log_steps=1)
    found, hooks = trained(log_steps=log_steps)
    assert_same_weights(found, expected)
    for own, epoch in zip(hooks.epochs, every_step.epochs, strict=True):
        assert own.terms == pytest.approx(epoch.terms, rel=1e-12)


def by_hand(run, data, flips=True):
    """Table 3's SDN written out: two Adams, eq. 1, then eq. 3. The losses of every epoch."""
    generator, teacher, losses = run.method.generator, run.method.teacher, []
    epoch = 0
    for stage, epochs in zip((1, 2), EPOCHS, strict=True):
        optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.9, 0.999))
        for _ in range(epochs):
            losses.append([])
            order = epoch_permutation(0, epoch, len(data))
            for step in range(STEPS):
                members = order[step * BATCH : (step + 1) * BATCH]
                pixels = data.images[data.indices[members]]
                captions = draw_captions(0, epoch, members, np.full(BATCH, 3))
                rows = [data.caption_rows[data.indices[members[i]], captions[i]] for i in range(4)]
                for i, flipped in enumerate(draw_flips(0, epoch, members)):
                    if flipped and flips:
                        pixels[i] = pixels[i][:, ::-1]
                real = normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2))
                output = generator(torch.from_numpy(data.embeddings[rows]))
                drawn = output.images[:, 0]
                features = output.features if stage == 1 else teacher(drawn)
                pairs = zip(WEIGHTS.layers, teacher(real), features, strict=True)
                loss = sum(weight * (d - f).abs().sum() for weight, d, f in pairs) / BATCH
                loss = loss + WEIGHTS.image * (real - drawn).abs().sum() / BATCH
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses[-1].append(loss.item())
            epoch += 1
    return [sum(epoch) / STEPS for epoch in losses]


def test_sdn_is_the_loop_written_out():
    run, hooks, reference = new_run(), Record(), new_run()
    distill(run, new_batches(), hooks)
    losses = by_hand(reference, new_data())
    assert [epoch.loss for epoch in hooks.epochs] == pytest.approx(losses, rel=1e-4)
    for name, value in reference.method.generator.state_dict().items():
        torch.testing.assert_close(
            run.method.generator.state_dict()[name], value, rtol=1e-3, atol=1e-4
        )
    for epoch in hooks.epochs:
        assert list(epoch.terms) == ["conv1_1", "conv2_1", "image"]
        assert sum(epoch.terms.values()) == pytest.approx(epoch.loss, rel=1e-9)


@pytest.mark.parametrize("scheme", ["image", "stage_one", "stage_two", "joint", "sdn_diverse"])
def test_every_scheme_lowers_its_loss(scheme):
    run, hooks = new_run(scheme, rates=(3e-3, 3e-3)), Record()
    distill(run, new_batches(), hooks)
    losses = {}
    for epoch in hooks.epochs:
        losses.setdefault(epoch.stage.name, []).append(epoch.loss)
    for values in losses.values():
        assert values[-1] < values[0]


def test_compiled_steps_are_the_same_steps():
    """Up to rounding: the graph is another order of the same arithmetic."""
    plain, hooks = trained(scheme="sdn_diverse")
    compiled, compiled_hooks = trained(scheme="sdn_diverse", compile=True)
    for found, expected in zip(compiled_hooks.epochs, hooks.epochs, strict=True):
        assert found.terms == pytest.approx(expected.terms, rel=1e-4)
    for name, value in compiled.items():
        torch.testing.assert_close(value, plain[name], rtol=1e-3, atol=1e-4)


def test_the_optimiser_starts_anew_in_every_stage():
    seen = []

    def look(run, stage_end):
        if stage_end:
            assert run.optimizers == {}
        else:
            counts = {int(state["step"]) for state in run.optimizers["generator"].state.values()}
            rates = {group["lr"] for group in run.optimizers["generator"].param_groups}
            seen.append((run.position.stage, counts, rates))

    run = new_run(rates=(1e-3, 2e-4), checkpoint_steps=1)
    distill(run, new_batches(), Hooks(on_checkpoint=look))
    first = [(0, {step}, {1e-3}) for step in range(1, 6)]
    assert seen == first + [(1, {step}, {2e-4}) for step in range(1, 6)]


def test_the_rate_falls_at_the_end_of_a_stage():
    rates = []

    def look(run, stage_end):
        if not stage_end:
            rates.append(run.optimizers["generator"].param_groups[0]["lr"])

    run = new_run(rates=(6e-3, 2e-3), decays=(0.5, 1), checkpoint_steps=1)
    distill(run, new_batches(), Hooks(on_checkpoint=look))
    # Of each stage's six steps the last ends it.
    expected = [6e-3, 6e-3, 6e-3, 6e-3, 4e-3] + [2e-3 * left / 6 for left in (6, 5, 4, 3, 2)]
    assert rates == pytest.approx(expected)


def test_adam_is_the_papers():
    run = new_run(rates=(1e-4, 1e-4))
    run.begin_stage(run.stage)
    (group,) = run.optimizers["generator"].param_groups
    assert isinstance(run.optimizers["generator"], torch.optim.Adam)
    found = {name: group[name] for name in ("lr", "betas", "eps", "weight_decay", "amsgrad")}
    adam = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False}
    assert found == adam


def test_growth_keeps_what_stage_one_learnt():
    run, hooks = new_run("sdn_diverse"), Record(stop=6)
    distill(run, new_batches(), hooks)
    assert run.method.generator.samples == 1
    before = run.method.generator.mirror["g_conv1_1"][0].weight.detach().clone()
    run.position.epoch, run.position.step = 2, 0
    distill(run, new_batches(), Hooks(on_progress=lambda report: True))
    copies = run.method.generator.mirror["g_conv1_1"][0].weight.detach().unflatten(0, (3, 3))
    assert run.method.generator.samples == 3
    for copy in copies:
        difference = (copy - before).std() / before.std()
        assert 0.05 < difference < 0.2  # GROWTH_NOISE and one step of Adam
    assert not torch.allclose(copies[0], copies[1])


def poisoned():
    """The data with NaN in the embeddings of the captions of one image, and that image."""
    data = new_data()
    own = data.caption_rows.copy()
    own[data.indices[3]] = 40
    embeddings = np.concatenate([data.embeddings, np.full((1, 5), np.nan, dtype=np.float32)])
    return dataclasses.replace(data, embeddings=embeddings, caption_rows=own), 3


@pytest.mark.parametrize(("log_steps", "checkpoint_steps"), [(1, None), (100, None), (100, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_a_nan_stops_the_run(tmp_path, log_steps, checkpoint_steps, seed):
    data, image = poisoned()
    order = epoch_permutation(seed, 0, IMAGES)[: STEPS * BATCH]
    places = np.flatnonzero(order == image)
    epoch, step = (0, int(places[0]) // BATCH) if len(places) else (1, None)
    run = new_run(seed=seed, log_steps=log_steps, checkpoint_steps=checkpoint_steps)
    hooks = Record(tmp_path)
    with pytest.raises(DivergedError, match="loss became nan in stage stage_one") as caught:
        distill(run, new_batches(seed, data), hooks)
    message = str(caught.value)
    assert "term conv1_1." in message
    assert "distillation.stage_one.learning_rate" in message
    if step is not None:
        assert f"step {step + 1}:" in message
        assert hooks.epochs == []
        assert all(steps <= step for steps, _ in hooks.checkpoints)
        if checkpoint_steps:
            assert hooks.checkpoints == [(s, False) for s in range(1, step + 1)]
    assert len(hooks.epochs) == epoch
    latest = latest_checkpoint(tmp_path)
    if latest:
        weights = load_checkpoint(latest)["networks"]["generator"].values()
        assert all(weight.isfinite().all() for weight in weights)


def test_the_term_that_diverged_is_named():
    run = new_run("joint")
    run.method.weights = LayerWeights((1.0, float("inf")), 1.0)
    with pytest.raises(DivergedError, match=r"became inf in stage joint, .*term stage_one/conv2_1"):
        distill(run, new_batches(), Record())


def test_a_wild_learning_rate_names_its_stage(tmp_path):
    run, hooks = new_run(rates=(1e-3, 1e30), log_steps=100), Record(tmp_path)
    with pytest.raises(
        DivergedError, match=r"in stage stage_two, epoch .*, step 2: term"
    ) as caught:
        distill(run, new_batches(), hooks)
    assert "distillation.stage_two.learning_rate" in str(caught.value)
    assert hooks.checkpoints == [(3, False), (6, True)]


@pytest.mark.parametrize(
    ("scheme", "option"),
    [
        ("image", "stage_one"),
        ("stage_one", "stage_one"),
        ("stage_two", "stage_two"),
        ("joint", "stage_two"),
    ],
)
def test_the_option_that_a_diverged_run_names_exists(scheme, option):
    """Schemes of one stage take the learning rate of stage one or of stage two."""
    with pytest.raises(DivergedError, match=rf"distillation\.{option}\.learning_rate"):
        distill(new_run(scheme), new_batches(data=poisoned()[0]), Record())


def worker(rank, folder, world_size, **options):
    """One of the data-parallel processes: it writes down what it has seen."""
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'rendezvous'}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(minutes=5),
    )
    try:
        torch.save(seen_by_worker(rank, world_size, **options), folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def seen_by_worker(rank, world_size, **settings):
    options = {"batch_size": 12, "rank": rank, "world_size": world_size}
    # One worker alone wishes to stop, in the second step of stage two.
    hooks = Record(stop=4 if rank == 1 else None)
    run = new_run(log_steps=1, **settings)
    hooks.on_checkpoint = lambda run, stage_end: hooks.checkpoints.append(stage_end)
    finished = distill(run, new_batches(data=new_data(12), **options), hooks)
    diverged = ""
    try:
        distill(new_run(), new_batches(data=poisoned()[0], **options), Record())
    except DivergedError as error:
        diverged = str(error)
    return {
        "finished": finished,
        "state": run.state_dict(),
        "losses": [report.loss for report in hooks.progress],
        "epochs": [epoch.terms for epoch in hooks.epochs],
        "checkpoints": hooks.checkpoints,
        "diverged": diverged,
    }


@pytest.mark.parametrize("settings", [{}, {"batch_norm": True, "compile": True}], ids=str)
def test_two_workers_take_the_steps_of_one(tmp_path, settings):
    """Steps of 2 × 6 images are those of 1 × 12; one step an epoch, through both stages."""
    # This process is one of the two, since another one spends most of its time on importing torch.
    other = mp.get_context("spawn").Process(target=worker, args=(1, tmp_path, 2), kwargs=settings)
    other.start()
    worker(0, tmp_path, 2, **settings)
    other.join()
    assert other.exitcode == 0
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    batch_norm = settings.get("batch_norm", False)
    run, hooks = new_run(log_steps=1, batch_norm=batch_norm), Record(stop=4)
    batches = new_batches(data=new_data(12), batch_size=12)
    assert len(batches) == 1
    assert distill(run, batches, hooks) is False
    # Every worker stops where one wishes to, and holds the same bits.
    for seen in (first, second):
        assert seen["finished"] is False
        assert seen["checkpoints"] == [False, True, False, False]
        assert "stage stage_one, epoch 1, step 1: term conv1_1" in seen["diverged"]
    assert_same_weights(
        first["state"]["networks"]["generator"], second["state"]["networks"]["generator"]
    )
    assert first["losses"] == second["losses"]
    assert first["losses"] == pytest.approx([r.loss for r in hooks.progress], rel=1e-5)
    for own, epoch in zip(first["epochs"], hooks.epochs, strict=True):
        assert own == pytest.approx(epoch.terms, rel=1e-5)
    expected = run.state_dict()
    assert first["state"]["position"] == expected["position"]
    # Adam's first moment is linear in the gradients, whereas a weight whose gradient is zero but
    # for rounding may step either way.
    moments = expected["optimizers"]["generator"]["state"]
    scales = {key: moment["exp_avg"].abs().max().item() for key, moment in moments.items()}
    for key, own in first["state"]["optimizers"]["generator"]["state"].items():
        scale = max(scales.values()) if batch_norm else scales[key]
        torch.testing.assert_close(
            own["exp_avg"], moments[key]["exp_avg"], rtol=1e-4, atol=1e-5 * scale
        )
    for name, value in first["state"]["networks"]["generator"].items():
        if batch_norm and name.startswith("g_fc") and name.endswith((".0.bias", "running_mean")):
            continue  # there is no gradient of a bias before a batch normalisation
        torch.testing.assert_close(
            value, expected["networks"]["generator"][name], rtol=1e-4, atol=1e-6
        )


def test_an_average_leaves_the_training_as_it_is():
    plain, without = trained(scheme="sdn", batch_norm=True)
    beside, averaging = trained(scheme="sdn", batch_norm=True, average_decay=0.9)
    assert_same_weights(beside, plain)
    assert averaging.epochs == without.epochs


def test_the_average_is_that_of_the_weights_after_each_step_of_a_stage():
    run, seen = new_run(scheme="sdn", batch_norm=True, average_decay=0.75), []

    def look(report):
        seen.append({n: p.detach().clone() for n, p in run.method.generator.named_parameters()})
        return False

    first = {n: p.detach().clone() for n, p in run.method.generator.named_parameters()}
    assert distill(run, new_batches(), Hooks(on_progress=look))
    start = seen[5]  # the second stage begins with the weights of the first
    assert len(seen) == 12
    for name, value in run.result.named_parameters():
        expected = start[name].double()
        for weights in seen[6:]:
            expected = 0.75 * expected + 0.25 * weights[name].double()
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-7)
        assert value.requires_grad is False
        assert not torch.equal(value, first[name])


def test_the_average_has_batch_norm_statistics_of_its_own():
    run = new_run(scheme="sdn", batch_norm=True, average_decay=0.9)
    batches = new_batches()
    distill(run, batches, Hooks())
    average = run.result
    (embeddings,) = batches.caption_batches()  # 14 captions are one batch
    assert embeddings.shape == (14, 5)
    linear, norm, _ = average.g_fc8
    found = linear(embeddings)
    torch.testing.assert_close(norm.running_mean, found.mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(norm.running_var, found.var(0), rtol=1e-4, atol=1e-6)
    own = run.method.generator.g_fc8[1]
    assert not torch.allclose(norm.running_mean, own.running_mean, rtol=1e-2)
    assert norm.momentum == own.momentum == 0.1
    assert average.training is False


def test_without_an_average_the_result_is_the_generator():
    run = new_run()
    distill(run, new_batches(), Hooks())
    assert run.result is run.method.generator
    assert "average" not in run.state_dict()

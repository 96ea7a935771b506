import pytest

from sdn_ray.data.batches import Rows
from sdn_ray.distillation.losses import LOSSES
from sdn_ray.distillation.schemes import SCHEMES, STAGE_THREE, Stage, scheme_stages

RATES = (1e-3, 2e-4)


def stages(scheme, **options):
    return scheme_stages(scheme, epochs=(3, 5), learning_rates=RATES, **options)


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("image", [Stage("image", "image", 8, 1e-3)]),
        ("stage_one", [Stage("stage_one", "stage_one", 8, 1e-3)]),
        ("stage_two", [Stage("stage_two", "stage_two", 8, 2e-4)]),
        ("joint", [Stage("joint", "joint", 8, 2e-4)]),
        (
            "sdn",
            [Stage("stage_one", "stage_one", 3, 1e-3), Stage("stage_two", "stage_two", 5, 2e-4)],
        ),
        (
            "sdn_diverse",
            [
                Stage("stage_one", "stage_one", 3, 1e-3, 4),
                Stage("stage_two", "stage_two", 5, 2e-4, 4),
            ],
        ),
    ],
)
def test_stages(scheme, expected):
    assert list(stages(scheme, samples=4)) == expected


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("image", [0.2]),
        ("stage_one", [0.2]),
        ("stage_two", [0.5]),
        ("joint", [0.5]),
        ("sdn", [0.2, 0.5]),
        ("sdn_diverse", [0.2, 0.5]),
    ],
)
def test_every_stage_has_its_decay(scheme, expected):
    assert [s.decay_fraction for s in stages(scheme, decay_fractions=(0.2, 0.5))] == expected


def test_the_rate_of_a_step():
    stage = Stage("stage_two", "stage_two", 5, 0.4, decay_fraction=0.4)
    rates = [stage.rate(step, steps=10) for step in range(10)]
    assert rates == pytest.approx([0.4] * 7 + [0.3, 0.2, 0.1])
    assert {Stage("image", "image", 8, 0.4).rate(step, 10) for step in range(10)} == {0.4}


def test_growing_starts_with_one_sample():
    assert [stage.samples for stage in stages("sdn_diverse", samples=4, grow=True)] == [1, 4]


@pytest.mark.parametrize("scheme", ["image", "stage_one", "stage_two", "joint", "sdn"])
@pytest.mark.parametrize("grow", [False, True])
def test_one_sample_but_in_diverse_synthesis(scheme, grow):
    assert {stage.samples for stage in stages(scheme, samples=4, grow=grow)} == {1}


def test_table_3_and_its_equal_epochs():
    assert SCHEMES == ("image", "stage_one", "stage_two", "joint", "sdn", "sdn_diverse")
    for scheme in SCHEMES:
        assert sum(stage.epochs for stage in stages(scheme)) == 8
        assert all(stage.loss in LOSSES for stage in stages(scheme))


THIRD = Stage(STAGE_THREE, STAGE_THREE, 7, 1e-4, decay_fraction=0.3)


@pytest.mark.parametrize("scheme", [*SCHEMES, "sdn_adversarial"])
def test_stage_three_is_of_the_adversarial_scheme_alone(scheme):
    found = stages(scheme, third=THIRD)
    assert [stage for stage in found if stage.adversarial] == [THIRD] * (found[-1] is THIRD)
    assert (found[-1] is THIRD) is (scheme == "sdn_adversarial")
    if scheme == "sdn_adversarial":
        assert found[:-1] == stages("sdn", samples=4)


def test_stage_three_alone():
    found = scheme_stages("sdn_adversarial", epochs=(0, 0), learning_rates=RATES, third=THIRD)
    assert found == (THIRD,)


def test_stage_three_asks_for_wrong_captions_and_names_its_option():
    assert THIRD.rows == Rows(wrong_captions=True)
    assert THIRD.rate_options == (
        "distillation.stage_three.learning_rate and distillation.stage_three.heads_learning_rate"
    )
    assert {stage.rows for stage in stages("sdn")} == {Rows()}

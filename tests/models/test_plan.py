import pytest

from sdn_ray.errors import UserError
from sdn_ray.models.plan import Plan

PRUNED = "16,16,M,32,32,M,64x4,M,128x4,M,128"


def test_vgg19_names_and_shapes_at_224():
    plan = Plan.parse("vgg19")
    expected = {
        "conv1_1": (64, 224, 224),
        "conv1_2": (64, 224, 224),
        "conv2_1": (128, 112, 112),
        "conv2_2": (128, 112, 112),
        **{f"conv3_{i}": (256, 56, 56) for i in range(1, 5)},
        **{f"conv4_{i}": (512, 28, 28) for i in range(1, 5)},
        **{f"conv5_{i}": (512, 14, 14) for i in range(1, 5)},
    }
    assert plan.pools == 5
    assert dict(zip(plan.names, plan.feature_shapes(224), strict=True)) == expected


def test_the_papers_text_is_vgg19():
    text = "64,64,M,128,128,M,256×4,M,512×4,M,512×4,M"
    assert Plan.parse(text) == Plan.parse("vgg19")


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("vgg11", [1, 1, 2, 2, 2]),
        ("vgg13", [2, 2, 2, 2, 2]),
        ("vgg16", [2, 2, 3, 3, 3]),
        ("vgg19", [2, 2, 4, 4, 4]),
    ],
)
def test_convolutions_of_the_named_plans(name, groups):
    """Table 1 of Simonyan and Zisserman 2014, columns A, B, D and E."""
    convolutions = Plan.parse(name).convolutions
    widths = [64, 128, 256, 512, 512]
    channels = [width for width, count in zip(widths, groups, strict=True) for _ in range(count)]
    assert [c.out_channels for c in convolutions] == channels
    assert [c.in_channels for c in convolutions] == [3, *channels[:-1]]
    assert [c.name for c in convolutions] == [
        f"conv{group}_{place}"
        for group, count in enumerate(groups, 1)
        for place in range(1, count + 1)
    ]
    assert Plan.parse(name).feature_shapes(32)[-1] == (512, 2, 2)


def test_a_short_plan_that_does_not_end_in_a_pool():
    plan = Plan.parse(" 4 , 5,M, 6x2 ,M,7")
    assert plan.entries == (4, 5, "M", 6, 6, "M", 7)
    assert plan.names == ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")
    assert [c.group for c in plan.convolutions] == ["conv1", "conv1", "conv2", "conv2", "conv3"]
    shapes = [(4, 12, 12), (5, 12, 12), (6, 6, 6), (6, 6, 6), (7, 3, 3)]
    assert plan.feature_shapes(12) == shapes


@pytest.mark.parametrize("text", ["vgg11", "vgg13", "vgg16", "vgg19", PRUNED, "3", "4,M,6,M"])
def test_a_plan_as_text_reads_back(text):
    assert Plan.parse(str(Plan.parse(text))) == Plan.parse(text)


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("", "''"),
        ("64,,M", "''"),
        ("64,M,", "''"),
        ("vgg12", "'vgg12'"),
        ("64,m", "'m'"),
        ("64,P", "'P'"),
        ("0,M", "'0'"),
        ("-4,M", "'-4'"),
        ("64x0,M", "'64x0'"),
        ("64x,M", "'64x'"),
        ("6.5,M", "'6.5'"),
        ("64 M", "'64 M'"),
    ],
)
def test_an_entry_that_is_no_entry(text, entry):
    with pytest.raises(UserError, match="expected a width such as 64") as caught:
        Plan.parse(text)
    assert f"found entry {entry}" in str(caught.value)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["M", "M,64"])
def test_a_plan_begins_with_a_convolution(text):
    with pytest.raises(UserError, match=f"'{text}': expected it to begin with a convolution"):
        Plan.parse(text)


@pytest.mark.parametrize("size", [0, -32, 1, 16, 33, 225])
def test_an_image_size_that_cannot_be_halved(size):
    plan = Plan.parse("vgg16")
    with pytest.raises(UserError, match=f"image_size: found {size}, expected a multiple of 32"):
        plan.check_image_size(size)
    with pytest.raises(UserError):
        plan.feature_shapes(size)


@pytest.mark.parametrize(
    ("text", "size"), [("vgg16", 32), ("vgg16", 224), ("4,5", 7), (PRUNED, 48)]
)
def test_image_sizes_that_can_be_halved(text, size):
    Plan.parse(text).check_image_size(size)

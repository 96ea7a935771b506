"""Encoders and captions as Reed et al. released them.

The real files are not at hand. Those here are of the same structure: graphs as ``HybridCNN.lua``,
``HybridCNNLong.lua``, ``FixedRNN.lua``, ``FixedGRU.lua`` and nngraph build them, and caption tables
as the authors' data loaders read them, written by ``torch7_writer``. What they compute is worked
out in NumPy from the definitions of Torch7's modules.
"""

import numpy as np
import pytest
from torch7_writer import Function, Instance, Lua, Storage, Tensor, sequence, table, tensor, torch7

from sdn_ray import convert_text
from sdn_ray.data.readers.layout import read_captions
from sdn_ray.errors import UserError
from sdn_ray.text.char_cnn_rnn import ALPHABET, characters, load_text_encoder
from sdn_ray.text.released import (
    UNKNOWN,
    read_class_captions,
    read_image_captions,
    read_released_encoder,
)

CAPTIONS = ["this flower has long, pale-yellow petals (5 of them)", "red & white!", "x" * 250]
LAYERS = {"long": ("W_z", "U_z", "W_r", "U_r", "W", "U"), "short": ("W", "U")}
EMBEDDING = 7


class Weights:
    """Parameters as views of one flat storage, as training left them."""

    def __init__(self, variant, width=None, constant=False):
        self.width = width or {"long": 512, "short": 256}[variant]
        shapes = {"conv1": (384, 280), "conv2": (512, 1536), "conv3": (self.width, 2048)}
        shapes |= dict.fromkeys(LAYERS[variant], (self.width, self.width))
        shapes["projection"] = (EMBEDDING, self.width)
        self.shapes = {}
        for name, shape in shapes.items():
            self.shapes |= {(name, "weight"): shape, (name, "bias"): shape[:1]}
        self.constant = constant
        size = 1 if constant else sum(int(np.prod(shape)) for shape in self.shapes.values())
        flat = np.random.default_rng(0).uniform(-0.08, 0.08, size).astype(np.float32)
        self.storage, self.arrays, self.offsets, offset = Storage(flat, cuda=True), {}, {}, 0
        for key, shape in self.shapes.items():
            count = 0 if constant else int(np.prod(shape))
            self.arrays[key] = None if constant else flat[offset : offset + count].reshape(shape)
            self.offsets[key] = offset + 1
            offset += count

    def fields(self, name):
        fields = {}
        for part in ("weight", "bias"):
            shape = self.shapes[name, part]
            strides = (0,) * len(shape) if self.constant else (shape[-1], 1)[-len(shape) :]
            fields[part] = Tensor(self.storage, shape, strides, self.offsets[name, part], "Cuda")
        return fields


def module(kind, **fields):
    return Instance(f"nn.{kind}", table(train=True, **fields))


def sequential(modules):
    return module("Sequential", modules=sequence(modules))


class Graph:
    """An nngraph; a node is its data table. ``split`` is how newer versions feed the inputs."""

    def __init__(self, split, reverse):
        self.split, self.reverse, self.nodes = split, reverse, []
        self.entrance = self.node(None)

    def node(self, module, *inputs, **fields):
        inputs = inputs[::-1] if self.reverse else inputs
        mapindex = sequence(inputs)
        for place, data in enumerate(inputs, 1):
            mapindex.set(data, place)
        label = table(_debugLabel="[...modules/x.lua]:1")
        data = table(module=module, mapindex=mapindex, annotations=label, **fields)
        self.nodes.append(data)
        return data

    def inputs(self, count):
        if self.split and count > 1:
            splitter = self.node(None, self.entrance, nSplitOutputs=count)
            sources = [self.node(None, splitter, selectindex=n) for n in range(1, count + 1)]
        else:
            sources = [self.entrance] * count
        identities = [self.node(module("Identity"), source) for source in sources]
        if not self.split:
            mapindex = dict(self.entrance.pairs)["mapindex"]
            for place, data in enumerate(identities, 1):
                mapindex.set(place, data).set(data, place)
        return identities

    def close(self, output):
        self.node(None, output)
        children = [Lua() for _ in self.nodes]
        nodes = [
            Instance("nngraph.Node", table(data=data, children=child, id=place, visited=False))
            for place, (data, child) in enumerate(zip(self.nodes, children, strict=True), 1)
        ]
        for node, child, after in zip(nodes, children, [*nodes[1:], None], strict=True):
            if after is not None:
                child.set(1, after).set(after, 1)
            child.set("from", node)
        ends = {"innode": nodes[0], "outnode": nodes[-1]}
        # The order of the nodes is to mean nothing.
        return module("gModule", forwardnodes=sequence(nodes[::-1]), verbose=False, **ends)


def recurrence(variant, weights, steps, changes):
    graph = Graph(changes.get("split", True), changes.get("reverse", False))
    xs = graph.inputs(steps)

    def linear(name, node):
        fields = weights.fields(name)
        if name == "U" and changes.get("another_layer"):
            fields["bias"] = tensor(changes["another_layer"].pop(), cuda=True)
        return graph.node(sequential([module("Linear", **fields)]), node)

    def added(*nodes):
        return graph.node(module("CAddTable"), *nodes)

    def gru(x, h):
        z = graph.node(module("Sigmoid"), added(linear("W_z", x), linear("U_z", h)))
        r = graph.node(module("Sigmoid"), added(linear("W_r", x), linear("U_r", h)))
        gated = graph.node(module("CMulTable"), r, (changes.get("other_reset") and states[0]) or h)
        c = graph.node(module("Tanh"), added(linear("W", x), linear("U", gated)))
        negative = graph.node(module("MulConstant", constant_scalar=-1), z)
        rest = graph.node(module("AddConstant", constant_scalar=1), negative)
        kept = graph.node(module("CMulTable"), rest, h)
        return added(
            graph.node(module("CMulTable"), (changes.get("other_gate") and r) or z, c), kept
        )

    def relu(x, h):
        return graph.node(module("ReLU"), added(linear("W", x), linear("U", h)))

    first = "Tanh" if variant == "long" else "ReLU"
    states = [graph.node(module(first), linear("W", xs[0]))]
    order = xs[1:][::-1] if changes.get("shuffled") else xs[1:]
    for x in order:
        states.append((gru if variant == "long" else relu)(x, states[-1]))
    total, graph.reverse = states[0], False
    for state in states[1:]:
        total = graph.node(module("CAddTable"), total, state)
    scale = changes.get("scale", 1 / steps)
    return graph.close(graph.node(module("MulConstant", constant_scalar=scale), total))


def encoder(variant, weights, **changes):
    """`protos.enc_doc`."""

    def convolution(name, size, kernel=4):
        return module(
            "TemporalConvolution", kW=kernel, dW=1, inputFrameSize=size, **weights.fields(name)
        )

    def threshold():
        return module("Threshold", threshold=changes.get("threshold", 1e-6), val=0)

    layers = [
        convolution("conv1", 70),
        threshold(),
        module("TemporalMaxPooling", kW=3, dW=3),
        convolution("conv2", 384),
        threshold(),
        module("TemporalMaxPooling", kW=3, dW=3),
        convolution("conv3", 512, changes.get("kernel", 4)),
        threshold(),
    ]
    if changes.get("third_pool", variant == "short"):
        layers.append(module("TemporalMaxPooling", kW=3, dW=2))
    graph = Graph(changes.get("split", True), False)
    node = graph.node(sequential(layers), *graph.inputs(1))
    node = graph.node(module("SplitTable", dimension=2), node)
    steps = changes.get("steps", {"long": 18, "short": 8}[variant])
    node = graph.node(recurrence(variant, weights, steps, changes), node)
    node = graph.node(module("Dropout", p=0), node)
    projection = module("Linear", **weights.fields("projection"))
    for _ in range(changes.get("projections", 1)):
        node = graph.node(projection, node)
    return graph.close(node)


def checkpoint(network):
    """What ``train_sje_hybrid.lua`` saves."""
    protos = table(enc_doc=network, enc_image=module("Identity"))
    options = table(doc_length=201, learning_rate=0.0007, savefile="sje_hybrid")
    losses = sequence([0.5, 0.25])
    call = Function(8, b"\x1bLJ", sequence([]))
    return table(
        protos=protos, opt=options, train_losses=losses, val_losses=Lua([(1000, 0)]), f=call
    )


def write(tmp_path, value):
    path = tmp_path / "lm_sje.t7"
    path.write_bytes(torch7(value))
    return path


def temporal_convolution(x, weight, bias):
    """``x`` is frames × dimensions; a row of the weight runs over the window frame by frame."""
    return np.stack([weight @ x[t : t + 4].reshape(-1) + bias for t in range(len(x) - 3)])


def thresholded(x):
    return np.where(x > 1e-6, x, 0)


def max_pooling(x, step):
    return np.stack([x[t : t + 3].max(0) for t in range(0, len(x) - 2, step)])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_hand(caption, variant, weights):
    """The embedding of a caption, by the definitions of Torch7's modules."""
    p = {key: array.astype(np.float64) for key, array in weights.arrays.items()}
    last_place = {character: place for place, character in enumerate(ALPHABET)}
    x = np.zeros((201, 70))
    for place, character in enumerate(caption[:201]):
        x[place, last_place[character]] = 1
    x = max_pooling(thresholded(temporal_convolution(x, *of(p, "conv1"))), 3)
    x = max_pooling(thresholded(temporal_convolution(x, *of(p, "conv2"))), 3)
    x = thresholded(temporal_convolution(x, *of(p, "conv3")))
    x = x if variant == "long" else max_pooling(x, 2)

    def linear(name, value):
        weight, bias = of(p, name)
        return weight @ value + bias

    states = [np.tanh(linear("W", x[0])) if variant == "long" else np.maximum(linear("W", x[0]), 0)]
    for frame in x[1:]:
        h = states[-1]
        if variant == "long":
            z = sigmoid(linear("W_z", frame) + linear("U_z", h))
            r = sigmoid(linear("W_r", frame) + linear("U_r", h))
            c = np.tanh(linear("W", frame) + linear("U", r * h))
            states.append(z * c + (1 - z) * h)
        else:
            states.append(np.maximum(linear("W", frame) + linear("U", h), 0))
    assert len(states) == {"long": 18, "short": 8}[variant]
    return linear("projection", np.mean(states, axis=0))


def of(parameters, name):
    return parameters[name, "weight"], parameters[name, "bias"]


@pytest.mark.parametrize("variant", ["long", "short"])
def test_the_encoder_computes_what_the_network_of_torch7_does(tmp_path, variant):
    weights = Weights(variant)
    found = read_released_encoder(write(tmp_path, checkpoint(encoder(variant, weights))))
    assert (found.variant, found.embedding_dim) == (variant, EMBEDDING)
    expected = np.stack([by_hand(caption, variant, weights) for caption in CAPTIONS])
    assert np.ptp(expected, axis=0).min() > 1e-3
    cut = [caption[:201] for caption in CAPTIONS]
    np.testing.assert_allclose(found.encode(cut), expected, atol=1e-5)


@pytest.mark.parametrize("variant", ["long", "short"])
@pytest.mark.parametrize("changes", [{"reverse": True}, {"split": False}])
def test_neither_the_order_of_inputs_nor_the_version_of_nngraph_matters(tmp_path, variant, changes):
    weights = Weights(variant)
    usual = read_released_encoder(write(tmp_path, checkpoint(encoder(variant, weights))))
    other = read_released_encoder(write(tmp_path, encoder(variant, weights, **changes)))
    for name, value in usual.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], value, err_msg=name)


@pytest.mark.parametrize(
    ("variant", "changes", "words"),
    [
        ("long", {"third_pool": True}, "3 poolings and a GRU of 18 steps"),
        ("short", {"third_pool": False}, "2 poolings and a ReLU RNN of 8 steps"),
        ("short", {"steps": 9}, "a ReLU RNN of 9 steps"),
        ("short", {"scale": 1 / 4}, "nn.CAddTable of 2 inputs for nn.Tanh or nn.ReLU of 1"),
        ("long", {"scale": 1 / 17}, "nn.CAddTable of 2 inputs for nn.Tanh or nn.ReLU of 1"),
        ("long", {"other_gate": True}, "step 2 that does not keep 1 − z"),
        ("long", {"other_reset": True}, "step 3 whose reset gate does not act on the state"),
        ("long", {"shuffled": True}, "fed by neither its input nor the state"),
        ("short", {"scale": 0}, "factor 0 where the mean"),
        ("short", {"kernel": 5}, r"width and step \(5, 1\), not \(4, 1\)"),
        ("short", {"threshold": 0.5}, "threshold of 0.5"),
        ("short", {"shuffled": True}, "fed by neither its input nor the state"),
        ("short", {"projections": 2}, "2 nn.Linear, where one of each"),
    ],
)
def test_another_network_is_refused(tmp_path, variant, changes, words):
    weights = Weights(variant, constant=True)
    path = write(tmp_path, checkpoint(encoder(variant, weights, **changes)))
    with pytest.raises(UserError, match=words) as error:
        read_released_encoder(path)
    assert "lm_sje.t7" in str(error.value)


def test_another_width_is_kept(tmp_path):
    path = write(tmp_path, encoder("short", Weights("short", width=320, constant=True)))
    found = read_released_encoder(path)
    assert found.projection.in_features == 320
    found.save(tmp_path / "encoder.safetensors")
    again = load_text_encoder(tmp_path / "encoder.safetensors")
    assert np.array_equal(again.encode(["a rose"]), found.encode(["a rose"]))


def test_steps_that_do_not_share_their_weights_are_refused(tmp_path):
    biases = [np.full(256, n, np.float32) for n in range(7)]
    path = write(tmp_path, encoder("short", Weights("short"), another_layer=biases))
    with pytest.raises(UserError, match="another U in step 3 than in the others"):
        read_released_encoder(path)


def test_something_else_is_refused(tmp_path):
    for value in (table(protos=table(enc_doc="x")), sequence([1]), module("Linear"), None, 3):
        with pytest.raises(UserError, match=r"lm_sje.*protos\.enc_doc"):
            read_released_encoder(write(tmp_path, value))


def test_a_damaged_encoder_never_crashes_the_reader(tmp_path):
    content = torch7(checkpoint(encoder("short", Weights("short", constant=True))))
    path, random = tmp_path / "damaged.t7", np.random.default_rng(0)
    path.write_bytes(content)
    read_released_encoder(path)
    refused = 0
    for turn in range(60):
        damaged = np.frombuffer(content, np.uint8).copy()
        if turn % 3 == 0:
            damaged = damaged[: turn * len(content) // 60]
        else:
            damaged[random.integers(0, len(content), 3)] = random.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        try:
            read_released_encoder(path)
        except UserError:
            refused += 1
    assert refused >= 20


def image_file(folder, name, captions, image=None):
    """As the loaders of icml2016 read it: `char` is 201 × captions."""
    places = characters(captions).numpy().T
    features = tensor(np.zeros((len(captions), 4), np.float32))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.t7"
    image = image or f"{folder.name}/{name}.jpg"
    value = table(char=tensor(places.astype(np.float64)), img=image, txt=features)
    path.write_bytes(torch7(value))
    return path


TEN = [f"flower no. {n}: a 'pale-yellow' one; {'petals ' * n}end" for n in range(10)]


def test_captions_of_an_image(tmp_path):
    found = read_image_captions(image_file(tmp_path / "class_00001", "image_06734", TEN))
    assert found.image == "image_06734"
    assert found.captions == tuple(TEN)


def test_every_place_of_the_alphabet_and_gaps(tmp_path):
    # Written out: a, the first and the last place of the hyphen, a gap, the space, z; then zeros.
    places = np.zeros((201, 2), np.uint8)
    places[:6, 0] = [1, 37, 60, 0, 70, 26]
    path = tmp_path / "image_00001.t7"
    path.write_bytes(torch7(table(img="jpg/image_00001.jpg", char=tensor(places))))
    assert read_image_captions(path).captions == (f"a--{UNKNOWN} z",)
    places = characters([ALPHABET]).numpy().reshape(1, 201, 1)
    path.write_bytes(torch7(tensor(places)))
    assert read_class_captions(path) == [[ALPHABET]]


def test_captions_survive_to_the_encoder(tmp_path):
    strange = ["café, no. 1", "plain", " x"]
    found = read_image_captions(image_file(tmp_path, "image_1", strange)).captions
    np.testing.assert_array_equal(characters(found), characters(strange))


def class_file(path, images):
    path.parent.mkdir(parents=True, exist_ok=True)
    places = np.stack([characters(captions).numpy().T for captions in images])
    path.write_bytes(torch7(tensor(places.astype(np.float64))))
    return path


def test_captions_of_a_class(tmp_path):
    images = [TEN, TEN[::-1], TEN]
    assert read_class_captions(class_file(tmp_path / "class_00001.t7", images)) == images


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (np.zeros((10, 201)), r"a tensor \(10, 201\), expected a tensor \(201, captions\)"),
        (np.zeros((201,)), r"a tensor \(201,\)"),
        (np.full((201, 1), 71), "found 71"),
        (np.full((201, 1), -1), "found -1"),
        (np.full((201, 1), 0.5), "found 0.5"),
        (np.full((201, 1), np.nan), "found nan"),
    ],
)
def test_other_tensors_are_refused(tmp_path, places, words):
    path = tmp_path / "image_00001.t7"
    path.write_bytes(torch7(table(img="image_00001.jpg", char=tensor(places))))
    with pytest.raises(UserError, match=words):
        read_image_captions(path)


@pytest.mark.parametrize("image", [3, "", "a\0b.jpg", "x" * 300])
def test_an_image_without_a_proper_name_is_refused(tmp_path, image):
    path = tmp_path / "image_00001.t7"
    path.write_bytes(torch7(table(img=image, char=tensor(np.ones((201, 1))))))
    with pytest.raises(UserError, match="with img"):
        read_image_captions(path)
    with pytest.raises(UserError, match=r"expected a tensor \(images, 201, captions\)"):
        read_class_captions(path)


def convert(*arguments):
    return convert_text.main([str(argument) for argument in arguments])


def test_convert_weights(tmp_path, capsys):
    path = write(tmp_path, checkpoint(encoder("short", Weights("short", constant=True))))
    output = tmp_path / "encoder.safetensors"
    assert convert("--weights", path, "--output", output) == 0
    assert "variant short" in capsys.readouterr().out
    assert load_text_encoder(output).embedding_dim == EMBEDDING
    with pytest.raises(UserError, match=r"--output: .* exists"):
        convert("--weights", path, "--output", output)


def test_convert_captions_of_images(tmp_path):
    for name, captions in (("image_06734", TEN), ("image_06735", TEN[::-1])):
        image_file(tmp_path / "icml" / "class_00001", name, captions)
    (tmp_path / "icml" / "allclasses.txt").write_text("class_00001\n")
    assert convert("--captions", tmp_path / "icml", "--output", tmp_path / "out") == 0
    folder = tmp_path / "out" / "text_c10" / "class_00001"
    assert read_captions(folder / "image_06734.txt") == tuple(TEN)
    assert read_captions(folder / "image_06735.txt") == tuple(TEN[::-1])
    assert len(list(folder.iterdir())) == 2


def test_convert_captions_of_classes(tmp_path, capsys):
    class_file(tmp_path / "cvpr" / "001.Albatross.t7", [TEN, TEN[::-1]])
    assert convert("--captions", tmp_path / "cvpr", "--output", tmp_path / "numbered") == 0
    assert "--image_list" in capsys.readouterr().out
    folder = tmp_path / "numbered" / "text_c10" / "001.Albatross"
    assert read_captions(folder / "00002.txt") == tuple(TEN[::-1])
    images = tmp_path / "images.txt"
    images.write_text("1 001.Albatross/A_46_18.jpg\n2 001.Albatross/A_9_34.jpg\n3 002.B/C.jpg\n")
    named = tmp_path / "named"
    convert("--captions", tmp_path / "cvpr", "--image_list", images, "--output", named)
    folder = named / "text_c10" / "001.Albatross"
    assert read_captions(folder / "A_9_34.txt") == tuple(TEN[::-1])
    images.write_text("1 001.Albatross/A_46_18.jpg\n")
    with pytest.raises(UserError, match=r"found 1 images of 001\.Albatross, expected 2"):
        convert("--captions", tmp_path / "cvpr", "--image_list", images, "--output", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_what_cannot_be_converted(tmp_path):
    image_file(tmp_path / "same" / "class_00001", "a", TEN, "x/image.jpg")
    image_file(tmp_path / "same" / "class_00001", "b", TEN, "y/image.jpg")
    image_file(tmp_path / "blank" / "class_00001", "a", [" "])
    out = tmp_path / "out"
    for arguments, words in [
        (["--captions", tmp_path, "--weights", tmp_path], "found both"),
        ([], "found neither"),
        (["--captions", tmp_path], "found neither in"),
        (["--captions", tmp_path / "same"], "twice"),
        (["--captions", tmp_path / "blank"], "no caption"),
    ]:
        with pytest.raises(UserError, match=words):
            convert(*arguments, "--output", out)
    with pytest.raises(UserError, match="safetensors"):
        convert("--weights", tmp_path / "x.t7", "--output", out)
    assert not out.exists()

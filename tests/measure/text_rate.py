"""Encoding rates: python -m tests.measure.text_rate [--sentence MODEL] [--threads N].

Captions a second of the char-CNN-RNN (random weights, the released architecture), of a sentence
encoder, and of a CLIP text tower with random weights; then again, when all are in the cache.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from sdn_ray.text.cache import encode_cached
from sdn_ray.text.char_cnn_rnn import CharCnnRnn
from sdn_ray.text.pretrained import ClipModel
from sdn_ray.text.sentence import SentenceEncoder, open_sentence_encoder

COLOURS = ("red", "yellow", "purple", "white", "orange", "pink")


def distinct_captions(count: int) -> list[str]:
    """Captions of ordinary length, no two alike."""
    draws = random.Random(0)
    return [
        f"this {draws.choice(['small', 'large', 'round', 'tall'])} flower has {number} "
        f"{draws.choice(COLOURS)} petals around a {draws.choice(COLOURS)} center"
        for number in range(count)
    ]


def random_clip(folder: Path) -> SentenceEncoder:
    """The text tower of CLIP ViT-B/32 in shape, its weights random.

    Its tokenizer knows letters alone: every caption has as many tokens as letters, up to 77.
    """
    letters = [chr(code) for code in range(33, 127)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{one}</w>" for one in letters)]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    config = CLIPTextConfig(bos_token_id=0, eos_token_id=1, pad_token_id=1)
    return SentenceEncoder(ClipModel(CLIPTextModelWithProjection(config), tokenizer))


def measure(name: str, encode, count: int) -> None:
    """Print the rate of ``count`` captions, and what they cost when asked for again."""
    captions = distinct_captions(count)
    encode(captions[:64])
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        encode_cached(encode, captions, Path(folder), "rate")
        first = time.perf_counter() - began
        began = time.perf_counter()
        encode_cached(encode, captions, Path(folder), "rate")
        again = time.perf_counter() - began
    print(
        f"{name}: {count:,} captions in {first:.1f} s ({count / first:,.0f}/s); again from the "
        f"cache {again:.2f} s ({first / again:,.0f} times as fast)",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentence", default="sentence:all-MiniLM-L6-v2")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    measure("char-CNN-RNN, long", CharCnnRnn("long").eval().encode, 100_000)
    measure(options.sentence, open_sentence_encoder(options.sentence).encode, 10_000)
    with tempfile.TemporaryDirectory() as folder:
        measure("CLIP text tower", random_clip(Path(folder)).encode, 2_000)


if __name__ == "__main__":
    main()

"""Whatever is malformed costs one line that names it, at once, and nothing that was written."""

import json
import pickle
import shutil
import signal
import struct
import time
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdn_ray.files import file_hashes
from sdn_ray.models.export import export_model
from sdn_ray.models.generator import Generator
from sdn_ray.models.plan import Plan
from sdn_ray.runs.command_line import run_command
from sdn_ray.text.char_cnn_rnn import CharCnnRnn
from tests.text.torch7_writer import Storage, Tensor, torch7

CPU_SECONDS = 5  # of this process, since a machine may have other work
HANG_SECONDS = 60  # asleep, such as waiting for a network


@dataclass(frozen=True)
class Case:
    """A command with ``{f}`` for the test's folder, files to damage, and words of its error."""

    name: str
    command: str
    words: str
    files: dict[str, bytes | str] = field(default_factory=dict)


def make_good(folder: Path, material) -> None:
    """A file of every kind as it should be."""
    plan = Plan.parse("4,M,6")
    generator = Generator(plan, embedding_dim=8, image_size=32, fc_width=16, samples=2)
    generator.reset_parameters(0)
    CharCnnRnn("short", embedding_dim=8, cnn_dim=4).save(folder / "encoder.safetensors")
    export_model(folder / "model", generator, folder / "encoder.safetensors", {})
    (folder / "config.yaml").write_text(
        f"dataset: {{name: oxford_flowers, root: {material.flowers}, cache: {folder}/cache}}\n"
        f"teacher: {{weights: {material.teacher}}}\n"
        f"tracking: {{uri: 'sqlite:///{folder}/mlflow.db'}}\n"
    )
    (folder / "space.yaml").write_text("seed: {choice: [0, 1]}\n")
    (folder / "captions.txt").write_text("a red flower\n")
    for name in ("images", "drawn"):
        (folder / name).mkdir()
        for index in range(12):
            Image.new("RGB", (32, 32)).save(folder / name / f"{index}.png")
    (folder / "images" / "request.json").write_text('{"origin": {}}')
    lines = [json.dumps({"file": f"{index}.png", "index": index}) for index in range(12)]
    (folder / "drawn" / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    for name in ("run", "study"):
        (folder / name).mkdir()
        shutil.copy(folder / "config.yaml", folder / name)
        (folder / name / "mlflow.json").write_text(
            json.dumps(
                {"uri": f"sqlite:///{folder}/mlflow.db", "experiment_id": "1", "run_id": "a"}
            )
        )
    shutil.copytree(folder / "model", folder / "run" / "model")
    (folder / "run" / "scores.json").write_text('{"ssim": 0.5}')
    (folder / "run" / "metrics.jsonl").write_text('{"epoch": 1, "stage": "a", "loss": 1.0}\n')
    shutil.copy(folder / "space.yaml", folder / "study")
    (folder / "study" / "study.json").write_text('{"trials": 2}')
    (folder / "set").mkdir()
    (folder / "set" / "species.json").write_text('{"settings": {}, "species": {}}')


def yaml_cases():
    laughs = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 30)
    )
    contents = {
        "bytes": (bytes(range(256)), "x.yaml"),
        "utf-16": ("seed: 1\n".encode("utf-16"), "x.yaml"),
        "latin-1": ("dataset: {root: '/tmp/\xe9'}\n".encode("latin-1"), "x.yaml"),
        "empty": ("", "x.yaml"),
        "a list": ("- seed\n- 1\n", "x.yaml"),
        "text": ("root:x:0:0:root:/root:/bin/sh\nno yaml here at all", "x.yaml"),
        "null": ("null\n", "x.yaml"),
        "deep": ("seed: " + "[" * 5000, "x.yaml"),
        "deep but whole": ("seed: " + "[" * 90 + "]" * 90, "x.yaml"),
        "deep by indentation": (
            "".join(" " * depth + f"a{depth}:\n" for depth in range(300)),
            "x.yaml",
        ),
        "python tag": ("seed: !!python/object/apply:os.system ['touch pwned']\n", "x.yaml"),
        "own tag": ("seed: !mine 3\n", "x.yaml"),
        "recursive alias": ("seed: &a [*a]\n", "x.yaml"),
        "laughs": (laughs, "x.yaml"),
        "a name twice": ("seed: 1\nseed: 2\n", "seed found twice"),
        "a list as a name": ("? [a, b]\n: 1\n", "x.yaml"),
        "no such alias": ("seed: *b\n", "x.yaml"),
        "tabs": ("dataset:\n\tname: cub\n", "x.yaml"),
        "two documents": ("seed: 1\n---\nseed: 2\n", "x.yaml"),
        "too large": ("# " + "x" * 2_000_000 + "\nseed: 1\n", "x.yaml"),
        "no date": ("seed: 2001-99-99\n", "x.yaml"),
        "a number of 5,000 digits": ("seed: " + "9" * 5000 + "\n", "x.yaml"),
        "an unknown name": ("sede: 1\n", "sede"),
    }
    for name, (content, words) in contents.items():
        yield Case(f"config, {name}", "train --config {f}/x.yaml", words, {"x.yaml": content})
    for name in ("bytes", "utf-16", "empty", "a list", "deep", "python tag", "laughs", "no date"):
        content = contents[name][0]
        yield Case(
            f"space, {name}",
            "tune --config {f}/config.yaml --space {f}/x.yaml --output {f}/new",
            "x.yaml",
            {"x.yaml": content},
        )
    yield Case("config, not there", "train --config {f}/none.yaml", "none.yaml")
    yield Case("config, a folder", "train --config {f}", "--config")


def option_cases():
    nulls = [
        "dataset",
        "teacher",
        "text",
        "generator",
        "distillation",
        "training",
        "evaluation",
        "tracking",
        "seed",
        "teacher.fit",
        "distillation.stage_one",
        "dataset.name",
        "dataset.image_size",
        "dataset.skip_bad",
        "text.encoder",
        "text.weights",
        "text.embedding_dim",
        "generator.fc_width",
        "distillation.scheme",
        "distillation.weight_factors",
        "distillation.stage_one.epochs",
        "training.batch_size",
        "training.precision",
        "evaluation.images",
        "tracking.experiment",
    ]
    for option in nulls:
        *sections, last = option.split(".")
        text = "".join(f"{'  ' * d}{name}:\n" for d, name in enumerate(sections))
        text += "  " * len(sections) + f"{last}: null\n"
        yield Case(f"null {option}", "train --config {f}/x.yaml", option, {"x.yaml": text})
    values = {
        "seed": ("-1", "text", "1.5", "[1]", "{a: 1}", "1e400"),
        "distillation.stage_one.learning_rate": (".nan", ".inf", "-.inf", "0", "true"),
        "distillation.weight_factors": ("{conv1: .inf}", "[1]", "{conv1: a}"),
        "teacher.plan": (
            "4x100000000000",
            "100000000000",
            "4x999999999",
            "M",
            "''",
            "'4,,4'",
            "4x0",
        ),
        "generator.fc_width": ("1000000000000",),
        "text.embedding_dim": ("1000000000000",),
        "dataset.image_size": ("1000000000000", "7"),
        "dataset.root": ('"\\0"', "''", "~nouser/x", "x" * 5000),
        "dataset.cache": ("{f}/captions.txt", "{f}/captions.txt/below", "/proc/x", "~nouser"),
        "text.embeddings": ("~nouser/x", '"\\0"'),
        "storage": ("s3:///x", "nosuch://x/y", "{f}/captions.txt/below"),
        "tracking.uri": (
            "postgresql+nosuchdriver://a/b",
            "sqlite:///{f}/captions.txt/below.db",
            "sqlite:////proc/x.db",
        ),
    }
    for option, found in values.items():
        *sections, last = option.split(".")
        for value in found:
            text = value
            for name in (last, *reversed(sections)):
                text = f"{name}: {text}" if name == last else f"{{{text}}}"
                if name != last:
                    text = f"{name}: {text}"
            words = option if option not in ("teacher.plan", "text.embeddings") else "te"
            base = "train --config {f}/config.yaml --config {f}/x.yaml --output {f}/new"
            if option == "teacher.plan":
                base += " --teacher.weights fit"
            yield Case(f"{option} {value[:30]}", base, words, {"x.yaml": text + "\n"})


def path_cases():
    commands = {
        "train": "train --config {f}/config.yaml",
        "tune": "tune --config {f}/config.yaml --space {f}/space.yaml",
        "train_text": "train_text --config {f}/config.yaml",
        "generate": "generate --model {f}/model --text flower",
        "evaluate": "evaluate --images {f}/images --classifier squeezenet1_1:{squeezenet}",
        "figures": "figures diverse --model {f}/model --text flower",
        "convert_text": "convert_text --weights {f}/x.t7",
    }
    ends = {"figures": ".png", "convert_text": ".safetensors", "evaluate": ".json"}
    outputs = ("/proc/x", "{f}/captions.txt/x", "x" * 300, "~nouser/x")
    for name, command in commands.items():
        for output in outputs:
            yield Case(
                f"{name} --output {output[:20]}",
                f"{command} --output {output}{ends.get(name, '')}",
                "--output",
            )
    for option in ("--model {f}/none", "--model ~nouser/x", "--model " + "x" * 5000):
        yield Case(f"generate {option[:30]}", f"generate {option} --text a --output o", "--model")
    for url in ("postgresql+nosuchdriver://a/b", "nosuch", "sqlite:////proc/x.db"):
        yield Case(
            f"study_storage {url}",
            f"{commands['tune']} --output {{f}}/new --study_storage {url}",
            "--study_storage",
        )


def json_cases():
    broken: dict[str, bytes | str] = {
        "empty": "",
        "a list": "[]",
        "null": "null",
        "bytes": bytes(range(256)),
        "other keys": '{"a": 1}',
        "deep": "[" * 100_000,
    }
    readers = {
        "run/mlflow.json": "train --resume {f}/run",
        "run/scores.json": "train --resume {f}/run",
        "study/mlflow.json": "tune --resume {f}/study",
        "study/study.json": "tune --resume {f}/study",
        "model/config.json": "generate --model {f}/model --text a --output {f}/new",
        "images/request.json": "evaluate --images {f}/images --reference {f}/set",
        "set/species.json": "generate --model {f}/model --reference {f}/set --output {f}/new",
    }
    for file, command in readers.items():
        for name, content in broken.items():
            if (file, name) == ("run/scores.json", "other keys"):
                content = '{"a": "b"}'
            yield Case(f"{file}, {name}", command, Path(file).name, {file: content})
    settings = {
        "trials": (-1, 0, 1e400, "many", None, True),
        "concurrent": (0, 1.5),
        "gpus_per_worker": (-1, float("nan")),
        "sampler": ("x", 3),
        "objective": ("x",),
        "prune": ("yes",),
        "study_storage": (3,),
    }
    for option, values in settings.items():
        for value in values:
            content = json.dumps({option: value})
            yield Case(
                f"study.json {content}",
                "tune --resume {f}/study",
                option,
                {"study/study.json": content},
            )
    shape = {
        "plan": "4,M,6",
        "embedding_dim": 8,
        "image_size": 32,
        "fc_width": 16,
        "samples": 2,
        "batch_norm": False,
    }
    changes = {
        "plan": (3, "x", "4x999999999", "", "4,M,7"),
        "embedding_dim": (10**12, -1, 9, "8"),
        "image_size": (10**12, 31, 0),
        "fc_width": (10**30, 17),
        "samples": (10**9, 0),
        "batch_norm": (True, 1),
    }
    for option, values in changes.items():
        for value in values:
            content = json.dumps({"generator": shape | {option: value}, "text_encoder": True})
            yield Case(
                f"config.json {option} {value}",
                readers["model/config.json"],
                "--model",
                {"model/config.json": content},
            )
    origins = ({"split": 3}, {"config": {"dataset": 3}}, {"tracked": {"uri": 1}}, {"config": []})
    for origin in origins:
        content = json.dumps({"generator": shape, "text_encoder": True, "origin": origin})
        yield Case(
            f"config.json origin {origin}",
            readers["model/config.json"],
            "config.json",
            {"model/config.json": content},
        )
    lines = ("[]", "null", '{"file": 3}', '{"index": 1}', '{"file": "0.png", "row": "a"}', "{")
    for line in lines:
        yield Case(
            f"manifest {line}",
            "evaluate --images {f}/drawn --classifier squeezenet1_1:{squeezenet}",
            "manifest.jsonl",
            {"drawn/manifest.jsonl": line + "\n"},
        )
    for line in ("[]", '{"epoch": "a"}', "no json"):
        yield Case(
            f"metrics {line}",
            "train --resume {f}/run",
            "metrics.jsonl, line 1",
            {"run/metrics.jsonl": line + "\n"},
        )


def zipped(**arrays: bytes) -> bytes:
    import io

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy_header(shape: str, kind: str = "<f4") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def multiplied(depth: int) -> bytes:
    value: list = [1.0]
    for _ in range(depth):
        value = [value, value]
    return pickle.dumps(value)


def matlab(content: bytes) -> bytes:
    return b" " * 126 + b"IM" + content


def compressed(content: bytes) -> bytes:
    packed = zlib.compress(content)
    return struct.pack("<II", 15, len(packed)) + packed


class Encoded:
    """What a pickle makes of 10 MB, again and again."""

    def __reduce__(self):
        import codecs

        return codecs.encode, ("x" * 10, "hex")


def data_cases():
    train = "train --config {f}/config.yaml --text.embeddings {f}/x{s} --output {f}/new"
    names = npy_header("(1,)", "<U4") + "abcd".encode("utf-32-le")
    embeddings = {
        ".npz, no archive": ("x.npz", b"PK\x03\x04"),
        ".npz, 16 GiB without data": (
            "x.npz",
            zipped(filenames=names, embeddings=npy_header("(1, 1, 4294967296)")),
        ),
        ".npz, more than there is": (
            "x.npz",
            zipped(filenames=names, embeddings=npy_header("(1, 1000000, 100000000)")),
        ),
        ".npz, other arrays": ("x.npz", zipped(a=names)),
        ".npz, negative": ("x.npz", zipped(filenames=names, embeddings=npy_header("(-1, 4)"))),
    }
    for name, (file, content) in embeddings.items():
        command = train.replace("{s}", ".npz") + " --training.device cpu"
        yield Case(f"embeddings{name}", command, file, {file: content})
    pickles = {
        "multiplies": multiplied(40),
        "calls": pickle.dumps([Encoded()]),
        "empty": b"",
        "other names": pickle.dumps({"a": 1}),
        "system": b"cos\nsystem\n(S'touch pwned'\ntR.",
    }
    for name, content in pickles.items():
        files = {
            "e/char-CNN-RNN-embeddings.pickle": content,
            "e/filenames.pickle": pickle.dumps(["a"]),
        }
        command = "train --config {f}/config.yaml --text.embeddings {f}/e --output {f}/new"
        yield Case(f"pickle, {name}", command, "char-CNN-RNN-embeddings.pickle", files)
    t7 = {
        "stride 0": torch7(Tensor(Storage(np.zeros(1, "f4")), (2**20, 2**19), (0, 0), 1)),
        "empty": b"",
        "negative": torch7(Tensor(Storage(np.zeros(5, "f4")), (2,), (-1,), 3)),
    }
    for name, content in t7.items():
        command = "convert_text --weights {f}/x.t7 --output {f}/new.safetensors"
        yield Case(f"t7, {name}", command, "x.t7", {"x.t7": content})
    zeros = bytes(200_000_000)
    mats = {
        "a bomb": matlab(compressed(struct.pack("<II", 14, len(zeros)) + zeros)),
        "nested": matlab(compressed(compressed(compressed(b"")))),
        "cut": matlab(b"\x0f\0\0\0"),
    }
    for name, content in mats.items():
        files = {"flowers/imagelabels.mat": content, "flowers/jpg/image_00001.jpg": b""}
        files |= {"flowers/text_c10/class_00001/image_00001.txt": "a flower\n"}
        command = "train --config {f}/config.yaml --dataset.root {f}/flowers --output {f}/new"
        yield Case(f"mat, {name}", command, "imagelabels.mat", files)
    own = "train --config {f}/config.yaml --dataset.name folder --dataset.root {f}/own"
    drawn = "evaluate --images {f}/drawn --classifier squeezenet1_1:{squeezenet} --reference"
    tables = {
        "no text": ("file_name\n1.png\n", "text"),
        "a way out": ("file_name,text\n../a,b", "../a"),
    }
    for name, (content, words) in tables.items():
        for command in (f"{own} --output {{f}}/new", f"{drawn} {{f}}/own"):
            files = {"own/metadata.csv": content}
            yield Case(f"{command.split()[0]}, table, {name}", command, words, files)
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})
    tensors = {
        "empty": b"",
        "no header": b"\xff" * 16,
        "more than there is": struct.pack("<Q", len(header)) + header.encode(),
    }
    for name, content in tensors.items():
        for file, command in {
            "model/generator.safetensors": "generate --model {f}/model --text a --output {f}/new",
            "model/text_encoder.safetensors": "generate --model {f}/model --text a --output {f}/n",
            "x.safetensors": "train --config {f}/config.yaml --teacher.weights {f}/x.safetensors",
        }.items():
            yield Case(f"{file}, {name}", command, Path(file).name, {file: content})
    captions = {
        "latin-1": "caf\xe9\n".encode("latin-1"),
        "empty": b"",
        "an empty line": b"a\n\nb\n",
        "utf-16": "a\n".encode("utf-16"),
    }
    for name, content in captions.items():
        command = "generate --model {f}/model --captions {f}/captions.txt --output {f}/new"
        yield Case(f"captions, {name}", command, "captions.txt", {"captions.txt": content})
    yield Case(
        "a lone surrogate", "generate --model {f}/model --text \udce9 --output {f}/new", "--text"
    )
    yield Case("no caption", "generate --model {f}/model --text= --output {f}/new", "--text")


def space_cases():
    spaces = {
        "total_epochs: 4\nstage_one_fraction: {choice: [a]}": "stage_one_fraction",
        "total_epochs: 4\nstage_one_fraction: {choice: [.inf]}": "stage_one_fraction",
        "total_epochs: 4\nstage_one_fraction: {choice: [null]}": "stage_one_fraction",
        "total_epochs: 4\nstage_one_fraction: {uniform: [.nan, 1]}": "stage_one_fraction",
        "total_epochs: 4\nstage_one_fraction: {uniform: [0.1, 7.0]}": "stage_one_fraction",
        "total_epochs: .inf\nstage_one_fraction: {uniform: [0.1, 0.7]}": "total_epochs",
        "distillation.stage_one.learning_rate: {loguniform: [1.0e-4, .inf]}": "learning_rate",
        "distillation.stage_one.learning_rate: {choice: [null]}": "learning_rate",
        "distillation.stage_one.epochs: {int: [1, 2.5]}": "epochs",
        "seed: {choice: [2001-01-01]}": "seed",
        "seed: null": "seed",
        "seed: {choice: {}}": "seed",
        "teacher.plan: {choice: [4x999999999]}": "teacher plan",
    }
    for content, words in spaces.items():
        yield Case(
            f"space {content[-40:]}",
            "tune --config {f}/config.yaml --space {f}/x.yaml --output {f}/new",
            words,
            {"x.yaml": content + "\n"},
        )


def found_by_others():
    """What a second look found."""
    for tag in ("bool maybe", "timestamp x", "int ''", "float ''"):
        yield Case(
            f"tag {tag}", "train --config {f}/x.yaml", "x.yaml", {"x.yaml": f"seed: !!{tag}\n"}
        )
    numbers = {"0x" + "f" * 5000: "hexadecimal", "9" * 400: "400 digits"}
    for value, name in numbers.items():
        for option in ("seed", "distillation.stage_one.learning_rate"):
            *sections, last = option.split(".")
            text = f"{last}: {value}"
            for section in reversed(sections):
                text = f"{section}: {{{text}}}"
            yield Case(f"{option} {name}", "train --config {f}/x.yaml", "", {"x.yaml": text})
    config = "train --config {f}/config.yaml --output {f}/new"
    for uri in ("http://[bad", "postgresql://a:b:c", "sqlite:///{f}/q.db?timeout=abc"):
        yield Case(f"tracking {uri}", f"{config} --tracking.uri {uri}", "tracking.uri")
    for uri in ("s3://", "gs://", "s3://\udce9", "hdfs://x"):
        yield Case(f"storage {uri!a}", f"{config} --storage {uri}", "storage")
    grid = f"{{grid: {list(range(1, 101))}}}"
    tune = "tune --config {f}/config.yaml --space {f}/x.yaml --output {f}/new"
    spaces = {
        "seed: {int: [0, 1" + "0" * 400 + "]}": "digits",
        "total_epochs: 0x" + "f" * 5000: "digits",
        "distillation.weight_factors.conv3.x: {uniform: [0.0, 1.0]}": "conv3.x",
        "distillation.weight_factors.: {uniform: [0.0, 1.0]}": "weight_factors",
        "seed: {grid: [1, 2, 1]}": "1 twice",
        f"seed: {{choice: {list(range(3000))}}}": "3000 values",
        f"seed: {grid}\ntraining.batch_size: {grid}": "10000 trials",
    }
    for place, (space, words) in enumerate(spaces.items()):
        yield Case(f"odd space {place}", tune, words, {"x.yaml": space + "\n"})
    yield Case(
        "a study in memory",
        tune.replace("x.yaml", "space.yaml") + " --study_storage sqlite://",
        "--study_storage",
    )
    yield Case(
        "a file within a file",
        "train --config {f}/x.yaml",
        "x.yaml",
        {"x.yaml": "config: {f}/config.yaml\n"},
    )
    lines = (
        '{"file": "0.png", "index": 1e999}',
        '{"file": "0.png", "class": 1.5}',
        '{"file": "0.png", "caption": 3}',
        '{"file": "0.png", "caption": "\\ud800"}',
        "[" * 100_000,
    )
    for place, line in enumerate(lines):
        yield Case(
            f"odd line {place}",
            "evaluate --images {f}/drawn --classifier squeezenet1_1:{squeezenet}",
            "manifest.jsonl, line 1",
            {"drawn/manifest.jsonl": line + "\n"},
        )
    evaluate = "evaluate --images {f}/drawn --classifier squeezenet1_1:{squeezenet}"
    yield Case("a device", f"{evaluate} --output /dev/full", "--output")
    yield Case("a large seed", f"{evaluate} --seed 1{'0' * 400}", "--seed")
    yield Case("no model", "evaluate --model= --reference {f}", "--model")
    long = "x" * 1_000_000
    drawing = "generate --model {f}/model --output {f}/new"
    yield Case("a long caption", f"{drawing} --text {long}", "--text")
    captions = {"captions.txt": long + "\n"}
    yield Case("a long line", f"{drawing} --captions {{f}}/captions.txt", "captions.txt", captions)
    steps = "figures interpolation --model {f}/model --text a --to b --output {f}/a.png --steps"
    yield Case("many steps", f"{steps} 1000000000", "--steps")
    names = npy_header("(1000000000,)", "<U0")
    archives = {
        "names without characters": zipped(filenames=names, embeddings=npy_header("(1, 1, 1)")),
        "an unclosed header": zipped(filenames=npy_header("(1, 1, 4"), embeddings=b""),
    }
    for name, content in archives.items():
        command = f"{config} --text.embeddings {{f}}/x.npz"
        yield Case(name, command, "x.npz", {"x.npz": content})
    yield Case("no output", "train --config {f}/config.yaml --output=", "--output")
    yield Case("no run", "train --resume s3://", "--resume")
    yield Case("a new line in a path", "train --config a\nb", "--config")
    yield Case("no classifier", f"{config} --evaluation.classifier=", "classifier")
    classifier = "--evaluation.classifier squeezenet1_1:{f}/captions.txt"
    yield Case("captions as a classifier", f"{config} {classifier}", "captions.txt")
    pools = "4" + ",M" * 20_000
    fitted = "--teacher.weights fit --teacher.plan"
    yield Case("20,000 pools", f"{config} {fitted} {pools}", "plan")
    yield Case("benchmark of 65536x3", f"benchmark {fitted} 65536x3", "teacher.plan")
    yield Case("a very long unknown option", "train --" + "x" * 100_000, "xxx")


CASES = [
    *found_by_others(),
    *yaml_cases(),
    *option_cases(),
    *path_cases(),
    *json_cases(),
    *data_cases(),
    *space_cases(),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory, drawn_material):
    folder = tmp_path_factory.mktemp("good")
    make_good(folder, drawn_material)
    return folder


@contextmanager
def bounded():
    """End what hangs, and see that it took little of the processor."""

    def ring(*_):
        raise AssertionError(f"still at it after {HANG_SECONDS} s")

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(HANG_SECONDS)
    began = time.process_time()
    try:
        yield
    finally:
        signal.alarm(0)
    assert time.process_time() - began <= CPU_SECONDS


def test_there_are_enough_cases():
    assert len(CASES) >= 150
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_one_line(case, good, tmp_path, drawn_material, capfd, monkeypatch):
    folder = tmp_path / "f"
    shutil.copytree(good, folder)
    for path in folder.rglob("*"):  # what names the folder it was made in
        if path.suffix in (".yaml", ".json"):
            path.write_text(path.read_text().replace(str(good), str(folder)))
    for name, content in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            content = content.replace("{f}", str(folder)).encode()
        path.write_bytes(content)
    monkeypatch.chdir(tmp_path)
    for name in ("sdn_ray.training.session", "sdn_ray.search.session"):
        monkeypatch.setattr(f"{name}.start_ray", lambda terminal: pytest.fail("Ray was started"))
    name, *arguments = case.command.split(" ")
    places = {"{f}": str(folder), "{squeezenet}": str(drawn_material.squeezenet)}
    for key, value in places.items():
        arguments = [argument.replace(key, value) for argument in arguments]
    before = file_hashes(folder)
    main = import_module(f"sdn_ray.{name}").main
    with bounded():
        status = run_command(main, arguments)
    out, error = capfd.readouterr()
    assert status == 2, out
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert len(error) < 1600
    assert case.words in error
    assert "Traceback" not in out + error
    assert before.items() <= file_hashes(folder).items()
    assert not (tmp_path / "pwned").exists()


def test_greyscale_of_16_bits_is_scaled(tmp_path):
    from sdn_ray.data.decoding import decode_rgb

    levels = np.array([[0, 257], [32_896, 65_535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "grey.png")
    expected = [[[0] * 3, [1] * 3], [[128] * 3, [255] * 3]]
    assert decode_rgb(tmp_path / "grey.png", 2, 2).tolist() == expected

"""What can be known to be wrong with an experiment before anything expensive starts."""

import os
import shutil
import sys
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch

from sdn_ray.config import ExperimentConfig, TextConfig
from sdn_ray.data.rows import CaptionedDataset
from sdn_ray.errors import UserError
from sdn_ray.metrics.evaluation import TEST_SPLITS
from sdn_ray.models.classifiers import load_classifier
from sdn_ray.models.image_features import TEACHER
from sdn_ray.models.plan import Plan
from sdn_ray.models.teacher import load_teacher
from sdn_ray.preparation.teacher import FIT as FIT_TEACHER
from sdn_ray.preparation.teacher import fit_plan, teacher_weights
from sdn_ray.text.encoders import CHAR_CNN_RNN, FIT, PRETRAINED, WORDS
from sdn_ray.text.precomputed import read_precomputed
from sdn_ray.text.sentence import KINDS as SENTENCE_KINDS
from sdn_ray.training.build import method_stages
from sdn_ray.training.method_checks import check_method, judge_shape, new_shape, size_options

SMALLEST = 11  # pixels
_BYTES_A_PARAMETER = 16  # itself, its gradient and Adam's two moments, in float32
_MOST_ELSEWHERE = 1 << 40  # bytes; what the workers' machines have is not known yet


def teacher_plan(config: ExperimentConfig) -> Plan:
    """The plan of the teacher that a configuration asks for.

    Raises:
        UserError: when there is none, or its weights cannot be had.
    """
    weights = teacher_weights(config.teacher)
    if weights == FIT_TEACHER:
        return fit_plan(config.teacher)
    return _loaded_plan(weights, config.teacher.plan)


@cache
def _load_classifier(spec: str) -> None:
    """What is wrong with its weights is said here, not by a worker."""
    load_classifier(spec)


@cache
def _load_embeddings(path: str) -> None:
    """What is wrong with them is said before anything starts, and once for a grid of trials."""
    read_precomputed(path)


@cache
def _loaded_plan(weights: str, plan: str | None) -> Plan:
    """Read once, however many trials of a grid have it."""
    return load_teacher(weights, plan).plan


def check_experiment(config: ExperimentConfig) -> None:
    """Refuse impossible combinations, in words that name the option to change.

    Raises:
        UserError: for the first that is found.
    """
    plan = _fitting_plan(config)
    if config.dataset.image_size < SMALLEST:
        raise UserError(
            f"dataset.image_size: found {config.dataset.image_size}, expected at least {SMALLEST}, "
            "the side of the window that SSIM looks through"
        )
    training = config.training
    if training.batch_size % training.workers:
        raise UserError(
            f"training.batch_size: found {training.batch_size}, expected a multiple of "
            f"training.workers ({training.workers}), among whom each batch is divided"
        )
    check_method(config, plan)
    check_memory(config, plan)
    if training.compile:
        _check_compiler()
    _check_text(config.text)
    classifier = config.evaluation.classifier
    if classifier is not None:
        _, colon, file = classifier.partition(":")
        if colon:
            _expect_file(file, "evaluation.classifier", "a weights file after NAME:")
        _load_classifier(classifier)


def _fitting_plan(config: ExperimentConfig) -> Plan:
    """The teacher's plan, which the images fit, and a grid that is no finer than they are.

    Raises:
        UserError: naming the option to change.
    """
    plan, size, grid = teacher_plan(config), config.dataset.image_size, config.teacher.fit.grid
    plan.check_image_size(size)
    if config.teacher.weights == FIT and grid > size:
        raise UserError(
            f"teacher.fit.grid: found {grid}, expected at most dataset.image_size, which is {size}"
        )
    return plan


def check_memory(config: ExperimentConfig, plan: Plan) -> None:
    """Refuse networks that cannot be trained anywhere, before room is made for them.

    Raises:
        UserError: naming the options that make it so large.
    """
    limit, where = _MOST_ELSEWHERE, "a worker of the cluster may have"
    if not os.environ.get("RAY_ADDRESS"):
        limit, where = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "this machine has"
    try:
        with torch.device("meta"):  # shapes alone
            networks = new_shape(config, plan), judge_shape(config, plan)
        parameters = sum(p.numel() for one in networks if one for p in one.parameters())
    except (ArithmeticError, RuntimeError, TypeError):  # more than can be counted
        parameters = sys.maxsize
    wanted = parameters * _BYTES_A_PARAMETER
    if wanted > limit:
        raise UserError(
            f"{size_options(config, plan)} make networks that take {wanted / 1e9:.3g} GB to "
            f"train, and {where} {limit / 1e9:.3g} GB; expected smaller ones"
        )


def _check_text(text: TextConfig) -> None:
    if text.embeddings is not None and text.weights != FIT:
        raise UserError(
            f"text.embeddings: found {text.embeddings} beside text.weights {text.weights}; "
            "expected one of them"
        )
    if text.embeddings is not None:
        return _load_embeddings(text.embeddings)
    _check_encoder(text.encoder)
    own = text.encoder in (CHAR_CNN_RNN, WORDS)
    if text.weights == PRETRAINED and own:
        raise UserError(
            f"text.weights: found {PRETRAINED} with text.encoder {text.encoder}, of which there is "
            "no such thing; expected fit, an encoder's file, or text.encoder sentence:MODEL"
        )
    if text.weights not in (FIT, PRETRAINED):
        if text.encoder != CHAR_CNN_RNN:
            raise UserError(
                f"text.encoder: found {text.encoder} beside text.weights {text.weights}, which "
                "says itself what it is; expected one of them"
            )
        _expect_file(text.weights, "text.weights", "an encoder's file or folder, fit or pretrained")
    if (text.weights == FIT or text.whiten) and text.features != TEACHER:
        _load_classifier(text.features)


def check_sizes(
    config: ExperimentConfig, train_classes: int, train_images: int, test_images: int
) -> None:
    """Refuse parts of a data set that are too small, before hours are spent on them.

    Raises:
        UserError: naming the option to change.
    """
    if train_images < config.training.batch_size:
        raise UserError(
            f"training.batch_size: found {config.training.batch_size}, expected at most the "
            f"{train_images} training images"
        )
    wrong = any(stage.rows.wrong or stage.rows.wrong_captions for stage in method_stages(config))
    if train_classes < 2 and wrong:
        raise UserError(
            f"dataset.validation_classes: it leaves {train_classes} class to train on, expected at "
            "least 2, since wrong captions are those of other classes"
        )
    least = TEST_SPLITS if config.evaluation.classifier else 1
    if config.evaluation.score_test and test_images < least:
        raise UserError(
            f"evaluation.score_test: found {test_images} test images, expected at least {least}; "
            "use more, or --evaluation.score_test false"
        )


def check_classes(config: ExperimentConfig, dataset: CaptionedDataset) -> None:
    """Refuse what needs classes where the images have none, before they are prepared.

    Raises:
        UserError: naming the option to change.
    """
    if dataset.has_classes:
        return
    if config.teacher.weights == FIT_TEACHER:
        raise UserError(
            f"teacher.weights: found {FIT_TEACHER}, but the images of {config.dataset.root} have "
            "no classes to fit a classifier of; expected imagenet or a safetensors file"
        )
    if config.text.patience:
        raise UserError(
            f"text.patience: found {config.text.patience}, but the images of "
            f"{config.dataset.root} have no classes to measure an encoder by; expected none"
        )


def _check_compiler() -> None:
    """torch.compile writes C++ (on a GPU, C) and has it compiled."""
    compiler = os.environ.get("CXX", "g++")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    missing = None
    if shutil.which(compiler) is None:
        missing = f"no compiler {compiler}"
    elif not header.exists():
        missing = f"no {header} (Python's development files)"
    if missing:
        raise UserError(
            f"training.compile: found {missing}; expected both, or --training.compile false"
        )


def check_text_training(config: ExperimentConfig) -> None:
    """Refuse what `train_text` cannot do, in words that name the option to change.

    Raises:
        UserError: for the first that is found.
    """
    text = config.text
    if text.embeddings is not None or text.weights != FIT:
        option = "embeddings" if text.embeddings is not None else "weights"
        found = text.embeddings or text.weights
        raise UserError(
            f"text.{option}: found {found}; train_text trains an encoder, expected text.weights "
            f"{FIT} and no text.embeddings"
        )
    _check_text(text)
    if text.encoder == WORDS:
        raise UserError(
            f"text.encoder: found {WORDS}, which is counted and not trained; expected "
            f"{CHAR_CNN_RNN}, or a sentence or CLIP encoder"
        )
    if text.patience and not config.dataset.validation_classes:
        raise UserError(
            "text.patience: needs validation classes to stop by; found dataset.validation_classes 0"
        )
    if config.storage:
        raise UserError(
            f"storage: found {config.storage}; train_text keeps its run folder alone, expected none"
        )
    if text.features == TEACHER:
        _fitting_plan(config)
    if config.training.workers > 1:
        raise UserError(
            f"training.workers: found {config.training.workers}; the loss compares all captions "
            "of a step with all its images, so train_text has one worker"
        )


def _check_encoder(encoder: str) -> None:
    """Refuse what is no kind of text encoder, or cannot be had here.

    Raises:
        UserError: naming text.encoder.
    """
    if encoder in (CHAR_CNN_RNN, WORDS):
        return
    kind, colon, model = encoder.partition(":")
    if not colon or kind not in SENTENCE_KINDS or not model:
        raise UserError(
            f"text.encoder: found {encoder}, expected {CHAR_CNN_RNN}, {WORDS}, "
            + " or ".join(f"{kind}:MODEL" for kind in SENTENCE_KINDS)
        )
    if find_spec("sentence_transformers") is None:
        raise UserError(
            f'text.encoder: {encoder} needs sentence-transformers; run pip install ".[sentence]"'
        )
    if Path(model).is_absolute() and not Path(model).is_dir():
        raise UserError(f"text.encoder: {model} is no folder; expected a model's folder or name")


def _expect_file(path: str, option: str, expected: str) -> None:
    if not Path(path).exists():
        raise UserError(f"{option}: {path} does not exist; expected {expected}")

"""Everything that settles an experiment, as one tree of frozen dataclasses."""

from dataclasses import dataclass, field
from typing import Literal

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from sdn_ray.config.gans import GanIntClsConfig, GawwnConfig, StackGanConfig
from sdn_ray.errors import checked

MethodName = Literal["sdn", "gan_int_cls", "stackgan", "gawwn"]
Scheme = Literal[
    "image", "stage_one", "stage_two", "joint", "sdn", "sdn_diverse", "sdn_adversarial"
]


@dataclass(frozen=True)
@checked
class DatasetConfig:
    """Which images and captions, and how they are split by class.

    Args:
        name: Which reader: the embedded drawn flowers, Oxford-Flower-102, CUB-200-2011, or a folder
            of one's own captioned images.
        root: Folder of the data set, as it unpacks. Not needed for synthetic_flowers. For folder:
            images and metadata.csv or metadata.jsonl (columns file_name, text and, if there are
            classes, class), Parquet files or one (image, text, class), or WebDataset shards (.tar).
        image_size: Height and width in pixels that every image is resized to, whole.
        validation_classes: How many training classes to hold out for choosing. Where images have no
            classes, here and below each image is a class of its own.
        test_classes: How many classes to draw for testing, where the data set has no class lists.
        test_list: Text file with the names of the classes for testing, one a line, instead of the
            data set's lists or a draw; of images without classes with their names.
        split_seed: Seed of the classes that are drawn.
        skip_bad: Leave out images and captions that cannot be read, and report them.
        cache: Folder for prepared arrays, fitted teachers and text encoders; for several machines,
            shared storage. Default: ~/.cache/sdn_ray.
    """

    name: Literal["synthetic_flowers", "oxford_flowers", "cub", "folder"] = "synthetic_flowers"
    root: str | None = None
    image_size: PositiveInt = 64
    validation_classes: NonNegativeInt = 8
    test_classes: PositiveInt | None = None
    test_list: str | None = None
    split_seed: NonNegativeInt = 0
    skip_bad: bool = False
    cache: str | None = None


@dataclass(frozen=True)
@checked
class FitConfig:
    """Training the teacher as a classifier of the training classes (teacher.weights: fit).

    Args:
        epochs: Passes over the training images.
        batch_size: Images a step.
        learning_rate: Highest rate of the one-cycle schedule.
        grid: The classifier's last layer sees the means of so many by so many parts of each map: 1
            is the mean over all of it, more (at most its pixels) tells classes apart that differ in
            layout.
    """

    epochs: PositiveInt = 8
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 2e-3
    grid: PositiveInt = 1


@dataclass(frozen=True)
@checked
class TeacherConfig:
    """The frozen discriminative network.

    Args:
        plan: vgg11, vgg13, vgg16, vgg19, or widths and pools such as 16,16,M,32,32,M. Empty: what
            the weights file says.
        weights: imagenet (torchvision's), a safetensors file, or fit.
        fit: How `fit` trains.
    """

    plan: str | None = None
    weights: str | None = None
    fit: FitConfig = field(default_factory=FitConfig)


@dataclass(frozen=True)
@checked
class TextConfig:
    """Where caption embeddings come from.

    Args:
        encoder: char_cnn_rnn, words (which words and pairs of neighbouring words a caption has),
            sentence:MODEL (a sentence-transformers model by name or path) or clip:MODEL (a CLIP
            text tower); the latter two need the extra `sentence`.
        weights: fit to train the encoder on the training classes (of a sentence or CLIP encoder a
            linear layer on top), pretrained to take such an encoder as it is, or the file or folder
            of an encoder that sdn_ray wrote.
        features: Image features that `fit` trains against and `whiten` looks at: teacher, or a
            classifier, NAME or NAME:WEIGHTS, such as squeezenet1_1:FILE.
        whiten: Give the generator those directions of the embedding that the training images bear
            out, all of one size, and let `fit` train against features that see layout. Off: the
            embedding as it is, and the means of the teacher's layers.
        embeddings: Precomputed embeddings instead of an encoder: an .npz file, or a folder with
            char-CNN-RNN-embeddings.pickle and filenames.pickle.
        variant: Architecture of the char-CNN-RNN: long (ICML 2016) or short (CVPR 2016).
        embedding_dim: Width of the embedding.
        epochs: Epochs of `fit`; an epoch is as many steps as there are training classes, or, of
            images without classes, as see each image once.
        learning_rate: RMSprop's rate in the first epoch of `fit`.
        decay: Factor on the rate after each epoch of `fit`.
        patience: In train_text, stop after so many epochs without a better zero-shot accuracy on
            the validation classes. Empty: train all epochs.
    """

    encoder: str = "char_cnn_rnn"
    weights: str = "fit"
    features: str = "teacher"
    whiten: bool = True
    embeddings: str | None = None
    variant: Literal["long", "short"] = "long"
    embedding_dim: PositiveInt = 1024
    epochs: PositiveInt = 200
    learning_rate: PositiveFloat = 7e-4
    decay: PositiveFloat = 0.98
    patience: PositiveInt | None = None


@dataclass(frozen=True)
@checked
class GeneratorConfig:
    """The mirror image of the teacher.

    Args:
        fc_width: Width of g-fc8 and g-fc7.
        batch_norm: Batch normalisation after every layer but the last.
        upsampling: nearest or bilinear.
        noise_dim: How many normal numbers are drawn beside the caption; with some, one caption
            gives as many different pictures as one wants. For the scheme sdn_adversarial.
        modulated: What g-fc7 makes of caption and noise scales and shifts every batch
            normalisation, of maps of up to 8 pixels a side place by place.
        activation: relu or leaky_relu, of every layer but the last.
    """

    fc_width: PositiveInt = 4096
    batch_norm: bool = False
    upsampling: Literal["nearest", "bilinear"] = "nearest"
    noise_dim: NonNegativeInt = 0
    modulated: bool = False
    activation: Literal["relu", "leaky_relu"] = "relu"


@dataclass(frozen=True)
@checked
class StageConfig:
    """One stage of distillation.

    Args:
        epochs: Passes over the training images; a stage of 0 epochs is left out.
        learning_rate: Of Adam.
        decay_fraction: Share of the stage's steps, its last, in which the learning rate falls
            linearly to zero; 0 keeps it constant.
    """

    epochs: NonNegativeInt = 100
    learning_rate: PositiveFloat = 1e-4
    decay_fraction: ClosedUnitInterval = 0.0


@dataclass(frozen=True)
@checked
class StageThreeConfig:
    """The third stage of sdn_adversarial, which is not of the paper.

    Heads learn to tell the teacher's features of photographs from those of drawn pictures, and the
    generator learns to be mistaken for a photograph.

    Args:
        epochs: Passes over the training images.
        learning_rate: Of the generator's Adam.
        decay_fraction: Share of the stage's steps, its last, in which both learning rates fall
            linearly to zero; 0 keeps them constant.
        heads_learning_rate: Of the heads' Adam.
        heads_most_width: Channels of a head's widest map: as many as its features have are doubled
            as the map is halved, until they are so many.
        levels: Convolutions whose features have a head, such as conv2_2,conv5_1. Empty: the last of
            each group.
        wrong_captions: Share of photographs with wrong captions in what the heads are to refuse.
        augmentation: Show the heads all pictures in other light, moved, and with a hole.
    """

    epochs: PositiveInt = 100
    learning_rate: PositiveFloat = 2e-4
    decay_fraction: ClosedUnitInterval = 0.0
    heads_learning_rate: PositiveFloat = 4e-4
    heads_most_width: PositiveInt = 64
    levels: str | None = None
    wrong_captions: ClosedUnitInterval = 0.5
    augmentation: bool = True


@dataclass(frozen=True)
@checked
class DistillationConfig:
    """What is learnt from the teacher, and in which order.

    Args:
        scheme: Row of Table 3; a scheme of one stage trains for the epochs of both. Not of the
            paper is sdn_adversarial: stages one and two, then stage three.
        stage_one: Distilling the teacher's features directly (eq. 1).
        stage_two: Distilling the features of the generated image (eq. 3).
        stage_three: Of sdn_adversarial alone.
        layer_weights: Preset of the layer weights: paper, mean or balanced.
        weight_factors: Multipliers on the preset by layer (conv3_2), group (conv3) or image. With
            the preset paper they are the weights themselves.
        samples: n, images for one caption in sdn_diverse.
        grow_samples: Let sdn_diverse draw one sample in stage one and n in stage two.
    """

    scheme: Scheme = "sdn"
    stage_one: StageConfig = field(default_factory=StageConfig)
    stage_two: StageConfig = field(default_factory=StageConfig)
    stage_three: StageThreeConfig = field(default_factory=StageThreeConfig)
    layer_weights: Literal["paper", "mean", "balanced"] = "paper"
    weight_factors: dict[str, NonNegativeFloat] = field(default_factory=dict)
    samples: PositiveInt = 1
    grow_samples: bool = False


@dataclass(frozen=True)
@checked
class TrainingConfig:
    """How the training loop runs.

    Args:
        batch_size: Images a step, over all workers together.
        workers: Data-parallel workers.
        device: Where to train; auto takes GPUs where the cluster has enough of them.
        cpus_per_worker: CPU cores that each worker reserves. Empty: all there are, shared equally.
        precision: fp32 (on GPUs too, without TF32), bf16 autocast, or auto: bf16 where GPU or CPU
            multiplies such numbers itself, else fp32; settled when a run begins.
        flips: Mirror half of the images of an epoch left to right.
        average_half_life: Keep an average of the weights in which a step counts half as much as one
            so many images later; it is exported and scored, the last weights beside it. Empty: no
            average.
        compile: Use torch.compile: faster steps, after a minute or so for each stage. Needs a C++
            compiler.
        log_steps: Steps between two reports of the loss.
        checkpoint_steps: Steps between two checkpoints within an epoch. Empty: one at the end of
            each epoch.
        max_failures: How many deaths of workers to recover from before giving up.
    """

    batch_size: PositiveInt = 12
    workers: PositiveInt = 1
    device: Literal["auto", "cpu", "gpu"] = "auto"
    cpus_per_worker: PositiveInt | None = None
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    flips: bool = True
    average_half_life: PositiveInt | None = None
    compile: bool = False
    log_steps: PositiveInt = 20
    checkpoint_steps: PositiveInt | None = None
    max_failures: NonNegativeInt = 3


@dataclass(frozen=True)
@checked
class EvaluationConfig:
    """What is measured after every epoch, on validation classes where there are any.

    Args:
        images: After an epoch at most so many images, spread over the classes, are scored.
        classifier: Classifier of the classifier score, NAME or NAME:WEIGHTS, such as
            squeezenet1_1:FILE. Empty: SSIM alone.
        sample_epochs: Epochs between two sample grids.
        captions: Captions in a sample grid.
        score_test: Score the test classes, once, at the end.
    """

    images: PositiveInt = 256
    classifier: str | None = None
    sample_epochs: PositiveInt = 1
    captions: PositiveInt = 16
    score_test: bool = True


@dataclass(frozen=True)
@checked
class TrackingConfig:
    """Where MLflow records the run.

    Args:
        experiment: Name of the MLflow experiment.
        run_name: Name of the MLflow run. Empty: the name of the output folder.
        uri: MLflow tracking URI. Empty: MLFLOW_TRACKING_URI, else a SQLite file runs/mlflow.db.
    """

    experiment: str = "sdn_ray"
    run_name: str | None = None
    uri: str | None = None


@dataclass(frozen=True)
@checked
class ExperimentConfig:
    """Everything that settles a training run.

    Args:
        method: sdn, whose options are generator and distillation, or gan_int_cls, stackgan or
            gawwn, whose options are the section of that name.
        seed: Of the weights, of the order of the images, of captions and flips.
        storage: Where checkpoints and the finished model are kept besides the run folder: a URI
            such as s3://bucket/folder, or a mounted folder.
    """

    method: MethodName = "sdn"
    seed: NonNegativeInt = 0
    storage: str | None = None
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    text: TextConfig = field(default_factory=TextConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    gan_int_cls: GanIntClsConfig = field(default_factory=GanIntClsConfig)
    stackgan: StackGanConfig = field(default_factory=StackGanConfig)
    gawwn: GawwnConfig = field(default_factory=GawwnConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

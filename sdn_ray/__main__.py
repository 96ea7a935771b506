"""python -m sdn_ray: what there is to type."""

from sdn_ray import __version__

COMMANDS = {
    "train": "from captioned images to a trained generator",
    "tune": "search learning rates, layer weights, stage lengths; the paper's tables",
    "generate": "captions to images",
    "evaluate": "the paper's scores of images, or of a text encoder",
    "figures": "the paper's figures",
    "study": "people put pictures of several methods in order (the paper's Table 2)",
    "serve": "a page to try captions, and its JSON API",
    "train_text": "a text encoder by itself",
    "convert_text": "released text encoders and captions",
    "benchmark": "images/s beside plain PyTorch loops",
}


def main() -> int:
    """List the commands; returns the exit status."""
    print(f"sdn_ray {__version__}: Symmetrical Distillation Networks on Ray")
    for name, what in COMMANDS.items():
        print(f"  python -m sdn_ray.{name:<13} {what}")
    print("Each explains itself with --help.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

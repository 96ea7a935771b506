"""What a script needs of this room."""

from .decoding import decode_rgb as decode_rgb
from .readers.cub import read_cub as read_cub
from .readers.folder import read_folder as read_folder
from .readers.oxford_flowers import read_oxford_flowers as read_oxford_flowers
from .rows import CaptionedDataset as CaptionedDataset
from .rows import CaptionedImage as CaptionedImage
from .synthetic.flowers import read_synthetic_flowers as read_synthetic_flowers
from .synthetic.flowers import write_synthetic_flowers as write_synthetic_flowers

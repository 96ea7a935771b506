"""What a script needs of this room."""

from .drawing import draw_images as draw_images
from .export import export_model as export_model
from .fit import FitSettings as FitSettings
from .fit import fit_teacher as fit_teacher
from .generator import Generator as Generator
from .pixels import normalise as normalise
from .pixels import to_uint8 as to_uint8
from .plan import Plan as Plan
from .teacher import Teacher as Teacher
from .teacher import load_teacher as load_teacher
from .trained import TrainedModel as TrainedModel

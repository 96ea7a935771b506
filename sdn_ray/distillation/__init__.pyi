"""What a script needs of this room."""

from .layer_weights import LayerWeights as LayerWeights
from .layer_weights import layer_weights as layer_weights
from .losses import Loss as Loss
from .losses import image_loss as image_loss
from .losses import joint_loss as joint_loss
from .losses import stage_one_loss as stage_one_loss
from .losses import stage_two_loss as stage_two_loss

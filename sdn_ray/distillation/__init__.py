"""Two-stage distillation: losses (eq. 1 to 5), layer weights, schemes, the training loop."""

import lazy_loader

# The names that `__init__.pyi` lists, each imported when it is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

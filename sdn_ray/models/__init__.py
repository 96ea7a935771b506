"""The teacher, its mirror image the generator, other methods' networks, and the classifiers."""

import lazy_loader

# The names that `__init__.pyi` lists, each imported when it is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

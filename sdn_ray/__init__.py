"""sdn_ray: Symmetrical Distillation Networks (Yuan & Peng, ACM MM 2018) on Ray."""

import copyreg
import importlib
import sys

import lazy_loader

__version__ = "0.1.0"

# The names that `__init__.pyi` lists, each imported when it is asked for. `sdn_ray.train` and
# `sdn_ray.evaluate` are always the functions: an import of the commands, the modules of these
# names, would put the modules in their place, but lazy_loader gives the package a type that keeps
# them out.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# A function that names the package travels to Ray's workers as with any other: it goes by its name.
_package = sys.modules[__name__]
copyreg.pickle(type(_package), lambda module: (importlib.import_module, (module.__name__,)))

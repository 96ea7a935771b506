"""sdn_ray: Symmetrical Distillation Networks (Yuan & Peng, ACM MM 2018) on Ray."""

import copyreg
import importlib
import sys

import lazy_loader

__version__ = "0.1.0"

# The names that `__init__.pyi` lists, each imported when it is asked for. `sdn_ray.train` and
# `sdn_ray.evaluate` are the functions, whether or not the modules of these names, which are the
# commands, have been imported: lazy_loader sees to it by a module type of its own,
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# and functions that name the package travel to Ray's workers as they do with any other module.
_package = sys.modules[__name__]
copyreg.pickle(type(_package), lambda module: (importlib.import_module, (module.__name__,)))

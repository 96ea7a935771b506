"""Captions to embeddings: the char-CNN-RNN, its training, and precomputed embeddings."""

import lazy_loader

# The names that `__init__.pyi` lists, each imported when it is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

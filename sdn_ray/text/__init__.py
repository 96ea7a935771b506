"""Captions to embeddings: the char-CNN-RNN, its training, and precomputed embeddings."""

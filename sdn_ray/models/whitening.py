"""The whitening of caption embeddings as the first layer of a network."""

import torch
from torch import Tensor, nn


class Whitening(nn.Module):
    """(φ_t − mean) · matrix: fixed statistics of training captions, see `text.whitening`.

    Args:
        embedding_dim: width of φ_t.
        dim: width of what g-fc8 is given.
    """

    def __init__(self, embedding_dim: int, dim: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.matrix: Tensor
        self.register_buffer("mean", torch.zeros(embedding_dim))
        self.register_buffer("matrix", torch.zeros(embedding_dim, dim))

    def forward(self, embeddings: Tensor) -> Tensor:
        """(batch, embedding_dim) → (batch, dim)."""
        return (embeddings - self.mean) @ self.matrix

    @torch.no_grad()
    def set(self, mean: Tensor, matrix: Tensor) -> None:
        """Take the statistics of a data set's captions: (embedding_dim,), (embedding_dim, dim)."""
        self.mean.copy_(mean)
        self.matrix.copy_(matrix)


def whitening_layer(embedding_dim: int, dim: int | None) -> nn.Module:
    """A whitening to so many dimensions, whose statistics are to come; None gives φ_t itself."""
    return Whitening(embedding_dim, dim) if dim else nn.Identity()

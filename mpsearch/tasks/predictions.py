"""Measures of predicted distributions, shared by the tasks that have logits."""

from jaxtyping import Float
from torch import Tensor, nn


def agreement(full: Float[Tensor, "... C"], other: Float[Tensor, "... C"]) -> Float[Tensor, "..."]:
    """Return 1 where both predict the same class, else 0."""
    return (full.argmax(dim=-1) == other.argmax(dim=-1)).double()


def kl_divergence(
    full: Float[Tensor, "... C"], other: Float[Tensor, "... C"]
) -> Float[Tensor, "..."]:
    """Return KL(softmax(full) || softmax(other)) in nats."""
    log_full = nn.functional.log_softmax(full.double(), dim=-1)
    log_other = nn.functional.log_softmax(other.double(), dim=-1)
    return (log_full.exp() * (log_full - log_other)).sum(dim=-1)

"""The contract of a task: which output counts, how far two of them are apart, what is good."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from mpsearch.errors import DataError
from mpsearch.tasks.collate import LABELS, MASK
from mpsearch.tasks.dataset import Batch

# How models name the output that counts, the most telling first.
_OUTPUT_NAMES: Final = ("logits", "sentence_embedding", "last_hidden_state")


@dataclass(frozen=True, kw_only=True)
class AbstractTask(ABC):
    """What a model is for. Subclasses fill the hooks; the methods check and certify.

    Outputs have samples in the first dimension, and zeros where a position is masked, so
    that squared errors may be summed over everything but the first. `has_logits` says that
    they are logits of classes in the last dimension.
    """

    name: ClassVar[str]
    has_logits: ClassVar[bool] = False

    @final
    def outputs(self, raw: Any, batch: Batch) -> Float[Tensor, "S *features"]:  # noqa: ANN401 - models return tensors, tuples, dicts
        """Return the features that count, as float32, of a model's raw output.

        Raises:
            DataError: The output has no such tensor, or another number of samples.
        """
        tensor = self._tensor(raw, batch)
        samples = len(next(iter(batch.values())))
        if tensor.ndim == 0 or len(tensor) != samples:
            raise DataError(
                f"The model's output has the shape {tuple(tensor.shape)} for {samples} samples. "
                "Expected samples in the first dimension. Pass a callable as the task, which "
                "returns one row per sample."
            )
        features = self._outputs(tensor.float(), batch)
        assert len(features) == samples
        return features

    @final
    def squared_error(  # noqa: PLR0917 - three tensors of one batch, in the order of their names
        self,
        reference: Float[Tensor, "S *features"],
        outputs: Float[Tensor, "S *features"],
        batch: Batch,
    ) -> Float[Tensor, " S"]:
        """Return each sample's squared difference, summed over features.

        Of sequences of predictions it is the mean over the valid positions. Summed in
        double precision: the terms of small errors must not drown.
        """
        difference = (outputs - reference).double().square().flatten(start_dim=1).sum(dim=1)
        return difference / self._positions(outputs, batch)

    @final
    def real_positions(self, batch: Batch, *, like: Float[Tensor, "S T F"]) -> Float[Tensor, "S T"]:
        """Return 1 where a position of the outputs counts, and 0 where it is padding.

        Raises:
            DataError: The data's mask has another shape than the outputs.
        """
        return self._real_positions(batch, like=like)

    @final
    def fidelity(  # noqa: PLR0917 - the same
        self,
        reference: Sequence[Float[Tensor, "..."]],
        outputs: Sequence[Float[Tensor, "..."]],
        batches: Sequence[Batch],
    ) -> dict[str, float]:
        """Return label-free measures of how much of the full-precision model is kept."""
        samples = self.fidelity_samples(reference, outputs, batches)
        return {name: float(values.double().mean()) for name, values in samples.items()}

    @final
    def fidelity_samples(  # noqa: PLR0917 - the same
        self,
        reference: Sequence[Float[Tensor, "..."]],
        outputs: Sequence[Float[Tensor, "..."]],
        batches: Sequence[Batch],
    ) -> dict[str, Float[Tensor, " N"]]:
        """Return the same measures per sample of all batches, for confidence intervals.

        Raises:
            DataError: The sequences are empty or of different lengths.
        """
        if not len(reference) == len(outputs) == len(batches) > 0:
            raise DataError(
                f"Got {len(reference)} references, {len(outputs)} outputs and {len(batches)} "
                "batches. Expected as many of each, at least one. Pass one tensor per batch."
            )
        return self._fidelity(reference, outputs, batches=batches)

    @final
    def quality(
        self, outputs: Sequence[Float[Tensor, "..."]], batches: Sequence[Batch]
    ) -> dict[str, float]:
        """Return labelled measures such as accuracy; empty where the data has no labels."""
        return self._quality(outputs, batches)

    @final
    def quality_samples(
        self, outputs: Sequence[Float[Tensor, "..."]], batches: Sequence[Batch]
    ) -> dict[str, Float[Tensor, " N"]]:
        """Return those labelled measures that are means over samples, sample by sample.

        Higher is better. Empty where the data has no labels, or the task no such measure.
        """
        return self._quality_samples(outputs, batches)

    @final
    def labelled_loss(
        self, outputs: Float[Tensor, "S *features"], batch: Batch
    ) -> Float[Tensor, " S"] | None:
        """Return each sample's loss against its labels, or None where there are none that fit.

        It has a derivative. Cross-entropy of logits; half the squared error where labels have
        the shape of the outputs.

        Raises:
            DataError: Labels of classes or tokens have another shape or range than the logits.
        """
        return self._labelled_loss(outputs, batch)

    def _tensor(self, raw: Any, batch: Batch) -> Tensor:  # noqa: ANN401, ARG002 - as in `outputs`; for callables
        """Return the tensor of the raw output that the task is about."""
        return primary_output(raw)

    @abstractmethod
    def _outputs(self, tensor: Float[Tensor, "S ..."], batch: Batch) -> Tensor: ...

    @abstractmethod
    def _fidelity(
        self, reference: Sequence[Tensor], outputs: Sequence[Tensor], *, batches: Sequence[Batch]
    ) -> dict[str, Tensor]: ...

    def _labelled_loss(self, outputs: Tensor, batch: Batch) -> Tensor | None:
        labels = labels_of(batch)
        if labels is None or labels.shape != outputs.shape:
            return None
        return self.squared_error(labels.to(outputs), outputs, batch) / 2

    def _real_positions(
        self, batch: Batch, *, like: Float[Tensor, "S T F"]
    ) -> Float[Tensor, "S T"]:
        return valid_positions(batch, like=like)

    def _positions(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " S"]:  # noqa: ARG002 - for sequences
        """Return by how many positions each sample's error is divided."""
        return torch.ones(len(outputs), dtype=torch.float64, device=outputs.device)

    def _quality(self, outputs: Sequence[Tensor], batches: Sequence[Batch]) -> dict[str, float]:
        """Return the means over samples; a task adds what is no such mean."""
        samples = self._quality_samples(outputs, batches)
        return {name: float(values.mean()) for name, values in samples.items()}

    def _quality_samples(
        self,
        outputs: Sequence[Tensor],  # noqa: ARG002 - a task without labels needs nothing
        batches: Sequence[Batch],  # noqa: ARG002 - the same
    ) -> dict[str, Tensor]:
        return {}


def primary_output(raw: Any) -> Tensor:  # noqa: ANN401 - models return tensors, tuples, dicts
    """Return the tensor that counts: logits, embedding, hidden state, else the first one.

    Raises:
        DataError: There is no floating tensor in the output.
    """
    if isinstance(raw, Tensor):
        return raw
    if isinstance(raw, Mapping):
        named = [raw[name] for name in _OUTPUT_NAMES if isinstance(raw.get(name), Tensor)]
        members = [*named, *raw.values()]
    else:
        members = list(raw) if isinstance(raw, tuple | list) else []
    for member in members:
        if isinstance(member, Tensor) and member.is_floating_point():
            return member
    raise DataError(
        f"The model returns a {type(raw).__name__} without a tensor of floating numbers. "
        "Expected a tensor, or a tuple or mapping that holds one. Pass a callable as the task."
    )


def labels_of(batch: Batch) -> Tensor | None:
    """Return the labels of a batch, or None where it has none."""
    return next((batch[name] for name in LABELS if name in batch), None)


def valid_positions(batch: Batch, *, like: Float[Tensor, "S T F"]) -> Float[Tensor, "S T"]:
    """Return 1 at real tokens and 0 at padding; all 1 where there is no mask.

    Raises:
        DataError: The mask has another shape than the output.
    """
    if MASK not in batch:
        return torch.ones(like.shape[:2], device=like.device)
    mask = batch[MASK].to(device=like.device, dtype=torch.float32)
    if mask.shape != like.shape[:2]:
        raise DataError(
            f"Key {MASK!r} has the shape {tuple(mask.shape)}, the output {tuple(like.shape)}. "
            "Expected (samples, length) of both to agree. Pass a callable as the task."
        )
    return mask

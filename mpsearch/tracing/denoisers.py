"""Modules around denoisers of diffusers: tensors by name in, the prediction out.

Each class names the inputs of one kind of denoiser, as the pipelines give them.
"""

from typing import final

from torch import Tensor, nn


@final
class Unconditional(nn.Module):
    """A noisy sample and its step to what was added to it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Return the prediction, shaped like the sample."""
        predicted: Tensor = self.model(sample, timestep, return_dict=False)[0]
        return predicted


@final
class TextConditional(nn.Module):
    """The same, conditioned on the hidden states of a text."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(  # noqa: PLR0917 - as diffusers names and orders them
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor
    ) -> Tensor:
        """Return the prediction, shaped like the sample."""
        predicted: Tensor = self.model(
            sample, timestep, encoder_hidden_states=encoder_hidden_states, return_dict=False
        )[0]
        return predicted


@final
class ClassConditional(nn.Module):
    """A transformer over patches, conditioned on a class."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(  # noqa: PLR0917 - as diffusers names and orders them
        self, hidden_states: Tensor, timestep: Tensor, class_labels: Tensor
    ) -> Tensor:
        """Return the prediction; twice the channels where it also says its variance."""
        predicted: Tensor = self.model(
            hidden_states, timestep=timestep, class_labels=class_labels, return_dict=False
        )[0]
        return predicted


@final
class TextConditionalPatches(nn.Module):
    """A transformer over patches, conditioned on a text and its mask."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(  # noqa: PLR0917 - as diffusers names and orders them
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor,
    ) -> Tensor:
        """Return the prediction; twice the channels where it also says its variance."""
        predicted: Tensor = self.model(
            hidden_states,
            timestep=timestep,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]
        return predicted

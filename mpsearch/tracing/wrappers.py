"""Modules around transformers models: tensors in, the one tensor that counts out."""

from typing import final

from torch import Tensor, nn


@final
class SentenceEncoder(nn.Module):
    """Tokens to one vector per text: pooled over real tokens, perhaps of unit length."""

    def __init__(self, model: nn.Module, *, pooling: str, is_normalised: bool) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.is_normalised = is_normalised

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return embeddings of shape (texts, features)."""
        result = self.model(input_ids=input_ids, attention_mask=attention_mask)
        hidden: Tensor = result.last_hidden_state
        pooled: Tensor = hidden[:, 0]
        if self.pooling == "mean":
            weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
            # As sentence-transformers: an empty text divides by this, not by zero.
            pooled = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(pooled, dim=1) if self.is_normalised else pooled


@final
class CausalLanguageModel(nn.Module):
    """Tokens to logits of the next token at every position."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits of shape (texts, tokens, vocabulary)."""
        result = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        logits: Tensor = result.logits
        return logits


@final
class ImageClassifier(nn.Module):
    """Images to logits of classes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return logits of shape (images, classes)."""
        logits: Tensor = self.model(pixel_values=pixel_values).logits
        return logits


@final
class TextLogits(nn.Module):
    """Texts to logits: of classes, or at every position of what was hidden there."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits of shape (texts, classes) or (texts, tokens, vocabulary)."""
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


@final
class TextToText(nn.Module):
    """Tokens, and those of the answer so far, to logits of the answer's next tokens."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(  # noqa: PLR0917 - as transformers names and orders them
        self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor
    ) -> Tensor:
        """Return logits of shape (texts, tokens of the answer, vocabulary)."""
        result = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            use_cache=False,
        )
        logits: Tensor = result.logits
        return logits


@final
class SpeechToText(nn.Module):
    """Spectrograms, and the tokens so far, to logits of the next tokens."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_features: Tensor, decoder_input_ids: Tensor) -> Tensor:
        """Return logits of shape (recordings, tokens, vocabulary)."""
        result = self.model(
            input_features=input_features, decoder_input_ids=decoder_input_ids, use_cache=False
        )
        logits: Tensor = result.logits
        return logits


@final
class WaveLogits(nn.Module):
    """Sampled sound to logits: of classes, or of letters at every frame."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_values: Tensor) -> Tensor:
        """Return logits of shape (recordings, classes) or (recordings, frames, letters)."""
        logits: Tensor = self.model(input_values=input_values).logits
        return logits


@final
class WaveEncoder(nn.Module):
    """Sampled sound to one vector per recording: the mean over its frames."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_values: Tensor) -> Tensor:
        """Return embeddings of shape (recordings, features)."""
        hidden: Tensor = self.model(input_values=input_values).last_hidden_state
        return hidden.mean(dim=1)


@final
class SpectrogramLogits(nn.Module):
    """Spectrograms to logits of classes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_features: Tensor) -> Tensor:
        """Return logits of shape (recordings, classes)."""
        logits: Tensor = self.model(input_features=input_features).logits
        return logits


@final
class SpectrogramEncoder(nn.Module):
    """Spectrograms to one vector per recording: the mean over the encoder's frames."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_features: Tensor) -> Tensor:
        """Return embeddings of shape (recordings, features)."""
        hidden: Tensor = self.model(input_features).last_hidden_state
        return hidden.mean(dim=1)

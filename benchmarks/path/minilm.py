"""The model and text of the bars: MiniLM-L6 from its package, prose that Python ships."""

from pathlib import Path

from examples.demo import SENTENCES, model_folder
from mpsearch.tasks.text import TextParts, text_parts
from mpsearch.tracing import LoadedModel, TracedModel, load_folder, trace_model

_SMALL_SHARE = 8


def text(*, small: bool) -> TextParts:
    """Return the demo's sentences, or an eighth of them."""
    share = _SMALL_SHARE if small else 1
    return text_parts(**{name: count // share for name, count in SENTENCES.items()})


def loaded() -> LoadedModel:
    """Return MiniLM-L6 with its tokenizer."""
    return load_folder(model_folder())


def traced() -> TracedModel:
    """Return MiniLM-L6 as a graph."""
    model = loaded()
    return trace_model(model.module, model.example, root=model.root)


def folder_of(name: str) -> Path:
    """Return where the results of a bar are left."""
    return Path("bench-output") / "path" / name

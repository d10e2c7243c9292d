"""A model of transformers with weights from safetensors, checked before and after it is built."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mpsearch.errors import MissingPackageError, ModelError
from mpsearch.tracing.architectures import known_fields
from mpsearch.tracing.folder_files import first_line
from mpsearch.tracing.plausible import check_parameters, meta_device


def imported_transformers() -> Any:  # noqa: ANN401 - transformers is untyped
    """Return the package.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingPackageError(
            "A Hugging Face folder needs the package 'transformers'. Expected it beside torch. "
            "Install mpsearch[search]."
        ) from error
    return transformers


def load_weights(
    path: Path,
    *,
    raw: Mapping[str, Any],
    model_class: Any,  # noqa: ANN401 - transformers is untyped
    config_class: Any,  # noqa: ANN401 - the same
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return a model of transformers in float32 and eval mode.

    Args:
        path: Its folder.
        raw: What its config.json holds.
        model_class: A class with `from_pretrained`, such as `AutoModel`.
        config_class: The config of its architecture.
        options: What `from_pretrained` is told besides.

    Raises:
        ModelError: Weights are missing, unreadable or fewer than the config describes.
    """
    own = dict(options or {})
    logging = imported_transformers().utils.logging
    try:
        with quiet(logging):
            config = config_class(**known_fields(raw, config_class=config_class))
            # Where an architecture has several classes for a task, this says which.
            config.architectures = [str(name) for name in raw.get("architectures") or ()]
            with meta_device():
                shell = getattr(model_class, "from_config", model_class)
                check_parameters(shell(config, **own), place=path)
            model, found = model_class.from_pretrained(
                path,
                config=config,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
                **own,
            )
    except ModelError:
        raise
    except Exception as error:  # transformers raises whatever its parts raise
        raise ModelError(
            f"Folder {str(path)!r} cannot be loaded as {config_class.model_type}: "
            f"{type(error).__name__}: {first_line(error)}. Expected weights that fit its "
            "config.json. Download it again."
        ) from error
    check_complete(found, path=path, what=str(config_class.model_type))
    loaded: nn.Module = model.eval()
    return loaded


def check_complete(found: Mapping[str, Any], *, path: Path, what: str) -> None:
    """Refuse a model some of whose weights the files do not hold.

    Raises:
        ModelError: One is missing, or has another shape.
    """
    absent = sorted({*found["missing_keys"], *(str(each) for each in found["mismatched_keys"])})
    if absent:
        raise ModelError(
            f"Folder {str(path)!r} lacks {len(absent)} weights of {what}, first "
            f"{absent[0]!r}. Expected all of them, in the shapes of config.json. Download it again."
        )


@contextmanager
def quiet(settings: Any) -> Iterator[None]:  # noqa: ANN401 - the logging module of a library
    """Keep bars and reports off the terminal: what matters is checked by us."""
    level = settings.get_verbosity()
    has_bars = getattr(settings, "is_progress_bar_enabled", lambda: True)()
    settings.disable_progress_bar()
    settings.set_verbosity_error()
    try:
        yield
    finally:
        settings.set_verbosity(level)
        if has_bars:
            settings.enable_progress_bar()

"""Inputs made from a model's own weights, for a user who has no data.

They stand in for data and are no data: what is measured on them says little of quality on
real inputs. Pictures come from the statistics that batch norms keep of the training data;
tokens from the embedding; anything else is noise.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpsearch.errors import DataError
from mpsearch.tasks.collate import DECODER_IDS, DECODER_MASK, IDS, MASK
from mpsearch.tasks.dataset import Batch

DEFAULT_SAMPLES: Final = 64
_BATCH: Final = 32  # as ZeroQ: statistics of fewer pictures are noise themselves
_STEPS: Final = 200  # ZeroQ takes 500; the loss hardly falls beyond
_RATE: Final = 0.1  # as ZeroQ
# Tokens whose vectors are longer or shorter than these shares of all were hardly trained.
_OUTLIERS: Final = 0.01
_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_TOKENS: Final = (IDS, DECODER_IDS)
_FEWEST_SAMPLES: Final = 2  # a spread needs two, and validation takes one


@final
@dataclass(frozen=True, kw_only=True)
class SyntheticInputs:
    """Ask for inputs made from the model itself, instead of data.

    Args:
        shapes: Shape of one sample by input, such as {"x": (3, 32, 32)}; whole numbers below
            `vocabulary` where it is said. None for a model whose folder says what it takes.
        samples: How many.
        vocabulary: How many tokens the model knows, by the input that holds them.
        seed: Of all that is random.
        steps: How often pictures are changed to fit the statistics of batch norms.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    samples: int = DEFAULT_SAMPLES
    vocabulary: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    steps: int = _STEPS


def synthetic_batches(
    model: nn.Module, *, example: Batch, wanted: SyntheticInputs
) -> Iterator[tuple[Batch, range]]:
    """Yield batches of inputs like the example, and their places.

    A picture (a floating input of a model with batch norms) is changed by Adam until the mean
    and deviation of what reaches each norm are those that it stores: the distilled data of
    ZeroQ (Cai et al., 2020, CVPR, eq. 3). Tokens are drawn evenly from those whose embeddings
    are neither among the longest nor the shortest hundredth. Others are Gaussian.

    Raises:
        DataError: Fewer than two samples are asked for.
    """
    if wanted.samples < _FEWEST_SAMPLES:
        raise DataError(
            f"{wanted.samples} synthetic samples were asked for. Expected at least "
            f"{_FEWEST_SAMPLES}. Ask for more."
        )
    generator = torch.Generator().manual_seed(wanted.seed)
    known = _known_tokens(model, example, vocabulary=wanted.vocabulary)
    norms = stored_norms(model)
    for start in range(0, wanted.samples, _BATCH):
        rows = min(_BATCH, wanted.samples - start)
        batch = {
            name: _drawn(name, like=value, rows=rows, known=known, generator=generator)
            for name, value in example.items()
        }
        if norms:
            batch = distilled(model, batch, steps=wanted.steps)
        yield batch, range(start, start + rows)


def distilled(model: nn.Module, batch: Batch, *, steps: int = _STEPS) -> dict[str, Tensor]:
    """Return the batch with its floating inputs changed until batch norms see what they store."""
    found = {
        name: value.clone().requires_grad_(value.is_floating_point())
        for name, value in batch.items()
    }
    pictures = [value for value in found.values() if value.requires_grad]
    if not pictures:
        return dict(batch)
    optimiser = torch.optim.Adam(pictures, lr=_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=max(steps, 1))
    with _frozen(model), torch.enable_grad():
        for _ in range(steps):
            optimiser.zero_grad()
            loss = norm_mismatch(model, found)
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
            optimiser.step()
            schedule.step()
    return {name: value.detach() for name, value in found.items()}


def norm_mismatch(model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
    """Return how far what reaches batch norms is from what they store.

    The mean over norms of the mean over channels of squared differences of means and of
    deviations, in units of the stored variance, so that no norm counts for its scale.
    """
    terms: list[Tensor] = []

    def note(  # noqa: PLR0917 - as torch calls it
        norm: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor]
    ) -> None:
        assert isinstance(norm, _NORMS)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        given = args[0] if args else named["input"]
        channels = given.transpose(0, 1).flatten(start_dim=1)
        scale = norm.running_var + norm.eps
        means = (channels.mean(dim=1) - norm.running_mean).square() / scale
        spreads = (channels.var(dim=1, correction=0) + norm.eps).sqrt() - scale.sqrt()
        terms.append((means + spreads.square() / scale).mean())

    handles = [
        norm.register_forward_pre_hook(note, with_kwargs=True) for norm in stored_norms(model)
    ]
    try:
        model(**batch) if _takes_names(model, batch) else model(*batch.values())
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(terms).mean()


def stored_norms(model: nn.Module) -> list[nn.Module]:
    """Return the batch norms that keep statistics."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _NORMS) and module.running_mean is not None
    ]


def how_made(model: nn.Module, example: Batch) -> str:
    """Say in a few words what the inputs are made from."""
    if any(value.is_floating_point() for value in example.values()):
        count = len(stored_norms(model))
        return f"pictures fitted to {count} batch norms" if count else "Gaussian noise"
    return "random tokens"


def example_of(wanted: SyntheticInputs) -> dict[str, Tensor]:
    """Return an example of the shapes asked for.

    Raises:
        DataError: There are none.
    """
    if not wanted.shapes:
        raise DataError(
            "The model does not say the shapes of its inputs, and no data is given. Expected data, "
            'or shapes. Pass data, or SyntheticInputs(shapes={"x": (3, 32, 32)}).'
        )
    return {
        name: torch.zeros(
            (1, *shape), dtype=torch.long if name in wanted.vocabulary else torch.float32
        )
        for name, shape in wanted.shapes.items()
    }


def _drawn(
    name: str,
    *,
    like: Tensor,
    rows: int,
    known: Mapping[str, Tensor],
    generator: torch.Generator,
) -> Tensor:
    shape = (rows, *like.shape[1:])
    if name in known:
        return known[name][torch.randint(len(known[name]), shape, generator=generator)]
    if not like.is_floating_point():
        # Every token of a mask is real; of two kinds of tokens all are of the first.
        return torch.full(shape, int(name in (MASK, DECODER_MASK)), dtype=like.dtype)
    return torch.randn(shape, generator=generator)


def _known_tokens(
    model: nn.Module, example: Batch, *, vocabulary: Mapping[str, int]
) -> dict[str, Tensor]:
    """Return, by input of whole numbers, the tokens that it may hold."""
    found = {name: torch.arange(count) for name, count in vocabulary.items()}
    names = [name for name in example if name in _TOKENS and name not in found]
    if not names:
        return found
    seen = _embeddings_of(model, example, names=names)
    for name in names:
        if name not in seen:
            raise DataError(
                f"No embedding of the model reads {name!r}. Expected its number of tokens. "
                f"Pass data, or SyntheticInputs(vocabulary={{{name!r}: ...}})."
            )
        lengths = seen[name].detach().float().norm(dim=1)
        low, high = torch.quantile(lengths, torch.tensor([_OUTLIERS, 1 - _OUTLIERS]))
        found[name] = ((lengths >= low) & (lengths <= high) & (lengths > 0)).nonzero()[:, 0]
    return found


def _embeddings_of(model: nn.Module, example: Batch, *, names: list[str]) -> dict[str, Tensor]:
    """Return the weight of the embedding that reads each of these inputs, found by running."""
    found: dict[str, Tensor] = {}

    def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.Embedding)
        for name in names:
            if name not in found and torch.equal(example[name].flatten(), args[0].flatten()):
                found[name] = module.weight

    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    handles = [module.register_forward_pre_hook(note) for module in embeddings]
    try:
        with torch.no_grad():
            model(**example)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _takes_names(model: nn.Module, batch: Batch) -> bool:
    return set(batch) <= set(inspect.signature(model.forward).parameters)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Judge as deployed, and give weights no gradients."""
    modes = {module: module.training for module in model.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for parameter, needs in wanted.items():
            parameter.requires_grad_(needs)
        for module, mode in modes.items():
            module.training = mode

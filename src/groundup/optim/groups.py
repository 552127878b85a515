"""Which parameters of a model an optimizer treats alike.

Every trainable parameter falls into exactly one group, also when several modules share it:

    hidden    matrices of linear maps inside the layers, also stacks of one for each expert: what Muon orthogonalises
    tables    all other tensors of two or more dimensions: embeddings, positions, heads, convolution weights
    vectors   biases, norm weights, rates of decay and other tensors of one dimension or none

Hidden and tables are decayed, vectors are not: the rule of nanoGPT's ``configure_optimizers`` (Karpathy 2022). That
embeddings and heads are not Muon's is Jordan et al. 2024 (kellerjordan.github.io/posts/muon).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from torch import nn

from groundup.errors import ConfigError
from groundup.parts.linear import ExpertLinear
from groundup.parts.rates import Rates, Turning

Named = tuple[str, nn.Parameter]
UNDECAYED = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, Rates, Turning)


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The trainable parameters of a model, each once, under its first name."""

    hidden: list[Named]
    tables: list[Named]
    vectors: list[Named]


def group(model: nn.Module) -> Groups:
    """Returns the trainable parameters of ``model`` by how they are optimized.

    A weight is hidden if every module that holds it is an `nn.Linear` or an `ExpertLinear` and none of them lies in a
    part of the model whose name starts with ``head``; an embedding that doubles as the head is therefore a table.

    Raises:
        ConfigError: no parameter is trainable, or it is no module at all.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"a {type(model).__name__} has no parameters; give the model that it builds, spec.build()")
    owners = defaultdict(list)
    for path, module in model.named_modules(remove_duplicate=False):
        for parameter in module.parameters(recurse=False):
            owners[parameter].append((path, module))

    groups = Groups(hidden=[], tables=[], vectors=[])
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2 or any(_is_vector(parameter, module) for _, module in owners[parameter]):
            groups.vectors.append((name, parameter))
        elif all(_is_hidden(path, module) for path, module in owners[parameter]):
            groups.hidden.append((name, parameter))
        else:
            groups.tables.append((name, parameter))
    if not (groups.hidden or groups.tables or groups.vectors):
        raise ConfigError("the model has no parameter that requires a gradient; unfreeze some before training")
    return groups


def _is_vector(parameter: nn.Parameter, module: nn.Module) -> bool:
    """Whether a tensor of several dimensions holds norm weights, rates, or a bias of each expert."""
    return isinstance(module, UNDECAYED) or parameter is getattr(module, "bias", None)


def _is_hidden(path: str, module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | ExpertLinear) and not path.startswith("head")

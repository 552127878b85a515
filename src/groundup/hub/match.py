"""Which stored tensor is which weight, and whether they belong to the model at all; no weight is read for it.

The exception is a head that the file holds although the model's head is its embedding: that must be the same matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup import rules
from groundup.errors import WeightsError
from groundup.families.family import Family
from groundup.hub.tensors import Stored
from groundup.model.model import Model, ModelModule
from groundup.rules import Rule

EMBED, HEAD = "embed.weight", "head.weight"


@dataclass(frozen=True)
class Naming:
    """How the names in files map to ours.

    Attributes:
        rules: the weight rules.
        family: the family that the names belong to; None where they are our own.
    """

    rules: Sequence[Rule]
    family: Family | None = None

    @classmethod
    def own(cls, model: ModelModule) -> Naming:
        """Returns the naming of files that hold our names."""
        return cls(rules=[rules.rule(name, name) for name in model.state_dict()])

    def known(self, name: str, expected: Mapping[str, Tensor]) -> str | None:
        """Returns a name as the rules spell it; None where it holds no weights."""
        if self.family is None:
            return name
        name = self.family.rename(name)
        if name in expected:
            return name
        full = self.family.prefix + name
        if self.family.ignored.fullmatch(name) or self.family.ignored.fullmatch(full):
            return None
        return full if full in expected else name

    def theirs(self, ours: str) -> str | None:
        """Returns their name of the first tensor that both sides hold alike and whose name here ends so."""
        return next(
            (rule.theirs[0] for rule in self.rules if len(rule.ours) == 1 and rule.ours[0].endswith(ours)), None
        )


def shapes(spec: Model) -> ModelModule:
    """Returns the model on the meta device: all names and shapes, no weights."""
    with torch.device("meta"):
        return spec.build()


def match(stored: Mapping[str, Stored], model: ModelModule, naming: Naming, *, where: str) -> dict[str, Stored]:
    """Returns the stored tensors by the names of the rules.

    Args:
        stored: the tensors of the files.
        model: the model, of which only names and shapes are read.
        naming: what the files' names mean.
        where: what errors call the files.

    Raises:
        WeightsError: a tensor is missing, unknown, there twice or of another shape, or a tied head differs from the
            embedding.
    """
    expected = rules.write(model.state_dict(), naming.rules, layers=model.spec.depth)
    found: dict[str, Stored] = {}
    for name, tensor in stored.items():
        known = naming.known(name, expected)
        if known in found:
            raise WeightsError(f"{where} holds {known} twice, as {name} and {found[known].name}; remove one of them")
        if known is not None:
            tensor.check()
            found[known] = tensor
    head = naming.theirs(HEAD)
    if head in found and head not in expected:
        _check_tied(found.pop(head), found.get(naming.theirs(EMBED) or EMBED), where)
    sizes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    same = all(sizes[name] == tuple(expected[name].shape) for name in sizes.keys() & expected.keys())
    if same or not _cut_elsewhere(sizes, model, naming):
        compare(sizes, expected, where=where)
    return found


def _cut_elsewhere(sizes: Mapping[str, Sequence[int]], model: ModelModule, naming: Naming) -> bool:
    """Whether all of the model is made of these all the same: tensors that become one may be cut at other places.

    Nor do axes of length 1 count.
    """
    try:
        stored = {name: torch.empty(size, device="meta") for name, size in sizes.items()}
        made = rules.read(stored, naming.rules, layers=model.spec.depth)
    except (WeightsError, RuntimeError, IndexError, ValueError):  # no rule's name, or no operation's shape
        return False
    expected = {name: weight.shape for name, weight in model.state_dict().items()}
    return {name: weight.shape for name, weight in made.items()} == expected


def compare(found: Mapping[str, Sequence[int]], expected: Mapping[str, Tensor], *, where: str) -> None:
    """Checks that shapes by name are those of the expected tensors.

    Raises:
        WeightsError: they are not; the message names the tensors.
    """
    missing, unknown = set(expected) - set(found), set(found) - set(expected)
    if missing or unknown:
        told = [f"{verb} {_some(names)}" for verb, names in (("lacks", missing), ("holds unknown", unknown)) if names]
        raise WeightsError(f"{where} {' and '.join(told)}; {_STRANGERS}")
    for name, shape in found.items():
        if tuple(shape) != tuple(expected[name].shape):
            raise WeightsError(
                f"{where} holds {name} of shape {tuple(shape)} where the model has {tuple(expected[name].shape)}; "
                f"{_STRANGERS}"
            )


_STRANGERS = "the weights and the model's description do not belong together"


def _check_tied(head: Stored, embed: Stored | None, where: str) -> None:
    if embed is None or head.shape != embed.shape or not torch.equal(head.read(), embed.read()):
        raise WeightsError(
            f"{where} describes a model whose head is its embedding, but {head.name} differs from it; "
            "set tie_word_embeddings to false in its configuration"
        )


def _some(names: Iterable[str]) -> str:
    first = sorted(names)
    return ", ".join(first[:4]) + (f" and {len(first) - 4} more tensors" if len(first) > 4 else "")

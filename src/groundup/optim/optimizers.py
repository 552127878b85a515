"""Optimizers as specs: what moves each parameter, at which peak rate, with which decay.

optimizer = Muon(lr=0.02).build(model, products=torch.bfloat16)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from groundup.optim.groups import Named, group
from groundup.optim.joint import JointOptimizer
from groundup.optim.muon import MuonOptimizer
from groundup.specs import NotNegative, Positive, ShareBelowOne, Spec

FUSED_DEVICES = {"cpu", "cuda", "mps"}  # where torch has AdamW as one kernel over all parameters


class Optimizer(Spec, abstract=True):
    """What moves the parameters of a model."""

    def build(self, model: nn.Module, *, products: torch.dtype = torch.float32) -> JointOptimizer:
        """Returns the optimizer of the trainable parameters of ``model``, each once, tied or not.

        Args:
            model: where its parameters lie decides where the state will lie.
            products: the dtype of matrix products inside the update, the one in which the model's own products run.

        Raises:
            ConfigError: no parameter is trainable.
        """
        raise NotImplementedError(type(self).__name__)


class AdamW(Optimizer):
    """Adam with decoupled decay (Loshchilov and Hutter 2019, arXiv:1711.05101); betas and decay of GPT-3.

    Tensors of two or more dimensions are decayed, embeddings among them; biases and norms are not: the rule of
    nanoGPT's ``configure_optimizers``. Betas, epsilon and decay: Brown et al. 2020 (arXiv:2005.14165), appendix B.

    Attributes:
        lr: peak learning rate.
        beta1: what the mean of the gradients keeps each step.
        beta2: what the mean of their squares keeps each step.
        eps: added to the root of the mean square.
        decay: share of a decayed weight, times the rate, that is lost each step.
    """

    lr: Positive = 3e-4
    beta1: ShareBelowOne = 0.9
    beta2: ShareBelowOne = 0.95
    eps: NotNegative = 1e-8
    decay: NotNegative = 0.1

    def build(self, model: nn.Module, *, products: torch.dtype = torch.float32) -> JointOptimizer:
        """Returns one AdamW over all parameters; it has no matrix products."""
        groups = group(model)
        return JointOptimizer([self.over(decayed=groups.hidden + groups.tables, kept=groups.vectors)])

    def over(self, *, decayed: Sequence[Named], kept: Sequence[Named]) -> torch.optim.AdamW:
        """Returns torch's AdamW over named parameters, fused where torch can."""
        parts = [(decayed, self.decay), (kept, 0.0)]
        return torch.optim.AdamW(
            [{"params": list(named), "weight_decay": decay} for named, decay in parts if named],
            lr=self.lr,
            betas=(self.beta1, self.beta2),
            eps=self.eps,
            fused=all(parameter.device.type in FUSED_DEVICES for _, parameter in (*decayed, *kept)),
        )


class Muon(Optimizer):
    """Orthogonalised momentum for the matrices inside the layers, AdamW for everything else.

    Jordan et al. 2024 (kellerjordan.github.io/posts/muon); their code's rate, momentum and decay are the defaults.
    The update of a matrix is scaled by sqrt(max(1, outputs/inputs)), as theirs (torch's ``original``), not to
    AdamW's size (Liu et al. 2025, arXiv:2502.16982; torch's ``match_rms_adamw``): it then has the same spectral norm
    at every width, and one rate serves a toy and its larger sisters (Yang et al. 2023, arXiv:2310.17813).

    Attributes:
        lr: peak learning rate of the matrices; its scale is not AdamW's.
        momentum: what the mean of the gradients keeps each step.
        decay: share of a matrix, times the rate, that is lost each step.
        adamw: moves the embeddings, heads, norms, biases and all that is not a matrix.
    """

    lr: Positive = 0.02
    momentum: ShareBelowOne = 0.95
    decay: NotNegative = 0.01
    adamw: AdamW = AdamW()

    def build(self, model: nn.Module, *, products: torch.dtype = torch.float32) -> JointOptimizer:
        """Returns Muon and AdamW as one."""
        groups = group(model)
        parts: list[torch.optim.Optimizer] = []
        if groups.hidden:
            parts.append(
                MuonOptimizer(
                    groups.hidden, lr=self.lr, momentum=self.momentum, weight_decay=self.decay, products=products
                )
            )
        if groups.tables or groups.vectors:
            parts.append(self.adamw.over(decayed=groups.tables, kept=groups.vectors))
        return JointOptimizer(parts)

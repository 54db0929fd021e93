"""The residual stream in front of the final norm, by the components that write to it.

A pre-norm transformer adds up: with e the embedding, a_l and m_l the outputs of attention and MLP
of layer l, the state in front of the final norm is x = e + Σ_l (a_l + m_l).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from lfp.models.architectures import architecture, blocks
from lfp.models.hooks import captured

#: A component of the residual stream, and its layer; -1 for that of no layer.
Component = tuple[str, int]
#: The largest deviation of the components' sum from the state, as a share of the state's size.
TOLERANCE = 1e-3
#: Names of a norm's constant under the root, by class of norms.
EPS = ("eps", "variance_epsilon")


@dataclass(frozen=True)
class Norm:
    """A norm of a model as its gain, bias and scale: gain · x / scale(x) + bias.

    ``gain`` and ``bias`` are [d_model]. A layer norm is ``centred``: it takes the mean of x away
    first. The scale is the root of the mean square and ``eps``.
    """

    gain: torch.Tensor
    bias: torch.Tensor
    eps: float
    centred: bool

    @classmethod
    def final(cls, model: PreTrainedModel) -> Norm:
        """The norm in front of the unembedding of `model`."""
        return cls.of(model.get_submodule(architecture(model).final_norm), model)

    @classmethod
    @torch.no_grad()
    def of(cls, norm: nn.Module, model: PreTrainedModel) -> Norm:
        """A `norm` of `model`'s stream, whatever its class: its gain is read off a known input.

        Raises ValueError where it does not say what its scale is.
        """
        given = [getattr(norm, name) for name in EPS if hasattr(norm, name)]
        if not given:
            raise ValueError(
                f"the norm {type(norm).__name__} of a model of type {model.config.model_type!r} has"
                f" no {' and no '.join(EPS)}, so that its scale is not known; expected a layer norm"
                " or an RMS norm: take a model of another family"
            )
        eps = float(given[0])
        zeros = torch.zeros(1, 1, model.config.get_text_config().hidden_size, device=model.device)
        signs = zeros + 1.0
        signs[..., 1::2] = -1.0  # of mean 0 and mean square 1
        bias = norm(zeros.to(model.dtype)).float()
        gain = (norm(signs.to(model.dtype)).float() - bias) * signs * (1 + eps) ** 0.5
        return cls(gain.flatten(), bias.flatten(), eps, isinstance(norm, nn.LayerNorm))

    def centre(self, x: torch.Tensor) -> torch.Tensor:
        """`x` [..., d_model] less its mean, where the norm takes it away."""
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def scale(self, x: torch.Tensor) -> torch.Tensor:
        """The number [..., 1] that states `x` [..., d_model] are divided by."""
        return (self.centre(x).square().mean(-1, keepdim=True) + self.eps).sqrt()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The norm's output [..., d_model]."""
        return self.gain * self.centre(x) / self.scale(x) + self.bias

    def shared(self, parts: torch.Tensor) -> torch.Tensor:
        """The norm's output as a sum over `parts` [position, part, d_model] of its input.

        All have the scale of their sum, and the last one has the norm's bias.
        """
        result = self.gain * self.centre(parts) / self.scale(parts.sum(1, keepdim=True))
        result[:, -1] += self.bias
        return result


def components(model: PreTrainedModel) -> list[Component]:
    """All that writes to the residual stream: the embedding, and each layer's two components."""
    layers = range(len(blocks(model)))
    return [("embedding", -1), *((name, n) for n in layers for name in ("attention", "mlp"))]


class Residual:
    """The last forward pass's states, which :func:`captured_residual` fills.

    ``joined`` are the outputs of each layer's heads side by side, where they are asked for.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.components = components(model)
        self.written: dict[Component, torch.Tensor] = {}
        self.joined: dict[int, torch.Tensor] = {}
        self.state = torch.zeros(0)

    def outputs(self, name: str, rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """What the components `name` of all layers wrote at the positions (`rows`, `tokens`).

        The result is [position, layer x d_model], as floats.
        """
        batch = self.state.shape[:2]
        layers = [written for written in self.components if written[0] == name]
        each = [self.written[layer].reshape(*batch, -1)[rows, tokens] for layer in layers]
        return torch.cat(each, -1).float()

    def heads(self, layer: int, rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The outputs of a layer's heads side by side [position, width of all heads]."""
        return self.joined[layer].reshape(*self.state.shape[:2], -1)[rows, tokens]

    def parts(self, rows: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The outputs of all components and the state in front of the final norm.

        They are of the positions (`rows`, `tokens`), as floats: [position, component, d_model] and
        [position, d_model].

        Raises ValueError where the components do not add up to the state.
        """
        batch = self.state.shape[:2]
        each = [self.written[c].reshape(*batch, -1)[rows, tokens] for c in self.components]
        parts, state = torch.stack(each, 1).float(), self.state[rows, tokens].float()
        missing = (parts.sum(1) - state).norm(dim=-1) / state.norm(dim=-1)
        if len(state) and float(missing.max()) > TOLERANCE:
            raise ValueError(
                "the outputs of attention and MLP do not add up to the residual stream (off by"
                f" {float(missing.max()):.1%}): this family needs its norms behind them in"
                " lfp/models/architectures.py"
            )
        return parts, state


@contextmanager
def captured_residual(model: PreTrainedModel, heads: bool = False) -> Iterator[Residual]:
    """Within the block, every forward pass leaves its components' outputs in the object.

    With `heads` it leaves those of the attention's heads there as well.
    """
    residual, paths = Residual(model), architecture(model)
    stack = blocks(model)

    def keep(component: Component) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            values = output[0] if isinstance(output, tuple) else output
            residual.written[component] = values.detach()

        return hook

    def keep_first(module: nn.Module, inputs: tuple, named: dict[str, Any]) -> None:
        values = inputs[0] if inputs else named["hidden_states"]
        residual.written["embedding", -1] = values.detach()

    def keep_last(module: nn.Module, inputs: tuple) -> None:
        residual.state = inputs[0].detach()

    handles = [
        stack[0].register_forward_pre_hook(keep_first, with_kwargs=True),
        model.get_submodule(paths.final_norm).register_forward_pre_hook(keep_last),
    ]
    places = {
        "attention": paths.attention_norm or paths.attention_output,
        "mlp": paths.mlp_norm or paths.mlp,
    }
    for n, block in enumerate(stack):
        for name, place in places.items():
            module = block.get_submodule(place)
            handles.append(module.register_forward_hook(keep((name, n))))
    of_heads = captured(model, range(len(stack)), site="heads") if heads else nullcontext({})
    try:
        with of_heads as residual.joined:
            yield residual
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def written(
    model: PreTrainedModel, directions: torch.Tensor, layer: int, site: str
) -> torch.Tensor:
    """What directions of a layer's site write to the residual stream [direction, d_model].

    Heads write through the attention's projection, without its bias. A norm between the site and
    the stream (Gemma 2 and 3) has its gain; its scale is one for all that is written at a token.

    Parameters
    ----------
    model
        The model.
    directions
        Directions [direction, width of the site].
    layer, site
        Where they are.
    """
    family, block = architecture(model), blocks(model)[layer]
    directions = directions.to(model.device, torch.float32)
    if site == "heads":
        projection = block.get_submodule(family.attention_output)
        weight = projection.weight.float()
        # GPT-2's projection holds its weight the other way round.
        directions = directions @ (weight.T if isinstance(projection, nn.Linear) else weight)
    between = {"mlp": family.mlp_norm, "attn": family.attention_norm}
    between["heads"] = between["attn"]
    if norm := between.get(site):
        directions = directions * Norm.of(block.get_submodule(norm), model).gain
    return directions

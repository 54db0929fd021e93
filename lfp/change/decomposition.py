"""The log-ratio of policy and base at a token, shared exactly among the parts of the policy.

With x the state in front of the final norm, ρ its scale, g and b the norm's gain and bias, u_w the
unembedding's row of the token w, index 0 for the base and π for the policy, the logit of w is
u_w · y with y = g ⊙ x/ρ + b (x less its mean in a layer norm). Its change is

    u_0w · Σ_l g_0 ⊙ Δx_l/ρ_0                       what the components l write
  + u_0w · g_0 ⊙ x_π (1/ρ_π - 1/ρ_0)                ``scale``: the norm's division
  + u_0w · ((g_π - g_0) ⊙ x_π/ρ_π + b_π - b_0)      ``norm``: the norm's own weights
  + (u_πw - u_0w) · y_π                             ``unembedding``

and that of its log-probability is this sum less its mean under the base's distribution p_0 of the
next token, which each part is taken less of by itself, and less KL(p_0 ‖ p_π), the part
``normaliser``. Families that cap their logits have a part ``softcap`` for the rest. No label, no
lexicon and no probe is fitted (direct logit attribution, of a difference: nostalgebraist 2020,
Elhage et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from lfp.models.architectures import output_logits
from lfp.models.residual import Component, Norm, components


@dataclass(frozen=True)
class Shifts:
    """The change at a number of positions.

    Parameters
    ----------
    vectors
        What each part before the unembedding adds to the normed state [position, part, d_model].
    state
        The policy's normed state [position, d_model].
    scale
        The number that the base's final norm divides its state by [position, 1].
    mean_row, mean_change
        Means of the base's unembedding rows, and of the change in logits by the unembedding, under
        the base's distribution: [position, d_model] and [position].
    divergence
        KL of the base's distribution to the policy's [position], in nats.
    likely
        The base's log-probabilities of all tokens [position, vocabulary].
    log_ratios
        The change in them [position, vocabulary].
    """

    vectors: torch.Tensor
    state: torch.Tensor
    scale: torch.Tensor
    mean_row: torch.Tensor
    mean_change: torch.Tensor
    divergence: torch.Tensor
    likely: torch.Tensor
    log_ratios: torch.Tensor


class Decomposition:
    """The decomposition for one base and policy.

    ``parts`` names the parts and their layers, -1 for those of no layer.
    """

    def __init__(self, base: PreTrainedModel, policy: PreTrainedModel) -> None:
        self.models = base, policy
        self.norms = Norm.final(base), Norm.final(policy)
        heads = [model.get_output_embeddings() for model in self.models]
        self.rows = [head.weight.detach().float() for head in heads]
        self.biases = [head.bias.detach().float() if head.bias is not None else None
                       for head in heads]  # fmt: skip
        self._before = [*components(base), ("scale", -1), ("norm", -1)]
        config = base.config.get_text_config()
        self._capped = getattr(config, "final_logit_softcapping", None) is not None
        rest = ["unembedding", "normaliser", *(["softcap"] if self._capped else [])]
        self.parts: list[Component] = [*self._before, *((name, -1) for name in rest)]

    def _logits(self, model: int, state: torch.Tensor) -> torch.Tensor:
        return output_logits(self.models[model], state.to(self.models[model].dtype)).float()

    def shifts(
        self,
        base: tuple[torch.Tensor, torch.Tensor],
        policy: tuple[torch.Tensor, torch.Tensor],
    ) -> Shifts:
        """The change at positions that both models read.

        Parameters
        ----------
        base, policy
            What the components of a model write [position, component, d_model], and its state in
            front of the final norm [position, d_model].
        """
        (norm, other), (before, x), (after, moved) = self.norms, base, policy
        states = norm(x), other(moved)
        scale, scale_after = norm.scale(x), other.scale(moved)
        written = norm.gain * norm.centre(after - before) / scale[:, None]
        divided = norm.gain * norm.centre(moved) * (1 / scale_after - 1 / scale)
        weighted = (other.gain - norm.gain) * other.centre(moved) / scale_after
        weighted = weighted + other.bias - norm.bias
        vectors = torch.cat([written, divided[:, None], weighted[:, None]], 1)

        log_p = torch.log_softmax(self._logits(0, states[0]), -1)
        log_ratios = torch.log_softmax(self._logits(1, states[1]), -1) - log_p
        p = log_p.exp()
        mean_row = p @ self.rows[0]
        mean_change = ((p @ self.rows[1] - mean_row) * states[1]).sum(-1) + p @ self._bias_change()
        divergence = -(p * log_ratios).sum(-1)
        return Shifts(
            vectors, states[1], scale, mean_row, mean_change, divergence, log_p, log_ratios
        )

    def gradients(self, shifts: Shifts, tokens: torch.Tensor) -> torch.Tensor:
        """What changes of the stream are multiplied with to get their shares.

        They are [position, token, d_model]. The share of a component in the log-ratio of `tokens`
        [position, token] is the product with its change, and that of any part of the change the
        product with that part.
        """
        norm = self.norms[0]
        centred = self.rows[0][tokens] - shifts.mean_row[:, None]
        return norm.centre(norm.gain * centred / shifts.scale[:, None])

    def _bias_change(self) -> torch.Tensor:
        before, after = self.biases
        if before is None or after is None:
            return self.rows[0].new_zeros(len(self.rows[0]))
        return after - before

    def values(self, shifts: Shifts, tokens: torch.Tensor) -> torch.Tensor:
        """The parts' shares in the log-ratio of `tokens` [position, token].

        The result is [position, token, part] in nats, and its sum over the parts the log-ratio.
        """
        rows, after = (matrix[tokens] for matrix in self.rows)
        centred = rows - shifts.mean_row[:, None]
        of_vectors = centred @ shifts.vectors.transpose(1, 2)
        changed = ((after - rows) * shifts.state[:, None]).sum(-1) + self._bias_change()[tokens]
        unembedded = changed - shifts.mean_change[:, None]
        normaliser = (-shifts.divergence)[:, None].expand_as(unembedded)
        values = torch.cat([of_vectors, unembedded[..., None], normaliser[..., None]], -1)
        if not self._capped:
            return values
        rest = shifts.log_ratios.gather(1, tokens) - values.sum(-1)
        return torch.cat([values, rest[..., None]], -1)

"""DalleBart, the network of Mini DALL-E: text tokens in, a VQGAN's codes out, one after the other.

After Dayma et al. 2021 (DALL·E Mini): BART (Lewis et al. 2020) with the norms of NormFormer (Shleifer et al. 2021),
gated linear units (Shazeer 2020), learned positions, no biases. Parameters have the names of the published torch files.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PAD = 1  # the token that fills a text up; nothing attends to it
EPSILON = 1e-5
ROWS = 4  # of a matrix product, from which on its last bits are the same for any more, in MKL


@dataclass(frozen=True)
class Shape:
    """How large a DalleBart is."""

    width: int
    heads: int
    hidden: int  # of the gated linear units
    encoder_layers: int
    decoder_layers: int
    vocabulary: int  # text tokens
    rows: int  # of the image vocabulary: the codes, the start, and in mega some that mean nothing
    codes: int  # of the VQGAN; the next number is the start
    text_length: int = 64
    image_length: int = 256


class Norm(nn.Module):
    """A layer norm with a bias and no scale: the linear layer that follows can do the scaling."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        return F.layer_norm(x, self.bias.shape, None, self.bias, EPSILON)


class Attention(nn.Module):
    """Multi-head attention without biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width, bias=False) for _ in range(4))

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Return (keys, values) `[B, heads, T, width / heads]` of what is attended to, `[B, T, width]`."""
        return self._split(self.k_proj(source)), self._split(self.v_proj(source))

    def forward(
        self,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        visible: Tensor | None = None,
        causal: bool = False,
        least: int = 1,
    ) -> Tensor:
        """Attend from `x` `[B, Q, width]`; `visible` `[B, 1, 1, T]` says what may be attended to.

        least: queries, with zeros for those that x lacks, of which scores are computed.
        """
        queries, count = self._split(self.q_proj(x)), x.shape[1]
        if count < least:
            queries = F.pad(queries, (0, 0, 0, least - count))
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=visible, is_causal=causal)
        return self.out_proj(attended[:, :, :count].transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class GLU(nn.Module):
    """A gated linear unit: one linear layer's GELU times another, norms before and inside."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.ln0, self.ln1 = Norm(width), Norm(hidden)
        self.fc0, self.fc1 = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., width]` to `[..., width]`; the residual is the caller's."""
        x = self.ln0(x)
        return self.fc2(self.ln1(F.gelu(self.fc0(x)) * self.fc1(x)))


class EncoderLayer(nn.Module):
    """Attention to the whole text, then a gated unit; each added to what came in."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.pre_self_attn_layer_norm = Norm(shape.width)
        self.self_attn = Attention(shape.width, shape.heads)
        self.self_attn_layer_norm = nn.LayerNorm(shape.width, EPSILON)
        self.glu = GLU(shape.width, shape.hidden)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """Map `[B, S, width]` to the same."""
        normed = self.pre_self_attn_layer_norm(x)
        attended = self.self_attn(normed, *self.self_attn.keys_values(normed), visible)
        x = x + self.self_attn_layer_norm(attended)
        return x + self.glu(x)


class DecoderLayer(nn.Module):
    """Attention to the codes so far, attention to the text, then a gated unit."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.pre_self_attn_layer_norm = Norm(shape.width)
        self.self_attn = Attention(shape.width, shape.heads)
        self.self_attn_layer_norm = nn.LayerNorm(shape.width, EPSILON)
        self.pre_encoder_attn_layer_norm = Norm(shape.width)
        self.encoder_attn = Attention(shape.width, shape.heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(shape.width, EPSILON)
        self.glu = GLU(shape.width, shape.hidden)

    def forward(self, x: Tensor, text: tuple[Tensor, Tensor], visible: Tensor, past: Tensor | None, at: int) -> Tensor:
        """Map `[B, T, width]` to the same.

        past `[2, B, heads, L, width / heads]`: the keys and values before position `at`; x is then that one position,
        and its keys and values are stored there. text: the keys and values of all B texts, or of fewer, each of which
        B / fewer rows of x share: they attend to it as if they were positions of one row.
        """
        normed = self.pre_self_attn_layer_norm(x)
        keys, values = self.self_attn.keys_values(normed)
        if past is not None:
            past[0, :, :, at : at + 1] = keys
            past[1, :, :, at : at + 1] = values
            keys, values = past[:, :, :, : at + 1]
        x = x + self.self_attn_layer_norm(self.self_attn(normed, keys, values, causal=past is None))
        normed = self.pre_encoder_attn_layer_norm(x)
        sharing = normed.reshape(len(text[0]), -1, normed.shape[2])
        x = x + self.encoder_attn_layer_norm(self.encoder_attn(sharing, *text, visible, least=ROWS)).view_as(x)
        return x + self.glu(x)


class Stack(nn.Module):
    """What encoder and decoder share: embeddings of tokens and positions, layers, a norm at both ends."""

    layers: Any  # mypy does not know the methods of what a ModuleList holds
    lm_head: nn.Linear  # of a decoder

    def __init__(self, shape: Shape, rows: int, length: int, layer: type[nn.Module], layers: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(rows, shape.width)
        self.embed_positions = nn.Embedding(length, shape.width)
        self.layers = nn.ModuleList(layer(shape) for _ in range(layers))
        self.layernorm_embedding = nn.LayerNorm(shape.width, EPSILON)
        self.final_ln = Norm(shape.width)

    def embed(self, tokens: Tensor, at: int = 0) -> Tensor:
        """Return `[B, T, width]` for tokens `[B, T]`, the first of which is at position `at`."""
        positions = self.embed_positions.weight[at : at + tokens.shape[1]]
        return self.layernorm_embedding(self.embed_tokens(tokens) + positions)


class DalleBart(nn.Module):
    """Encoder and decoder."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Stack(shape, shape.vocabulary, shape.text_length, EncoderLayer, shape.encoder_layers)
        self.decoder = Stack(shape, shape.rows, shape.image_length, DecoderLayer, shape.decoder_layers)
        self.decoder.lm_head = nn.Linear(shape.width, shape.rows, bias=False)

    def encode(self, tokens: Tensor) -> Tensor:
        """Map text tokens `[B, S]`, PAD at the end, to `[B, S, width]`; S is at most text_length."""
        x, visible = self.encoder.embed(tokens), mask(tokens)
        for layer in self.encoder.layers:
            x = layer(x, visible)
        return self.encoder.final_ln(x)

    def keys_values(self, text: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return each decoder layer's keys and values of an encoded text: they are the same for every code."""
        return [layer.encoder_attn.keys_values(text) for layer in self.decoder.layers]

    def decode(
        self,
        before: Tensor,
        text: list[tuple[Tensor, Tensor]],
        visible: Tensor,
        past: Tensor | None = None,
        at: int = 0,
    ) -> Tensor:
        """Return the logits `[B, T, rows]` of the codes that come next.

        before `[B, T]`: the start and the codes so far. text, visible: from `keys_values` and `mask`, of B rows or of
        fewer that they share. past `[layers, 2, B, heads, L, width / heads]`: if given, `before` is the one code
        before position `at`, and the keys and values of earlier positions are taken from it.
        """
        x = self.decoder.embed(before, at)
        for k, layer in enumerate(self.decoder.layers):
            x = layer(x, text[k], visible, None if past is None else past[k], at)
        return self.decoder.lm_head(self.decoder.final_ln(x))

    def forward(self, tokens: Tensor, codes: Tensor) -> Tensor:
        """Return the logits `[B, T, rows]` of `codes` `[B, T]`, each from those before it, as training needs them."""
        before = F.pad(codes, (1, -1), value=self.shape.codes)
        return self.decode(before, self.keys_values(self.encode(tokens)), mask(tokens))


def mask(tokens: Tensor) -> Tensor:
    """Return which tokens `[B, S]` may be attended to: `[B, 1, 1, S]`."""
    return (tokens != PAD)[:, None, None]

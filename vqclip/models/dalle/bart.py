"""DalleBart, the network of Mini DALL-E: text tokens in, a VQGAN's codes out, one after the other.

After Dayma et al. 2021 (DALL·E Mini): BART (Lewis et al. 2020) with the norms of NormFormer (Shleifer et al. 2021),
gated linear units (Shazeer 2020), learned positions, no biases. Parameters have the names of the published torch files.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PAD = 1  # the token that fills a text up; nothing looks at it
EPSILON = 1e-5


@dataclass(frozen=True)
class Shape:
    """How large a DalleBart is."""

    width: int
    heads: int
    hidden: int  # of the gated linear units
    encoder_layers: int
    decoder_layers: int
    words: int  # rows of the text vocabulary
    rows: int  # of the image vocabulary: the codes, the start, and with mega some that mean nothing
    codes: int  # that the VQGAN has; the next number is the start
    text_length: int = 64
    image_length: int = 256


class Norm(nn.Module):
    """A layer norm with a bias and no scale: where a linear layer follows, that can do the scaling."""

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

    def look_up(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Return (keys, values) `[B, heads, T, width / heads]` of what is looked at, `[B, T, width]`."""
        return self._split(self.k_proj(at)), self._split(self.v_proj(at))

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Attend from `x` `[B, Q, width]`; `seen` `[B, 1, 1, T]` says what may be looked at."""
        queries = self._split(self.q_proj(x))
        found = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen, is_causal=causal)
        return self.out_proj(found.transpose(1, 2).flatten(2))

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

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Map `[B, S, width]` to the same."""
        at = self.pre_self_attn_layer_norm(x)
        x = x + self.self_attn_layer_norm(self.self_attn(at, *self.self_attn.look_up(at), seen))
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

    def forward(self, x: Tensor, text: tuple[Tensor, Tensor], seen: Tensor, past: Tensor | None, at: int) -> Tensor:
        """Map `[B, T, width]` to the same. past `[2, B, heads, L, width / heads]`: keys and values before place `at`.

        With a past, x is the one place `at`, whose keys and values are put there. text: of all rows of x, or of fewer,
        which as many rows of x each share: they look at it as if they were one row's places.
        """
        here = self.pre_self_attn_layer_norm(x)
        keys, values = self.self_attn.look_up(here)
        if past is not None:
            past[0, :, :, at : at + 1], past[1, :, :, at : at + 1] = keys, values
            keys, values = past[:, :, :, : at + 1]
        x = x + self.self_attn_layer_norm(self.self_attn(here, keys, values, causal=past is None))
        here = self.pre_encoder_attn_layer_norm(x)
        shared = here.reshape(len(text[0]), -1, here.shape[2])
        x = x + self.encoder_attn_layer_norm(self.encoder_attn(shared, *text, seen)).view_as(x)
        return x + self.glu(x)


class Stack(nn.Module):
    """What encoder and decoder share: embeddings of tokens and places, layers, a norm at either end."""

    layers: Any  # of nn.Module's types mypy knows no method
    lm_head: nn.Linear  # of a decoder

    def __init__(self, shape: Shape, rows: int, length: int, layer: type[nn.Module], layers: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(rows, shape.width)
        self.embed_positions = nn.Embedding(length, shape.width)
        self.layers = nn.ModuleList(layer(shape) for _ in range(layers))
        self.layernorm_embedding = nn.LayerNorm(shape.width, EPSILON)
        self.final_ln = Norm(shape.width)

    def embed(self, tokens: Tensor, at: int = 0) -> Tensor:
        """Return `[B, T, width]` for tokens `[B, T]`, the first of which stands at place `at`."""
        return self.layernorm_embedding(
            self.embed_tokens(tokens) + self.embed_positions.weight[at : at + tokens.shape[1]]
        )


class DalleBart(nn.Module):
    """Encoder and decoder."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Stack(shape, shape.words, shape.text_length, EncoderLayer, shape.encoder_layers)
        self.decoder = Stack(shape, shape.rows, shape.image_length, DecoderLayer, shape.decoder_layers)
        self.decoder.lm_head = nn.Linear(shape.width, shape.rows, bias=False)

    def encode(self, tokens: Tensor) -> Tensor:
        """Map text tokens `[B, S]`, PAD at the end, to `[B, S, width]`; S is at most text_length."""
        x, seen = self.encoder.embed(tokens), mask(tokens)
        for layer in self.encoder.layers:
            x = layer(x, seen)
        return self.encoder.final_ln(x)

    def look_up(self, text: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return each decoder layer's keys and values of an encoded text: the same for every code."""
        return [layer.encoder_attn.look_up(text) for layer in self.decoder.layers]

    def decode(
        self, before: Tensor, text: list[tuple[Tensor, Tensor]], seen: Tensor, past: Tensor | None = None, at: int = 0
    ) -> Tensor:
        """Return the logits `[B, T, rows]` of the codes that come next.

        before `[B, T]`: the start and the codes so far. text, seen: of `look_up` and `mask`, of B rows or of fewer that
        they share. past `[layers, 2, B, heads, L, width / heads]`: given, `before` is the one code before place `at`,
        and the keys and values of the places before it are taken from there.
        """
        x = self.decoder.embed(before, at)
        for k, layer in enumerate(self.decoder.layers):
            x = layer(x, text[k], seen, None if past is None else past[k], at)
        return self.decoder.lm_head(self.decoder.final_ln(x))

    def forward(self, tokens: Tensor, codes: Tensor) -> Tensor:
        """Return the logits `[B, T, rows]` of `codes` `[B, T]`, each from those before it, as training needs them."""
        before = F.pad(codes, (1, -1), value=self.shape.codes)
        return self.decode(before, self.look_up(self.encode(tokens)), mask(tokens))


def mask(tokens: Tensor) -> Tensor:
    """Say which tokens `[B, S]` are there to be looked at: `[B, 1, 1, S]`."""
    return (tokens != PAD)[:, None, None]

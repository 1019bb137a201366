"""How a DalleBart samples: codes one after the other, several candidates at a time, each a function of its number."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ...core.devices import exact_float
from ...core.seeding import generator
from .bart import DalleBart, mask

BATCH_SIZE = 8  # candidates that are sampled together; see `sample`


def super_condition(logits: Tensor, scale: float) -> Tensor:
    """Join logits `[2n, K]`, first without and then with the text: `u + scale (c - u)`, `[n, K]`.

    Classifier-free guidance of codes (Crowson's, in dalle-mini `condition_scale`).
    """
    without, with_text = logits.chunk(2)
    return without + scale * (with_text - without)


def choose(logits: Tensor, chance: Tensor, top_k: int, temperature: float) -> Tensor:
    """Sample a code for each row of `[n, K]` from its `top_k` likeliest; chance `[n]` in 0..1 decides which.

    As exactly as `chance` is given.
    """
    values, codes = logits.topk(min(top_k, logits.shape[1]))
    cumulative = (values.to(chance.dtype) / temperature).softmax(1).cumsum(1)
    index = (cumulative < chance[:, None] * cumulative[:, -1:]).sum(1, keepdim=True)
    return codes.gather(1, index.clamp(max=codes.shape[1] - 1))[:, 0]


@torch.no_grad()
def sample(
    model: DalleBart,
    tokens: Tensor,
    candidates: Sequence[int],
    *,
    seed: int,
    top_k: int = 256,
    temperature: float = 1.0,
    scale: float = 10.0,
) -> Iterator[Tensor]:
    """Sample codes for at most BATCH_SIZE candidates; yield them after each, `[n, 1]`, ... `[n, image_length]`.

    tokens `[2, S]`: the empty text and the text. A candidate is a function of its number and the seed alone: its
    random numbers are of a generator of its own, and the batch always has BATCH_SIZE rows, because the last bits of a
    matrix product depend on how many there are.
    """
    shape, device, n = model.shape, tokens.device, len(candidates)
    numbers = [*candidates, *[candidates[-1]] * (BATCH_SIZE - n)]
    exact = exact_float(device)
    chances = torch.stack([_chances(shape.image_length, seed, number).to(exact) for number in numbers]).to(device)
    text, visible = model.keys_values(model.encode(tokens)), mask(tokens)
    head_width = shape.width // shape.heads
    past_shape = (shape.decoder_layers, 2, 2 * BATCH_SIZE, shape.heads, shape.image_length, head_width)
    past = text[0][0].new_empty(past_shape)
    # without and with the text; the first code is the start
    codes = torch.full((2, BATCH_SIZE, shape.image_length + 1), shape.codes, device=device)
    for at in range(shape.image_length):
        logits = model.decode(codes[:, :, at].reshape(-1, 1), text, visible, past, at)[:, -1, : shape.codes]
        codes[:, :, at + 1] = choose(super_condition(logits.float(), scale), chances[:, at], top_k, temperature)
        yield codes[0, :n, 1 : at + 2]


def _chances(length: int, seed: int, number: int) -> Tensor:
    return torch.rand(length, generator=generator(seed, "candidate", number), dtype=torch.float64)

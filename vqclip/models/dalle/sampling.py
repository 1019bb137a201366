"""How a DalleBart draws: codes one after the other, several candidates at a time, each a function of its number."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ...core.seeding import generator
from .bart import DalleBart, mask

LANES = 8  # candidates that are drawn together; see `sample`


def super_condition(logits: Tensor, scale: float) -> Tensor:
    """Join logits `[2n, K]`, first without and then with the text: `u + scale (c - u)`, `[n, K]`.

    Classifier-free guidance of codes (Crowson's, in dalle-mini `condition_scale`).
    """
    without, with_text = logits.chunk(2)
    return without + scale * (with_text - without)


def choose(logits: Tensor, chance: Tensor, top_k: int, temperature: float) -> Tensor:
    """Draw a code for each row of `[n, K]` from its `top_k` likeliest; chance `[n]` in 0..1 decides which."""
    values, codes = logits.topk(min(top_k, logits.shape[1]))
    heap = (values.double() / temperature).softmax(1).cumsum(1)
    place = (heap < chance[:, None] * heap[:, -1:]).sum(1, keepdim=True)
    return codes.gather(1, place.clamp(max=codes.shape[1] - 1))[:, 0]


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
    """Draw codes for at most LANES candidates; yield them after each, `[n, 1]`, `[n, 2]`, ... `[n, image_length]`.

    tokens `[2, S]`: the empty text and the text. A candidate is a function of its number and the seed alone: its
    chances come from no one else's generator, and the batch always has LANES rows, since a matrix product's last bits
    depend on how many there are.
    """
    shape, device, n = model.shape, tokens.device, len(candidates)
    lanes = [*candidates, *[candidates[-1]] * (LANES - n)]
    chances = torch.stack([torch.rand(shape.image_length, generator=generator(seed, "candidate", k),
                                      dtype=torch.float64) for k in lanes]).to(device)  # fmt: skip
    text, seen = model.look_up(model.encode(tokens)), mask(tokens)
    part = shape.width // shape.heads
    past = text[0][0].new_empty(shape.decoder_layers, 2, 2 * LANES, shape.heads, shape.image_length, part)
    codes = torch.full((2, LANES, shape.image_length + 1), shape.codes, device=device)  # without and with the text
    for at in range(shape.image_length):
        logits = model.decode(codes[:, :, at].reshape(-1, 1), text, seen, past, at)[:, -1, : shape.codes]
        codes[:, :, at + 1] = choose(super_condition(logits.float(), scale), chances[:, at], top_k, temperature)
        yield codes[0, :n, 1 : at + 2]

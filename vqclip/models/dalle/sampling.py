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
    random numbers are of a generator of its own, and it is computed among as many as `lanes` says, because the last
    bits of a matrix product can depend on how many rows there are.
    """
    shape, device, n = model.shape, tokens.device, len(candidates)
    text, visible = model.keys_values(model.encode(tokens)), mask(tokens)
    rows = lanes(model, n, text, visible)
    numbers = [*candidates, *[candidates[-1]] * (rows - n)]
    exact = exact_float(device)
    chances = torch.stack([_chances(shape.image_length, seed, number).to(exact) for number in numbers]).to(device)
    head_width = shape.width // shape.heads
    past_shape = (shape.decoder_layers, 2, 2 * rows, shape.heads, shape.image_length, head_width)
    past = text[0][0].new_empty(past_shape)
    # without and with the text; the first code is the start
    codes = torch.full((2, rows, shape.image_length + 1), shape.codes, device=device)
    for at in range(shape.image_length):
        logits = model.decode(codes[:, :, at].reshape(-1, 1), text, visible, past, at)[:, -1, : shape.codes]
        codes[:, :, at + 1] = choose(super_condition(logits.float(), scale), chances[:, at], top_k, temperature)
        yield codes[0, :n, 1 : at + 2]


def lanes(model: DalleBart, count: int, text: list[tuple[Tensor, Tensor]], visible: Tensor) -> int:
    """Return among how many candidates, with copies of the last one, `count` of them are to be computed.

    All, and two at least (of two rows alone MKL makes a product by other code), if a layer and the head give each the
    bits that it has among BATCH_SIZE; which code makes a product is chosen by shapes, so any numbers tell. Where they
    don't, BATCH_SIZE always. Measured with one thread of a Zen 5, mini: one candidate takes 1.1 of the time that it
    takes as the only row, among BATCH_SIZE 1.7.
    """
    few = max(2, count)
    if few >= BATCH_SIZE:
        return BATCH_SIZE
    shape, device, layer = model.shape, visible.device, model.decoder.layers[0]
    gen, size = generator(0, "lanes"), (2, BATCH_SIZE, 1, shape.width)
    x = torch.randn(size, generator=gen).to(device)
    past = torch.randn(2, 2, BATCH_SIZE, *text[0][0].shape[1:2], shape.image_length, text[0][0].shape[3], generator=gen)
    for at in {0, shape.image_length // 16, shape.image_length // 2, shape.image_length - 1}:
        outputs = []
        for number in (BATCH_SIZE, few):
            some, before = x[:, :number].flatten(0, 1), past[:, :, :number].flatten(1, 2).to(device, copy=True)
            out = layer(some, text[0], visible, before, at)
            logits = model.decoder.lm_head(model.decoder.final_ln(out))
            outputs.append([each.unflatten(0, (2, number))[:, :few] for each in (out, logits)])
        if not all(map(torch.equal, *outputs)):
            return BATCH_SIZE
    return few


def _chances(length: int, seed: int, number: int) -> Tensor:
    return torch.rand(length, generator=generator(seed, "candidate", number), dtype=torch.float64)

"""Prompts as a CLIP reads them: one that is longer than its context is read in parts, which are averaged."""

import textwrap
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .interfaces import Clip

Long = Literal["split", "cut"]


def embed_texts(clip: Clip, texts: list[str], long: Long = "split") -> Tensor:
    """Embed texts as `[P, D]` of unit length.

    long: what is done with a text that is longer than the CLIP reads. "split": the mean of its parts' embeddings, each
    by its number of characters; "cut": its beginning alone.
    """
    return torch.cat([_embed(clip, parts(clip, text) if long == "split" else [text]) for text in texts])


def _embed(clip: Clip, pieces: list[str]) -> Tensor:
    embeds = clip.encode_text(pieces)
    if len(pieces) == 1:
        return embeds
    lengths = torch.tensor([float(len(piece)) for piece in pieces]).to(embeds)
    return F.normalize((embeds * lengths[:, None]).sum(0, keepdim=True), dim=1)


def parts(clip: Clip, text: str) -> list[str]:
    """Split a text between words into a few parts, about equally long, that the CLIP reads whole."""
    pieces, count, longest = [text], 1, max(map(len, text.split()), default=0)
    while count < len(text) and not all(map(clip.fits, pieces)):
        count += 1
        share = -(-len(text) // count)
        pieces = textwrap.wrap(text, share + min(share, longest), break_on_hyphens=False)  # a word may stand over
    return pieces


def remarks(clip: Clip, texts: list[str], long: Long = "split") -> list[str]:
    """Say what is done with texts that are longer than the CLIP reads, a line each."""
    told = []
    for text in texts:
        if not clip.fits(text):
            how = f"in {len(parts(clip, text))} parts, averaged" if long == "split" else "no further than its context"
            told.append(f"CLIP {clip.name} reads a long prompt {how} (--long-prompts): {text[:60]}...")
    return told

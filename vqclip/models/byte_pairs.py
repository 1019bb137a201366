"""The joining of byte-pair encoding (Sennrich et al. 2016), which CLIP's and the Mini DALL-E's tokenizers share."""

import itertools


def join_pairs(pieces: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Join neighbours, always the pair of the lowest rank, until no pair has one."""
    never = len(ranks)
    while len(pieces) > 1:
        rank, at = min((ranks.get(pair, never), k) for k, pair in enumerate(itertools.pairwise(pieces)))
        if rank == never:
            break
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    return pieces

"""The bundled CLIP against open_clip's own network of the same files, and what loading it spares."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vqclip.models import clip, load_clip
from vqclip.models.catalogue import find
from vqclip.models.wording import normalize

CPU = torch.device("cpu")
TEXTS = ["a red heart", "a cat on a blue background", "o'clock 12: the man's shoe!", "owl " * 40, ""]


@pytest.fixture(scope="module")
def pair():
    """Return the CLIP as open_clip makes it of the bundled files, and ours."""
    return clip.load_clip(find("clip", "tiny").folder, name="tiny", device=CPU), load_clip("tiny", CPU)


@given(text=st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="&<"), max_size=60))
def test_its_tokens_are_open_clips(pair, text):
    theirs, ours = pair
    assert ours.tokenizer.encode(text.lower()) == theirs.tokenizer.encode(text)


def test_texts_and_their_ends_are_embedded_as_by_open_clip(pair):
    theirs, ours = pair
    assert torch.equal(theirs.tokenizer(TEXTS), ours.tokenizer([text.lower() for text in TEXTS]))
    plain = [normalize(text) for text in TEXTS]
    torch.testing.assert_close(ours.encode_text(TEXTS), theirs.encode_text(plain), atol=1e-6, rtol=0)
    assert [ours.fits(text) for text in TEXTS] == [theirs.fits(text) for text in plain] == [True] * 3 + [False, True]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_images_are_embedded_as_by_open_clip(precision):
    results = []
    for network in (clip.load_clip(find("clip", "tiny").folder, name="tiny", device=CPU), load_clip("tiny", CPU)):
        if precision != torch.float32:
            network.lower(precision)
        image = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1)).requires_grad_()
        embedding = network.encode_image(image)
        (embedding * torch.arange(256)).sum().backward()
        results.append((embedding.detach(), image.grad))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=0.02 if precision == torch.bfloat16 else 1e-6, rtol=0.02)


def test_an_image_is_made_without_open_clip_torchs_compiler_and_what_those_import():
    code = (
        "import sys, vqclip; vqclip.generate('a red heart', seed=1, steps=1)\n"
        "print(*[n for n in ('open_clip', 'torchvision', 'timm', 'transformers', 'torch._dynamo') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

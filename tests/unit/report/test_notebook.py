"""What a notebook shows of a run: its bar and its growing image once each; results as images."""

import io

import pytest
from PIL import Image

import vqclip
from vqclip.report import notebook
from vqclip.report.notebook import Show

SMALL = {"preset": "tiny", "device": "cpu", "size": (32, 32), "steps": 6, "cutouts": 2, "seed": 7}


class Display:
    """Stands in for IPython's display."""

    def __init__(self, shown):
        self.shown = shown

    def update(self, image):
        self.shown.append(("update", image.size))


@pytest.fixture
def shown(monkeypatch):
    images = []

    def display(image, display_id):
        images.append(("display", image.size))
        return Display(images)

    monkeypatch.setattr("IPython.display.display", display)
    return images


def test_the_image_grows_in_one_place(networks, shown, capsys):
    pytest.importorskip("IPython")
    for _ in range(2):
        vqclip.generate("an owl", progress=Show(every=2), **SMALL)
    assert shown == [(name, (32, 32)) for name in ("display", "update", "update")] * 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "steps" in err
    assert err.count("\n") == 0  # the bar is taken away


def test_a_result_is_its_image(networks):
    result = vqclip.generate("an owl", **SMALL)
    with Image.open(io.BytesIO(result._repr_png_())) as image:
        assert image.tobytes() == result.picture.tobytes()


def test_an_interrupted_run_goes_on_and_another_begins(networks, tmp_path):
    def interrupt(step):
        if step.step == 3:
            raise KeyboardInterrupt

    runs = []
    with pytest.raises(KeyboardInterrupt):
        vqclip.generate(
            "an owl", runs=tmp_path, on_start=lambda session, run: runs.append(run.path), on_step=interrupt, **SMALL
        )
    assert vqclip.generate("a frog", **SMALL).status == "done"
    gone_on, whole = vqclip.resume(runs[0]), vqclip.generate("an owl", **SMALL)
    assert gone_on.steps == 6
    assert gone_on.picture.tobytes() == whole.picture.tobytes()


def test_a_loss_of_ones_own_counts(networks):
    settings = vqclip.Settings(prompt="an owl", size=(32, 32), steps=6, cutouts=2, seed=7)
    usual, dark = vqclip.prepare(settings, "cpu"), vqclip.prepare(settings, "cpu")
    dark.losses["dark"] = lambda context: 100 * context.image.mean((1, 2, 3))
    ends = [list(session.steps())[-1] for session in (usual, dark)]
    assert set(ends[1].losses) - set(ends[0].losses) == {"dark"}
    assert dark.vqgan.decode(ends[1].latent).mean() < usual.vqgan.decode(ends[0].latent).mean()


def test_without_widgets_the_bar_is_text_and_warns_of_nothing(networks, shown, recwarn):
    vqclip.generate("an owl", progress=Show(), **SMALL)
    assert not [w for w in recwarn if "IProgress" in str(w.message)]
    assert notebook.Show.__doc__

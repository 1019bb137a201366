"""vqclip models check: what gives no error otherwise, a wrong range, normalisation or activation, shows."""

import json
import shutil

import pytest

from vqclip.models import catalogue as cards
from vqclip.models.catalogue import catalogue, model_entry
from vqclip.models.checking import CAPTIONS, heart


@pytest.fixture
def own(tmp_path):
    """Return a function that puts a copy of a bundled model under the name `mine`, with other facts and config."""

    def make(kind, change=lambda config: None, **facts):
        entry = model_entry(kind, "tiny")
        shutil.copytree(entry.folder, tmp_path / "mine")
        (path,) = (tmp_path / "mine").glob("*config.json")
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))
        lines = [f"path = '{tmp_path / 'mine'}'", *(f"{key} = {json.dumps(value)}" for key, value in facts.items())]
        figures = [f"check.{key} = {json.dumps(value)}" for key, value in entry.facts.check.items()]
        (tmp_path / "catalogue.toml").write_text("\n".join([f"[{kind}.mine]", *lines, *figures]))
        cards.catalogue.cache_clear()

    return make


def test_the_bundled_models_have_the_figures_that_are_recorded(run_here):
    for name in ("tiny", "realesr-animevideov3"):
        done = run_here("models", "check", name)
        assert done.code == 0, done.err
    kinds = [json.loads(line)["kind"] for line in run_here("models", "check", "tiny", "--json").out.splitlines()]
    assert kinds == ["vqgan", "clip", "dalle"]
    assert all(catalogue().models[kind]["tiny"].check for kind in kinds)


def test_what_is_printed_is_what_a_catalogue_takes(run_here, tmp_path):
    line = run_here("models", "check", "tiny").out.splitlines()[0]
    (tmp_path / "catalogue.toml").write_text(f'{line}\nvqgan."tiny".path = "x"\n')
    cards.catalogue.cache_clear()
    assert catalogue().models["vqgan"]["tiny"].check["psnr"] == pytest.approx(23.59, abs=0.3)


def test_a_copy_of_a_sound_model_is_sound(run_here, own):
    own("vqgan")
    assert run_here("models", "check", "mine").code == 0


@pytest.mark.parametrize("known", [True, False])
def test_a_wrong_range_shows_with_figures_and_without(run_here, own, monkeypatch, known):
    own("vqgan", pixels="unit")
    if not known:
        monkeypatch.setattr(catalogue().models["vqgan"]["mine"], "check", {})
    done = run_here("models", "check", "mine")
    assert done.code == 6
    assert "signed" in done.err


def test_a_wrong_mean_or_std_shows(run_here, own):
    own("clip", lambda config: config["preprocess_cfg"].update(mean=[0.4] * 3, std=[0.3] * 3))
    done = run_here("models", "check", "mine")
    assert done.code == 6
    assert "similarity" in done.err


@pytest.mark.parametrize("change", [{"pixels": "unit"}, {"heads": 1}])
def test_a_wrong_range_or_shape_of_a_mini_dalle_shows(run_here, own, change):
    own("dalle", lambda config: config.update(change))
    done = run_here("models", "check", "mine")
    assert done.code == 6
    assert "likelihood" in done.err


def test_what_is_not_installed_says_how_to_get_it(run_here):
    assert run_here("models", "check", "gumbel_f8_8192").code == 5
    assert run_here("models", "check", "mini").code == 5


def test_the_image_has_black_white_and_a_colour():
    image = heart(64)
    assert image.shape == (1, 3, 64, 64)
    assert (float(image.min()), float(image.max())) == (0, 1)
    assert image[0, :, 32, 32].argmax() == 0
    assert len(set(CAPTIONS)) == 10

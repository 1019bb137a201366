"""Settings: what is refused, how it is said, and that one run's settings make the same run again."""

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from tests.support.values import NEEDED, others
from vqclip.config.resolve import resolve
from vqclip.core.init import INITS
from vqclip.core.losses import CLIP_LOSSES, LOSSES
from vqclip.errors import ModelError, UsageError
from vqclip.files.paths import absolute
from vqclip.settings.augmentations import AUGMENTS
from vqclip.settings.prompts import Prompt
from vqclip.settings.schema import Settings, check_value, fields_with, make_settings
from vqclip.settings.sizes import MAX_SIDE, as_size
from vqclip.text import nearest_of

junk = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.lists(st.integers() | st.text(max_size=3), max_size=3)
)


def refusal(**values):
    with pytest.raises(UsageError) as caught:
        make_settings(**{"prompt": "a cat", **values})
    return caught.value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1), ("seed", 2**63), ("seed", 1.5), ("steps", 0), ("steps", 100_001), ("tries", 0), ("cutouts", 0),
        ("size", (0, 8)), ("size", (8, MAX_SIDE + 1)), ("size", (8,)), ("size", "8by8"), ("clips", ()), ("init", "x"),
        ("init_weight", -0.1), ("step_size", 0), ("step_size", float("nan")), ("step_size", float("inf")),
        ("momentum", 1), ("ema", 1), ("ema", -0.1), ("coarse", -0.1), ("coarse", 1.1), ("overview", 1.1),
        ("smallest_cutout", 0), ("smallest_cutout", 1.1), ("augments", ("sparkle",)), ("augments", "flip"),
        ("clip_weights", (1, 2)), ("clip_weights", (0,)), ("clip_weights", (-1,)), ("clip_weights", (float("nan"),)),
        ("clip_weights", (1001,)), ("clip_mix", "x"), ("long_prompts", "x"),
        ("noise", -0.1), ("tv", -1), ("image_prompt_weight", float("nan")), ("prompt", None),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_by_its_name(field, value):
    assert field.replace("_", "-") in refusal(**{field: value}).what


def test_clips_and_weights_that_do_not_match_are_counted():
    told = refusal(clips=("a", "b", "c"), clip_weights=(1, 2)).what
    assert "2 for 3 CLIPs" in told


@pytest.mark.parametrize(
    ("field", "value"),
    [("seed", 0), ("seed", 2**63 - 1), ("steps", 1), ("ema", 0), ("overview", 0), ("noise", 0), ("augments", ())],
)
def test_a_value_at_the_edge_is_taken(field, value):
    assert getattr(make_settings(prompt="a cat", **{field: value}), field) == value


def test_seed_zero_is_a_seed():
    assert make_settings(prompt="a cat", seed=0).seed == 0


def test_an_unknown_setting_is_refused_with_the_nearest_name():
    assert "'steps'" in refusal(step=3).what


def test_an_unknown_augmentation_is_refused_with_the_nearest_name():
    assert "'flip'" in refusal(augments=("flp",)).what


def test_a_wrong_prompt_is_a_usage_error():
    assert "empty" in refusal(prompt="a cat |").what


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_no_prompt_at_all_is_refused(prompt):
    assert refusal(prompt=prompt).what == "there is no prompt"


def test_an_image_prompt_may_stand_alone():
    assert make_settings(image_prompts=("cat.png",)).prompts() == []


def test_refusals_are_one_line():
    assert "\n" not in refusal(prompt="a\x00", size="8\n8").what
    assert "\n" not in refusal(size="8\n8").what


@given(st.dictionaries(st.sampled_from([*Settings.model_fields, "nonsense"]), junk, max_size=3))
def test_any_values_give_settings_or_a_usage_error(values):
    said = ""
    try:
        make_settings(**values)
    except UsageError as error:
        said = error.what
    assert "\n" not in said


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        make_settings(prompt="a cat").seed = 1


def test_settings_come_back_from_json_the_same():
    saved = make_settings(
        prompt="a cat:2 | 猫",
        size=(96, 64),
        seed=2**63 - 1,
        augments=("flip", "erasing"),
        noise=0.1,
        init_image="/a b.png",
    )
    assert Settings.model_validate_json(saved.model_dump_json()) == saved


def test_the_prompt_is_parsed():
    assert make_settings(prompt="a cat:2").prompts() == [Prompt("a cat", 2.0)]


def test_by_default_the_prompt_and_smoothness_count():
    assert make_settings(prompt="a cat").loss_weights() == {"prompt": 1.0, "tv": Settings.model_fields["tv"].default}


def test_a_loss_without_a_weight_does_not_count():
    assert make_settings(prompt="a cat", tv=0).loss_weights() == {"prompt": 1.0}


def test_a_loss_with_a_weight_counts():
    assert make_settings(prompt="a cat", init_weight=0.5, tv=2).loss_weights() == {
        "prompt": 1.0,
        "init": 0.5,
        "tv": 2.0,
    }


def test_every_loss_of_the_table_can_be_weighted():
    weights = dict.fromkeys(fields_with("loss"), 1)
    needed = {"symmetry": "x", "palette": "red", "frame": "red", "style_image": "/s.png", "target_image": "/t.png"}
    given = {name: needed[name].split() if name == "palette" else needed[name] for name in needed}
    assert set(make_settings(prompt="a cat", **weights, **given).loss_weights()) == {*CLIP_LOSSES, *LOSSES}
    assert not set(needed) & set(make_settings(prompt="a cat", **weights).loss_weights())


def test_every_start_of_the_table_can_be_chosen():
    assert set(get_args(Settings.model_fields["init"].annotation)) == {*INITS, "sample"}


def test_every_augmentation_of_the_table_can_be_chosen():
    assert make_settings(prompt="a cat", augments=tuple(AUGMENTS)).augments == tuple(AUGMENTS)


def test_every_setting_says_what_it_does():
    assert all(field.description for field in Settings.model_fields.values())


def test_defaults_are_valid_settings():
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert make_settings(**defaults | {"prompt": "a cat"}) == make_settings(prompt="a cat")


@pytest.mark.parametrize("field", Settings.model_fields)
def test_a_value_is_checked_alone_as_it_is_beside_others(field):
    for value in [*others(field), None, True, -5000, "\x00", [[]], {}, float("nan")]:
        alone, beside = (
            said(check_value, field, value),
            said(make_settings, **{"prompt": "a cat", **NEEDED.get(field, {}), field: value}),
        )
        assert alone == beside or (not alone and field in ("prompt", "clip_weights"))


def said(function, *args, **values):
    """Return what a function says is wrong; "" for nothing."""
    try:
        function(*args, **values)
    except UsageError as error:
        return error.what
    return ""


def test_what_is_wrong_with_settings_in_another_model_is_its_error():
    class Record(BaseModel):
        settings: Settings

    for wrong in ({"prompt": ""}, {"prompt": "a |"}, {"prompt": "a", "size": "8by8"}, {"prompt": "a", "steps": 0}):
        with pytest.raises(ValidationError):
            Record(settings=wrong)


def test_reading_settings_loads_no_torch():
    code = "import sys, vqclip, vqclip.settings.schema, vqclip.config.layers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("name", "hint"), [("colr", ": did you mean 'colour'?"), ("zzz", "; known: colour, flip")])
def test_a_misspelling_is_answered_with_what_is_known(name, hint):
    assert nearest_of(name, ["flip", "colour"]) == hint


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("256", (256, 256)),
        ("320x200", (320, 200)),
        ("320X200", (320, 200)),
        ("320\u00d7200", (320, 200)),
        (" 320 x 200 ", (320, 200)),
        ("1", (1, 1)),
    ],
)
def test_a_size_is_width_then_height(text, size):
    assert as_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "x", "12x", "x12", "a", "-5", "1.5", "1x2x3", "0", "0x5", "8193", "5x8193", "9" * 50, "1 2"]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError):
        as_size(text)


@given(st.text(max_size=20))
def test_any_text_gives_a_size_or_a_usage_error(text):
    with contextlib.suppress(UsageError):
        assert all(1 <= side <= MAX_SIDE for side in as_size(text))


def test_a_given_value_beats_the_presets(monkeypatch):
    monkeypatch.setattr("vqclip.config.resolve.preset", lambda name: {"steps": 7, "cutouts": 5})
    assert resolve("a cat", steps=9).steps == 9


def test_a_presets_value_beats_the_default(monkeypatch):
    monkeypatch.setattr("vqclip.config.resolve.preset", lambda name: {"steps": 7, "cutouts": 5})
    assert resolve("a cat", steps=None).steps == 7


def test_a_value_that_is_not_given_is_the_default(monkeypatch):
    monkeypatch.setattr("vqclip.config.resolve.preset", lambda name: {})
    assert resolve("a cat", seed=3, steps=None) == make_settings(prompt="a cat", seed=3)


@pytest.mark.parametrize("value", [0, 0.0, ()])
def test_nothing_is_taken_for_given_by_its_truth(value):
    field = {int: "ema", float: "noise", tuple: "augments"}[type(value)]
    assert getattr(resolve("a cat", **{field: value}), field) == value


def test_a_given_seed_zero_is_kept():
    assert resolve("a cat", seed=0).seed == 0


def test_without_a_seed_each_run_draws_its_own():
    assert len({resolve("a cat").seed for _ in range(5)}) > 1


def test_an_unknown_preset_is_told():
    with pytest.raises(ModelError, match="sparkle"):
        resolve("a cat", "sparkle")


def test_given_pictures_are_recorded_by_their_absolute_paths(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = resolve("a cat", init_image="a.png", image_prompts=("b.png",))
    assert (settings.init_image, settings.image_prompts) == (absolute("a.png"), (absolute("b.png"),))


def test_recorded_paths_are_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Path(absolute("a/../b.png")) == tmp_path.resolve() / "b.png"


def test_recorded_paths_know_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Path(absolute("~/b.png")) == tmp_path.resolve() / "b.png"


@pytest.mark.parametrize(
    ("value", "size"), [(64, (64, 64)), ("64x32", (64, 32)), ([64, 32], (64, 32)), ((64.0, 32), (64, 32))]
)
def test_a_size_is_taken_in_every_spelling(value, size):
    assert make_settings(prompt="a cat", size=value).size == size
    assert resolve("a cat", "tiny", 1, size=value).size == size


@pytest.mark.parametrize("value", ["big", (64, "32"), (True, 64), [64, 32, 16], 64.5, {"w": 1}, "", float("inf")])
def test_what_is_no_size_is_answered_with_one(value):
    error = refusal(size=value)
    assert error.what.endswith(" is not a size")
    assert error.hint.startswith("write WIDTHxHEIGHT in pixels, e.g. 192x128")


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("steps", "eight", "steps: 'eight' is not a whole number"),
        ("steps", 1.5, "steps: 1.5 is not a whole number"),
        ("tv", "much", "tv: 'much' is not a number"),
        ("vqgan", 3, "vqgan: 3 is not text"),
        ("augments", "flip", "augments: 'flip' is not a list"),
        ("clips", [3], "clips: 3 is not text"),
    ],
)
def test_a_value_of_another_kind_is_refused_in_plain_words(field, value, told):
    assert refusal(**{field: value}).what == told


# curves


@pytest.mark.parametrize(
    ("field", "curve", "words"),
    [
        ("tv", "0: 3, 1: 2000", ("tv", "1900.15", "t = 0.95")),
        ("step_size", "1 - t / 0.5", ("step-size", "-0.8", "t = 0.95")),
        ("noise", "1 / (t - 0.5)", ("noise", "t = 0")),
        ("smallest_cutout", "0.09 / (0.51 - t)", ("smallest-cutout", "t = 0.55")),
        ("cutouts", "0: 8, 1: -1", ("cutouts", "-1", "t = 0.95")),
        ("prompt", "a cat:{3000 * t}", ("a cat", "t = 0.34")),
        ("tv", "0: 1, 0.5", ("tv", "keyframe")),
        ("tv", "much", ("tv", "much")),
    ],
)
def test_a_curve_out_of_range_is_refused_with_the_time(field, curve, words):
    refused = refusal(**{"steps": 20, field: curve})
    assert all(word in refused.what for word in words)
    assert refused.hint


def test_a_curve_is_a_number_at_each_step():
    made = make_settings(prompt="a cat", cutouts="0: 2, 1: 5", tv="0: 3, 0.5: 0", steps=10)
    assert [made.at(k / 10).cutouts for k in range(10)] == [2, 2, 3, 3, 3, 4, 4, 4, 4, 5]
    assert [made.at(k / 10).tv for k in (0, 1, 5, 9)] == pytest.approx([3, 2.4, 0, 0])
    assert (made.largest().cutouts, made.largest().tv) == (5, 3.0)
    assert make_settings(prompt="a cat").at(0.5) == make_settings(prompt="a cat")


def test_a_curve_is_written_as_its_text_and_read_again():
    made = make_settings(prompt="a cat", tv=" 0: 3, 1: 0 ", latent_noise="0.5 * (1 - t)")
    assert made.model_dump()["tv"] == "0: 3, 1: 0"
    assert make_settings(**made.model_dump(mode="json")) == made
    assert type(make_settings(prompt="a cat", tv="3").tv) is float


def test_a_curve_counts_as_a_loss():
    assert "saturation" in make_settings(prompt="a cat", saturation="0: 0, 1: 5").loss_weights()

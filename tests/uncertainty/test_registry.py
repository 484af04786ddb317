from dataclasses import asdict, fields

import pytest
import yaml

from ruac.base.config import config_from, load_config, save_config
from ruac.base.errors import RuacError
from ruac.training.adversarial import TrainConfig
from ruac.uncertainty import HEADS, HeadConfig, build_head, head_config

# What every config and export recorded while one dataclass held the fields of all heads.
FLAT = {
    **{"kappa": "channel", "hidden": 16, "kappa_min": 0.5, "kappa_max": 10.0, "kappa_init": 4.0, "variance": "full"},
    **{"logit_scale": False, "context": False, "context_hidden": 32, "prior_shape": 1.0, "prior_rate": 3.0},
    **{"dropout": 0.1, "samples": 20},
}


@pytest.mark.parametrize("kind", HEADS)
def test_every_head_has_a_config_of_its_own(kind):
    config = config_from(HeadConfig, {"posterior": kind}, "test")
    assert config == head_config(kind)
    head = build_head(config, token_dim=16, channels=8)
    assert (head is None) == (kind == "none")
    assert head is None or head.config is config
    others = {field.name for name in HEADS for field in fields(HEADS[name][0])} - set(asdict(config))
    assert not others or not any(hasattr(config, key) for key in others)


@pytest.mark.parametrize("kind", [kind for kind in HEADS if kind != "temperature"])
def test_flat_records_of_older_versions_load(kind):
    """Those of a head without a use for them never acted, whatever they were: a base set them for another head."""
    assert config_from(HeadConfig, {"posterior": kind, **FLAT}, "test") == head_config(kind)
    of_another = {"kappa": "pixel", "hidden": 3} if kind in ("none", "laplace", "evidential") else {}
    assert config_from(HeadConfig, {"posterior": kind, **FLAT, **of_another}, "test") == head_config(kind)
    if kind != "none":
        own = {"signed": "kappa", "nonnegative": "kappa", "dropout": "samples"}.get(kind)
        value = {"kappa": "pixel", "samples": 3}.get(own)
        if own is not None:
            assert getattr(config_from(HeadConfig, {"posterior": kind, **FLAT, own: value}, "test"), own) == value


def test_keys_of_another_head_are_refused_by_name_unless_they_say_its_default():
    assert config_from(HeadConfig, {"posterior": "evidential", "logit_scale": False}, "test") == head_config(
        "evidential"
    )
    for values, words in (
        ({"posterior": "dropout", "kappa": "pixel"}, "x.yaml: key 'kappa' belongs to posterior signed or nonnegative"),
        ({"posterior": "signed", "samples": 5}, "x.yaml: key 'samples' belongs to posterior dropout, not to signed"),
        ({"samples": 5}, "not to signed, which has logit_scale, kappa"),
        ({"posterior": "none", "logit_scale": True}, "not to none, which has no other keys"),
        ({"posterior": "laplace", "temperature": 2.0}, "belongs to posterior temperature, not to laplace"),
        ({"posterior": "dropout", "sample": 5}, "unknown key 'sample'; did you mean 'samples'"),
        ({"posterior": "drop"}, "found 'drop'; did you mean 'dropout'"),
        ({"posterior": ["dropout"]}, "posterior: expected signed or"),
    ):
        with pytest.raises(RuacError) as caught:
            config_from(HeadConfig, values, "x.yaml")
        assert words in str(caught.value)


def test_another_head_begins_anew_and_keeps_what_both_have(tmp_path):
    (tmp_path / "base.yaml").write_text("source: a\nhead: {kappa: pixel, logit_scale: true, hidden: 5}\n")
    (tmp_path / "dropout.yaml").write_text("base: base.yaml\nhead: {posterior: dropout}\nloss: {scoring: 0.0}\n")
    config = load_config(TrainConfig, tmp_path / "dropout.yaml")
    assert config.head == head_config("dropout", logit_scale=True, hidden=5)
    same = load_config(TrainConfig, tmp_path / "base.yaml", ["head.posterior=nonnegative"])
    assert same.head == head_config("nonnegative", kappa="pixel", logit_scale=True, hidden=5)
    # Overrides speak at once: their order does not matter.
    both = ["head.posterior=dropout", "head.kappa_min=0.7"]
    for overrides in (both, both[::-1]):
        with pytest.raises(RuacError, match=r"kappa_min=0\.7': key 'head\.kappa_min' belongs to posterior signed or"):
            load_config(TrainConfig, tmp_path / "base.yaml", overrides)


def test_what_a_run_records_holds_the_fields_of_its_head_alone(tmp_path):
    config = load_config(TrainConfig, None, ["source=a", "head.posterior=dropout", "head.samples=4"])
    save_config(config, tmp_path / "config.yaml")
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())["head"]
    assert written == {"posterior": "dropout", "logit_scale": False, "hidden": 16, "dropout": 0.1, "samples": 4}
    assert load_config(TrainConfig, tmp_path / "config.yaml") == config
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    written["head"] = {"posterior": "none", **FLAT, "logit_scale": True}  # as a control on ruac.yaml was recorded
    written["decoder_rate"] = 1e-5
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(written))
    assert load_config(TrainConfig, tmp_path / "config.yaml").head == HeadConfig("none")


def test_a_head_that_is_fitted_cannot_be_trained():
    with pytest.raises(RuacError, match=r"head\.posterior: temperature is fitted"):
        load_config(TrainConfig, None, ["source=a", "head.posterior=temperature"])


def test_a_config_and_its_name_belong_together():
    with pytest.raises(RuacError, match=r"head\.posterior: expected signed or nonnegative, found 'dropout'"):
        head_config("signed").__class__("dropout").validate()

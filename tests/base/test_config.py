"""Typed configs: layers, checks, and messages that name the key."""

import json
from dataclasses import dataclass, field

import pytest

from ruac.base.assets import asset_root, named_config
from ruac.base.config import config_from, load_config, load_record, save_config
from ruac.base.errors import RuacError
from ruac.evaluation.sweep.config import SweepConfig
from ruac.training.curriculum import CurriculumConfig, Phase, paper_phases


@dataclass
class Inner:
    rate: float = 0.5
    names: list[str] = field(default_factory=list)

    def validate(self) -> None:
        if self.rate < 0:
            raise RuacError(f"inner.rate: {self.rate}, expected at least 0")


@dataclass
class Outer:
    source: str = "???"
    steps: int = 10
    split: str | None = None
    inner: Inner = field(default_factory=Inner)
    parts: list[Inner] = field(default_factory=list)


@pytest.fixture
def write(tmp_path):
    def write(text: str):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write


def test_defaults():
    assert load_config(Inner) == Inner()
    assert load_config(Outer, None, ["source=x"]) == Outer(source="x")


def test_overrides_win_over_yaml_and_yaml_over_defaults(write):
    path = write("source: a\nsteps: 20\ninner: {rate: 0.25, names: [x, y]}\n")
    assert load_config(Outer, path) == Outer("a", 20, None, Inner(0.25, ["x", "y"]))
    config = load_config(Outer, path, ["steps=30", "inner.rate=1e-3", "steps=40", "split=val"])
    assert config == Outer("a", 40, "val", Inner(0.001, ["x", "y"]))


def test_a_yaml_holds_differences_from_its_base(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "first.yaml").write_text("source: a\nsteps: 20\ninner: {rate: 0.25, names: [x, y]}\n")
    (tmp_path / "second.yaml").write_text("base: first.yaml\nsteps: 30\ninner: {names: [z]}\n")
    (tmp_path / "inside" / "third.yaml").write_text("base: ../second.yaml\nsplit: val\n")
    assert load_config(Outer, tmp_path / "second.yaml") == Outer("a", 30, None, Inner(0.25, ["z"]))
    third = load_config(Outer, tmp_path / "inside" / "third.yaml", ["steps=40"])
    assert third == Outer("a", 40, "val", Inner(0.25, ["z"]))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["base: absent.yaml"], "absent.yaml: config file not found"),
        (["base: 1.yaml", "base: 0.yaml"], "0.yaml: key 'base' leads back to this file"),
        (["base: [1.yaml]"], "0.yaml: key 'base': expected the path of a YAML file, found"),
        (["base: 1.yaml", "stepz: 3"], "1.yaml: unknown key 'stepz'; did you mean 'steps'?"),
    ],
)
def test_bad_bases_are_named(tmp_path, texts, message):
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.yaml").write_text(text)
    with pytest.raises(RuacError) as info:
        load_config(Outer, tmp_path / "0.yaml", ["source=x"])
    assert message in str(info.value)
    assert str(tmp_path) in str(info.value)


def test_an_empty_yaml_changes_nothing(write):
    assert load_config(Inner, write("# nothing yet\n")) == Inner()


def test_values_may_hold_the_separator():
    assert load_config(Outer, None, ["source=a=b"]).source == "a=b"
    assert load_config(Outer, None, ["source=/with space/é.yaml"]).source == "/with space/é.yaml"


def test_lists_of_dataclasses(write):
    path = write("source: a\nparts:\n  - {rate: 1}\n  - {names: [z]}\n")
    assert load_config(Outer, path).parts == [Inner(1.0), Inner(names=["z"])]
    assert load_config(Outer, path, ["parts=[{rate: 2}]"]).parts == [Inner(2.0)]
    assert load_config(CurriculumConfig).phases == paper_phases()
    assert load_config(CurriculumConfig, None, ["phases=[{until: 1.0, kl: 0.5}]"]).phases == [Phase(kl=0.5)]
    models = load_config(SweepConfig, None, ["models=[{name: a, backbone: nano}]", "domains=[d]"]).models
    assert (models[0].name, models[0].backbone, models[0].export) == ("a", "nano", None)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sourse=x"], "override 'sourse=x': unknown key 'sourse'; did you mean 'source'?"),
        (["inner.rat=1"], "unknown key 'inner.rat'; did you mean 'inner.rate'?"),
        (["inner={rat: 1}"], "unknown key 'inner.rat'; did you mean 'inner.rate'?"),
        (["parts=[{rate: 1}, {nmes: []}]"], "unknown key 'parts[1].nmes'; did you mean 'parts[1].names'?"),
        (["parts.0.rate=1"], "key 'parts': expected a list"),
        (["parts[0].rate=1"], "key 'parts': expected a list"),
        (["parts=[3]"], "key 'parts[0]'"),
        (["steps=many"], "override 'steps=many': key 'steps': Value 'many' of type 'str' could not be converted"),
        (["steps=1.5"], "key 'steps'"),
        (["inner=3"], "override 'inner=3': "),
        (["inner=null"], "key 'inner'"),
        (["inner.rate=-1"], "inner.rate: -1.0, expected at least 0"),
        (["parts=[{rate: -1}]"], "inner.rate: -1.0, expected at least 0"),
        (["steps"], "override 'steps': expected key=value"),
        (["=3"], "override '=3': expected key=value"),
        (["steps=[1"], "override 'steps=[1': not a readable value"),
        (["source=${nowhere}"], "key 'source': Interpolation key 'nowhere' not found"),
    ],
)
def test_bad_overrides_are_named(overrides, message):
    with pytest.raises(RuacError) as info:
        load_config(Outer, None, ["source=x", *overrides])
    assert message in str(info.value)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("config", "override", "message"),
    [
        (CurriculumConfig, "phases=[{untl: 1.0}]", "'phases[0].untl'; did you mean 'phases[0].until'?"),
        (CurriculumConfig, "phases=[{until: 0.5}]", "rising shares that end with 1.0"),
        (SweepConfig, "models=[{nam: a}]", "'models[0].nam'; did you mean 'models[0].name'?"),
        (SweepConfig, "models=[{name: a}]", "model 'a': expected backbone="),
        (SweepConfig, "models=[{backbone: nano}]", "key 'models[0].name' has no default"),
    ],
)
def test_our_own_lists_are_checked(config, override, message):
    with pytest.raises(RuacError) as info:
        load_config(config, None, [override])
    assert message in str(info.value)


def test_a_missing_value_is_named():
    with pytest.raises(RuacError, match=r"^key 'source' has no default and was not given$"):
        load_config(Outer)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [1", "not a readable YAML file"),
        ("steps: 1\nsteps: 2\n", "not a readable YAML file"),
        ("- 1\n- 2\n", "expected a mapping of keys"),
        ("just words", "unknown key 'just words'"),
        ("3.5", "not a readable YAML file"),
        ("stepz: 3\n", "unknown key 'stepz'; did you mean 'steps'?"),
        ("3: 4\n", "unknown key '3'"),
        ("inner: {rate: fast}\n", "key 'inner.rate'"),
    ],
)
def test_bad_files_are_named(write, text, message):
    path = write(text)
    with pytest.raises(RuacError) as info:
        load_config(Outer, path, ["source=x"])
    assert str(info.value).startswith(f"{path}: ")
    assert message in str(info.value)
    assert "\n" not in str(info.value)


def test_missing_binary_and_folder(tmp_path):
    with pytest.raises(RuacError, match=r"absent\.yaml: config file not found"):
        load_config(Outer, tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(RuacError, match=r"binary\.yaml: not a readable YAML file"):
        load_config(Outer, tmp_path / "binary.yaml")
    with pytest.raises(RuacError, match="not a readable YAML file"):
        load_config(Outer, tmp_path)


def test_a_saved_config_is_read_back(tmp_path):
    config = Outer("a: b # c", 3, None, Inner(1e-8, ["1", "null"]), [Inner(), Inner(2.0)])
    path = tmp_path / "new" / "folder" / "config.yaml"
    save_config(config, path)
    assert load_config(Outer, path) == load_record(Outer, path) == config


def test_a_mapping_is_checked_in_the_same_way():
    assert config_from(Outer, {"source": "key=[value", "inner": {"rate": 2}}, "x.json") == Outer(
        "key=[value", inner=Inner(2.0)
    )
    for values, message in (
        ({"sorce": "a"}, "x.json: unknown key 'sorce'; did you mean 'source'?"),
        ([1], "x.json: expected a mapping of keys, found list"),
        ({"source": "a", "steps": "b"}, "x.json: key 'steps'"),
        ({"source": "a", "inner": {"rate": -1}}, "inner.rate"),
    ):
        with pytest.raises(RuacError) as info:
            config_from(Outer, values, "x.json")
        assert message in str(info.value)


INTERPOLATIONS = {
    "source": "${oc.env:RUAC_SECRET}",
    "split": "a ${oc.decode:'1'}",
    "inner": {"names": ["x", "${source}"]},
    "parts": [{"names": ["${oc.env:RUAC_SECRET,none}"]}],
}


@pytest.mark.parametrize("key", INTERPOLATIONS)
def test_a_file_from_anyone_reads_no_environment_and_no_other_file(tmp_path, write, monkeypatch, key):
    monkeypatch.setenv("RUAC_SECRET", "hidden")
    values = {"source": "a", key: INTERPOLATIONS[key]}
    path = write(json.dumps(values))
    for read in (lambda: load_record(Outer, path), lambda: config_from(Outer, values, str(path))):
        with pytest.raises(RuacError, match=rf"config\.yaml: key '{key}[^']*': .*, expected a value as it is") as info:
            read()
        assert "hidden" not in str(info.value)
    assert load_config(Outer, path).source == ("hidden" if key == "source" else "a")  # of a user's own it is a feature
    (tmp_path / "other.yaml").write_text("source: hidden\n")
    with pytest.raises(RuacError, match=r"config\.yaml: key 'base': a file that comes with a model may not name an"):
        load_record(Outer, write("base: other.yaml\n"))


@dataclass
class Typed:
    name: str = ""
    maybe: str | None = None
    names: list[str] = field(default_factory=list)
    rate: float = 0.0


@pytest.mark.parametrize(
    "text", ["/data/run #2/x", "010", "1_000", "2024_10_05", "1e3", "12:30:45", "1.10", "no", "/a: b"]
)
def test_text_arrives_as_typed(text):
    config = load_config(Typed, None, [f"name={text}", f"maybe={text}", f"names={text}"])
    assert (config.name, config.maybe, config.names) == (text, text, [text])


def test_lists_of_text_and_other_values_still_mean_something():
    config = load_config(Typed, None, ["names=[010, no, 'a, b']", "maybe=null", "rate=1e-3", "name='a b'"])
    assert (config.names, config.maybe, config.rate, config.name) == (["010", "no", "a, b"], None, 1e-3, "a b")


@pytest.mark.parametrize("override", ["names=[/data/a: b]", "names=[[a]]"])
def test_a_mapping_in_a_list_of_text_is_refused(override):
    with pytest.raises(RuacError, match=r"names\[0\] is a (dict|list); quote"):
        load_config(Typed, None, [override])


def test_a_list_in_a_file_is_checked(tmp_path):
    (tmp_path / "a.yaml").write_text("names: [/data/a: b]\n")
    with pytest.raises(RuacError, match=r"key 'names\[0\]': found a dict"):
        load_config(Typed, tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("names: /data\n")
    with pytest.raises(RuacError, match=r"key 'names': '/data', expected a list"):
        load_config(Typed, tmp_path / "a.yaml")


def test_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    config = load_config(Typed, None, ["name=~/x", "names=[~/y,~z]"])
    assert (config.name, config.names) == ("/home/somebody/x", ["/home/somebody/y", "~z"])


def test_configs_are_found_by_name_and_by_path_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = asset_root() / "configs" / "train" / "ruac.yaml"
    assert named_config("ruac", "train") == named_config("configs/train/ruac.yaml", "train") == own
    (tmp_path / "ruac").mkdir()  # a folder of that name is no config
    assert named_config("ruac", "train") == own
    (tmp_path / "mine.yaml").write_text("base: configs/sweep/domains.yaml\nlimit: 3\n")
    assert named_config("mine.yaml", "sweep").resolve() == tmp_path / "mine.yaml"
    assert load_config(SweepConfig, "mine.yaml", ["domains=[x]", "models=[{name: a, backbone: nano}]"]).limit == 3
    with pytest.raises(RuacError, match=r"rauc: neither a YAML file nor a config in .*; did you mean 'ruac'"):
        named_config("rauc", "train")


@dataclass
class Nested:
    one: Typed = field(default_factory=Typed)
    many: list[Typed] = field(default_factory=list)


TEXTS = ["010", "no", "1_000", "1.10", "1e3", "12:30:45", "2024_10_05", "2024-10-05", "true"]


@pytest.mark.parametrize("text", TEXTS)
def test_text_inside_mappings_and_files_stays_as_written(write, text):
    fields = f"{{name: {text}, maybe: {text}, names: [{text}], rate: 1e-3}}"
    expected = Typed(text, text, [text], 1e-3)
    wanted = Nested(expected, [expected])
    assert load_config(Nested, None, [f"one={fields}", f"many=[{fields}]"]) == wanted
    assert load_config(Nested, write(f"one: {fields}\nmany: [{fields}]\n")) == wanted
    assert load_config(Nested, write(f"one: &same {fields}\nmany:\n  - <<: *same\n")) == wanted


def test_what_is_no_text_is_still_yaml(write):
    path = write("one: {maybe: null, rate: 0x10}\nmany: [{maybe: ~, name: 'no'}]\n")
    assert load_config(Nested, path) == Nested(Typed(rate=16.0), [Typed("no")])


def test_home_of_files(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base.yaml").write_text("name: a\n")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "a.yaml").write_text("base: ~/base.yaml\nrate: 2\n")
    assert load_config(Typed, "~/inside/a.yaml") == Typed("a", rate=2.0)


def test_no_home_is_one_line(monkeypatch):
    def without(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.expanduser", without)
    with pytest.raises(RuacError, match=r"^~/x: this user has no home folder"):
        load_config(Typed, None, ["name=~/x"])


@pytest.mark.parametrize("text", ["/d\u00fcr/ '", 'a "b" c', "/x, y: z # 1", "\u6a19"])
def test_text_that_programs_quote_comes_back(text):
    config = load_config(Typed, None, [f"name={json.dumps(text)}", f"names={json.dumps([text])}"])
    assert (config.name, config.names) == (text, [text])

"""Settings: how layers merge, and the messages for wrong ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from v2a_ray.data.config import SourceSpec
from v2a_ray.errors import ConfigError, DomainError, V2AError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.reading import load_experiment
from v2a_ray.settings.yaml_files import merge, parse_overrides, read_yaml, validate

GOOD = """\
name: test
method: iql
target:
  domain: hopper/stock
  behavior: random
  num_transitions: 100
sources:
  - domain: hopper/gravity-0.5
    behavior: random
    num_transitions: 200
  - {domain: hopper/otdf-morph, behavior: random, num_transitions: 300}
policy:
  num_steps: 10
"""


def file_of(folder: Path, text: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(text)
    return path


def load(folder: Path, text: str, *overrides: str) -> ExperimentConfig:
    return load_experiment(file_of(folder, text), overrides)


def refused(folder: Path, text: str, *overrides: str, kind: type[V2AError] = ConfigError) -> str:
    """The message that refuses a configuration; it names the file or the command line."""
    with pytest.raises(V2AError) as error:
        load(folder, text, *overrides)
    assert type(error.value) is kind
    return str(error.value)


def test_a_good_file_loads_with_defaults_and_overrides(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD, "policy.batch_size=32", "sources.1.num_transitions=5", "seed=3")
    assert config.policy.num_steps == 10 and config.policy.batch_size == 32
    assert [source.num_transitions for source in config.sources] == [200, 5]
    assert [source.domain for source in config.sources] == ["hopper/gravity-0.5", "hopper/otdf-morph"]
    assert config.seed == 3 and config.policy.discount == 0.99


def test_precedence_is_default_method_file_command_line(tmp_path: Path) -> None:
    text = GOOD.replace("method: iql", "method: igdf")
    assert load(tmp_path, text).policy.filter.keep_fraction == 0.75  # the method's; the default is 0.5
    text += "  filter: {keep_fraction: 0.6}\n"
    assert load(tmp_path, text).policy.filter.keep_fraction == 0.6
    config = load(tmp_path, text, "policy.filter.keep_fraction=0.7")
    assert config.policy.filter.keep_fraction == 0.7
    assert config.policy.filter.weight == "exp_alignment"  # still the method's
    # Another method on the command line drops the file's modifications of its own method.
    assert load(tmp_path, text, "method=dvdf").policy.filter.model_dump() == {
        "rule": "top_fraction",
        "keep_fraction": 0.5,
        "alignment_weight": 0.7,
        "normalization": "batch",
        "normalize_alignment": False,
        "weight": "exp_alignment",
        "weight_threshold": math.log(0.01),
    }


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        pytest.param(
            ("num_steps: 10", "num_step: 10"),
            ["experiment.yaml:13: policy.num_step: unknown key", "did you mean 'num_steps'?"],
            id="unknown key",
        ),
        pytest.param(
            ("    behavior: random\n    num", "    behaviour: random\n    num"),
            ["experiment.yaml:9: sources.0.behaviour: unknown key", "did you mean 'behavior'?"],
            id="unknown key in a list",
        ),
        pytest.param(
            ("policy:\n  num_steps: 10", "zzz: 1"),
            ["experiment.yaml:12: zzz: unknown key", "known here: data_root, store"],
            id="unknown section",
        ),
        pytest.param(
            ("num_steps: 10", "num_steps: many"),
            ["experiment.yaml:13: policy.num_steps", "valid integer", "(got 'many')"],
            id="wrong type",
        ),
        pytest.param(
            ("num_steps: 10", "num_steps: 0"),
            ["experiment.yaml:13: policy.num_steps", "greater than 0", "(got 0)"],
            id="out of range",
        ),
        pytest.param(
            ("num_steps: 10", "learner: sac"),
            ["experiment.yaml:13: policy.learner", "no policy learner is called 'sac'", "iql, bc, td3_bc, awac"],
            id="not among the choices",
        ),
        pytest.param(
            ("policy:\n  num_steps: 10", "preprocessing:\n  reward_scale: big"),
            ["experiment.yaml:13: preprocessing.reward_scale", "'return_range'", "(got 'big')"],
            id="union",
        ),
        pytest.param(("policy:\n  num_steps: 10", "policy: 10"), ["experiment.yaml:12: policy"], id="not a section"),
        pytest.param(("name: test\n", ""), ["experiment.yaml", "name: is missing"], id="missing key"),
        pytest.param(
            ("    num_transitions: 200\n", ""),
            ["experiment.yaml:8: sources.0", "num_transitions is needed"],
            id="roll-out without a length",
        ),
        pytest.param(
            ("method: iql", "method: [iql]"), ["experiment.yaml", "method", "expected a name"], id="method not a name"
        ),
    ],
)
def test_invalid_settings_are_located_and_explained(tmp_path: Path, change: tuple[str, str], parts: list[str]) -> None:
    assert change[0] in GOOD
    message = refused(tmp_path, GOOD.replace(*change))
    assert str(tmp_path) in message
    for part in parts:
        assert part in message, message


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    message = refused(tmp_path, GOOD + "  width: -1\n  batch: 3\n")
    assert "experiment.yaml:14: policy.width" in message and "experiment.yaml:15: policy.batch" in message
    assert "try: " in message


def test_unknown_method_names_the_methods(tmp_path: Path) -> None:
    message = refused(tmp_path, GOOD.replace("method: iql", "method: magic"))
    assert "unknown method 'magic'" in message and "try: one of v2a, " in message and "bc" in message
    message = refused(tmp_path, GOOD.replace("method: iql", "method: v3a"))
    assert "unknown method 'v3a'" in message and "try: did you mean v2a?" in message


@pytest.mark.parametrize(("old", "key"), [("hopper/stock", "target"), ("hopper/gravity-0.5", "sources.0")])
def test_unknown_domain_is_located(tmp_path: Path, old: str, key: str) -> None:
    message = refused(tmp_path, GOOD.replace(old, "hopper/gravty-0.5"), kind=DomainError)
    assert str(tmp_path) in message and key in message and "gravty-0.5" in message and "try: " in message
    message = refused(tmp_path, GOOD.replace(old, "hoper"), kind=DomainError)
    assert key in message and "hoper" in message and "hopper" in message.split("try: ")[1]


def test_different_robots_are_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, GOOD.replace("hopper/otdf-morph", "ant/stock"))
    assert "sources.1 is a ant" in message or "sources.1 is an ant" in message
    assert "the target is a hopper" in message and "try: " in message


@pytest.mark.parametrize("sources", ["null", "{}", "5"])
def test_empty_or_malformed_sources_are_refused(tmp_path: Path, sources: str) -> None:
    head, _, rest = GOOD.partition("sources:\n")
    text = f"{head}sources: {sources}\n" + rest[rest.index("policy:") :]
    message = refused(tmp_path, text)
    assert "experiment.yaml:7: sources" in message
    assert refused(tmp_path, GOOD, f"sources={sources}")


def test_duplicate_source_names_are_refused(tmp_path: Path) -> None:
    text = GOOD.replace("hopper/otdf-morph", "hopper/gravity-0.5")
    message = refused(tmp_path, text)
    assert "'hopper-gravity-0.5-random' appears more than once" in message and "`name`" in message
    assert load(tmp_path, text, "sources.1.name=other").sources[1].label == "other"


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["policy.filter.rule=top_fraction"], "policy.filter.rule needs a column"),
        (["policy.filter.rule=calibrated", "advantage.kind=sparse_q"], "calibrated needs alignment.kind"),
        (["policy.filter.weight=exp_alignment"], "exp_alignment needs alignment.kind"),
        (["alignment.kind=modality"], "needs modality.include_target=true"),
    ],
)
def test_contradicting_sections_are_refused(tmp_path: Path, overrides: list[str], part: str) -> None:
    assert part in refused(tmp_path, GOOD, *overrides)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: no such file\n  try: "):
        load_experiment(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_experiment(tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match=r"binary\.yaml: cannot be read"):
        load_experiment(binary)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("name: test\nname: again\n", "experiment.yaml:2: the key 'name' appears twice"),
        (
            "policy:\n  width: 1\n  filter: {rule: none, rule: none}\n",
            "experiment.yaml:3: the key 'rule' appears twice",
        ),
        ("sources:\n  - domain: a\n    domain: b\n", "experiment.yaml:3: the key 'domain' appears twice"),
        ("name: [1, 2\n", "not valid YAML"),
        ("name: test\n\tmethod: iql\n", "experiment.yaml:2: not valid YAML"),
        ("name: *missing\n", "experiment.yaml:1: not valid YAML"),
        ("name: !!python/object/apply:os.system [ls]\n", "experiment.yaml:1: not valid YAML"),
        ("? [a, b]\n: 1\n", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("name: \x01\n", "not valid YAML"),
        ("", "expected `key: value` lines"),
        ("- a\n- b\n", "expected `key: value` lines"),
        ("just words\n", "expected `key: value` lines"),
    ],
)
def test_malformed_yaml_is_refused(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_yaml(file_of(tmp_path, text))
    assert part in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value).strip()


def test_recursive_alias_is_refused(tmp_path: Path) -> None:
    assert "experiment.yaml" in refused(tmp_path, GOOD + "advantage: &loop\n  kind: *loop\n")


def test_key_that_is_not_a_name_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, GOOD + "7: 8\n")
    assert "experiment.yaml:14: 7" in message


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("policy.num_steps", "expected key.path=value, got 'policy.num_steps'"),
        ("=5", "expected key.path=value, got '=5'"),
        ("policy..num_steps=5", "expected key.path=value, got 'policy..num_steps=5'"),
        (".policy=5", "expected key.path=value"),
        ("policy.=5", "expected key.path=value"),
        ("policy.num_steps=[1", "not valid YAML: '[1'"),
        ("policy.num_step=5", "policy.num_step: unknown key; did you mean 'num_steps'?"),
        ("policy.num_steps.x=5", "policy.num_steps"),
        ("sources.2.num_transitions=5", "list index 2 is out of range: there are 2 items"),
        ("sources.-1.num_transitions=5", "sources"),
        ("sources.first.num_transitions=5", "sources"),
        ("sources.0.num_transitions=none", "sources.0.num_transitions"),
    ],
)
def test_wrong_overrides_are_refused(tmp_path: Path, override: str, part: str) -> None:
    assert part in refused(tmp_path, GOOD, override)


def test_contradicting_overrides_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"policy\.num_steps goes below a value that was set before"):
        parse_overrides(["policy=3", "policy.num_steps=5"])


def test_override_values_are_yaml() -> None:
    assert parse_overrides(["a=1", "b.c=true", "b.d=[1, x]", "e=", "f=x=y", "g={h: 2}", "g.i=3", "a=4"]) == {
        "a": 4,
        "b": {"c": True, "d": [1, "x"]},
        "e": None,
        "f": "x=y",
        "g": {"h": 2, "i": 3},
    }


def test_exponents_are_read_as_numbers(tmp_path: Path) -> None:
    # YAML 1.1 reads 1e-3 as text, but people write it.
    config = load(tmp_path, GOOD + "  learning_rate: 1e-3\n", "alignment.learning_rate=1e-4")
    assert config.policy.learning_rate == 0.001 and config.alignment.learning_rate == 0.0001
    assert load(tmp_path, GOOD, "preprocessing.reward_scale=1e-1").preprocessing.reward_scale == 0.1


def test_errors_without_a_file_name_the_key() -> None:
    with pytest.raises(ConfigError, match="nam: unknown key; did you mean 'name'"):
        validate(SourceSpec, {"domain": "hopper", "path": "x", "nam": "y"})


def test_settings_are_frozen() -> None:
    spec = SourceSpec(domain="hopper", path="x")
    with pytest.raises(ValidationError):
        spec.domain = "ant"  # type: ignore[misc]


scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2)
keys = st.sampled_from(["a", "b", "c"])
trees = st.recursive(scalars, lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=8)
mappings = st.dictionaries(keys, trees, max_size=3)


def leaves(tree: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every path to a value that is not a non-empty mapping."""
    if isinstance(tree, dict) and tree:
        return {key: value for name, part in tree.items() for key, value in leaves(part, (*path, name)).items()}
    return {path: tree}


def at(tree: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree[name]
    return tree


@settings(max_examples=150, deadline=None)
@given(mappings, mappings)
def test_merge_overrides_given_settings_and_keeps_the_others(base: dict[str, Any], over: dict[str, Any]) -> None:
    merged = merge(base, over)
    for path, value in leaves(over).items():
        if path and value != {}:
            assert at(merged, path) == value
    assert base.keys() | over.keys() == merged.keys()
    for name in base.keys() - over.keys():
        assert merged[name] == base[name]
    assert merge(merged, over) == merged  # idempotent
    assert merge(base, {}) == base and merge({}, over) == over


@settings(max_examples=50, deadline=None)
@given(mappings, mappings, mappings)
def test_merge_chains_and_keeps_its_arguments(
    first: dict[str, Any], second: dict[str, Any], third: dict[str, Any]
) -> None:
    copies = repr((first, second, third))
    chained = merge(merge(first, second), third)
    assert repr((first, second, third)) == copies
    for path, value in leaves(third).items():
        if path and value != {}:
            assert at(chained, path) == value


@given(st.lists(st.integers(), min_size=1, max_size=4), st.data())
def test_integer_key_edits_one_item_of_a_list(items: list[int], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(items) - 1))
    edited = merge({"list": items}, {"list": {str(index): "new"}})["list"]
    assert edited == [*items[:index], "new", *items[index + 1 :]]
    assert merge({"list": items}, {"list": ["other"]}) == {"list": ["other"]}


BOMB = "[" + ", ".join(["&a0 [x]"] + [f"&a{i} [" + ", ".join([f"*a{i - 1}"] * 10) + "]" for i in range(1, 9)]) + "]"


@pytest.mark.parametrize("value", [BOMB, "[" * 5000 + "]" * 5000, "9" * 5000], ids=["aliases", "depth", "digits"])
def test_yaml_with_exploding_aliases_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"expand to more|nested too deeply|not usable"):
        read_yaml(file_of(tmp_path, f"name: {value}"))
    with pytest.raises(ConfigError, match=r"expand to more|nested too deeply|not usable"):
        parse_overrides([f"name={value}"])


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("policy.num_steps=-3", "policy.num_steps"),
        ("policy.num_stesp=3", "policy.num_stesp"),
        ("polcy.num_steps=3", "polcy"),
        ("sources.0.num_transitions=-1", "sources.0.num_transitions"),
        ("target={domain: hopper/stock, behavior: random, num_transitions: x}", "target.num_transitions"),
        ("name=../../x", "name"),
    ],
)
def test_error_of_an_override_names_the_command_line(tmp_path: Path, override: str, key: str) -> None:
    said = refused(tmp_path, GOOD, override)
    assert f"command line: {key}: " in said and "experiment.yaml:" not in said


def test_error_of_a_file_names_its_line_despite_overrides(tmp_path: Path) -> None:
    said = refused(tmp_path, GOOD.replace("num_steps: 10", "num_steps: -10"), "policy.width=8")
    assert "experiment.yaml:13: policy.num_steps" in said

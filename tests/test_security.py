"""What data, parameters and downloads may not do: run code, or reach a shell."""

import ast
import re
from pathlib import Path

import pytest
import torch

from miram import params
from miram.errors import MiramError, ParameterError
from miram.stages import STAGES
from miram.train import checkpoint

ROOT = Path(__file__).parent.parent
FORBIDDEN = {  # the dotted end of a call -> why
    **dict.fromkeys(("eval", "exec", "os.system", "os.popen"), "runs text as code"),
    **dict.fromkeys(("pickle.load", "pickle.loads", "pd.read_pickle"), "unpickles"),
    **dict.fromkeys(("yaml.unsafe_load", "yaml.full_load"), "YAML that makes objects"),
}


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def calls():
    for source in sorted((ROOT / "miram").rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call):
                yield f"{source.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func), node


def keyword(node, name):
    return next((word.value for word in node.keywords if word.arg == name), None)


def test_no_call_runs_text_or_unpickles_or_starts_a_shell():
    for place, name, node in calls():
        assert name not in FORBIDDEN, f"{place}: {name} {FORBIDDEN[name]}"
        if name == "torch.load":
            assert ast.unparse(keyword(node, "weights_only") or ast.Constant(None)) == "True", place
        if name == "np.load":
            assert keyword(node, "allow_pickle") is None, place
        if name == "yaml.load":
            assert ast.unparse(node.args[1]) in ("UniqueKeys", "yaml.SafeLoader"), place
        assert keyword(node, "shell") is None, f"{place}: a shell"


def test_yaml_makes_no_objects(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(f"preset: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'made'}]\n")
    with pytest.raises(ParameterError, match="not valid YAML"):
        params.load(file)
    assert not (tmp_path / "made").exists()


def test_a_checkpoint_runs_no_code(tmp_path):
    torch.save({"model": Trap(tmp_path / "made")}, tmp_path / "checkpoint.pt")
    with pytest.raises(MiramError, match="not a checkpoint"):
        checkpoint.load(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["a;touch b", "$(touch b)", "a b", "../a", "-a"])
def test_a_method_whose_name_could_reach_a_shell_is_refused(tmp_path, name):
    file = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text()
    file.write_text(text.replace("\n  mae:\n", f'\n  "{name}":\n', 1))
    with pytest.raises(ParameterError, match="A row's name is text of a-z, 0-9 and -"):
        params.load(file)


def test_every_wildcard_of_a_rule_is_constrained_to_plain_words():
    rules = "".join(path.read_text() for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")))
    block = re.search(r"wildcard_constraints:\n((?: +.*\n)+)", rules)[1]
    constraints = dict(re.findall(r' (\w+)=r?"(.*)"', block))
    used = set(re.findall(r"wildcards\.(\w+)", rules)) - {"get"}
    jobs = [stage for stage in STAGES.values() if not stage.within]
    assert used | {name for stage in jobs for name in stage.place} <= constraints.keys()
    for name, pattern in constraints.items():
        for hostile in ("a;b", "$(b)", "a b", "a/b", "`b`", "a'b"):
            assert not re.fullmatch(pattern, hostile), f"{name} lets {hostile} through"

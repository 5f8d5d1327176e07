"""Machines unlike ours: no locks, no home, other locales, other folders, other owners, containers, older tools."""

import ast
import io
import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from miram import layout, params
from miram.cli import main
from miram.errors import MiramError
from miram.planning import mounts

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
SHIPPED = (ROOT / "params.yaml").read_text(encoding="utf-8")
NO_FLOCK = "import fcntl, os\ndef flock(*_):\n    raise OSError(37, os.strerror(37))\nfcntl.flock = flock\n"
NO_HOME = "/proc/nothing"  # nobody, root included, makes a folder there
ASCII = {
    "LC_ALL": "POSIX",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
}  # a locale that is not UTF-8, on every machine


def run(command, folder, env=(), **more):
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **dict(env)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=300, **more
    )


def snakemake(folder, *words, env=()):
    """The workflow of this project, working in another folder."""
    given = ["--snakefile", ROOT / "Snakefile", "--directory", folder, "--cores", "1", *words]
    return run([BIN / "snakemake", *given], folder, env)


def program(folder, name, text):
    """A stand-in for a program, in a folder that goes before the others of PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    (folder / name).chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{BIN}{os.pathsep}{os.environ['PATH']}"}


def edited(folder, **values):
    """params.yaml in a folder, with other values of the keys that are null; `encoders`: the file of a row `theirs`."""
    row = f"{{theirs: {{timm: test_vit, weights: {values['encoders']}}}}}" if "encoders" in values else "{}"
    text = SHIPPED.replace("encoders: {}", f"encoders: {row}")
    for name, value in values.items() - {("encoders", values.get("encoders"))}:
        text, count = re.subn(rf"(\n +{name}): null", rf"\1: {value}", text)
        assert count == 1, name
    (folder / "params.yaml").write_text(text, encoding="utf-8")


def test_the_workflow_starts_in_another_folder_of_a_machine_without_locks_or_a_home_or_utf_8(tmp_path):
    (tmp_path / "params.yaml").write_text(f"# für Müşteri\n{SHIPPED}", encoding="utf-8")
    (tmp_path / "sitecustomize.py").write_text(NO_FLOCK, encoding="utf-8")
    env = {"HOME": NO_HOME, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path), **ASCII}
    done = snakemake(tmp_path, "--dry-run", env=env)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert (
        "has no locks (No locks available)" in said and "Start no other run in this folder before this one ends" in said
    )
    assert "profiles/default" in said
    assert {"archive", "claims", "table", "report"} <= set(re.findall(r"^(\w+) +\d+$", said, re.MULTILINE))


def cache_of_make(**env):
    """The folder of caches that `make` hands to what it starts."""
    environment = {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"} | env
    show = ["make", "--silent", "--eval", 'show: ; @echo "$$XDG_CACHE_HOME"', "show"]
    return subprocess.run(show, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8").stdout.strip()


def test_where_no_home_can_be_written_make_gives_the_caches_a_folder_here(tmp_path):
    here = str(ROOT.resolve() / ".snakemake" / "cache")
    assert cache_of_make(HOME=NO_HOME) == cache_of_make(HOME="") == here
    assert cache_of_make(HOME=str(tmp_path)) == ""
    assert cache_of_make(HOME=NO_HOME, XDG_CACHE_HOME="/given") == "/given"


def test_the_image_has_a_home_that_can_be_written_whatever_is_given(tmp_path):
    done = docker_run(tmp_path, ["data"], {"HOME": NO_HOME})
    assert done.stdout == "miram data, HOME=/tmp\n", done.stderr


def docker_run(folder, words, env=()):
    """docker/run with a folder here in the place of /data, and stand-ins for what it starts."""
    project = folder / "miram"
    for name in ("bench", "data"):
        (project / name).mkdir(parents=True, exist_ok=True)
    if not (project / "results").exists():
        (project / "results").symlink_to(project / "data" / "results")
    script = (ROOT / "docker" / "run").read_text(encoding="utf-8").replace("/data/", f"{project}/data/")
    (project / "run").write_text(script, encoding="utf-8")
    program(folder / "bin", "miram", 'echo "miram $1, HOME=$HOME"')
    program(folder / "bin", "snakemake", "echo started")
    # cp of coreutils 9.2 to 9.4 fails where -n passes over a file
    path = program(folder / "bin", "cp", 'case "$1" in -*n*) exit 1 ;; esac\nexec /bin/cp "$@"')
    return run(["sh", "run", *words], project, {**path, **dict(env)})


def test_the_image_hands_over_what_was_measured_and_keeps_what_is_there_with_every_cp(tmp_path):
    docker_run(tmp_path, ["data"])
    bench, own = tmp_path / "miram" / "bench", tmp_path / "miram" / "data" / "results" / "bench"
    own.mkdir(parents=True)
    (own / "a.json").write_text("mine", encoding="utf-8")
    for name in ("a.json", "b.json"):
        (bench / name).write_text("theirs", encoding="utf-8")
        os.utime(bench / name, (1e9, 1e9))
    for _ in range(2):
        assert "started" in docker_run(tmp_path, ["demo"]).stdout
    assert [path.read_text(encoding="utf-8") for path in sorted(own.iterdir())] == ["mine", "theirs"]
    assert (own / "b.json").stat().st_mtime == 1e9


def test_a_letter_that_the_locale_lacks_stops_no_command(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    monkeypatch.chdir(tmp_path)
    assert main(["crops"]) == 1
    print("Nyström", flush=True)
    assert sys.stdout.buffer.getvalue() == b"Nystr\\xf6m\n"


def calls():
    """Every call in Python code that is not a test's: place, name, keywords, node."""
    for source in [*(ROOT / "miram").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
                yield f"{source.relative_to(ROOT)}:{node.lineno}", name, {word.arg for word in node.keywords}, node


def in_locale(name, keywords, node):
    """Whether a call reads or writes text as the locale has it, or ends lines as the system does."""
    if name in ("run", "Popen", "check_output"):
        return bool({"text", "universal_newlines"} & keywords)
    if name == "to_csv":
        return "lineterminator" not in keywords
    if name == "open":
        method = isinstance(node.func, ast.Attribute)  # of a Path, or of an archive, whose first word is no mode
        given = [word.value for word in node.keywords if word.arg == "mode"] + node.args[not method :]
        mode = str(given[0].value) if given and isinstance(given[0], ast.Constant) else "" if method else "r"
        return re.fullmatch("[rwax+]+", mode) is not None and "encoding" not in keywords
    return name in ("read_text", "write_text") and "encoding" not in keywords


def test_all_text_is_utf_8_and_tables_end_their_lines_alike_whatever_the_machine():
    found = [f"{place}: {name}" for place, name, keywords, node in calls() if in_locale(name, keywords, node)]
    for rules in (ROOT / "workflow" / "rules").glob("*.smk"):
        for number, line in enumerate(rules.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(r"(\bopen|\.read_text|\.write_text)\((?!.*(encoding=|b\"\)))|text=True", line):
                found.append(f"{rules.name}:{number}: {line.strip()}")
    assert not found


@pytest.mark.parametrize(
    ("code", "caught"),
    [
        ('open("a")', True),
        ('open("a", "w", newline="")', True),
        ('open("a", mode="w")', True),
        ('path.open("w")', True),
        ("path.read_text()", True),
        ("subprocess.run(command, text=True)", True),
        ("table.to_csv(path)", True),
        ('open("a", "rb")', False),
        ('path.open("rb")', False),
        ('path.open("w", encoding="utf-8")', False),
        ("archive.open(member)", False),
        ('subprocess.run(command, encoding="utf-8")', False),
    ],
)
def test_text_in_the_locale_is_seen(code, caught):
    node = ast.parse(code).body[0].value
    name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
    assert in_locale(name, {word.arg for word in node.keywords}, node) == caught


def test_no_checkout_changes_bytes():
    asked = run(["git", "-c", "safe.directory=*", "check-attr", "text", "results/demo/metrics.csv"], ROOT)
    if asked.returncode:
        pytest.skip("git knows no repository here")
    assert asked.stdout.strip().endswith("text: unset")


def test_what_comes_with_the_code_is_named_from_any_folder_and_ones_own_goes_before_it(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert layout.claims_yaml() == Path("workflow/resources/claims.yaml")
    shipped = layout.benches()
    assert shipped and layout.default_params() == Path("params.yaml")
    monkeypatch.chdir(tmp_path)
    assert layout.paper_csv() == ROOT.resolve() / "workflow/resources/paper.csv"
    assert layout.default_params() == ROOT.resolve() / "params.yaml"
    assert layout.benches() == [ROOT.resolve() / path for path in shipped]
    (tmp_path / layout.BENCH).mkdir(parents=True)
    own = layout.BENCH / shipped[-1].name
    for path in (Path("params.yaml"), own):
        path.touch()
    assert layout.default_params() == Path("params.yaml")
    assert layout.benches() == [*(ROOT.resolve() / path for path in shipped[:-1]), own]


def test_half_precision_on_a_cpu_is_refused_before_anything_runs(tmp_path):
    file = tmp_path / "params.yaml"
    mixed = re.sub("precision: (32-true|auto),", "precision: 16-mixed,", SHIPPED)
    file.write_text(mixed, encoding="utf-8")
    with pytest.raises(MiramError, match=r"16-mixed.*compute\.accelerator: cpu"):
        params.load(file, "demo")
    assert params.load(file, "paper").compute.precision == "16-mixed"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working folder, and folders of the user's beside it: (work, beside)."""
    work, beside = tmp_path / "work", tmp_path / "beside"
    for folder in (work, beside / "my images", beside / "weights", beside / "disk", beside / "annex" / "a"):
        folder.mkdir(parents=True)
    for file in ("my images/a.png", "weights/vit.pth", "annex/a/b.png"):
        (beside / file).touch()
    monkeypatch.chdir(work)
    return work, beside


def test_a_container_is_given_what_lies_outside_the_working_folder(elsewhere):
    work, beside = elsewhere
    (work / "inside").mkdir()
    (work / "data").symlink_to(beside / "disk")
    (beside / "my images" / "b.png").symlink_to(beside / "annex" / "a" / "b.png")
    given = [Path("../beside/my images"), Path("../beside/my images/a.png"), Path("inside"), Path("../gone")]
    given.append(Path("../beside/weights/vit.pth"))
    images = sorted((beside / "my images").iterdir())
    found = mounts.folders_outside(given, images, [Path("data/demo"), Path("runs/demo")])
    assert found == [beside / name for name in ("annex/a", "disk", "my images", "weights")]
    assert mounts.bind_options(found)[2] == f"--bind '{beside}/my images'"
    with pytest.raises(MiramError, match=r"cannot mount /a,b.*comma"):
        mounts.bind_options([Path("/a,b")])


def test_every_parameter_that_names_a_file_or_folder_is_known_by_its_key(tmp_path):
    edited(tmp_path, extra_images="../extra", encoder_init="../vit.pth", encoders="../vit.pth")
    keys = {}
    for source in ("tcia", "idc", "local"):
        text = (tmp_path / "params.yaml").read_text(encoding="utf-8").replace("source: tcia #", f"source: {source} #")
        (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
        chosen = params.load(tmp_path / "own.yaml", "paper")
        keys[source] = set(params.given_paths(chosen))
    every = {"pretrain.extra_images", "encoders.theirs.weights", *(f"methods.{m}.encoder_init" for m in chosen.methods)}
    assert keys["tcia"] == keys["idc"] == every
    assert keys["local"] == every | {"sources.local.folder", "sources.local.csv_url"}
    named = {name for name in re.findall(r"^ +(\w+): \.\./", SHIPPED, re.MULTILINE)}
    assert named <= {"folder", "csv_url", "table_csv"}, (
        "a parameter that names a path and that given_paths does not know"
    )


def test_apptainer_is_told_to_mount_them(elsewhere):
    work, beside = elsewhere
    (work / "data").symlink_to(beside / "disk")
    (work / "miram.sif").touch()
    edited(work, extra_images=f"{beside}/my images", encoder_init="../beside/weights/vit.pth")
    said = work / "said.json"
    stand_in = f"""import json, os, sys
if sys.argv[1:] == ["--version"]:
    print("apptainer version 1.3.6")
else:
    json.dump([*sys.argv[1:], "UTF-8: " + os.environ["PYTHONUTF8"]], open({str(said)!r}, "w"))
    sys.exit(1)"""
    (work / "apptainer.py").write_text(stand_in, encoding="utf-8")
    path = program(work / "bin", "apptainer", f'exec {sys.executable} {work}/apptainer.py "$@"')
    own = ["--apptainer-args", f"--nv --bind {beside}/weights", "--config", "container=miram.sif"]
    done = snakemake(work, "data/demo/archive.json", "--use-singularity", *own, env=path)
    assert done.returncode == 1
    words = json.loads(said.read_text(encoding="utf-8"))
    bound = [after for word, after in pairwise(words) if word == "--bind"]
    for folder in (beside / "disk", beside / "my images", beside / "weights", ROOT.resolve()):
        assert bound.count(str(folder)) == 1
    assert "--nv" in words and "UTF-8: 1" in words


def test_in_our_image_what_is_not_mounted_is_named_with_the_option_that_mounts_it(elsewhere):
    work, _ = elsewhere
    edited(work, extra_images="../images/more", encoders="vit.pth")  # and the folder's own parameters are read
    stopped = snakemake(work, "--dry-run", env={"MIRAM_IMAGE": "sha256:1"})
    said = stopped.stdout + stopped.stderr
    assert stopped.returncode == 1
    assert "no ../images/more (pretrain.extra_images), vit.pth (encoders.theirs.weights)" in said
    assert f"--volume YOURS:{work.parent}/images/more:ro --volume YOURS:{work}/vit.pth:ro" in said


def test_the_image_of_a_clone_that_another_user_owns_names_its_commit(tmp_path):
    for name in ("Makefile", "miram/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    path = program(tmp_path / "bin", "docker", 'echo "$@"')
    make = ["make", "image"]
    said = run(make, tmp_path, path).stdout
    assert "COMMIT=unknown" in said and "DIRTY=true" in said
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "all"]):
        run([*git, *words], tmp_path, check=True)
    commit = run(["git", "rev-parse", "HEAD"], tmp_path).stdout.strip()
    said = run(make, tmp_path, {**path, "GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}).stdout
    assert f"COMMIT={commit} " in said and "DIRTY=false" in said

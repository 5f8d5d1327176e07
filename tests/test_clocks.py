"""No test of the default suite fails because the machine is slow: none judges a time, or waits less than a hang takes.

What is not seen here: a time that a function returns under another name than those of `TIMES`.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SETTINGS = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
LONG_MARKS = {line.partition(":")[0] for line in SETTINGS["markers"]}  # the default suite has none of them
CLOCKS = {"time.time", "monotonic", "perf_counter", "process_time", "clock"}
TIMES = {"seconds", "elapsed", "took", "utilisation"}  # a value of such a name was measured
LIMITS = {"timeout", "timeout_seconds"}
PATIENCE = 20  # seconds that only a hang takes
HANGS = "hangs"  # a word in the name of a test whose server hangs: it may wait for less


def name_of(node: ast.AST) -> str:
    """What a name, attribute, or subscript by a text is called; of `time.time`, both words."""
    match node:
        case ast.Name(id=name) | ast.Subscript(slice=ast.Constant(value=str(name))):
            return name
        case ast.Attribute(value=ast.Name(id="time"), attr="time"):
            return "time.time"
        case ast.Attribute(attr=name):
            return name
    return ""


def names_in(node: ast.AST) -> set[str]:
    return {name_of(part) for part in ast.walk(node)}


def is_long(node: ast.AST) -> bool:
    """Whether a function's decorators, or a file's `pytestmark`, keep it out of the default suite."""
    if isinstance(node, ast.Module):
        marks = [line.value for line in node.body if isinstance(line, ast.Assign) and "pytestmark" in names_in(line)]
    else:
        marks = [mark for mark in getattr(node, "decorator_list", []) if "parametrize" not in names_in(mark)]
    return any(LONG_MARKS & names_in(mark) for mark in marks)


def short_limits(node: ast.AST) -> Iterator[ast.Constant]:
    """Seconds that a call or a table gives as the limit of a wait: by keyword, by key, or to `join` and `wait`."""
    match node:
        case ast.Call(func=ast.Attribute(attr="join"), args=[limit]):
            yield limit
        case ast.keyword(arg=name, value=limit) if name in LIMITS:
            yield limit
        case ast.Dict(keys=keys, values=values):
            yield from (limit for key, limit in zip(keys, values, strict=True) if getattr(key, "value", "") in LIMITS)
        case ast.Assert(test=test):
            yield from (
                call.args[0]
                for call in ast.walk(test)
                if isinstance(call, ast.Call) and name_of(call.func) == "wait" and call.args
            )


def is_short(limit: ast.AST) -> bool:
    return isinstance(limit, ast.Constant) and isinstance(limit.value, int | float) and limit.value < PATIENCE


def judges_a_time(test: ast.AST, measured: set[str]) -> bool:
    """Whether an assertion reads a clock, or compares a time with a number other than 0."""
    if (CLOCKS | measured) & names_in(test):
        return True
    for compare in (part for part in ast.walk(test) if isinstance(part, ast.Compare)):
        sides = [compare.left, *compare.comparators]
        ordered = any(isinstance(operator, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for operator in compare.ops)
        numbers = [side.value for side in sides if isinstance(side, ast.Constant)]
        if ordered and any(numbers) and any(name_of(side) in TIMES for side in sides):
            return True
    return False


def faults_of(node: ast.AST, patient: bool = True) -> Iterator[tuple[int, str]]:
    """The line and fault of each place that a slow machine could reach, in a file or function of the default suite."""
    if is_long(node):
        return
    assigned = [part for part in ast.walk(node) if isinstance(part, ast.Assign)]
    function = isinstance(node, ast.FunctionDef)
    patient = patient and not (function and HANGS in node.name.split("_"))
    measured = {name_of(target) for part in assigned if CLOCKS & names_in(part.value) for target in part.targets}
    for part in own_parts(node):
        if isinstance(part, ast.FunctionDef):
            yield from faults_of(part, patient)
        if isinstance(part, ast.Assert) and judges_a_time(part.test, measured if function else set()):
            yield part.lineno, "asserts a time"
        if isinstance(part, ast.While) and "sleep" in names_in(part) and "deadline" not in names_in(part):
            yield part.lineno, "waits without a deadline"
        if patient and any(map(is_short, short_limits(part))):
            yield part.lineno if hasattr(part, "lineno") else part.value.lineno, f"waits less than {PATIENCE} s"


def own_parts(node: ast.AST) -> Iterator[ast.AST]:
    """All parts of a function or file, but not those of the functions in it."""
    for part in ast.iter_child_nodes(node):
        yield part
        if not isinstance(part, ast.FunctionDef):
            yield from own_parts(part)


def test_no_test_of_the_default_suite_can_fail_because_the_machine_is_slow():
    files = [file for file in HERE.rglob("*.py") if file.parent.name != "containers"]
    assert len(files) > 80
    found = [
        f"{file.relative_to(HERE)}:{line} {fault}"
        for file in sorted(files)
        for line, fault in faults_of(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("def test_a():\n    assert time.monotonic() - start < 5", "asserts a time"),
        ("def test_a():\n    rate = 5 / (perf_counter() - start)\n    assert rate > 5", "asserts a time"),
        ("def test_a():\n    assert facts['seconds'] < 9", "asserts a time"),
        ("def test_a():\n    assert 0.2 < row['utilisation'] < 2", "asserts a time"),
        ("def test_a():\n    while not done():\n        time.sleep(0.01)", "waits without a deadline"),
        ("def test_a():\n    def b():\n        while True:\n            sleep(0.01)", "waits without a deadline"),
        ("def test_a():\n    thread.join(2.0)\n    assert not thread.is_alive()", "waits less than 20 s"),
        ("def test_a():\n    assert event.wait(2)", "waits less than 20 s"),
        ("TRIES = {'timeout_seconds': 0.4}", "waits less than 20 s"),
        ("def test_what_changes():\n    get(url, timeout_seconds=0.5)", "waits less than 20 s"),
        ("def test_a():\n    requests.get(url, timeout=5)", "waits less than 20 s"),
        (
            "@mark.parametrize('n', [param(1, marks=mark.slow)])\ndef test_a(n):\n    assert clock() < n",
            "asserts a time",
        ),
    ],
)
def test_what_a_slow_machine_could_reach_is_found(code, fault):
    assert [found for _, found in faults_of(ast.parse(code))] == [fault]


@pytest.mark.parametrize(
    "code",
    [
        "@pytest.mark.slow\ndef test_a():\n    assert time.monotonic() - start < 5",
        "pytestmark = pytest.mark.cluster\ndef test_a():\n    assert time.monotonic() - start < 5",
        "def wait():\n    deadline = monotonic() + 60\n    while monotonic() < deadline:\n        sleep(1)",
        "def test_a_server_that_hangs():\n    get(url, timeout_seconds=0.5)",
        "def test_a():\n    thread.join(20)\n    assert facts['seconds'] > 0 and ', '.join(words)",
    ],
)
def test_what_no_slow_machine_reaches_is_left_alone(code):
    assert list(faults_of(ast.parse(code))) == []

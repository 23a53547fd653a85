"""What the pages for readers name exists, and the commands that they show are accepted."""

import ast
import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

import kitlib
from kitlib import cli, stages
from kitlib.errors import KitError

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "outputs" / "README.md"])
FOLDERS = ("kitlib", "notebooks", "tests", "experiments", "docs", ".ci")
ENDINGS = (".py", ".ipynb", ".sh", ".toml", ".txt", ".cff")  # other files may be a run's results
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PLACEHOLDER = re.compile(r"[A-Z]{2,}(?![A-Z]*\.md)")  # the NAME in bench_NAME.py


def spans(text):
    """The code within sentences, line breaks as blanks."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", FENCE.sub("", text))]


def shell_lines(text):
    """The lines of the blocks marked as bash, comments removed."""
    blocks = [block for language, block in FENCE.findall(text) if language == "bash"]
    return [re.sub(r"\s+# .*", "", line) for line in "".join(blocks).replace("\\\n", " ").splitlines()]


def imports(text):
    """What the blocks of Python import, as dotted names."""
    blocks = [ast.parse(block) for language, block in FENCE.findall(text) if language == "python"]
    nodes = [node for block in blocks for node in ast.walk(block) if isinstance(node, ast.ImportFrom)]
    return [f"{node.module}.{alias.name}" for node in nodes for alias in node.names]


def anchors(page):
    """The addresses of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(text, page):
    """The links to files or headings of this repository that lead nowhere."""
    broken = []
    for link in LINK.findall(FENCE.sub("", text)):
        name, _, heading = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if ":" not in link and not (target.exists() and (not heading or heading in anchors(target))):
            broken.append(link)
    return broken


def missing_files(text):
    """The names of files, folders and modules of this repository that do not exist."""
    code = [*spans(text), *shell_lines(text), *imports(text)]
    words = {word.strip(".,;:()").rstrip("/") for line in code for word in line.split()}
    return sorted(word for word in words if not (is_module(word) if is_dotted(word) else is_file(word)))


def is_dotted(word):
    return re.fullmatch(r"kitlib(\.\w+)+", word) is not None


def is_file(word):
    """Whether a word that looks like a file of the repository is one; other words may be anything."""
    if word.startswith(tuple(f"{folder}/" for folder in FOLDERS)):
        return any(ROOT.glob(PLACEHOLDER.sub("*", word.split("::")[0])))
    if word.endswith(ENDINGS) and re.fullmatch(r"\w+\.\w+", word):
        return (ROOT / word).exists() or any(next((ROOT / f).rglob(word), None) for f in FOLDERS)
    return True


def is_module(word):
    """Whether a dotted name is a module, or is defined in one: kitlib.model.presets.PRESETS."""
    path = ROOT.joinpath(*word.split("."))
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    parents = [p for p in (path.parent.with_suffix(".py"), path.parent / "__init__.py") if p.is_file()]
    return any(re.search(rf"\b{path.name}\b", parent.read_text()) for parent in parents)


def commands(text):
    """Calls of kit and run_all.sh as lists of words; `kit score` alone in a sentence is only a name."""
    lines = [*shell_lines(text), *(span for span in spans(text) if len(span.split()) > 2 or "./" in span)]
    for part in (part for line in lines for part in re.split(r"&&|\||;", line)):
        words = [word for word in shlex.split(part) if word != "..."]
        while words and re.fullmatch(r"\w+=.*", words[0]):
            words = words[1:]
        if words and words[0] in ("kit", "./run_all.sh"):
            yield words


def refused(words):
    """Why a command line is not accepted, as text; empty where it is. Nothing is executed."""
    program, *rest = words
    if program == "./run_all.sh":
        if rest and rest[0] in ("setup", "test", "bench", "--help"):
            return ""
        rest = ["run", *rest]
    name, *arguments = rest
    if name not in cli.kit.commands:
        return f"kit has no command '{name}'"
    try:
        parent = click.Context(cli.kit, info_name="kit", **cli.kit.context_settings)
        with cli.kit.commands[name].make_context(name, arguments, parent=parent) as context:
            if name == "run":
                check_settings(context.params)
    except click.exceptions.Exit:  # after --help
        return ""
    except (click.ClickException, KitError) as error:
        return str(error)
    return ""


def check_settings(options):
    """Raise KitError for a profile or a parameter that does not exist; a value may be left open as "..."."""
    settings = [text for text in options["settings"] if not text.endswith("=...")]
    stages.plan(options["profile"], settings)


def unknown_names(text):
    """The commands and options that do not exist, of those that a sentence names alone: `--dry-run`."""
    parameters = [parameter for command in cli.kit.commands.values() for parameter in command.params]
    known = {name for p in parameters for name in (*p.opts, *p.secondary_opts)} | {"--help"}
    known |= {f"kit {name}" for name in cli.kit.commands}
    options = [word.split("=")[0] for span in spans(text) if span.startswith("-") for word in span.split()]
    names = [option for option in options if option.startswith("--")]
    names += [span for span in spans(text) if re.fullmatch(r"kit \w+", span)]
    return sorted(set(names) - known)


each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@each_page
def test_links_lead_somewhere(page):
    assert broken_links(page.read_text(), page) == []


@each_page
def test_files_and_modules_exist(page):
    assert missing_files(page.read_text()) == []


@each_page
def test_commands_are_accepted(page):
    found = {shlex.join(words): refused(words) for words in commands(page.read_text())}
    assert {command: reason for command, reason in found.items() if reason} == {}
    assert unknown_names(page.read_text()) == []


def test_the_readme_shows_every_command():
    text = (ROOT / "README.md").read_text()
    shown = {words[1] for words in commands(text) if words[0] == "kit"}
    assert shown | {"run"} == set(cli.kit.commands)


def test_the_layout_names_every_part_of_the_library():
    layout = (ROOT / "CONTRIBUTING.md").read_text().partition("\nkitlib/\n")[2].partition("\n```")[0]
    named = set(re.findall(r"^  (\w+)(?:/|\.py) ", layout, re.MULTILINE))
    parts = {p.stem for p in (ROOT / "kitlib").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert named == parts - {"__init__"}


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == kitlib.__version__
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] == kitlib.__version__


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("`kitlib/nothing.py`", ["kitlib/nothing.py"]),
        ("`tests/benchmarks/bench_NAME.py` and `tests/no_NAME.py`", ["tests/no_NAME.py"]),
        ("`test_docs.py`, `no_such_file.py`", ["no_such_file.py"]),
        ("`kitlib.metric.score`, `kitlib.metric.scores`", ["kitlib.metric.scores"]),
        ("```bash\npython experiments/days.py  # kitlib/in_a_comment.py\n```", ["experiments/days.py"]),
        ("```python\nfrom kitlib.metric import score, judge\n```", ["kitlib.metric.judge"]),
        ("a run's `post.yaml` and `outputs/demo/03_train`", []),
    ],
)
def test_a_missing_file_is_noticed(text, found):
    assert missing_files(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[a](docs/paper.md#ours) [b](https://example.org/x.md)", []),
        ("[a](docs/none.md)", ["docs/none.md"]),
        ("[a](docs/paper.md#theirs)", ["docs/paper.md#theirs"]),
    ],
)
def test_a_broken_link_is_noticed(text, found):
    assert broken_links(text, ROOT / "README.md") == found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("```bash\nkit score a.csv b.csv --by category  # a comment's --option\n```", ""),
        ("```bash\nkit score a.csv\n```", "Missing parameter: predicted"),
        ("```bash\ncd x && kit score a.csv b.csv --per type\n```", "No such option"),
        ("`kit rehearse RUN --layout newest`", "'newest' is not one of"),
        ("`kit judge RUN now`", "no command 'judge'"),
        ("`kit score --help now`", ""),
        ("`KIT_TORCH=cpu ./run_all.sh setup`", ""),
        ("`./run_all.sh --profile papr`", "did you mean 'paper'"),
        ("`./run_all.sh --set 03.max_itr=2`", "did you mean 'max_iter'"),
        ("`./run_all.sh --set 03.max_iter=many`", "must be a whole number"),
    ],
)
def test_a_command_that_is_refused_is_noticed(text, reason):
    (words,) = commands(text)
    assert reason in refused(words)
    assert bool(refused(words)) == bool(reason)


def test_a_name_that_does_not_exist_is_noticed():
    text = "`--images 8`, `--no-wait`, `--imagse 8`, `kit score` and `kit judge`"
    assert unknown_names(text) == ["--imagse", "kit judge"]

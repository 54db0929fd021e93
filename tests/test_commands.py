"""Every command in the documentation, in headers and in docstrings runs: Snakemake plans what it is
asked for, and what others are asked for is there.

A command is a line of code in Markdown, an indented or commented line that begins like one in other
files, or code within a sentence.
"""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from snakemake.profiles import ProfileConfigFileParser

from lfp.running.digest import module_path

ROOT = Path(__file__).parent.parent
#: Files whose commands a reader may copy. The log of changes tells of commands as they were.
PATTERNS = (
    "README.md", "Makefile", "Snakefile", "docs/*.md", "config/*.*", "profiles/**/*.*",
    "benchmarks/README.md", "benchmarks/*.py", "rules/*.smk", "lfp/**/*.py", "lfp/**/*.yaml",
    "workflow_scripts/*.py", "tests/**/*.py", "tests/*.yaml",
)  # fmt: skip
#: A line of code, also behind the sign of a comment; in Markdown it may begin with more words.
LINE = re.compile(r"^ *(?:#+ +)?((?:snakemake|python -m) .*)$")
MARKDOWN_LINE = re.compile(r"^ *((?:snakemake|python|make|pip)(?: .*)?)$")
WITHIN = re.compile(r"(`+)((?:snakemake|python -m|make|pip)(?:\s[^`]*)?)\1")
#: Commands that are parsed and not planned, with the reason.
NOT_PLANNED = {
    "snakemake --cores 1 results/tables/latent_counts.csv": "its reader adds the table first",
    "snakemake --cores 1 results/figures/active_latents.svg": "its reader adds the figure first",
    "snakemake --report results/report.html": "reports on a finished run; tests of the workflow do",
    "snakemake --cores 2 --configfile config/smollm2.yaml": "reads the model's file, which"
    " tests/test_planning.py makes",
    "snakemake --cores 2 tables --configfile config/smollm2_audit.yaml": "reads that file, too",
    "snakemake --cores 2 tables --configfile config/smollm2_best_of_n.yaml": "reads that file, too",
    "snakemake --cores 2 --configfile config/smollm2.yaml config/smollm2_moved.yaml": "reads that"
    " file, too",
    "snakemake --cores 1 compare --config other=PATH": "reads another run; tests of the"
    " workflow do",
    "snakemake --cores 1 score --configfile config/detection.yaml --config blind_seed=271828"
    " answers=FILE": "reads a file of answers; tests/test_blind.py does",
    "snakemake --unlock": "unlocks a killed run; tests of the workflow do",
}
#: The program that plans the commands on its standard input, all in one process and those with the
#: same configuration at once, for starting takes longer than planning. It prints the numbers of
#: those that fail, and why.
PLANNER = """
import contextlib, io, json, sys
from snakemake.cli import args_to_api, parse_args

faults, groups = {}, {}

def attempt(numbers, work):
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            passed = work()
        except (Exception, SystemExit) as error:
            passed = print(repr(error))
    if not passed:
        faults.update(dict.fromkeys(numbers, output.getvalue()[-2000:]))
    return passed

def plan(members):
    parser, options = parse_args(members[0][1])
    options.targets = {target for *_, targets in members for target in targets}
    return args_to_api(options, parser)

def read(number, arguments):
    _, options = parse_args(arguments)
    if options.dryrun:
        key = repr([options.configfile, options.config, options.profile])
        member = (number, arguments, options.targets or ["all"])
        groups.setdefault(key, []).append(member)
    return True

for number, arguments in enumerate(json.load(sys.stdin)):
    attempt([number], lambda: read(number, arguments))
for members in groups.values():
    if not attempt([], lambda: plan(members)):
        for member in members:
            attempt([member[0]], lambda: plan([member]))
print(json.dumps(faults))
"""


def joined(text: str) -> str:
    """`text` with lines that go on behind a backslash as one."""
    return re.sub(r"\\\n\s*(?:# +)?", " ", text)


def commands_of(name: str, text: str) -> Iterator[str]:
    """The commands in the text of a file, without the remarks behind them."""
    is_markdown = name.endswith(".md")
    fence = ""
    for line in joined(text).splitlines():
        if is_markdown and line.lstrip().startswith("```"):
            fence = "" if fence else line.strip()
            continue
        is_code = fence in ("```", "```sh") or (not fence and line.startswith("    "))
        match = (MARKDOWN_LINE if is_markdown else LINE).match(line)
        if match and (is_code or not is_markdown):
            yield match[1]
    for _, command in WITHIN.findall(text):
        yield " ".join(re.sub(r"\n\s*#? *", " ", command).split())


def all_commands() -> dict[str, str]:
    """Every command, with the file that it stands in."""
    result: dict[str, str] = {}
    for path in sorted({path for pattern in PATTERNS for path in ROOT.glob(pattern)}):
        if path.is_file() and path != Path(__file__) and "__pycache__" not in path.parts:
            name = path.relative_to(ROOT).as_posix()
            for command in commands_of(name, path.read_text(encoding="utf-8")):
                words = shlex.split(command, comments=True)
                result.setdefault(shlex.join(words), name)
    return result


COMMANDS = all_commands()


def starting(program: str) -> list[str]:
    return [command for command in COMMANDS if command.split()[0] == program]


def planning(command: str) -> list[str]:
    """The arguments of a dry run of a Snakemake command, or the command's own where it has none."""
    arguments = shlex.split(command)[1:]
    if command in NOT_PLANNED:
        return arguments
    # In front: options such as --configfile take every word behind them.
    return ["--snakefile", str(ROOT / "Snakefile"), "--dry-run", "--quiet", "all", "--cores", "1",
            *(word for word in arguments if word != "-n")]  # fmt: skip


def faults_of(commands: list[str], folder: Path) -> dict[str, str]:
    """The commands that Snakemake does not plan in a working directory, and what it says."""
    for name in ("config", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    for path in source_files():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    result = subprocess.run(
        [sys.executable, "-c", PLANNER],
        input=json.dumps([planning(command) for command in commands]),
        cwd=folder, text=True, capture_output=True, check=True,
    )  # fmt: skip
    faults = json.loads(result.stdout.splitlines()[-1])
    return {commands[int(number)]: output for number, output in faults.items()}


def source_files() -> Iterator[str]:
    """Files that a shipped configuration reads and its user brings. A configuration of one's own
    beside these may name others, which nothing here touches.
    """
    for path in (ROOT / "config").glob("*.yaml"):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        for corpus in (config.get("corpora") or {}).values():
            paths = (corpus.get("path") or {}).values()
            yield from (path for path in paths if not Path(path).is_absolute())
        for model in (config.get("models") or {}).values():
            tokenizer = model.get("organism", {}).get("tokenizer_path")
            yield from [f"{tokenizer}/tokenizer.json"] if tokenizer else []


def test_files_that_profiles_name_are_there_from_any_working_directory(tmp_path, monkeypatch):
    """Snakemake opens them behind its change to the folder of `--directory`."""

    def read(profile: Path) -> dict[str, str]:
        with profile.open() as file:
            return ProfileConfigFileParser().parse(file)

    profile = Path("profiles", "default", "config.yaml")
    monkeypatch.chdir(ROOT)
    near = read(profile)
    monkeypatch.chdir(tmp_path)
    for values in (near, read(ROOT / profile)):
        for key, name in (("report-metadata", "metadata.yaml"), ("report-stylesheet", "style.css")):
            assert Path(values[key]).is_absolute()
            assert Path(values[key]).resolve() == ROOT / "report" / name
    slurm = read(ROOT / "profiles" / "slurm" / "config.yaml")["slurm-partition-config"]
    assert Path(slurm) == ROOT / "profiles" / "slurm" / "partitions.yaml"


@pytest.mark.workflow
def test_every_snakemake_command_is_planned(tmp_path):
    commands = starting("snakemake")
    assert len(commands) > 20
    assert set(NOT_PLANNED) <= set(commands)
    faults = faults_of(commands, tmp_path)
    assert not {f"{COMMANDS[command]}: {command}": output for command, output in faults.items()}


@pytest.mark.workflow
def test_a_command_that_does_not_run_is_seen(tmp_path):
    """A target behind --configfile, a rule and an option that are not there."""
    commands = [
        "snakemake --configfile config/paper.yaml results/pythia-70m/vader/seed0/divergence.json",
        "snakemake --cores 1 no_such_rule",
        "snakemake --no-such-option",
        "snakemake --cores 1 verify",
    ]
    assert set(faults_of(commands, tmp_path)) == set(commands[:3])


def test_every_target_and_variable_of_make_is_there():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.M))
    variables = set(re.findall(r"\$\((\w+)\)", makefile))
    commands = starting("make")
    assert len(commands) > 5
    for command in commands:
        for word in command.split()[1:]:
            name, is_variable, _ = word.strip("'").partition("=")
            known = variables if is_variable else targets
            if not word.endswith("'") or is_variable:
                assert name in known, f"{COMMANDS[command]}: {command}"


def test_every_module_that_is_run_is_there_with_its_options():
    commands = starting("python")
    assert len(commands) > 10
    for command in commands:
        where = f"{COMMANDS[command]}: {command}"
        flag, module, *arguments = shlex.split(command)[1:]
        assert flag == "-m", where
        path = module_path(module)
        assert path is not None, where
        main = path.with_name("__main__.py") if path.name == "__init__.py" else path
        source = main.read_text(encoding="utf-8")
        options = [word.partition("=")[0] for word in arguments if word.startswith("--")]
        assert all(f'"{option}"' in source for option in options), where


def test_files_that_pip_reads_are_there():
    for command in starting("pip"):
        words = shlex.split(command)
        files = [words[i + 1] for i, word in enumerate(words) if word == "-r"]
        assert files and all((ROOT / file).is_file() for file in files), command


def test_commands_are_seen_in_code_comments_docstrings_and_sentences():
    markdown = (
        "a\n```sh\nmake x  # remark\n```\n\n    pip install \\\n  -r b\n\n`snakemake\n-n` make y"
    )
    assert list(commands_of("a.md", markdown)) == [
        "make x  # remark", "pip install  -r b", "snakemake -n",
    ]  # fmt: skip
    header = "# Run it:\n#   snakemake -n a \\\n#     b\n# make tea\n"
    assert list(commands_of("a.yaml", header)) == ["snakemake -n a  b"]
    assert list(commands_of("a.py", '"""X.\n\n    python -m a.b c\n"""\n')) == ["python -m a.b c"]

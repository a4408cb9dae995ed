"""The house: dependency lists agree, the layout is the promised one, nothing leaks or grows too long."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES = ["README.md", "LICENSE", "CHANGELOG.md", "environment.yml", "notebooks/00-start-here.ipynb"]
FOLDERS = ["notebooks", "migsim", "data", "tests", "bench"]
HEAVY = {"pandas", "numpy", "matplotlib", "ipywidgets", "anywidget", "papermill"}
PYTHON_LINES = 500
# conda-forge has some packages under another name; there `matplotlib` and `dask` would bring much more along.
CONDA_NAMES = {"matplotlib-base": "matplotlib", "dask-core": "dask"}


def needed() -> list[Requirement]:
    """Every dependency that pyproject.toml names: to run, to test, to build."""
    project = PROJECT["project"]
    extras = project["optional-dependencies"].values()
    lists = [project["dependencies"], *extras, PROJECT["build-system"]["requires"]]
    return [Requirement(line) for lines in lists for line in lines]


def locked() -> dict[str, list[str]]:
    """The versions that the lock gives each package; several where they differ by the version of Python."""
    pins: dict[str, list[str]] = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        match = re.fullmatch(r"([\w.-]+)==([\w.+!-]+)( ; .+)?", line)
        assert match, f"requirements.lock: not an exact pin: {line!r}"
        pins.setdefault(canonicalize_name(match[1]), []).append(match[2])
    return pins


def conda() -> tuple[dict[str, str], list[str]]:
    """What environment.yml pins, by the names of the package index, and its pip section's other lines."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    pins = dict(entry.split("==") for entry in plain + pip if "==" in entry)
    names = {canonicalize_name(CONDA_NAMES.get(name, name)): version for name, version in pins.items()}
    return names, [entry for entry in pip if "==" not in entry]


@pytest.mark.parametrize("requirement", needed(), ids=str)
def test_the_lock_pins_what_the_project_needs(requirement: Requirement) -> None:
    versions = locked().get(canonicalize_name(requirement.name))
    assert versions, f"{requirement.name} is not in requirements.lock: make lock"
    low = [version for version in versions if not requirement.specifier.contains(version)]
    assert not low, f"requirements.lock: {requirement.name} {low}, wanted {requirement.specifier}"


def test_environment_yml_carries_the_same_versions() -> None:
    pins, others = conda()
    assert set(pins) == {canonicalize_name(requirement.name) for requirement in needed()}
    assert {name: [version] for name, version in pins.items()} == {name: locked()[name] for name in pins}
    assert others == ["-e ."]


@pytest.mark.parametrize("name", FILES)
def test_file_is_there(name: str) -> None:
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("name", FOLDERS)
def test_folder_is_there(name: str) -> None:
    assert (ROOT / name).is_dir()


def written() -> Iterator[Path]:
    """The project's own files: not the version control's, not what was built, downloaded or cached."""
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        ours = parts[0] in (".ci", ".gitignore") or not parts[0].startswith(".")
        built = parts[0] == "build" or any(
            part in ("__pycache__", ".ipynb_checkpoints") or part.endswith(".egg-info") for part in parts
        )
        if path.is_file() and ours and not built:
            yield path


# Put together here, so that this file does not hold what it looks for.
LEAKS = [
    *(f"/{folder}/" for folder in ("work", "home", "root")),
    "../" + "shared",
    *("pypi" + ".org", "files.pythonhosted" + ".org", "deb.debian" + ".org", "registry.npmjs" + ".org"),
    "conda.anaconda" + ".org",
]


def test_no_file_names_a_machine_path_or_a_registry() -> None:
    found = []
    for path in written():
        content = path.read_bytes()
        found += [f"{path.relative_to(ROOT)}: {leak}" for leak in LEAKS if leak.encode() in content]
    assert found == []


def test_no_python_file_is_too_long() -> None:
    files = [path for path in written() if path.suffix == ".py"]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {name: lines for name, lines in lengths.items() if lines > PYTHON_LINES} == {}


def test_the_core_loads_without_the_heavy_libraries() -> None:
    code = f"import migsim, sys; print(migsim.__file__, sorted({HEAVY} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.stdout.strip() == f"{ROOT / 'migsim' / '__init__.py'} []", run.stderr


def test_the_package_and_the_changelog_name_one_version() -> None:
    assert f"\n## {PROJECT['project']['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_each_change_has_its_kind() -> None:
    lines = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("-")]
    assert [line for line in lines if not line.startswith(("- [NEW] ", "- [CHANGE] ", "- [FIX] "))] == []

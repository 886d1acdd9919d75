"""What pyproject.toml and the lock claim, held against the tree."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from checks.imports import LAYERS, imports_of

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = sorted({layer.partition("/")[0] for layer in LAYERS} - {"fieldscope"})
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = ("requirements.lock", "tests/vllm/requirements.lock")


def locked(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(package): version for package, _, version in (line.partition("==") for line in lines)}


def requirements(*extras: str) -> list[Requirement]:
    project = PROJECT["project"]
    texts = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    return [Requirement(text) for text in texts]


def test_every_package_is_listed() -> None:
    packages = {
        ".".join(["fieldscope", *path.parent.relative_to(ROOT).parts])
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages | {"fieldscope"}
    folders = {f"fieldscope.{folder}": folder for folder in FOLDERS}
    assert PROJECT["tool"]["setuptools"]["package-dir"] == folders


def test_every_data_file_is_listed() -> None:
    listed = {
        path
        for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for path in ROOT.joinpath(*(package.split(".")[1:] or [package])).glob(pattern)
    }
    files = {path for folder in (*FOLDERS, "fieldscope") for path in (ROOT / folder).rglob("*") if path.is_file()}
    assert {path for path in files if path.suffix not in {".py", ".pyc"}} - listed == set()


def test_every_library_that_is_imported_is_required() -> None:
    required = {
        canonicalize_name(requirement.name)
        for requirement in requirements(
            *(
                "encoders",
                "heic",
                "inquire",
                "lancedb",
                "langchain",
                "llama-index",
                "mcp",
                "mteb",
                "otel",
                "ray",
                "studio",
                "train",
            )
        )
    }
    extras = {"lancedb": ["lancedb"], "llama_index": ["llama-index-core"], "mcp": ["mcp"], "mteb": ["mteb"]}
    extras |= {"pillow_heif": ["pillow-heif"], "peft": ["peft"], "ray": ["ray"]}
    distributions = {**extras, **packages_distributions()}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            for found in imports_of(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()):
                if found.top == "fieldscope" or found.top in sys.stdlib_module_names:
                    continue
                names = {canonicalize_name(name) for name in distributions.get(found.top, [])}
                assert names & required, f"{path}:{found.line} imports {found.module}, which pyproject.toml lacks"


def test_an_exact_version_says_why() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    exact = {line.split("==")[0].strip(' "'): line for line in lines if re.match(r'\s+"[\w-]+==', line)}
    assert exact.keys() == {"pillow"}
    assert all("# exact: " in line for line in exact.values())


def test_the_lock_satisfies_the_project() -> None:
    versions = locked("requirements.lock")
    for requirement in requirements("dev"):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_versions_and_nothing_of_one_machine(lock: str) -> None:
    versions = locked(lock)
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in versions.values())
    assert not [name for name in versions if re.match(r"nvidia|cuda|triton", name)]
    assert versions["torch"] == "2.13.0"
    assert versions["torchvision"] == "0.28.0"
    assert {"torchaudio", "torchcodec"}.isdisjoint(versions)


def test_both_environments_have_the_same_model_code() -> None:
    ours, theirs = (locked(lock) for lock in LOCKS)
    for name in ("torch", "torchvision", "transformers", "tokenizers", "pillow"):
        assert ours[name] == theirs[name]


def test_the_lock_of_studio_completes_the_main_one() -> None:
    versions = locked("requirements.lock") | locked("tests/studio/requirements.lock")
    for requirement in requirements("studio"):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


def test_make_lists_its_targets() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = {line.split()[1] for line in shown.splitlines()}
    assert {"setup", "demo", "test", "check", "test-studio", "test-vllm", "lock", "train"} <= targets


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel in it, beside packages that are called like our folders. The
    libraries are this environment's."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / "source" / name)
    pip(["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "source")])
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    pip(["--python", str(python), "install", "--no-deps", *map(str, folder.glob("*.whl"))])
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    # A path in a .pth file is searched for packages; its own .pth files, such as our editable install's, are not read.
    libraries = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "libraries.pth").write_text("\n".join(libraries), encoding="utf-8")
    for name in ("core", "agent", "eval"):
        (site / name).mkdir()
        (site / name / "__init__.py").write_text("MINE = True\n", encoding="utf-8")
    return python


def pip(arguments: list[str]) -> str:
    line = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout


def run_installed(python: Path, *arguments: str) -> str:
    done = subprocess.run([python, *arguments], cwd=python.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_wheel_installs_nothing_outside_its_package(installed: Path) -> None:
    shown = pip(["--python", str(installed), "show", "-f", "fieldscope"]).partition("Files:\n")[2]
    files = [line.strip() for line in shown.splitlines()]
    version = PROJECT["project"]["version"]
    allowed = ("fieldscope/", f"fieldscope-{version}.dist-info/")
    assert [file for file in files if not file.startswith(allowed)] == ["../../../bin/fieldscope"]
    for name in (
        "fieldscope/py.typed",
        "fieldscope/agent/strategies/agent.yaml",
        "fieldscope/prompts/fieldnotes/explain.md",
    ):
        assert name in files


@pytest.mark.slow
def test_a_wheel_works_beside_packages_that_are_called_like_our_folders(installed: Path) -> None:
    code = """
import core, agent, eval as other
assert core.MINE and agent.MINE and other.MINE
import importlib, pkgutil
import fieldscope
extras = ("llama_index", "mcp", "mteb")  # which `make setup` leaves out
left_out = ("fieldnotes.training", "service.wiring.studio", *(f"service.adaptors.{name}" for name in extras))
assert "source" not in fieldscope.__file__ and "venv" in fieldscope.__file__, fieldscope.__file__
assert all(hasattr(fieldscope, name) for name in fieldscope.__all__)
for module in pkgutil.walk_packages(fieldscope.__path__, "fieldscope."):
    if not module.name.removeprefix("fieldscope.").startswith(left_out):
        importlib.import_module(module.name)
"""
    run_installed(installed, "-c", code)
    program = str(installed.with_name("fieldscope"))
    assert PROJECT["project"]["version"] in run_installed(installed, program, "version")
    assert "agent" in run_installed(installed, program, "strategies", "list")
    assert "predicates" in run_installed(installed, program, "strategies", "show", "agent")

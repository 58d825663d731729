"""The patch files for clones of the originals, and the tool that applies them: placed right, or refused with a reason.

CI has no clones: a made-up project with its own patches stands in for them. Where HYBRID_ENCODER_CLONES names a folder
that holds clones `monodepth2` and `manydepth`, the real patches are tried on those, too.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from hybrid_encoder.config import preset
from hybrid_encoder.errors import UserError
from hybrid_encoder.model.nets import DepthNets
from hybrid_encoder.patches import apply
from hybrid_encoder.patches.apply import patch_clone, patch_with
from hybrid_encoder.patches.format import (
    HOSTS,
    SERIES,
    HostPatches,
    Insertion,
    blob_id,
    is_marked,
    parse_patch,
    read_patches,
    without_marked,
)
from hybrid_encoder.patches.imports import insert_imports, split_imports
from hybrid_encoder.patches.known_hosts import KNOWN_HOSTS, KnownHost
from hybrid_encoder.patches.names import REPLACED, lost_name
from hybrid_encoder.patches.rebuild import REPOSITORIES, rebuild

STACK, ENCODER = (mark for _, mark in SERIES)
CLONES = os.environ.get("HYBRID_ENCODER_CLONES")
FEW_LINES = {"monodepth2": 20, "manydepth": 20, "mono_vifi": 30}
"""More than each of a host's patches inserts; Mono-ViFI has eleven files that need mending."""

MODEL = '''import os


def build(size):
    """A made-up file of a made-up project."""
    layers = []
    for i in range(size):
        layers.append(i)
    return layers


def total(values):
    result = 0
    for value in values:
        if value > 0:
            result += value
    return result


def save(layers, path):
    text = " ".join(str(layer) for layer in layers)
    with open(path, "w") as file:
        file.write(text)
'''
USE = "from model import build\n\nprint(build(3))\n"


def marked(text: str, after: str, line: str, mark: str) -> str:
    """A text with a marked line after the line `after`."""
    return text.replace(f"{after}\n", f"{after}\n{line}{mark}\n", 1)


MODEL_MARKED = marked(MODEL, "import os", "import sys", STACK)
MODEL_MARKED = marked(MODEL_MARKED, "    layers = []", "    layers.append(len(sys.argv))", ENCODER)
MODEL_MARKED = marked(
    MODEL_MARKED, '    with open(path, "w") as file:', "        file.write(os.linesep * len(layers))", ENCODER
)
USE_MARKED = marked(USE, "from model import build", "import os", STACK)


def git(folder: Path, *command: str) -> str:
    options = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "core.autocrlf=false"]
    done = subprocess.run(["git", "-C", str(folder), *options, *command], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def write(folder: Path, model: str, use: str = USE) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.py").write_bytes(model.encode())
    (folder / "use.py").write_bytes(use.encode())
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, HostPatches]:
    """A repository with an older and a newer commit, and patches for the newer one, made by the rebuilding script."""
    folder = tmp_path_factory.mktemp("made_up")
    clone = write(folder / "clone", MODEL.replace("        layers.append(i)\n", "        layers += [i]\n"))
    git(clone, "init", "-q")
    git(clone, "add", ".")
    git(clone, "commit", "-q", "-m", "older")
    write(clone, MODEL)
    git(clone, "commit", "-q", "-a", "-m", "newer")
    write(clone, MODEL_MARKED, USE_MARKED)
    rebuild("monodepth2", clone, folder, "nianticlabs/monodepth2")
    write(clone, MODEL)
    return clone, read_patches("monodepth2", folder)


@pytest.fixture
def clone(made_up: tuple[Path, HostPatches], tmp_path: Path) -> Path:
    git(tmp_path, "clone", "-q", str(made_up[0]), "clone")
    return tmp_path / "clone"


@pytest.fixture
def patches(made_up: tuple[Path, HostPatches]) -> HostPatches:
    return made_up[1]


def patch_and_back(patches: HostPatches, folder: Path) -> tuple[str, dict[str, bytes]]:
    """Patches a folder, checks that a second time changes nothing and that undoing it gives the same bytes back."""
    before = contents(folder)
    said = patch_with(patches, folder, check=True)
    assert contents(folder) == before, "--check wrote something"
    assert "would change" in said
    report = patch_with(patches, folder)
    after = contents(folder)
    assert "Nothing to do" in patch_with(patches, folder)
    assert contents(folder) == after
    patch_with(patches, folder, revert=True)
    assert contents(folder) == before
    patch_with(patches, folder)
    assert contents(folder) == after
    return report, after


def refused(patches: HostPatches, folder: Path) -> str:
    """The message of a refusal that leaves everything as it was."""
    before = contents(folder)
    with pytest.raises(UserError) as caught:
        patch_with(patches, folder)
    assert contents(folder) == before
    return str(caught.value)


# The files that are shipped


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("number", range(len(SERIES)))
def test_patches_hold_no_line_of_an_original(host: str, number: int) -> None:
    """Every line of every hunk is an addition, no line of context, no heading after @@, every line marked as ours."""
    name, mark = SERIES[number]
    text = (importlib.resources.files("hybrid_encoder.patches") / host / name).read_text(encoding="utf-8")
    header, body = text[: text.index("diff --git")], text[text.index("diff --git") :]
    assert "Apache-2.0" in header
    for line in body.splitlines():
        if line.startswith("@@"):
            assert re.fullmatch(r"@@ -\d+,0 \+\d+(,\d+)? @@", line)
        elif line.startswith("+") and not line.startswith("+++ b/"):
            assert line.endswith(mark)
        else:
            assert re.match(r"diff --git a/|index [0-9a-f]{40}\.\.[0-9a-f]{40} 100|--- a/|\+\+\+ b/", line), line
    assert parse_patch(text)


@pytest.mark.parametrize("host", HOSTS)
def test_patches_are_small_and_follow_each_other(host: str) -> None:
    patches = read_patches(host)
    first, second = patches.series
    for series in (first, second):
        assert sum(len(insertion.lines) for patch in series for insertion in patch.insertions) < FEW_LINES[host]
    made = {patch.path: patch.new for patch in first}
    for patch in second:
        assert patch.old == made.get(patch.path, patch.old)
    assert patches.repository == REPOSITORIES[host]


@pytest.mark.parametrize("host", HOSTS)
def test_patched_lines_call_what_exists(host: str) -> None:
    """Every `upstream.name(` in the patches is a function of the host's upstream module."""
    module = importlib.import_module(f"hybrid_encoder.adapters.{host}.upstream")
    called = set()
    for path in read_patches(host).paths:
        for line in read_patches(host).lines(path):
            called |= set(re.findall(r"upstream\.(\w+)\(", line.decode()))
    assert called
    assert all(callable(getattr(module, name)) for name in called)


def test_unknown_host() -> None:
    with pytest.raises(UserError, match="unknown host 'monodepth3': expected one of monodepth2, manydepth"):
        patch_clone("monodepth3", ".")


@pytest.mark.parametrize(
    "text",
    [
        "no patch at all",
        "diff --git a/x b/x\nindex 12..34 100644\n--- a/x\n+++ b/x\n@@ -1,0 +2 @@\n+a\n",
        f"diff --git a/x b/x\nindex {'1' * 40}..{'2' * 40} 100644\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n",
        f"diff --git a/x b/x\nindex {'1' * 40}..{'2' * 40} 100644\n--- a/x\n+++ b/x\n@@ -1,0 +2 @@\n+a\n b\n",
    ],
)
def test_only_insertions_are_read(text: str) -> None:
    with pytest.raises(UserError, match="expected insertions of whole lines without context"):
        parse_patch(text)


def test_blob_id_is_gits(tmp_path: Path) -> None:
    write(tmp_path, MODEL)
    assert blob_id(MODEL.encode()) == git(tmp_path, "hash-object", "model.py")


# The made-up project


def test_rebuilt_patches(patches: HostPatches) -> None:
    first, second = patches.series
    assert [patch.path for patch in first] == ["model.py", "use.py"]
    assert first[0].insertions == (Insertion(1, (f"import sys{STACK}".encode(),)),)
    assert [insertion.after for insertion in second[0].insertions] == [7, 23]
    assert patches.apply("model.py", MODEL.encode()).decode() == MODEL_MARKED


def test_the_rebuilding_script_runs_as_the_readme_says() -> None:
    command = [sys.executable, "-m", "hybrid_encoder.patches.rebuild", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "-m hybrid_encoder.patches.rebuild monodepth2 CLONE" in done.stdout
    readme = Path(str(importlib.resources.files("hybrid_encoder.patches"))) / "README.md"
    assert "python -m hybrid_encoder.patches.rebuild monodepth2 CLONE" in readme.read_text(encoding="utf-8")


def test_rebuilding_refuses_other_changes(clone: Path, tmp_path: Path) -> None:
    write(clone, MODEL_MARKED.replace("text", "words"), USE_MARKED)
    with pytest.raises(UserError, match=r"model\.py differs from the commit by more than lines that end in a mark"):
        rebuild("monodepth2", clone, tmp_path, "nianticlabs/monodepth2")
    assert not (tmp_path / "monodepth2").exists()


def test_known_commit(patches: HostPatches, clone: Path) -> None:
    report, after = patch_and_back(patches, clone)
    assert after["model.py"].decode() == MODEL_MARKED
    assert after["use.py"].decode() == USE_MARKED
    assert f"commit {patches.commit[:7]}, which the patches are made for" in report
    assert "2 files changed" in report


def test_plain_git_apply(made_up: tuple[Path, HostPatches], clone: Path) -> None:
    """The patch files are git's: the documented line gives the same bytes on the known commit."""
    files = [str(made_up[0].parent / "monodepth2" / name) for name, _ in SERIES]
    git(clone, "apply", "--unidiff-zero", *files)
    assert contents(clone) == {"model.py": MODEL_MARKED.encode(), "use.py": USE_MARKED.encode()}
    assert "Nothing to do" in patch_with(made_up[1], clone)


def test_git_three_way_after_making_the_base(made_up: tuple[Path, HostPatches], clone: Path, tmp_path: Path) -> None:
    """The documented lines for a changed clone: git merges each patch once the first one's results are known to it."""
    write(clone, "# mine\n" * 16 + MODEL, USE)
    git(clone, "commit", "-q", "-a", "-m", "mine")
    first, second = (str(made_up[0].parent / "monodepth2" / name) for name, _ in SERIES)
    git(clone, "worktree", "add", "-q", "--detach", str(tmp_path / "base"), made_up[1].commit)
    git(tmp_path / "base", "apply", "--index", "--unidiff-zero", first)
    git(clone, "worktree", "remove", "--force", str(tmp_path / "base"))
    git(clone, "apply", "--3way", "--unidiff-zero", first)
    git(clone, "apply", "--3way", "--unidiff-zero", second)
    assert contents(clone)["model.py"].decode() == "# mine\n" * 16 + MODEL_MARKED


def test_without_git(patches: HostPatches, tmp_path: Path) -> None:
    report, after = patch_and_back(patches, write(tmp_path / "zip", MODEL))
    assert after["model.py"].decode() == MODEL_MARKED
    assert "a copy without git" in report


@pytest.mark.parametrize("committed", [False, True])
def test_lines_on_top(patches: HostPatches, clone: Path, committed: bool) -> None:
    top = "# mine\n" * 16
    write(clone, top + MODEL, top + USE)
    if committed:
        git(clone, "commit", "-q", "-a", "-m", "mine")
    report, after = patch_and_back(patches, clone)
    assert after["model.py"].decode() == top + MODEL_MARKED
    assert after["use.py"].decode() == top + USE_MARKED
    assert ("uncommitted" in report) is not committed
    assert ("a fork 1 commits after" in report) is committed


def test_renamed_variable_elsewhere(patches: HostPatches, clone: Path) -> None:
    write(clone, MODEL.replace("result", "summed"))
    _, after = patch_and_back(patches, clone)
    assert after["model.py"].decode() == MODEL_MARKED.replace("result", "summed")


def test_older_commit(patches: HostPatches, clone: Path) -> None:
    git(clone, "checkout", "-q", "HEAD~1")
    report, after = patch_and_back(patches, clone)
    assert after["model.py"].decode() == MODEL_MARKED.replace("layers.append(i)", "layers += [i]")
    assert "1 commits before" in report


def test_changed_insertion_point_is_refused(patches: HostPatches, clone: Path) -> None:
    write(clone, "# mine\n" + MODEL.replace("    layers = []", "    layers = list()"))
    message = refused(patches, clone)
    assert "nothing was written" in message
    assert re.search(r"model\.py: about line 7 .* `layers\.append\(len\(sys\.argv\)\)", message), message


def test_own_line_at_an_insertion_point_is_refused(patches: HostPatches, clone: Path) -> None:
    write(clone, MODEL.replace("    layers = []\n", "    layers = []\n    rest = 1\n"))
    assert "`layers.append(len(sys.argv))" in refused(patches, clone)


OTHER_IMPORTS = {
    "one more": ("import os\nimport json\n", "import json\n"),
    "of several lines": ("import os\nfrom os.path import (\n    join,\n)\n", ")\n"),
    "after other code": ("import os\n\nDEBUG = 1\nimport json; SIZE = 2\n", "SIZE = 2\n"),
    "another": ("import os.path\n", "import os.path\n"),
    "in a docstring": ('"""Says:\nimport json\n"""\n\nimport os\n', "import os\n"),
}


@pytest.mark.parametrize(("imports", "last"), OTHER_IMPORTS.values(), ids=OTHER_IMPORTS)
def test_lines_that_follow_the_imports_follow_other_imports(
    imports: str, last: str, patches: HostPatches, clone: Path
) -> None:
    own = MODEL.replace("import os\n", imports).replace("os.linesep", "str(0)")
    write(clone, own + "\n\nif __name__ == '__main__':\n    import json\n\nimport re\n")
    _, after = patch_and_back(patches, clone)
    text = after["model.py"].decode()
    assert f"{last}import sys{STACK}\n" in text
    assert text.index("import sys") < text.index("def build")


def test_import_lines_keep_their_place_before_an_import_that_is_still_there() -> None:
    patched = f"import os\nimport sys{STACK}\nfrom late import thing\n\nprint(thing)\n".encode()
    rest, lines = split_imports(patched)
    assert rest == b"import os\nfrom late import thing\n\nprint(thing)\n"
    own = b"import os\nimport re\nfrom late import thing\nimport json\n"
    assert insert_imports(own, lines) == own.replace(b"from late", f"import sys{STACK}\nfrom late".encode())
    assert insert_imports(b"import os\nimport re\n", lines) == f"import os\nimport re\nimport sys{STACK}\n".encode()
    assert insert_imports(b"print 'Python 2'\n", lines) is None


def test_a_file_that_python_cannot_read_is_merged_as_before(patches: HostPatches, clone: Path) -> None:
    write(clone, MODEL + "\nprint 'Python 2'\n")
    _, after = patch_and_back(patches, clone)
    assert after["model.py"].decode() == MODEL_MARKED + "\nprint 'Python 2'\n"


# Renamed packages, and other hosts


def packaged(made_up: tuple[Path, HostPatches]) -> HostPatches:
    """The made-up project's patches as if its files lay in a package `manydepth`."""
    series = tuple(
        tuple(dataclasses.replace(patch, path=f"manydepth/{patch.path}") for patch in patches)
        for patches in made_up[1].series
    )
    return dataclasses.replace(made_up[1], host="manydepth", series=series, package="manydepth")


def test_a_renamed_package(made_up: tuple[Path, HostPatches], tmp_path: Path) -> None:
    patches = packaged(made_up)
    git(tmp_path, "init", "-q")
    write(tmp_path / "ours", MODEL)
    (tmp_path / "ours" / "networks").mkdir()
    (tmp_path / "ours" / "trainer.py").touch()
    with pytest.raises(UserError, match=r"holds no manydepth/model\.py.*add --package ours"):
        patch_with(patches, tmp_path)
    report = patch_with(patches.in_package("ours/"), tmp_path)
    assert "--revert --package ours" in report
    assert (tmp_path / "ours" / "model.py").read_text() == MODEL_MARKED
    patch_with(patches.in_package("ours"), tmp_path, revert=True)
    assert (tmp_path / "ours" / "model.py").read_text() == MODEL


def test_packages_that_cannot_be() -> None:
    with pytest.raises(UserError, match="only ManyDepth has"):
        patch_clone("monodepth2", ".", package="monodepth2")
    for name in ("", "../manydepth", "many depth", "/manydepth"):
        with pytest.raises(UserError, match="expected the folder of the package"):
            patch_clone("manydepth", ".", package=name)
    assert read_patches("manydepth").in_package("src/depth").paths[0] == "src/depth/datasets/mono_dataset.py"


@pytest.mark.parametrize("known", KNOWN_HOSTS, ids=lambda known: known.name)
def test_a_refusal_names_the_host_where_it_knows_it(known: KnownHost, tmp_path: Path) -> None:
    file = tmp_path / known.file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"class {known.word}Net: pass\n")
    asked = "manydepth" if known.name == "Monodepth2" else "monodepth2"
    with pytest.raises(UserError) as caught:
        patch_clone(asked, tmp_path)
    assert f"This looks like {known.name} ({known.file})" in str(caught.value)
    page = (Path(__file__).parent.parent / "docs" / "HOSTS.md").read_text()
    assert known.name in page
    told = known.remedy.split("`")[1].removeprefix("encoder = hybrid_encoder.") if "`" in known.remedy else ""
    assert told in page
    assert "Your own trainer" in str(caught.value) or "hybrid" in known.remedy


def test_a_refusal_points_to_the_page_of_own_trainers(patches: HostPatches, clone: Path) -> None:
    write(clone, MODEL.replace("    layers = []", "    layers = list()"))
    assert refused(patches, clone).count("'Your own trainer'") == 1


def test_renamed_variable_of_an_inserted_line_is_refused(patches: HostPatches, clone: Path) -> None:
    """The place is right, but the line would end the run with a NameError when it comes to it."""
    write(clone, MODEL.replace("(layers, path)", "(parts, path)").replace("in layers", "in parts"))
    message = refused(patches, clone)
    assert "needs layers, which is a local variable in the original, and not assigned here" in message


@pytest.mark.parametrize(
    ("start", "body", "lost"),
    [
        ("", "def f(self, key):\n        self.opt = key", ""),
        (
            "",
            "def f(self, word):\n        self.opt = word",
            "needs key, which is a local variable in the original, and",
        ),
        (
            "",
            "def f(self, key):\n        self.options = key",
            "needs self.opt, which is used elsewhere in the original",
        ),
        ("key = 1\n\n", "def f(self):\n        self.opt = key", "and a name of the module here"),
        ("", "def f(self):\n        for key, _ in self.opt:\n            pass", ""),
    ],
)
def test_lost_names(start: str, body: str, lost: str) -> None:
    own = f"{start}class A:\n    {body}\n{{}}        return 1\n"
    original = "class A:\n    def f(self, key):\n        self.opt = 1\n{}        return 2\n"
    line = f"        use(key, self.opt){ENCODER}\n"
    found = lost_name(own.format(line).encode(), original.format(line).encode())
    assert (lost in found) if lost else not found, found


# Forks that build their nets by other names

TRAINER = """import networks


class Trainer:
    def __init__(self, options):
        self.opt = options
        self.models = {}
        # nets
        self.models["encoder"] = networks.ResnetEncoder(18, False)
        self.models["depth"] = networks.DepthDecoder(self.models["encoder"].num_ch_enc)
        self.models["pose_encoder"] = networks.ResnetEncoder(18, False, num_input_images=2)


def evaluate(opt):
    if opt.teacher:
        kind = networks.TeacherEncoder
    else:
        kind = networks.ResnetEncoder
    return networks.DepthDecoder(kind(18, False).num_ch_enc)
"""
REPLACING = "        networks = upstream.networks(globals(), self.opt)"
TRAINER_MARKED = marked(TRAINER, "import networks", "from hybrid_encoder.adapters.monodepth2 import upstream", STACK)
TRAINER_MARKED = marked(TRAINER_MARKED, "        self.models = {}", REPLACING, ENCODER)
TRAINER_MARKED = marked(
    TRAINER_MARKED, "def evaluate(opt):", "    networks = upstream.networks_in(globals(), opt.folder)", ENCODER
)
DEPTH_ENCODER = 'self.models["encoder"] = networks.ResnetEncoder(18, False)'


@pytest.fixture(scope="module")
def trainer_clone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, HostPatches]:
    """As `made_up`, of a project that builds nets by `networks`."""
    folder = tmp_path_factory.mktemp("trainer")
    clone = folder / "clone"
    clone.mkdir()
    git(clone, "init", "-q")
    for text in (TRAINER, TRAINER_MARKED):
        (clone / "trainer.py").write_text(text)
        if text == TRAINER:
            git(clone, "add", ".")
            git(clone, "commit", "-q", "-m", "original")
    rebuild("monodepth2", clone, folder, "nianticlabs/monodepth2")
    return clone, read_patches("monodepth2", folder)


def lite(text: str) -> str:
    return text.replace(DEPTH_ENCODER, 'self.models["encoder"] = networks.LiteMono()')


OTHER_NAMES = {
    "another encoder": (lite, "networks.ResnetEncoder, by which `__init__`", "networks.LiteMono"),
    "pose net by position": (
        lambda text: lite(text).replace("num_input_images=2", "2"),
        "networks.ResnetEncoder, by which `__init__`",
        "networks.LiteMono",
    ),
    "class imported by name": (
        lambda text: text.replace("networks.ResnetEncoder(18, False)", "ResnetEncoder(18, False)"),
        "networks.ResnetEncoder, by which `__init__`",
        "it uses none of `networks`",
    ),
    "another decoder": (
        lambda text: text.replace("networks.DepthDecoder(self", "networks.HRDecoder(self"),
        "networks.DepthDecoder, by which `__init__`",
        "networks.HRDecoder",
    ),
    "in a method": (
        lambda text: text.replace("# nets\n", "# nets\n        self.build()\n\n    def build(self):\n"),
        "networks.ResnetEncoder and networks.DepthDecoder, by which `__init__`",
        "it uses none of `networks`",
    ),
    "script": (
        lambda text: text.replace("kind = networks.ResnetEncoder", "kind = networks.LiteMono"),
        "networks.ResnetEncoder, by which `evaluate`",
        "networks.LiteMono, networks.TeacherEncoder",
    ),
}


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("name", OTHER_NAMES)
def test_forks_whose_nets_have_other_names_are_refused(
    name: str, check: bool, trainer_clone: tuple[Path, HostPatches], tmp_path: Path
) -> None:
    change, lost, instead = OTHER_NAMES[name]
    git(tmp_path, "clone", "-q", str(trainer_clone[0]), "clone")
    file = tmp_path / "clone" / "trainer.py"
    fork = change(TRAINER)
    assert fork != TRAINER
    file.write_text(fork)
    with pytest.raises(UserError) as caught:
        patch_with(trainer_clone[1], file.parent, check)
    assert lost in str(caught.value)
    assert instead in str(caught.value)
    assert "would be ignored. Put the encoder in by hand" in str(caught.value)
    assert file.read_text() == fork
    file.write_text(change(TRAINER_MARKED))  # patched by force, or by an earlier version
    with pytest.raises(UserError, match="--encoder hybrid would be ignored"):
        patch_with(trainer_clone[1], file.parent, check)
    patch_with(trainer_clone[1], file.parent, revert=True)
    assert file.read_text() == fork


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            DEPTH_ENCODER,
            f"if self.opt.lite:\n            {lite(DEPTH_ENCODER)}\n        else:\n            {DEPTH_ENCODER}",
        ),
        ("networks.ResnetEncoder(18, False, num_input_images=2)", "networks.PoseCNN(2)"),
        ('self.models["encoder"]', 'self.models["depth_encoder"]'),
    ],
)
def test_forks_that_keep_the_names_are_patched(
    old: str, new: str, trainer_clone: tuple[Path, HostPatches], tmp_path: Path
) -> None:
    git(tmp_path, "clone", "-q", str(trainer_clone[0]), "clone")
    file = tmp_path / "clone" / "trainer.py"
    file.write_text(TRAINER.replace(old, new))
    assert "1 files changed" in patch_with(trainer_clone[1], file.parent)
    assert file.read_text() == TRAINER_MARKED.replace(old, new)


@pytest.mark.parametrize("host", HOSTS)
def test_the_names_that_are_looked_for_are_those_that_are_replaced(host: str) -> None:
    adapters = importlib.import_module("hybrid_encoder.adapters.clone_networks")
    many = importlib.import_module("hybrid_encoder.adapters.manydepth.clone_networks")
    theirs, nets = types.ModuleType("networks"), DepthNets(config=preset("tiny"))
    replaced = (
        many.MatchingNetworks(theirs, nets, nets) if host == "manydepth" else adapters.HybridNetworks(theirs, nets)
    )
    assert set(REPLACED[host]) <= set(vars(replaced))
    assert set(REPLACED[host]) - {"DepthDecoder"} <= replaced.replaced()


def test_moved_function_is_not_misplaced(patches: HostPatches, clone: Path) -> None:
    start = MODEL.index("def save")
    write(clone, "import os\n\n\n" + MODEL[start:] + "\n\n" + MODEL[MODEL.index("def build") : start].rstrip() + "\n")
    try:
        patch_with(patches, clone)
    except UserError:
        return
    lines = contents(clone)["model.py"].decode().splitlines()
    at = next(i for i, line in enumerate(lines) if "len(sys.argv)" in line)
    assert lines[at - 1] == "    layers = []"


def test_changed_and_original_unknown_is_refused(patches: HostPatches, tmp_path: Path) -> None:
    folder = write(tmp_path / "zip", "# mine\n" + MODEL)
    assert "git fetch https://github.com/" in refused(patches, folder)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "as one")
    message = refused(patches, folder)
    assert "of another history" in message
    assert "use.py" not in message  # the one that changed is named, the other is as the original


def test_folder_of_another_repository(patches: HostPatches, tmp_path: Path) -> None:
    """git apply does nothing there and reports success."""
    git(tmp_path, "init", "-q")
    folder = write(tmp_path / "vendored", MODEL)
    _, after = patch_and_back(patches, folder)
    assert after["model.py"].decode() == MODEL_MARKED


def test_windows_line_ends(patches: HostPatches, clone: Path) -> None:
    write(clone, MODEL.replace("\n", "\r\n"), USE.replace("\n", "\r\n"))
    _, after = patch_and_back(patches, clone)
    assert after["model.py"].decode() == MODEL_MARKED.replace("\n", "\r\n")


@pytest.fixture(scope="module")
def windows_project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, HostPatches]:
    """As `made_up`, of a project whose files have Windows' line ends, as some of Mono-ViFI's have."""
    folder = tmp_path_factory.mktemp("windows")
    clone = write(folder / "clone", as_windows(MODEL), as_windows(USE).rstrip())
    git(clone, "init", "-q")
    git(clone, "add", ".")
    git(clone, "commit", "-q", "-m", "original")
    write(clone, as_windows(MODEL_MARKED), as_windows(USE_MARKED).rstrip())
    rebuild("monodepth2", clone, folder, "nianticlabs/monodepth2")
    git(clone, "checkout", "-q", ".")
    return clone, read_patches("monodepth2", folder)


def as_windows(text: str) -> str:
    return text.replace("\n", "\r\n")


@pytest.mark.parametrize(
    ("top", "converted"),
    [("", False), ("# mine\n" * 16, False), ("# mine\r\n" * 16, False), ("", True), ("# mine\n" * 16, True)],
)
def test_original_with_windows_line_ends(
    top: str, converted: bool, windows_project: tuple[Path, HostPatches], tmp_path: Path
) -> None:
    """Inserted lines end as the file's own; a copy with other line ends, or with lines of both kinds, is merged."""
    git(tmp_path, "clone", "-q", str(windows_project[0]), "clone")
    original = {"model.py": MODEL, "use.py": USE.rstrip()}
    for name, text in original.items():
        (tmp_path / "clone" / name).write_bytes((top + (text if converted else as_windows(text))).encode())
    _, after = patch_and_back(windows_project[1], tmp_path / "clone")
    expected = {"model.py": MODEL_MARKED, "use.py": USE_MARKED.rstrip()}
    for name, text in expected.items():
        assert after[name].decode() == top + (text if converted else as_windows(text))


def test_lines_of_another_version_are_replaced(patches: HostPatches, clone: Path) -> None:
    write(clone, marked(MODEL, "import os", "import json", STACK), USE)
    report = patch_with(patches, clone)
    assert "1 lines of another version replaced" in report
    assert contents(clone)["model.py"].decode() == MODEL_MARKED
    patch_with(patches, clone, revert=True)
    assert contents(clone)["model.py"].decode() == MODEL


def test_revert_keeps_later_changes(patches: HostPatches, clone: Path) -> None:
    patch_with(patches, clone)
    write(clone, "# later\n" + MODEL_MARKED.replace("words", "text") + "# at the end\n", USE_MARKED)
    patch_with(patches, clone, revert=True)
    assert contents(clone)["model.py"].decode() == "# later\n" + MODEL + "# at the end\n"


def test_other_folder_is_refused(patches: HostPatches, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no model\.py, use\.py: expected a clone of nianticlabs/monodepth2"):
        patch_with(patches, tmp_path)


def test_failing_write_changes_nothing(patches: HostPatches, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(clone)
    replaced: list[Path] = []
    replace = os.replace

    def fail_on_second(source: Path, target: Path) -> None:
        if replaced:
            raise OSError(28, "No space left on device", str(target))
        replaced.append(target)
        replace(source, target)

    monkeypatch.setattr(apply.os, "replace", fail_on_second)
    with pytest.raises(UserError, match="No space left on device"):
        patch_with(patches, clone)
    assert replaced
    assert contents(clone) == before


def test_file_mode_is_kept(patches: HostPatches, clone: Path) -> None:
    (clone / "use.py").chmod(0o755)
    patch_with(patches, clone)
    assert (clone / "use.py").stat().st_mode & 0o777 == 0o755


# Real clones


@pytest.mark.skipif(CLONES is None, reason="HYBRID_ENCODER_CLONES names no folder with clones of the originals")
@pytest.mark.parametrize("host", HOSTS)
def test_real_clone(host: str, tmp_path: Path) -> None:
    """Every commit of the original, and it with lines on top: merged right, and undone byte by byte."""
    source, patches = Path(CLONES or "") / host, read_patches(host)
    commits = git(source, "log", "--format=%H").split()
    assert commits[0] == patches.commit
    whole = [commit for commit in commits if holds_all(source, commit, patches)]
    assert len(whole) > 10 if host == "mono_vifi" else whole == commits  # its first commits were single files
    for commit in whole:
        for top in (b"", b"# mine\n" * 16):
            folder = tmp_path / f"{commit[:7]}{len(top)}"
            git(tmp_path, "clone", "-q", "-n", str(source), folder.name)
            git(folder, "update-ref", "--no-deref", "HEAD", commit)
            for path in git(folder, "ls-tree", "-r", "--name-only", commit).split("\n"):
                if path.endswith(".py"):
                    (folder / path).parent.mkdir(parents=True, exist_ok=True)
                    git(folder, "checkout", "-q", commit, "--", path)
                    (folder / path).write_bytes(top + (folder / path).read_bytes())
            before = {path: (folder / path).read_bytes() for path in patches.paths if (folder / path).exists()}
            patch_with(patches, folder)
            for path, content in before.items():
                after = (folder / path).read_bytes()
                assert without_marked(after) == content
                assert sorted(filter(is_marked, after.splitlines())) == patches.lines(path)
                compile(after, path, "exec")
            patch_with(patches, folder, revert=True)
            assert before == {path: (folder / path).read_bytes() for path in before}


RENAMED = {
    "monodepth2": ("trainer.py", rb"\bmodel_name, model\b", b"which, model", "model_name"),
    "manydepth": ("manydepth/trainer.py", rb"\bmodel_name, model\b", b"which, model", "model_name"),
    "mono_vifi": ("test_video.py", rb"(?<![.-])\bimage_path\b", b"frame", "image_path"),
}
"""By host: a file, what is renamed in it, to what, and which name of an inserted line is lost."""


def holds_all(source: Path, commit: str, patches: HostPatches) -> bool:
    """Whether a commit has all files that the patches need."""
    files = set(git(source, "ls-tree", "-r", "--name-only", commit).split("\n"))
    return files >= set(patches.paths) - set(apply._SCRIPTS[patches.host])


@pytest.mark.skipif(CLONES is None, reason="HYBRID_ENCODER_CLONES names no folder with clones of the originals")
@pytest.mark.parametrize("host", HOSTS)
def test_real_clone_with_renamed_variables(host: str, tmp_path: Path) -> None:
    """A variable that an inserted line reads was renamed: refused with its name; any other change is none."""
    source, patches = Path(CLONES or "") / host, read_patches(host)
    path, pattern, other_name, lost = RENAMED[host]
    git(tmp_path, "clone", "-q", "-n", str(source), "clone")
    folder = tmp_path / "clone"
    for other in patches.paths:
        git(folder, "checkout", "-q", patches.commit, "--", other)
    own = (folder / path).read_bytes()
    (folder / path).write_bytes(re.sub(pattern, other_name, own))
    with pytest.raises(UserError, match=f"needs {lost}, which is a local variable"):
        patch_with(patches, folder)
    (folder / path).write_bytes(own + b"\n")
    patch_with(patches, folder)


@pytest.mark.skipif(CLONES is None, reason="HYBRID_ENCODER_CLONES names no folder with clones of the originals")
@pytest.mark.parametrize("fork", ["CADepth-master", "tedio85"])
def test_forks_with_other_imports_are_patched_whole(fork: str, tmp_path: Path) -> None:
    """Forks of Monodepth2 of another history, whose git knows the original's files."""
    source, patches = Path(CLONES or "") / fork, read_patches("monodepth2")
    if not source.is_dir():
        pytest.skip(f"HYBRID_ENCODER_CLONES holds no {fork}")
    for file in source.rglob("*.py"):
        (tmp_path / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file.relative_to(source)).write_bytes(file.read_bytes())
    git(tmp_path, "init", "-q")
    for path in patches.paths:
        original = tmp_path / "original"
        blob = ["git", "-C", f"{CLONES}/monodepth2", "cat-file", "blob", patches.original_id(path)]
        original.write_bytes(subprocess.run(blob, check=True, capture_output=True).stdout)
        git(tmp_path, "hash-object", "-w", "original")
    there = [path for path in patches.paths if (tmp_path / path).exists()]
    before = {path: (tmp_path / path).read_bytes() for path in there}
    patch_with(patches, tmp_path)
    for path in there:
        after = (tmp_path / path).read_bytes()
        assert sorted(filter(is_marked, after.splitlines())) == patches.lines(path)
        compile(after, path, "exec")
    patch_with(patches, tmp_path, revert=True)
    assert before == {path: (tmp_path / path).read_bytes() for path in there}

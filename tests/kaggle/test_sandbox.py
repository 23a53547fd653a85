"""The environment that stands for Kaggle's: what is in it, what is not, and that it harms nothing."""

import json
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from kitlib.errors import KitError
from kitlib.kaggle import image
from kitlib.kaggle.rehearsal import execution, sandbox
from kitlib.kaggle.rehearsal.sandbox import Installed


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    return sandbox.make(tmp_path_factory.mktemp("sandbox") / "environment")


def ask(box, code, cwd):
    """What a Python program prints in the sandbox, as JSON."""
    done = subprocess.run([box.python, "-c", code], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def installed(name, version="1.0", files=(), requires=(), folder="site"):
    return Installed(name, version, Path(folder), tuple(map(PurePosixPath, files)), tuple(requires))


def test_nothing_that_the_image_lacks_can_be_imported(box, tmp_path):
    lacking = ["kitlib", "detectron2", "fvcore", "iopath", "yacs", "portalocker", "hydra", "hypothesis"]
    code = f"""
import importlib.util, json
print(json.dumps([name for name in {lacking} if importlib.util.find_spec(name)]))
"""
    assert ask(box, code, tmp_path) == []


def test_what_the_image_has_works_from_there(box, tmp_path):
    code = """
import json, numpy, cv2, pandas, papermill, google.protobuf, pycocotools.mask, PIL.Image
from importlib.metadata import version
print(json.dumps([numpy.__file__, version("torch"), numpy.ones(2).sum()]))
"""
    path, torch, total = ask(box, code, tmp_path)
    assert Path(path).is_relative_to(box.python.parents[1])
    assert torch == box.versions["torch"]
    assert total == 2


def test_all_that_is_in_it_is_listed_or_told_to_stand_in(box):
    listed = image.packages()
    assert set(box.versions) - listed.keys() == set(box.stand_ins)
    assert not image.ABSENT & box.versions.keys()


def test_pip_can_neither_replace_nor_remove_what_is_linked(box, tmp_path):
    done = subprocess.run(
        [box.python, "-m", "pip", "uninstall", "--yes", "six"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode != 0
    assert "RECORD" in done.stderr
    __import__("six")


def test_reset_takes_out_what_was_installed(box, tmp_path):
    place = sandbox.site_packages(box.python)
    (place / "new").mkdir()
    (place / "new.py").touch()
    before = {path.name for path in place.iterdir()} - {"__pycache__"}  # an earlier test's, maybe
    sandbox.reset(box)
    assert before - {path.name for path in place.iterdir()} == {"new", "new.py"}


def test_another_version_than_the_images_brings_what_it_needs_but_never_what_is_absent():
    have = [
        installed("same", "1.0", requires=["needed-by-same"]),
        installed("newer", "2.0", requires=["lately-needed", "yacs"]),
        installed("lately-needed", requires=["and-by-that"]),
        *(installed(name) for name in ("and-by-that", "needed-by-same", "yacs", "other")),
    ]
    chosen, stand_ins = sandbox.select(have, {"same": "1.0", "newer": "1.0"})
    assert stand_ins == ["and-by-that", "lately-needed"]
    assert {one.name for one in chosen} == {"same", "newer", *stand_ins}


def test_torchs_own_wheels_are_a_part_of_it():
    chosen, _ = sandbox.select([installed("torch"), installed("nvidia-cublas-cu99")], {"torch": "1.0"})
    assert [one.name for one in chosen] == ["torch", "nvidia-cublas-cu99"]


def test_folders_that_are_shared_with_others_are_linked_in_parts(tmp_path):
    site, target = tmp_path / "site", tmp_path / "target"
    names = ["shared/mine/a.py", "shared/theirs/b.py", "own/c.py", "top.py"]
    for name in names:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).touch()
    target.mkdir()
    files = ["shared/mine/a.py", "own/c.py", "top.py", "gone.py", "../../bin/run", "own/__pycache__/c.pyc"]
    mine = installed("mine", files=files, folder=site)
    theirs = installed("theirs", files=["shared/theirs/b.py"], folder=site)
    sandbox.link([mine], [theirs], target)
    found = {str(path.relative_to(target)) for path in target.rglob("*")}
    assert found >= {"shared", "shared/mine", "own", "top.py"}
    assert not found & {"shared/theirs", "gone.py", "run"}
    assert not (target / "shared").is_symlink()
    assert (target / "own").is_symlink()


def test_a_folder_of_two_site_packages_holds_what_both_have(tmp_path):
    for name in ("a/google/one.py", "b/google/two.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "target").mkdir()
    have = [
        installed("one", files=["google/one.py"], folder=tmp_path / "a"),
        installed("two", files=["google/two.py"], folder=tmp_path / "b"),
    ]
    sandbox.link(have, [], tmp_path / "target")
    assert {path.name for path in (tmp_path / "target/google").iterdir()} == {"one.py", "two.py"}


def test_a_python_that_is_none_or_has_nothing_is_named_in_the_error(tmp_path):
    with pytest.raises(KitError, match=r"nowhere cannot be run.*--python"):
        sandbox.make(tmp_path / "a", "nowhere")
    with pytest.raises(KitError, match=r"/bin/ls is not a Python; name one with --python"):
        sandbox.inventory("/bin/ls")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    with pytest.raises(KitError, match="has no pip, papermill, ipykernel"):
        sandbox.make(tmp_path / "b", str(tmp_path / "bare/bin/python"))


@pytest.mark.parametrize("namespace", [True, False])
def test_the_network_is_closed_and_loopback_is_not(box, tmp_path, namespace):
    if namespace and not execution.close_network(box):
        pytest.skip("this system gives no network namespace")
    code = """
import errno, json, socket, sys
sys.path.insert(0, sys.argv[1])
if sys.argv[2] == "True":
    import offline_run
    offline_run.enter_namespace()
else:
    import no_network
import offline_run
found = [offline_run.prove_closed()]
server = socket.create_server(("127.0.0.1", 0))
with socket.create_connection(server.getsockname()):
    found.append("loopback")
try:
    socket.getaddrinfo("example.org", 443)
except socket.gaierror:
    found.append("no names")
print(json.dumps(found))
"""
    command = [box.python, "-c", code, str(Path(execution.__file__).parent), str(namespace)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    proof, *rest = json.loads(done.stdout)
    assert "unreachable" in proof
    assert rest == ["loopback", "no names"]


def test_an_open_network_is_not_taken_for_a_closed_one(monkeypatch):
    import socket

    from kitlib.kaggle.rehearsal import offline_run

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(offline_run, "OUTSIDE", server.getsockname())
        with pytest.raises(RuntimeError, match="the network is not closed"):
            offline_run.prove_closed()

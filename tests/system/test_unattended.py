"""docs/how-to/cron.md, Dockerfile and compose.yaml: what they show is right, and runs where they say that it does."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.docs import blocks
from support.program import ROOT, wait_until

from pipeline import errors
from pipeline.commands.run import plain_arguments
from pipeline.config.load import load_config

PAGE = (ROOT / "docs/how-to/cron.md").read_text()
GRACE_S = plain_arguments("", quiet=False, verbose=False).grace


# Every page that shows a line for cron; that of cron itself is the first.
PAGES = [PAGE, *((ROOT / page).read_text() for page in ("docs/how-to/monitoring.md", "docs/tutorial.md", "README.md"))]


def lines_of_crontab(*pages: str) -> list[str]:
    """Every command on pages that cron would start."""
    lines = "".join("".join(blocks("crontab", page)) for page in pages or [PAGE]).splitlines()
    return [line.split(None, 5)[5] for line in lines if line[0] in "0123456789*"]


# -- the exit codes ----------------------------------------------------------------------------------------------------


def test_the_page_tells_every_exit_code() -> None:
    """Those that the program has; 128+N stands for signals."""
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.M)}
    known = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int) and value < 128}
    assert {0, 1, 2, 3, 4, 70, 75} <= told and known <= told, known - told


# -- cron --------------------------------------------------------------------------------------------------------------


def test_every_crontab_line_is_a_command(tmp_path: Path) -> None:
    """A shell can read it, it names its files by absolute paths, and has no `%`, which ends a command of cron's."""
    assert len(lines_of_crontab()) >= 4 and all(lines_of_crontab(page) for page in PAGES)
    for line in lines_of_crontab(*PAGES):
        assert subprocess.run(["sh", "-n", "-c", line]).returncode == 0
        assert "%" not in line and " cd " not in f" {line}"
        assert all(word.startswith("/") for word in line.split() if word.endswith((".yaml", ".env", "/filemill")))
        assert "docker" in line or "/srv/photos/.venv/bin/filemill" in line


def test_the_options_of_the_crontab_lines_exist() -> None:
    """The page shows none that a run would refuse."""
    command = [sys.executable, "-m", "pipeline", "run", "--help"]
    known = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line for line in lines_of_crontab() if "filemill" in line and "docker" not in line]
    options = {option for line in lines for option in re.findall(r" (--[\w-]+)", line)}
    assert options and all(option in known for option in options)


def in_the_world_of_cron(line: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a line of the page for a pipeline in a folder: with no variable but cron's PATH, from /, stdin closed."""
    script = folder / "filemill"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m pipeline "$@"\n')
    script.chmod(0o755)
    line = line.replace("/srv/photos/.venv/bin/filemill", str(script)).replace("/srv/photos", str(folder))
    command = ["env", "-i", "PATH=/usr/bin:/bin", "/bin/sh", "-c", f"exec <&-; {line}"]
    return subprocess.run(command, cwd="/", capture_output=True)


def test_the_line_needs_nothing_of_a_login(tmp_path: Path) -> None:
    """Neither locale nor HOME; names of any bytes are made, and what is said of a failed one is UTF-8."""
    folder = tmp_path / "photos"
    shutil.copytree(ROOT / "data/input/summer trip", folder / "in/été")
    picture = next((folder / "in/été").iterdir())
    shutil.copy(picture, os.fsencode(folder) + b"/in/\xff\xfe.jpg")
    stage = "{name: web, uses: resize, with: {width: 9}, output: 'out/{dir}/{name}'}"
    (folder / "pipeline.yaml").write_text(f"inputs: in\nstages: [{stage}]\npool: {{processes: 1}}\n")
    line = lines_of_crontab()[0]
    first = in_the_world_of_cron(line, folder)
    assert (first.returncode, first.stdout, first.stderr) == (0, b"", b"")
    assert os.path.exists(os.fsencode(folder) + b"/out/\xff\xfe.jpg")
    (folder / "in/né.jpg").write_bytes(b"no picture")
    second = in_the_world_of_cron(line, folder)
    assert (second.returncode, second.stdout) == (1, b"")
    assert "né.jpg" in second.stderr.decode() and len(second.stderr) <= 4096


# -- systemd -----------------------------------------------------------------------------------------------------------


def units() -> dict[str, str]:
    """The unit files on the page, by the names that it gives them."""
    named = re.findall(r"`/etc/systemd/system/([^`]+)`|^```ini\n(.*?)^```$", PAGE, re.M | re.S)
    names, texts = [name for name, _ in named if name], [text for _, text in named if text]
    return dict(zip(names, texts, strict=True))


def setting(unit: str, section: str, key: str) -> list[str]:
    """Every value of a key of a unit; a parser of INI files would keep the last one."""
    lines = units()[unit].partition(f"[{section}]\n")[2].partition("\n[")[0].splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say, and would have of a key that there is not."""
    for name, text in units().items():
        (tmp_path / name).write_text(text.replace("/srv/%i/.venv/bin/filemill", "/bin/true"))
    whole = ["filemill@photos.service", "filemill@photos.timer", "filemill-failed@filemill@photos.service.service"]

    def verify() -> str:
        command = ["systemd-analyze", "verify", "--man=no", *whole]
        environment = os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "LC_ALL": "C"}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True)
        return "\n".join(line for line in ran.stderr.splitlines() if "filemill" in line) or str(ran.returncode)

    assert verify() == "0"
    service = tmp_path / "filemill@.service"
    service.write_text(service.read_text().replace("KillMode=mixed", "KilMode=mixed"))
    assert "KilMode" in verify()


def test_the_unit_knows_how_a_run_ends() -> None:
    """Held files and a run beside it are no failure, nor is a stop that was asked for, which has time to drain."""
    service = "filemill@.service"
    assert setting(service, "Service", "Type") == ["oneshot"]
    assert setting(service, "Service", "SuccessExitStatus") == ["6 75", str(128 + signal.SIGTERM)]
    assert setting(service, "Service", "KillMode") == ["mixed"]
    assert float(setting(service, "Service", "TimeoutStopSec")[0]) > GRACE_S
    assert setting(service, "Unit", "OnFailure") == ["filemill-failed@%n.service"]
    timer = configparser.ConfigParser()
    timer.read_string(units()["filemill@.timer"])
    assert timer["Timer"]["Persistent"] == "true" and "RandomizedDelaySec" in timer["Timer"]


# -- Docker ------------------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with their arguments."""
    lines = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text()).splitlines()
    return [(word, rest) for line in lines if line and line[0] != "#" for word, _, rest in [line.partition(" ")]]


def last(word: str) -> str:
    return [rest for each, rest in instructions() if each == word][-1]


def test_the_image_is_one_for_a_user_without_rights() -> None:
    """A tag that is named, a user by number, a program that gets the signals itself, and extras that there are."""
    for base in [rest.split()[0] for word, rest in instructions() if word == "FROM"]:
        assert re.fullmatch(r"python:3\.\d+-slim", base)
    words = [word for word, _ in instructions()]
    assert words.index("USER") < words.index("ENTRYPOINT") and "RUN" not in words[words.index("USER") :]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last("USER"))
    assert yaml.safe_load(last("ENTRYPOINT")) == ["filemill"] and yaml.safe_load(last("CMD")) == ["pipeline.yaml"]
    extras = re.findall(r"\[([a-z,]+)\]", "".join(rest for word, rest in instructions() if word == "RUN"))
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert len(extras) == 1 and set(extras[0].split(",")) <= set(setup["options.extras_require"])
    for shell in [rest for word, rest in instructions() if word == "RUN"]:
        assert subprocess.run(["sh", "-n", "-c", re.sub(r"^--mount=\S+ ", "", shell)]).returncode == 0


def test_the_image_is_built_from_what_it_needs() -> None:
    """.dockerignore leaves both packages and what their metadata names; `.ci/run` builds its wheel from that."""
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packages = {each.split(".")[0] for each in setup["options.packages.find"]["include"].split()}
    named = {setup["metadata"]["long_description"].removeprefix("file: "), setup["metadata"]["license_files"]}
    assert kept == packages | named | {"setup.cfg", "pyproject.toml"}


def compose() -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return made


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_the_example_of_compose_may_do_little() -> None:
    """It is the image's user, may write where the pipeline does and nowhere else, and has time to drain."""
    (service,) = compose()["services"].values()
    assert service["user"] == last("USER") and service["build"] == "."
    assert service["read_only"] is True and service["tmpfs"] == ["/tmp"] and service["init"] is True
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert seconds(service["stop_grace_period"]) > GRACE_S and service["restart"] == "no" and service["hostname"]
    places = {mount.split(":")[1]: mount.split(":")[0] for mount in service["volumes"]}
    assert set(places.values()) - {"./photos"} == set(compose()["volumes"])
    assert (
        set(places) == {last("WORKDIR"), "/nas", "/state"} and "install -d" in last("RUN") and "/state" in last("RUN")
    )


def namespaces() -> list[str]:
    """The command that starts another as process 1 among mounts of its own; the test is skipped where it may not."""
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    may = os.getuid() == 0 and shutil.which("unshare")
    if not may or subprocess.run([*command, "mount", "--bind", "/tmp", "/tmp"], capture_output=True).returncode:
        pytest.skip("a container of one's own needs root, and namespaces")
    return command


# What the container of compose.yaml, the pod and the unit have in common: nothing to be written to but these folders,
# no user's name or home, no capability, and the run as process 1.
CONTAINER = """
mount -t tmpfs none {top} && cd {top} && mkdir code python site-packages project nas state
mount --bind {code} code && mount --bind {python} python && mount --bind {libraries} site-packages
mount --bind {project} project && mount --bind {nas} nas && mount --bind {state} state
mount -o remount,bind,ro {top}/project && mount -o remount,ro {top} && mount -o remount,bind,ro /
mount -t tmpfs none /tmp
if touch /written {top}/written {top}/project/written 2> /dev/null; then exit 99; fi
exec setpriv --reuid {uid} --regid {uid} --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
    env -i PATH=/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 LD_LIBRARY_PATH={top}/python/lib \
    PYTHONPATH={top}/code:{top}/site-packages {top}/python/bin/{name} -m pipeline {top}/project/pipeline.yaml "$@"
"""
TOP = "/srv"


class Container:
    """The page's pipeline over pictures, as compose.yaml has it, but for the folder in which all places are."""

    def __init__(self, folder: Path) -> None:
        self.uid = int(last("USER").split(":")[0])
        self.nas, self.state = folder / "nas", folder / "state"
        self.project = folder / "project"
        for each in (self.nas / "originals", self.state, self.project / "stages"):
            each.mkdir(parents=True)
        # Python itself may lie where no other user may look.
        name = Path(sys.executable).resolve().name
        python = {"python": sys.base_prefix, "libraries": sysconfig.get_path("purelib"), "name": name}
        places = {
            "top": TOP,
            "project": self.project,
            "nas": self.nas,
            "state": self.state,
            "code": ROOT,
            "uid": self.uid,
        }
        self._script = "set -e" + CONTAINER.format(**places, **python)
        (shown,) = blocks("yaml", PAGE)
        self.write(shown)

    def write(self, pipeline: str) -> None:
        for place in ("/nas/", "/state"):
            pipeline = pipeline.replace(f" {place}", f" {TOP}{place}")
        (self.project / "pipeline.yaml").write_text(pipeline + "pool: {processes: 2}\n")
        for path in (self.nas, self.nas / "originals", self.state):
            os.chown(path, self.uid, self.uid)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [*namespaces(), "sh", "-c", self._script, "sh", *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *arguments: str) -> tuple[int, str]:
        started = self.start(*arguments)
        out, said = started.communicate(timeout=120)
        return started.returncode, out + said


@pytest.fixture
def container(tmp_path: Path) -> Container:
    for each in (tmp_path, *tmp_path.parents):
        if each.owner() == "root" and each.name.startswith("pytest"):
            each.chmod(0o755)  # for a user of another number
    return Container(tmp_path)


def test_a_container_of_a_user_without_rights_is_enough(container: Container) -> None:
    """With a root file system that cannot be written to: outputs are made, and the next night has nothing to do."""
    shutil.copytree(ROOT / "data/input/summer trip", container.nas / "originals/trip")
    assert container.run() == (0, "")
    made = [path for path in (container.nas / "web").rglob("*.webp")]
    assert len(made) == len(list((container.nas / "originals/trip").iterdir())) > 0
    assert {path.stat().st_uid for path in made} == {container.uid}
    times = [path.stat().st_mtime_ns for path in made]
    assert container.run() == (0, "")
    assert [path.stat().st_mtime_ns for path in made] == times
    (container.nas / "originals/bad.jpg").write_bytes(b"no picture")
    code, said = container.run()
    assert (code, "bad.jpg" in said) == (1, True)


SLOW = """
import time
from pathlib import Path
def slow(text: str) -> str:
    Path("/srv/state/begun").touch()
    while not Path("/srv/state/go").exists():
        time.sleep(0.01)
    return text
"""


@pytest.mark.processes
def test_process_1_of_a_container_drains_at_a_signal(container: Container) -> None:
    """As `docker stop` and a pod's end send it: what is in hand is finished, and the exit code tells."""
    (container.project / "stages/slow.py").write_text(SLOW)
    stage = "{name: a, uses: slow, output: '/nas/web/{name}'}"
    container.write(f"inputs: /nas/originals\nstate: /state\nstages: [{stage.replace('/nas', f'{TOP}/nas')}]\n")
    for name in ("a", "b", "c", "d", "e", "f"):
        (container.nas / "originals" / name).write_text(name)
    unshare = container.start()
    wait_until((container.state / "begun").exists)
    (child,) = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGTERM)
    (container.state / "go").touch()
    unshare.communicate(timeout=60)
    assert unshare.returncode == 128 + signal.SIGTERM
    assert 0 < len(list((container.nas / "web").glob("[a-f]"))) <= 6


def test_the_pipeline_of_the_page_is_one(tmp_path: Path) -> None:
    """Its places are those of compose.yaml."""
    (shown,) = blocks("yaml", PAGE)
    (tmp_path / "nas/originals").mkdir(parents=True)
    (tmp_path / "p.yaml").write_text(re.sub(r" (/nas|/state)", rf" {tmp_path}\1", shown))
    config = load_config(tmp_path / "p.yaml")
    assert config.state == tmp_path / "state" and list(config.output_folders) == [os.fsencode(tmp_path / "nas/web")]


# -- Kubernetes --------------------------------------------------------------------------------------------------------


def manifests() -> list[Any]:
    (shown,) = blocks("yml", PAGE)
    return list(yaml.safe_load_all(shown))


def test_the_cron_job_may_do_little_and_resumes_what_the_machine_stopped() -> None:
    """One at a time; the same again only where it may end otherwise; every volume is there; time to drain."""
    job, claim = manifests()
    assert (job["apiVersion"], job["kind"], job["spec"]["concurrencyPolicy"]) == ("batch/v1", "CronJob", "Forbid")
    spec = job["spec"]["jobTemplate"]["spec"]
    final, drained = spec["podFailurePolicy"]["rules"]
    assert final["action"] == "FailJob" and spec["backoffLimit"] > 0
    assert final["onExitCodes"]["values"] == [1, 2, 4, 5, 6, 70]  # not 3, nor 75, nor a signal
    assert drained == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never" and pod["terminationGracePeriodSeconds"] > GRACE_S and pod["hostname"]
    secured = pod["securityContext"]
    assert secured["runAsNonRoot"] is True
    assert f"{secured['runAsUser']}:{secured['runAsGroup']}" == last("USER")
    (container,) = pod["containers"]
    assert container["name"] == final["onExitCodes"]["containerName"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert volumes["state"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted == {"/project/pipeline.yaml", "/nas", "/state", "/tmp"}

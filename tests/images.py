"""Build the image of a project without Docker, and run its services from their root file system as compose.yaml says.

buildah builds; debootstrap and a copy of this Python stand in for the base image, which would come from a registry.
"""

import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import psutil
import yaml
from conftest import TEMPORARY, needs
from servers import wait_until

SUITE = "trixie"

# What the stand-in does not have: the tests of Python, its windows, what it compiles extensions with, other packages
NOT_COPIED = shutil.ignore_patterns(
    "__pycache__", "config-*", "idlelib", "site-packages", "test", "tkinter", "_tkinter*"
)


@functools.cache
def buildah():
    """Return the start of a buildah command with a storage of its own, in which the stand-in for the base is."""
    needs("debootstrap", "debootstrap")
    folder = TEMPORARY / f"images-{SUITE}-{sysconfig.get_python_version()}"
    command = [needs("buildah", "buildah"), "--root", folder / "storage", "--runroot", folder / "run"]
    command += ["--storage-driver", "overlay"]
    if not (folder / "base").exists():
        shutil.rmtree(folder, ignore_errors=True)
        root = folder / "new"
        run("debootstrap", "--variant=minbase", SUITE, root)
        for unneeded in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man"):
            shutil.rmtree(root / unneeded)
        copy_python(root)
        root.rename(folder / "base")
    return command


def run(*command, **options):
    """Run a command; fail with what it printed."""
    ran = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )
    assert ran.returncode == 0, f"{command} ended with {ran.returncode}:\n{ran.stdout[-3000:]}"
    return ran.stdout


def copy_python(root):
    """Copy this Python into a root file system where the official image has it, with the libraries that it lacks."""
    version = f"python{sysconfig.get_python_version()}"
    prefix, local = Path(sys.base_prefix), root / "usr" / "local"
    shutil.copytree(prefix / "lib" / version, local / "lib" / version, ignore=NOT_COPIED)
    shutil.copy(prefix / "bin" / version, local / "bin")
    for name in ("python", "python3"):
        (local / "bin" / name).symlink_to(version)
    for library in (prefix / "lib").glob("libpython*"):
        shutil.copy(library, local / "lib", follow_symlinks=False)
    run("chroot", root, "ldconfig")
    for module in [local / "bin" / version, *(local / "lib" / version / "lib-dynload").glob("*.so")]:
        inside = Path("/", module.relative_to(root))
        lacking = re.findall(r"(\S+) => not found", run("chroot", root, "ldd", inside))
        here = dict(re.findall(r"(\S+) => (/\S+)", run("ldd", prefix / inside.relative_to("/usr/local"))))
        for name in lacking:
            shutil.copy(here[name], local / "lib" / name)
    run("chroot", root, "ldconfig")
    run("chroot", root, "/usr/local/bin/python", "-m", "ensurepip")
    (local / "bin" / "pip").symlink_to("pip3")
    shutil.copytree("/etc/ssl/certs", root / "etc" / "ssl" / "certs", dirs_exist_ok=True)
    (root / "etc" / "pip.conf").write_text("[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n")  # for a pip of 3.12


class Image:
    """The image of a project."""

    def __init__(self, project):
        self.project = project
        base = re.search(r"^FROM (\S+)", (project / "Dockerfile").read_text(), re.MULTILINE)[1]
        self.name = f"localhost/{project.name}"
        tag = f"docker.io/library/{base}"
        if not run(*buildah(), "images", "--quiet", "--filter", f"reference={tag}"):
            container = run(*buildah(), "from", "scratch").strip()
            run(*buildah(), "config", "--env", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
            run(*buildah(), "add", "--quiet", container, Path(buildah()[2]).with_name("base"))
            run(*buildah(), "commit", "--quiet", "--rm", container, tag)
        self.log = run(
            *(*buildah(), "bud", "--isolation", "chroot", "--pull-never", "--format", "docker"),
            *("--build-arg", "RELEASE=1", "--tag", self.name, project),
        )
        self.container = run(*buildah(), "from", "--pull-never", self.name).strip()
        self.root = Path(run(*buildah(), "mount", self.container).strip())
        about = json.loads(run(*buildah(), "inspect", "--type", "image", self.name))
        self.config = about["Docker"]["config"]
        images = json.loads(run(*buildah(), "images", "--json"))
        sizes = {name: image["size"] for image in images for name in image["names"] or []}
        self.size, self.base_size = sizes[f"{self.name}:latest"], sizes[tag]

    def remove(self):
        """Delete the image, not what it was built from."""
        run(*buildah(), "rm", self.container)
        run(*buildah(), "rmi", "--force", self.name)
        run(*buildah(), "rmi", "--prune", "--force")

    def files(self):
        """Return the paths of all files of the image, as they are called inside."""
        return [str(Path("/", path.relative_to(self.root))) for path in self.root.rglob("*")]


class Host:
    """What Docker Compose does with services of the image: mounts, user, environment, no more rights than they have.

    Names of other services lead to the address of `hosts`.
    """

    def __init__(self, image, folder, hosts):
        self.image, self.folder = image, folder
        text = (image.project / "compose.yaml").read_text()
        self.compose = yaml.safe_load(text)
        (folder / "hosts").write_text("".join(f"{address} {name}\n" for name, address in hosts.items()))
        self.running = []

    def volume(self, name, target):
        """Return the folder of a volume, which at first holds what the image has there."""
        folder = self.folder / "volumes" / name
        if not folder.exists():
            inside = self.image.root / target.lstrip("/")
            if options := (self.compose["volumes"][name] or {}).get("driver_opts"):
                folder.mkdir(parents=True)
                given = dict(option.split("=") for option in options["o"].split(","))
                os.chown(folder, int(given["uid"]), 0)
                folder.chmod(int(given["mode"], 8))
            else:
                folder.parent.mkdir(exist_ok=True)
                run("cp", "--archive", inside, folder)
        return folder

    def mounts(self, service):
        """Yield the commands of mount, and the paths in the image on which they mount something."""
        for mount in service.get("tmpfs", []):
            target, _, options = mount.partition(":")
            yield target, f"-t tmpfs -o {options or 'mode=1777'} tmpfs"
        for mount in service.get("volumes", []):
            source, target, *options = mount.split(":")
            yield target, f"--bind{' -o ro' if options else ''} {self.volume(source, target)}"
        for name in service.get("secrets", []):
            yield f"/run/secrets/{name}", f"--bind -o ro {self.image.project / self.compose['secrets'][name]['file']}"
        yield "/etc/hosts", f"--bind -o ro {self.folder / 'hosts'}"
        yield "/dev", "--rbind /dev"
        yield "/proc", "-t proc proc"

    def command(self, service, *command):
        """Return the command line that runs a command, by default the service's own, as the service would."""
        service = {"user": self.image.config["User"], "command": self.image.config["Cmd"]} | service
        root = self.image.root
        script = ["set -e", "mount --make-rprivate /", f"mount --bind {root} {root}"]
        for target, mount in self.mounts(service):
            inside = root / target.lstrip("/")
            if not inside.exists():
                (inside.parent if target.startswith("/run/secrets") else inside).mkdir(parents=True, exist_ok=True)
                inside.touch()
            script.append(f"mount {mount} {inside}")
        if service.get("read_only"):
            script.append(f"mount -o remount,bind,ro {root}")
        uid, gid = service["user"].split(":")
        environment = self.image.config["Env"]
        rights = [f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
        argv = [part.replace("$$", "$") for part in command or service["command"]]
        inner = ["env", "-i", "-C", self.image.config["WorkingDir"], *environment, "setpriv", *rights, *argv]
        script.append(f"exec chroot {root} {shlex.join(inner)}")
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", "\n".join(script)]

    def run(self, name, *command, check=True):
        """Run a service, or another command in its place, to its end; return the CompletedProcess."""
        line = self.command(self.compose["services"][name], *command)
        ran = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert not check or ran.returncode == 0, f"{name} ended with {ran.returncode}:\n{ran.stdout}\n{ran.stderr}"
        return ran

    def start(self, name, service=None):
        """Start a service; return it as a Service."""
        service = Service(self, name, service or self.compose["services"][name])
        self.running.append(service)
        return service

    def stop(self):
        for service in self.running:
            service.kill()


class Service:
    """A service that runs: its main process is number 1 of the processes that it sees."""

    def __init__(self, host, name, service):
        self.host, self.service = host, service
        self.log = host.folder / f"{name}.log"
        with self.log.open("ab") as output:
            line = host.command(service)
            self.process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    @property
    def main(self):
        """The main process, seen from outside."""
        return wait_until(psutil.Process(self.process.pid).children)[0]

    def is_healthy(self):
        """Ask the health check of the service, in its own namespaces, as its user."""
        test = self.service["healthcheck"]["test"]
        uid, gid = self.service["user"].split(":")
        root = f"/proc/{self.main.pid}/root"
        line = ["nsenter", f"--target={self.main.pid}", "--mount", "--pid", f"--root={root}", "--wdns=/"]
        rights = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        environment = ["env", "-i", "-C", self.host.image.config["WorkingDir"], *self.host.image.config["Env"]]
        ran = subprocess.run([*line, *environment, *rights, *test[1:]], capture_output=True, text=True, check=False)
        self.said = ran.stdout + ran.stderr
        return ran.returncode == 0

    def stop(self, number=signal.SIGTERM):
        """Send the main process a signal, and only it; return the exit status."""
        for hook in self.service.get("pre_stop", []):
            subprocess.run(self.host.command(self.service, *hook["command"]), check=True)
        grace = int(self.service["stop_grace_period"].removesuffix("s"))
        self.main.send_signal(number)
        return self.process.wait(grace)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

"""Debian's own kernel as a guest: its packages are fetched, an initramfs is made around busybox, and a machine
boots both. Nothing of it is kept in the repository; everything lies in build/linux.
"""
import glob
import os
import re
import select
import shutil
import subprocess
import time

from . import paths

PACKAGES = ("linux-image-cloud-amd64", "busybox-static")
MODULES = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk",
           "virtio_console", "rng-core", "virtio-rng")


class Missing(Exception):
    """What stands in the way of having the kernel here; one line."""


def _run(command, **more):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", check=False, **more)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        raise Missing(f"{command[0]} {command[1]}: {lines[-1] if lines else 'failed'}")
    return done.stdout


def depends(package, prefix):
    """The packages that @package depends on whose names begin with @prefix. Raises Missing where there is none."""
    lines = (line.split() for line in _run(["apt-cache", "depends", package]).splitlines())
    found = [words[1] for words in lines if len(words) == 2 and words[0] == "Depends:" and words[1].startswith(prefix)]
    if not found:
        raise Missing(f"apt-cache depends {package}: names no {prefix}…")
    return found


def have_apt():
    """Raises Missing where Debian's packages cannot be fetched."""
    for program in ("apt-get", "apt-cache", "dpkg-deb"):
        if not shutil.which(program):
            raise Missing(f"{program} is not installed")


def unpack(folder, packages):
    """Fetches @packages and unpacks them below @folder, of which nothing is left from before. The path. Raises Missing."""
    tree, debs = os.path.join(folder, "tree"), os.path.join(folder, "debs")
    shutil.rmtree(debs, ignore_errors=True)
    shutil.rmtree(tree, ignore_errors=True)
    os.makedirs(debs)
    _run(["apt-get", "download", *packages], cwd=debs)
    for deb in sorted(glob.glob(os.path.join(debs, "*.deb"))):
        _run(["dpkg-deb", "-x", deb, tree])
    return tree


def fetch(folder, package=PACKAGES[0]):
    """Unpacks kernel and busybox below @folder, unless they are there. Raises Missing."""
    tree = os.path.join(folder, "tree")
    if glob.glob(os.path.join(tree, "boot", "vmlinuz-*")) and os.path.exists(os.path.join(tree, "bin", "busybox")):
        return tree
    have_apt()
    return unpack(folder, [depends(package, "linux-image-")[0], PACKAGES[1]])


def kernel(tree):
    return sorted(glob.glob(os.path.join(tree, "boot", "vmlinuz-*")))[-1]


# ---- initramfs: the "newc" form of cpio ----

class Archive:
    """A cpio archive whose bytes depend on nothing but its content."""

    def __init__(self):
        self.data = bytearray()
        self.number = 0

    def add(self, name, mode, content=b"", device=(0, 0)):
        self.number += 1
        encoded = name.encode() + b"\0"
        fields = (self.number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
        self.data += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self._pad()
        self.data += content
        self._pad()

    def folder(self, name):
        self.add(name, 0o40755)

    def file(self, name, content, executable=False):
        self.add(name, 0o100755 if executable else 0o100644, content)

    def _pad(self):
        self.data += bytes(-len(self.data) % 4)

    def finish(self):
        self.add("TRAILER!!!", 0)
        return bytes(self.data)


INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in {modules}; do insmod /lib/$module.ko; done
{commands}
"""
SHELL = "exec setsid cttyhack sh"


def _modules(tree, wanted):
    """Those of the modules that there are, as (name, content); others are built in."""
    found = {}
    for path in glob.glob(os.path.join(tree, "lib", "modules", "*", "kernel", "**", "*.ko*"), recursive=True):
        found[os.path.basename(path).split(".")[0]] = path
    for name in wanted:
        if name in found:
            with open(found[name], "rb") as file:
                yield name, file.read()


def _folders(names):
    """The folders that @names lie in, the outer ones first."""
    return sorted({"/".join(parts[:count]) for parts in (name.split("/") for name in names)
                   for count in range(1, len(parts))})


def initramfs(tree, path, commands=SHELL, modules=MODULES, files=None):
    """Writes an initramfs to @path whose init loads @modules, in that order, and then runs @commands.

    @files: {name in the guest: path here} of programs and what they need.
    """
    archive = Archive()
    files = files or {}
    for folder in _folders([*files, "bin/-", "dev/-", "lib/-", "proc/-", "sys/-"]):
        archive.folder(folder)
    for name, source in files.items():
        with open(source, "rb") as file:
            archive.file(name, file.read(), executable=True)
    archive.add("dev/console", 0o20600, device=(5, 1))
    with open(os.path.join(tree, "bin", "busybox"), "rb") as file:
        archive.file("bin/busybox", file.read(), executable=True)
    names = []
    for name, content in _modules(tree, modules):
        archive.file(f"lib/{name}.ko", content)
        names.append(name)
    archive.file("init", INIT.format(modules=" ".join(names), commands=commands).encode(), executable=True)
    with open(path, "wb") as file:
        file.write(archive.finish())


def folder():
    return os.path.join(paths.TREE or os.curdir, "build", "linux")


# ---- running it ----

PROMPT = re.compile(rb"(?m)^/ # (?:\x1b\[6n)?")
APPEND = "console=ttyS0 panic=-1"
TIMED = APPEND + " quiet cryptomgr.notests"


class Died(Exception):
    """The guest did not come to where it should; one line, with the end of what it printed."""


class Console:
    """A machine whose first serial port is its standard input and output."""

    def __init__(self, command):
        self.output = b""
        self.begun = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT)

    def _died(self, what):
        self.close()
        tail = self.output[-2000:].decode(errors="replace")
        return Died(f"{what}; the last that it printed:\n{tail}")

    def _more(self, deadline, what):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
            raise self._died(f"no {what} in time")
        got = os.read(self.process.stdout.fileno(), 65536)
        self.output += got
        return got

    def wait(self, pattern, seconds, what):
        """Reads until @pattern comes behind what was waited for before; returns what came before it."""
        start = getattr(self, "position", 0)
        deadline = time.monotonic() + seconds
        while True:
            found = pattern.search(self.output.replace(b"\r", b""), start)
            if found:
                self.position = found.end()
                return self.output.replace(b"\r", b"")[start:found.start()]
            if not self._more(deadline, what):
                raise self._died(f"it ended before {what}")

    def command(self, text, seconds=120):
        """Types a line at the shell, and returns what it answers."""
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()
        answer = self.wait(PROMPT, seconds, f"answer to {text!r}")
        return answer.split(b"\n", 1)[1].decode(errors="replace").strip() if b"\n" in answer else ""

    def finish(self, text, seconds=60):
        """Types a line that ends the machine, and returns its exit status."""
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()
        deadline = time.monotonic() + seconds
        while self._more(deadline, f"end behind {text!r}"):
            pass
        return self.process.wait(timeout=10)

    def elapsed(self):
        return time.monotonic() - self.begun

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def visor(kernel_path, initrd, vcpus=1, append=APPEND, more=()):
    return [str(paths.visor()), "run", "--mem", "512M", "--smp", str(vcpus), "--initrd", initrd, "--append", append,
            *more, kernel_path]


def qemu(kernel_path, initrd, vcpus=1, append=APPEND):
    return ["qemu-system-x86_64", "-machine", "pc", "-accel", "tcg", "-cpu", "max", "-m", "512M", "-smp", str(vcpus),
            "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
            "-kernel", kernel_path, "-initrd", initrd, "-append", append]


def boot_time(command, seconds=300):
    """Seconds from the start of a machine to the shell's prompt, and to its end by power-off."""
    console = Console(command)
    console.wait(PROMPT, seconds, "shell")
    shell = console.elapsed()
    console.finish("poweroff -f")
    return shell, console.elapsed()

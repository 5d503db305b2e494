"""KVM as Debian's kernel has it (or another kernel), on a processor with AMD-V or VT-x that is our own model.

`linux-kvm:amd` boots that kernel, unmodified, on `visor --engine soft`, loads its KVM modules, and runs visor in it with
the engine `kvm`, which prints the records. So a change to KVM can be held against the tables on any machine, without a
module being loaded there. Nothing of the kernel is kept in the repository; everything lies in build/linux-kvm.
"""

import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from . import linux_guest, paths
from .errors import HarnessError, UsageError

PACKAGE = "linux-image-amd64"  # its KVM modules are not in the cloud kernel
BASE = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk", "irqbypass",
        "kvm", "ccp")
PROFILES = {"amd": "kvm-amd", "intel": "kvm-intel"}
MEMORY = "1G"
BOOT = 240.0   # seconds until the first record; a busy host has been seen to take 60
TIMEOUT = 1.0  # seconds of the guest's time for a case
SLOWER = 60    # at most so many of ours
SECTOR = 512
DEPENDENCY = re.compile(r"(/\S+) \(0x")

COMMANDS = """
exec 2>&1
head -c {image} /dev/vda > /image
head -c {cases} /dev/vdb > /cases
/visor run --engine kvm --json --timeout {timeout:g} --smp {smp} {depth} {move} --cases @/cases /image
echo "status $?"
poweroff -f
"""


def matches(word):
    """Whether @word names such a target."""
    return re.fullmatch(r"linux-kvm(:.*)?(=.*)?", word) is not None


def split(word):
    """(profile or None, folder of another kernel or None)."""
    name, _, folder = word.partition("=")
    return name.partition(":")[2] or None, folder or None


def spellings(word):
    """[(word for one profile, profile)] of a --target; without a profile it means both."""
    profile, folder = split(word)
    if profile and profile.split(",")[0] not in PROFILES:
        raise UsageError(f"--target {word}: {profile}: no such profile; known: {', '.join(PROFILES)}")
    return [(f"linux-kvm:{one}" + (f"={folder}" if folder else ""), one) for one in ([profile] if profile else PROFILES)]


def describe():
    """One line for `trapline targets`."""
    missing = [name for name in ("apt-get", "dpkg-deb", "ldd") if not shutil.which(name)]
    if missing:
        return f"missing: {missing[0]} is not installed"
    return f"available: {PACKAGE}, fetched when it is first used, on soft; profiles: {' '.join(PROFILES)}"


def tree_of(folder):
    """The tree with the kernel: @folder, or Debian's package, unpacked once. Raises HarnessError."""
    if folder:
        if not list(Path(folder, "boot").glob("vmlinuz-*")):
            raise UsageError(f"--target linux-kvm=…: {folder}: no boot/vmlinuz-* in it (make install and "
                             f"modules_install with INSTALL_PATH={folder}/boot, INSTALL_MOD_PATH={folder})")
        return folder
    home = (paths.build().parent if paths.TREE else paths.default_results()) / "linux-kvm"
    home.mkdir(parents=True, exist_ok=True)
    with open(home / "lock", "w", encoding="utf-8") as lock:  # several processes may want it first
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return linux_guest.fetch(str(home), PACKAGE)
        except linux_guest.Missing as missing:
            raise HarnessError(f"linux-kvm: {missing}") from missing


def program_files():
    """{name in the guest: path here} of visor, the libraries it is linked with, and our own hypervisor."""
    visor = str(paths.visor())
    told = subprocess.run(["ldd", visor], capture_output=True, text=True, check=False).stdout
    files = {"visor": visor}
    for path in DEPENDENCY.findall(told):
        files[path.lstrip("/")] = path
    if paths.hypervisor().exists():
        files["l1.elf"] = str(paths.hypervisor())
    return files


def disk(source, path):
    """A raw disk at @path that begins with the file @source; its size before it was filled up to whole sectors."""
    shutil.copyfile(source, path)
    size = os.path.getsize(path)
    os.truncate(path, -(-max(size, 1) // SECTOR) * SECTOR)
    return size


def case_list(source, path):
    """Writes the ids of a list of cases to @path."""
    with open(source, encoding="utf-8") as lines, open(path, "w", encoding="ascii") as out:
        out.write("".join(line.split()[-1] + "\n" for line in lines if line.strip()))


def prepare(options, folder):
    """The command line of the machine, with its files in @folder."""
    profile, kernel_folder = split(options.target)
    tree = tree_of(kernel_folder)
    files = program_files()
    if "visor" not in files or len(files) == 1:
        raise HarnessError("linux-kvm: ldd tells nothing of visor")
    busybox = os.path.join(tree, "bin", "busybox")
    if not os.path.exists(busybox):
        raise UsageError(f"{busybox}: there is none (Debian's busybox-static has it)")
    initrd, image, cases = (os.path.join(folder, name) for name in ("initrd", "image", "cases"))
    case_list(options.cases, cases + ".txt")
    commands = COMMANDS.format(image=disk(options.image, image), cases=disk(cases + ".txt", cases), timeout=TIMEOUT,
                               smp=options.smp,
                               depth=f"--depth {options.depth} --l1 /l1.elf" if options.depth else "",
                               move=f"--move {shlex.quote(options.move)}" if options.move else "")
    linux_guest.initramfs(tree, initrd, commands, BASE + (PROFILES[profile.split(",")[0]],), files)
    return [str(paths.visor()), "run", "--cpu", profile, "--mem", MEMORY, "--smp", str(options.smp), "--initrd", initrd,
            "--disk-ro", f"raw:{image}", "--disk-ro", f"raw:{cases}", "--append",
            "console=ttyS0 quiet loglevel=1 panic=-1 cryptomgr.notests", linux_guest.kernel(tree)]


def boot(options):
    """trapline boot --target linux-kvm:…: prints the records that visor prints in there."""
    with tempfile.TemporaryDirectory(prefix="trapline-linux-kvm-") as folder:
        process = subprocess.Popen(prepare(options, folder), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

        def stop(number, _frame):
            process.kill()
            raise SystemExit(128 + number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, stop)
        status, words = None, ""
        for line in process.stdout:
            line = line.replace(b"\r", b"")
            if line.startswith(b"{"):
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
            elif line.startswith(b"status "):
                status = int(line.split()[1])
            elif line.strip():
                words = line.decode("utf-8", "replace").strip()
        ended = process.wait()
    if status is None or status > 1:
        raise HarnessError(f"{options.target}: " + (f"visor ended with status {status}" if status is not None else
                           f"Linux ended with status {ended}") + (f": {words}" if words else ""))
    return status

"""How long machines take to boot Debian's own kernel to a shell: the same kernel, initramfs and command line."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from . import bochs, linux_guest
from .bench_machines import kill
from .bench_row import TIME, Row, say
from .errors import HarnessError

PATIENCE = 300.0  # seconds for one boot

# Bochs has no loader for kernels: its BIOS boots a CD whose boot sector is ISOLINUX.
ISOLINUX = (Path("/usr/lib/ISOLINUX/isolinux.bin"), Path("/usr/lib/syslinux/modules/bios/ldlinux.c32"))
BIOS, VGA_BIOS = Path("/usr/share/bochs/BIOS-bochs-latest"), Path("/usr/share/bochs/VGABIOS-lgpl-latest")
MENU = "default linux\nprompt 0\ntimeout 0\nlabel linux\nkernel linux\nappend initrd=initrd {append}\n"
CONFIGURATION = """display_library: rfb, options="timeout=0"
plugin_ctrl: speaker=0, gameport=0, parallel=0, unmapped=1
cpu: model={model}, count=1, ips=10000000, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest=512, host=512
romimage: file={bios}
vgaromimage: file={vga}
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=serial
clock: sync=none
log: log
panic: action=fatal
error: action=ignore
info: action=ignore
"""


def bochs_missing():
    """Why Bochs cannot boot a kernel here, or an empty text."""
    for path in (*ISOLINUX, BIOS, VGA_BIOS):
        if not path.exists():
            return f"{path}: there is no such file (packages isolinux, syslinux-common, bochsbios, vgabios)"
    return "" if shutil.which("genisoimage") else "genisoimage is not installed"


def prepare_bochs(folder, kernel, initrd):
    """Writes the CD and the configuration to @folder; the command, to run there."""
    tree = folder / "cd"
    tree.mkdir()
    for path in ISOLINUX:
        shutil.copy(path, tree)
    shutil.copy(kernel, tree / "linux")
    shutil.copy(initrd, tree / "initrd")
    (tree / "isolinux.cfg").write_text(MENU.format(append=linux_guest.TIMED), encoding="ascii")
    subprocess.run(["genisoimage", "-quiet", "-o", str(folder / "boot.iso"), "-b", "isolinux.bin", "-c", "boot.cat",
                    "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", str(tree)], check=True)
    (folder / "rc").write_text("c\n", encoding="ascii")
    (folder / "bochsrc").write_text(CONFIGURATION.format(model=bochs.DEFAULT_MODEL, bios=BIOS, vga=VGA_BIOS),
                                    encoding="utf-8")
    return [bochs.PROGRAM, "-q", "-f", "bochsrc", "-rc", "rc"]


def time_bochs(kernel, initrd):
    """Seconds from the start of Bochs, its BIOS included, to the shell's prompt in what its serial port wrote."""
    with tempfile.TemporaryDirectory(prefix="trapline-bench-") as name:
        folder = Path(name)
        command = prepare_bochs(folder, kernel, initrd)
        begun = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            while time.monotonic() - begun < PATIENCE and process.poll() is None:
                serial = folder / "serial"
                if serial.exists() and linux_guest.PROMPT.search(serial.read_bytes().replace(b"\r", b"")):
                    return time.monotonic() - begun
                time.sleep(0.02)
        finally:
            kill(process)
            process.wait()
    raise HarnessError("bochs: the kernel came to no shell")


def shell_time(machine, kernel, initrd):
    """Seconds of one boot to the shell."""
    if machine.name == "Bochs":
        return time_bochs(kernel, initrd)
    command = linux_guest.visor if machine.name == "soft" else linux_guest.qemu
    try:
        return linux_guest.boot_time(command(kernel, initrd, append=linux_guest.TIMED))[0]
    except linux_guest.Died as died:
        raise HarnessError(f"{machine.name}: {died}") from died


def linux(machines, repeats):
    """The time to the shell. Bochs takes so long that it boots once."""
    folder = linux_guest.folder()
    os.makedirs(folder, exist_ok=True)
    try:
        tree = linux_guest.fetch(folder)
    except linux_guest.Missing as missing:
        say(f"left out linux: {missing}")
        return
    initrd = os.path.join(folder, "bench-initrd.img")
    linux_guest.initramfs(tree, initrd)
    row = Row("linux", "shell", "s", TIME, "Debian's cloud kernel, one processor, to the shell (cryptomgr.notests)")
    for turn in range(repeats):
        say(f"linux: boot {turn + 1} of {repeats}")
        for machine in machines:
            why = bochs_missing() if machine.name == "Bochs" else ""
            if why and not turn:
                say(f"left out linux on Bochs: {why}")
            if not why and (machine.name != "Bochs" or not turn):
                row.add(machine.name, shell_time(machine, linux_guest.kernel(tree), initrd))
    yield row

"""What is asked for on the command line, checked. Whatever is wrong ends with one sentence and status 2."""

import argparse
import math
import pathlib
import re
import shutil

import guests

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
RATES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
GUEST_RESERVE = 32 << 20  # below where the guest's memory in use begins, and for its code
GROWTH_FILL = 64 << 20
STREAMS_MAX = 16


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"migration-bench: {message.removeprefix('argument ')}\n")


def size(text):
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)(?:iB|i|B)?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size such as 512M or 1G")
    return int(float(match[1]) * UNITS[match[2]])


def rate(text):
    """Bits a second; 0 for max."""
    if text == "max":
        return 0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)(?:bit|bps|bit/s)?", text)
    if not match or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a rate such as 1G, or max")
    return int(float(match[1]) * RATES[match[2]])


def pages_rate(text):
    if text != "max" and not re.fullmatch(r"\d{1,12}", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of pages a second, or max")
    return text


def whole(least, most):
    def read(text):
        if not re.fullmatch(r"\d{1,9}", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {least} to {most}")
        return int(text)
    return read


def seconds(text):
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds")
    return value


def make_parser(description):
    parser = Parser(prog="migration-bench", description=description, allow_abbrev=False)
    guest = parser.add_argument_group("the guest")
    guest.add_argument("--memory", type=size, default=1 << 30, metavar="SIZE", help="all of it (1G)")
    guest.add_argument("--fill", type=size, metavar="SIZE",
                       help="filled before; the rest stays untouched (memory less 64M; with --growth 64M)")
    guest.add_argument("--working-set", type=size, default=1 << 20, metavar="SIZE", help="rewritten all the time (1M)")
    guest.add_argument("--dirty-rate", type=pages_rate, default="max", metavar="RATE",
                       help="pages/s rewritten, or max; 0: idle (max)")
    guest.add_argument("--write", choices=("word", "page"), default="word",
                       help="how much of a page is rewritten (word)")
    guest.add_argument("--content", choices=("random", "text", "zero"), default="random",
                       help="of what is filled (random)")
    guest.add_argument("--payload", type=pathlib.Path, default=guests.vmm.GUEST, metavar="ELF",
                       help="another guest: a PVH ELF that writes R to port 0x3f8 when ready")
    guest.add_argument("--cmdline", help="of the payload; made from the options above for the default one")
    moved = parser.add_argument_group("the migration")
    moved.add_argument("--streams", type=whole(0, STREAMS_MAX), default=0, metavar="N",
                       help="TCP connections for pages, also of QEMU's multifd; 0: the engine chooses, 2 for QEMU (0)")
    moved.add_argument("--bandwidth", type=rate, default=0, metavar="RATE", help="cap in bit/s, or max (max)")
    moved.add_argument("--downtime", type=whole(1, 600000), default=300, dest="downtime_ms", metavar="MS",
                       help="limit of the pause, both sides (300)")
    moved.add_argument("--encrypt", choices=("on", "off"), default="on", help="ours; QEMU's is always off (on)")
    moved.add_argument("--mode", choices=tuple(guests.MODES), default="auto", help="ours; QEMU's is pre-copy (auto)")
    moved.add_argument("--compress", choices=guests.COMPRESS, default="auto", help="pages, ours only (auto)")
    moved.add_argument("--verify", action="store_true", help="both ends hash all memory inside the pause, ours only")
    measured = parser.add_argument_group("what is measured")
    measured.add_argument("--runs", type=whole(1, 1000), default=5, metavar="N", help="of each, in turn (5)")
    measured.add_argument("--versus-qemu", action="store_true", help="QEMU's microvm with the same guest, too")
    measured.add_argument("--growth", action="store_true",
                          help="idle guests of 1, 2, 4, 8 and 16 GiB instead, and what was predicted of each")
    measured.add_argument("--timeout", type=seconds, default=70, dest="timeout_s", metavar="S",
                          help="of one migration (70)")
    measured.add_argument("--settle", type=seconds, default=0.5, dest="settle_s", metavar="S",
                          help="from ready to the migration (0.5)")
    measured.add_argument("--json", type=pathlib.Path, metavar="FILE", help="all figures; see docs/migration-bench.md")
    measured.add_argument("--report", type=pathlib.Path, metavar="FILE.html", help="a page with plots, in one file")
    return parser


def _objection(options):
    """What is wrong with options that are each right; None: nothing."""
    for path in (options.json, options.report):
        if path and path.is_dir():
            return f"{path} is a folder, not a file to write to"
        if path and not path.resolve().parent.is_dir():
            return f"{path} cannot be written: there is no such folder"
    if options.memory % (1 << 20) or not 64 << 20 <= options.memory <= 64 << 30:
        return "--memory is not a whole number of MiB from 64M to 64G"
    if options.working_set < 4096 or options.working_set > options.fill:
        return "--working-set is not from 4K to what is filled (--fill)"
    if options.fill > options.memory - GUEST_RESERVE:
        return "--fill does not fit: the guest needs 32M of its --memory for itself"
    if options.growth and options.dirty_rate != "0":
        return "--growth is about idle guests: it needs no --dirty-rate"
    if options.mode == "postcopy" and options.verify:
        return "--verify needs all memory at the target, which --mode postcopy does without"
    if not guests.vmm.VMM.is_file():
        return f"there is no {guests.vmm.VMM}: build, or set VMPOOL_BIN to the folder of pool-vmm"
    if not options.payload.is_file():
        return f"there is no payload {options.payload}"
    if options.versus_qemu and not shutil.which(guests.Qemu.PROGRAM):
        return f"--versus-qemu needs {guests.Qemu.PROGRAM}, which is not installed"
    return None


def read(description):
    parser = make_parser(description)
    options = parser.parse_args()
    options.encrypt = options.encrypt == "on"
    if options.growth and options.dirty_rate == "max":
        options.dirty_rate = "0"
    if options.fill is None:
        rest = GROWTH_FILL if options.growth else options.memory - (64 << 20)
        options.fill = max(rest, min(options.working_set, options.memory - GUEST_RESERVE))
    objection = _objection(options)
    if objection:
        parser.error(objection)
    if options.cmdline is None:
        options.cmdline = (f"ws={options.working_set} fill={options.fill} rate={options.dirty_rate} "
                           f"write={options.write} content={options.content} sweep=0")
    return options


def for_json(options):
    return {name: str(value) if isinstance(value, pathlib.Path) else value for name, value in vars(options).items()}

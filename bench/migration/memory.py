"""Memory that is like for like: where this machine is itself a guest whose free memory goes back to its host, the
first touch of a page that was free for seconds costs up to 2 s/GiB, many times a migration. Who comes second in turn
would find the memory the first just left, and win by that. So all find memory that was in use a moment before."""

import mmap
import multiprocessing

HUGE_BYTES = 2 << 20


def _touch(size):
    with mmap.mmap(-1, size + HUGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, size, mmap.PAGESIZE):
            memory[at] = 1


def warm(size):
    """Takes @size bytes of this machine's memory and gives them back."""
    process = multiprocessing.Process(target=_touch, args=(size,))
    process.start()
    process.join()


def available_bytes():
    with open("/proc/meminfo", encoding="ascii") as info:
        return next(int(line.split()[1]) << 10 for line in info if line.startswith("MemAvailable:"))

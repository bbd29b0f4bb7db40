/*
 * fuzz_boot.c: kernel files against the loaders: ELF, bzImage and what is packed inside it. The
 * guest has 4 MiB, so that what would fit a real one is refused for its place.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "node-agent/vmm/boot/boot.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = ERROR_INIT;
    struct guest_memory memory;
    struct boot_entry entry;
    int fd = memfd_create("kernel", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size ||
        guest_memory_create(&memory, 4u << 20, false, &err) < 0)
        abort();
    const struct boot_request request = {.kernel_fd = fd, .initrd_fd = -1, .cmdline = "quiet"};
    if (boot_load(&memory, &request, &entry, &err) < 0 && err.text[0] == '\0')
        abort(); /* refused without a word */
    guest_memory_destroy(&memory);
    (void)close(fd);
    return 0;
}

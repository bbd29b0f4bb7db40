#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include <linux/input.h>
#include <linux/reboot.h>
#include <sys/reboot.h>

#include "probe.h"

static void *wait_for_press(void *argument)
{
    int fd = (int)(intptr_t)argument;
    struct input_event event;
    while (read(fd, &event, sizeof(event)) == (ssize_t)sizeof(event)) {
        if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1) {
            printf("vmpool-guest: power button\n");
            sync();
            reboot(RB_POWER_OFF);
        }
    }
    close(fd);
    return NULL;
}

int power_button_start(void)
{
    int found = 0;
    for (int i = 0; i < 8; i++) {
        char path[32];
        pthread_t thread;
        snprintf(path, sizeof(path), "/dev/input/event%d", i);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            continue;
        }
        if (pthread_create(&thread, NULL, wait_for_press, (void *)(intptr_t)fd) != 0) {
            close(fd);
            continue;
        }
        pthread_detach(thread);
        found++;
    }
    return found > 0 ? 0 : -1;
}

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "probe.h"

static _Atomic uint64_t connections;
static _Atomic uint64_t echoed_bytes;

static int listen_on(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int yes = 1;
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (fd < 0) {
        return -1;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) != 0 ||
        bind(fd, (struct sockaddr *)&any, sizeof(any)) != 0 || listen(fd, 64) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool send_all(int fd, const char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t sent = send(fd, data, bytes, MSG_NOSIGNAL);
        if (sent <= 0) {
            return false;
        }
        data += sent;
        bytes -= (size_t)sent;
    }
    return true;
}

static void *echo(void *argument)
{
    int fd = (int)(intptr_t)argument;
    char data[65536];
    ssize_t got;
    connections++;
    while ((got = recv(fd, data, sizeof(data), 0)) > 0 && send_all(fd, data, (size_t)got)) {
        echoed_bytes += (uint64_t)got;
    }
    connections--;
    close(fd);
    return NULL;
}

static void *serve_commands(void *argument)
{
    int fd = (int)(intptr_t)argument;
    FILE *input = fdopen(fd, "r");
    char line[256], answer[2048];
    if (input == NULL) {
        close(fd);
        return NULL;
    }
    while (fgets(line, sizeof(line), input) != NULL) {
        line[strcspn(line, "\r\n")] = '\0';
        command_run(line, answer, sizeof(answer) - 1);
        size_t length = strlen(answer);
        answer[length] = '\n';
        if (!send_all(fd, answer, length + 1)) {
            break;
        }
    }
    fclose(input);
    return NULL;
}

struct service {
    int fd;
    void *(*serve)(void *connection);
};

static void *accept_forever(void *argument)
{
    struct service *service = argument;
    for (;;) {
        int fd = accept4(service->fd, NULL, NULL, SOCK_CLOEXEC);
        pthread_t thread;
        if (fd < 0) {
            continue;
        }
        if (pthread_create(&thread, NULL, service->serve, (void *)(intptr_t)fd) != 0) {
            close(fd);
            continue;
        }
        pthread_detach(thread);
    }
    return NULL;
}

int net_start(void)
{
    static struct service services[2]; // the threads use them as long as the guest runs
    services[0] = (struct service){listen_on(PROBE_COMMAND_PORT), serve_commands};
    services[1] = (struct service){listen_on(PROBE_ECHO_PORT), echo};
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        if (services[i].fd < 0) {
            return -1;
        }
        errno = pthread_create(&thread, NULL, accept_forever, &services[i]);
        if (errno != 0) {
            return -1;
        }
    }
    return 0;
}

void net_report(struct net_report *out)
{
    *out = (struct net_report){.connections = connections, .echoed_bytes = echoed_bytes};
}

#include "bench/process.h"

#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "common/cleanup.h"

#define ANSWER_LIMIT_S 30

double process_cpu_s(pid_t pid)
{
    char path[64];
    double sum_ns = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    for (const struct dirent *task = tasks ? readdir(tasks) : NULL; task; task = readdir(tasks)) {
        char file_path[352], line[128];
        (void)snprintf(file_path, sizeof file_path, "%s/%s/schedstat", path, task->d_name);
        auto_file FILE *file = task->d_name[0] == '.' ? NULL : fopen(file_path, "re");
        if (file && fgets(line, sizeof line, file))
            sum_ns += strtod(line, NULL);
    }
    if (tasks)
        (void)closedir(tasks);
    return sum_ns / 1e9;
}

double process_memory_mib(pid_t pid, const char *field)
{
    char path[64], line[256];
    double kib = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    auto_file FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, field, strlen(field)) == 0)
            kib = strtod(line + strlen(field) + 1, NULL);
    return kib / 1024;
}

int process_scrape(const char *address, size_t *bytes, struct error *err)
{
    static const char question[] = "GET /metrics HTTP/1.1\r\nHost: bench\r\n\r\n";
    const char *colon = strrchr(address, ':');
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)strtoul(colon ? colon + 1 : "", NULL, 10)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = ANSWER_LIMIT_S};
    char room[65536], first[13] = "";
    ssize_t got;
    auto_fd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *bytes = 0;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0 ||
        connect(fd, (struct sockaddr *)&at, sizeof at) < 0 ||
        send(fd, question, sizeof question - 1, MSG_NOSIGNAL) != (ssize_t)sizeof question - 1)
        return error_errno(err, errno, "cannot ask %s for metrics", address);
    while ((got = recv(fd, room, sizeof room, 0)) > 0) {
        if (*bytes == 0)
            (void)snprintf(first, sizeof first, "%.*s", (int)(got < 12 ? got : 12), room);
        *bytes += (size_t)got;
    }
    if (got < 0 || strcmp(first, "HTTP/1.1 200") != 0)
        return error_set(err, ERROR_FAILED, "%s answered the question for metrics with \"%s\"",
                         address, first);
    return 0;
}

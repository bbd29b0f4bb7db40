#include "node-agent/migration/channel.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/cleanup.h"
#include "common/clock.h"

#define QUEUE_MAX        (STREAM_STATE_MAX + (4u << 20))
#define SOCKET_PIECES    1024u /* UIO_MAXIOV */
#define KEEPALIVE_IDLE_S 10
#define KEEPALIVE_GAP_S  5
#define COMPACT_BYTES    64u /* so few are moved to the front: the room in use stays in the cache */
#define UNSENT_BYTES     524288 /* waiting in the kernel for the link: pages grow stale there */

int channel_open(struct channel *channel, int fd, int stop_fd, struct error *err)
{
    *channel = (struct channel){.fd = -1, .stop_fd = stop_fd};
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return error_errno(err, errno, "cannot prepare a connection");
    channel->in = malloc(CHANNEL_IN_BYTES);
    if (!channel->in)
        return error_set(err, ERROR_FAILED, "out of memory for a connection");
    channel->fd = fd;
    return 0;
}

void channel_close(struct channel *channel)
{
    close_fd(&channel->fd);
    seal_free(channel->seal);
    seal_free(channel->open);
    free(channel->in);
    free(channel->out);
    channel->seal = channel->open = NULL;
    channel->in = channel->out = NULL;
}

int channel_wait(int fd, short events, int stop_fd, int64_t deadline_ns, struct error *err)
{
    for (;;) {
        struct pollfd polls[2] = {{.fd = fd, .events = events}, {.fd = stop_fd, .events = POLLIN}};
        int timeout_ms = -1;
        if (deadline_ns) {
            int64_t left_ms = (deadline_ns - clock_monotonic_ns() + 999999) / 1000000;
            timeout_ms = left_ms < 0 ? 0 : (int)left_ms;
        }
        int ready = poll(polls, 2, timeout_ms);
        if (ready < 0 && errno != EINTR)
            return error_errno(err, errno, "cannot wait for a connection");
        if (ready > 0 && polls[1].revents)
            return error_set(err, ERROR_CONFLICT, "stopped");
        if (ready > 0 && polls[0].revents)
            return 0;
        if (ready == 0 && deadline_ns && clock_monotonic_ns() >= deadline_ns)
            return error_set(err, ERROR_TIMEOUT, "no answer in time");
    }
}

static int parse_address(const char *host, uint16_t port, struct sockaddr_storage *address,
                         socklen_t *size)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    if (inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
        memcpy(address, &v4, *size = sizeof(v4));
        return 0;
    }
    if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
        memcpy(address, &v6, *size = sizeof(v6));
        return 0;
    }
    return -1;
}

int channel_connect(const char *host, uint16_t port, uint64_t timeout_ms, int stop_fd,
                    struct error *err)
{
    struct sockaddr_storage address = {0};
    socklen_t size = 0;
    if (parse_address(host, port, &address, &size) < 0)
        return error_set(err, ERROR_USAGE, "%s is not a numeric address", host);
    auto_fd int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_errno(err, errno, "cannot make a socket");
    if (connect(fd, (struct sockaddr *)&address, size) < 0) {
        if (errno != EINPROGRESS)
            return error_errno(err, errno, "cannot connect to %s port %u", host, port);
        int64_t deadline_ns = clock_monotonic_ns() + (int64_t)timeout_ms * 1000000;
        if (channel_wait(fd, POLLOUT, stop_fd, deadline_ns, err) < 0)
            return error_wrap(err, "cannot connect to %s port %u", host, port);
        int number = 0;
        size = sizeof(number);
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &size) < 0 || number != 0)
            return error_errno(err, number, "cannot connect to %s port %u", host, port);
    }
    return take_fd(&fd);
}

void channel_tune(int fd, uint64_t dead_ms)
{
    /* All of these fail on a Unix socket, which needs none of them. */
    int on = 1, idle = KEEPALIVE_IDLE_S, gap = KEEPALIVE_GAP_S;
    unsigned dead = dead_ms > UINT32_MAX ? UINT32_MAX : (unsigned)dead_ms;
    int unsent = UNSENT_BYTES;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &gap, sizeof(gap));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead, sizeof(dead));
}

/* Drops the first @bytes of the parts; returns how many parts are used up. */
static size_t advance(struct iovec *parts, size_t count, size_t bytes)
{
    size_t used = 0;
    while (used < count && bytes >= parts[used].iov_len)
        bytes -= parts[used++].iov_len;
    if (used < count) {
        parts[used].iov_base = (uint8_t *)parts[used].iov_base + bytes;
        parts[used].iov_len -= bytes;
    }
    return used;
}

int channel_write(struct channel *channel, struct iovec *parts, size_t count, struct error *err)
{
    while (count > 0) {
        struct msghdr message = {.msg_iov = parts,
                                 .msg_iovlen = count < SOCKET_PIECES ? count : SOCKET_PIECES};
        ssize_t done = sendmsg(channel->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (done >= 0) {
            atomic_fetch_add(&channel->sent, (uint64_t)done);
            size_t used = advance(parts, count, (size_t)done);
            parts += used;
            count -= used;
        } else if (errno == EAGAIN) {
            int64_t begin_ns = clock_monotonic_ns();
            if (channel_wait(channel->fd, POLLOUT, channel->stop_fd, 0, err) < 0)
                return -1;
            channel->waited_ns += (uint64_t)(clock_monotonic_ns() - begin_ns);
        } else if (errno != EINTR) {
            return error_errno(err, errno, "the link to the target broke");
        }
    }
    return 0;
}

static ssize_t receive(struct channel *channel, struct iovec *parts, size_t count)
{
    struct msghdr message = {.msg_iov = parts,
                             .msg_iovlen = count < SOCKET_PIECES ? count : SOCKET_PIECES};
    ssize_t done = recvmsg(channel->fd, &message, MSG_DONTWAIT);
    if (done > 0)
        atomic_fetch_add(&channel->received, (uint64_t)done);
    return done;
}

int channel_read(struct channel *channel, struct iovec *parts, size_t count, struct error *err)
{
    while (count > 0) {
        ssize_t done = receive(channel, parts, count);
        if (done > 0) {
            size_t used = advance(parts, count, (size_t)done);
            parts += used;
            count -= used;
        } else if (done == 0) {
            return error_set(err, ERROR_UNREACHABLE, "the peer closed the link");
        } else if (errno == EAGAIN) {
            if (channel_wait(channel->fd, POLLIN, channel->stop_fd, 0, err) < 0)
                return -1;
        } else if (errno != EINTR) {
            return error_errno(err, errno, "the link to the peer broke");
        }
    }
    return 0;
}

static void compact(struct channel *channel)
{
    if (channel->in_start == 0)
        return;
    memmove(channel->in, channel->in + channel->in_start, channel->in_end - channel->in_start);
    channel->in_end -= channel->in_start;
    channel->in_start = 0;
}

int channel_need(struct channel *channel, size_t bytes, size_t ahead, struct error *err)
{
    if (bytes > CHANNEL_IN_BYTES)
        return error_set(err, ERROR_FAILED, "%zu bytes at once are too many", bytes);
    if (channel->in_start + bytes + ahead > CHANNEL_IN_BYTES ||
        channel->in_end - channel->in_start <= COMPACT_BYTES)
        compact(channel);
    size_t end = channel->in_start + bytes + ahead;
    end = end < CHANNEL_IN_BYTES ? end : CHANNEL_IN_BYTES;
    while (channel->in_end - channel->in_start < bytes) {
        struct iovec part = {channel->in + channel->in_end, end - channel->in_end};
        ssize_t done = receive(channel, &part, 1);
        if (done > 0) {
            channel->in_end += (size_t)done;
        } else if (done == 0) {
            if (channel->in_end == channel->in_start)
                return 0;
            return error_set(err, ERROR_UNREACHABLE, "the peer closed the link inside a frame");
        } else if (errno == EAGAIN) {
            if (channel_wait(channel->fd, POLLIN, channel->stop_fd, 0, err) < 0)
                return -1;
        } else if (errno != EINTR) {
            return error_errno(err, errno, "the link to the peer broke");
        }
    }
    return 1;
}

static int reserve_out(struct channel *channel, size_t bytes, struct error *err)
{
    if (channel->out_start == channel->out_end)
        channel->out_start = channel->out_end = 0;
    size_t need = channel->out_end + bytes;
    if (need <= channel->out_size)
        return 0;
    if (need > QUEUE_MAX)
        return error_set(err, ERROR_FAILED, "too much is waiting to be sent");
    size_t size = need * 2 < 4096 ? 4096 : need * 2;
    uint8_t *out = realloc(channel->out, size);
    if (!out)
        return error_set(err, ERROR_FAILED, "out of memory for a message");
    channel->out = out;
    channel->out_size = size;
    return 0;
}

int channel_queue(struct channel *channel, const struct frame *frame, const void *payload,
                  struct error *err)
{
    if (reserve_out(channel, STREAM_HEADER_BYTES + frame->length + STREAM_TAG_BYTES, err) < 0)
        return -1;
    uint8_t *at = channel->out + channel->out_end;
    stream_put_frame(at, frame);
    if (channel->seal) {
        seal_begin(channel->seal, at);
        seal_update(channel->seal, payload, frame->length, at + STREAM_HEADER_BYTES);
        if (seal_end(channel->seal, at + STREAM_HEADER_BYTES + frame->length, err) < 0)
            return -1;
        channel->out_end += STREAM_TAG_BYTES;
    } else if (frame->length) {
        memcpy(at + STREAM_HEADER_BYTES, payload, frame->length);
    }
    channel->out_end += STREAM_HEADER_BYTES + frame->length;
    return 0;
}

int channel_flush(struct channel *channel, struct error *err)
{
    while (channel_has_queued(channel)) {
        ssize_t done = send(channel->fd, channel->out + channel->out_start,
                            channel->out_end - channel->out_start, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (done < 0 && errno == EAGAIN)
            return 0;
        if (done < 0 && errno != EINTR)
            return error_errno(err, errno, "the link to the peer broke");
        if (done > 0) {
            channel->out_start += (size_t)done;
            atomic_fetch_add(&channel->sent, (uint64_t)done);
        }
    }
    return 0;
}

int channel_fill(struct channel *channel, struct error *err)
{
    compact(channel);
    if (channel->in_end == CHANNEL_IN_BYTES)
        return 0; /* a whole frame is in there: it must be taken out first */
    struct iovec part = {channel->in + channel->in_end, CHANNEL_IN_BYTES - channel->in_end};
    ssize_t done = receive(channel, &part, 1);
    if (done == 0)
        return error_set(err, ERROR_UNREACHABLE, "the peer closed the link");
    if (done < 0)
        return errno == EAGAIN || errno == EINTR
                   ? 0
                   : error_errno(err, errno, "the link to the peer broke");
    channel->in_end += (size_t)done;
    return 1;
}

int channel_next(struct channel *channel, enum stream_path path, struct frame *frame,
                 const uint8_t **payload, struct error *err)
{
    size_t have = channel->in_end - channel->in_start;
    uint8_t *at = channel->in + channel->in_start;
    if (have < STREAM_HEADER_BYTES)
        return 0;
    if (stream_get_frame(at, path, frame, err) < 0)
        return -1;
    size_t whole = STREAM_HEADER_BYTES + frame->length + channel_tag_bytes(channel);
    if (have < whole)
        return 0;
    uint8_t *body = at + STREAM_HEADER_BYTES;
    if (channel->open) {
        seal_begin(channel->open, at);
        seal_update(channel->open, body, frame->length, body);
        if (seal_open_end(channel->open, body + frame->length, err) < 0)
            return -1;
    }
    channel->in_start += whole;
    *payload = body;
    return 1;
}

/*
 * target_accept.c: the target's door. Whoever connects must show within a few seconds that he knows
 * the migration's key; the others are dropped without a word. Their number and the memory they cost
 * are bounded.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "node-agent/migration/limits.h"
#include "node-agent/migration/target.h"
#include "node-agent/migration/target_postcopy.h"

#define GREETING_NS   5000000000
#define STRANGERS_LOG 5u /* the first of them are logged */

static void drop(struct migration_target *target, struct greeting *greeting, const char *why)
{
    if (target->strangers++ < STRANGERS_LOG)
        log_warn("migration %s: a connection was dropped: %s", target->options.migration_id, why);
    close_fd(&greeting->fd);
}

static void take_new(struct migration_target *target)
{
    for (unsigned i = 0; i < TARGET_GREETINGS_MAX; i++) {
        struct greeting *greeting = &target->greetings[i];
        if (greeting->fd >= 0)
            continue;
        int fd = accept4(target->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        *greeting = (struct greeting){.fd = fd, .since_ns = clock_monotonic_ns()};
    }
}

/* What is wrong with a hello that came from someone who has the key; NULL: nothing. */
static const char *find_objection(const struct migration_target *target, const struct hello *hello)
{
    const struct migration_limits *limits = &target->options.limits;
    unsigned most = limits->streams ? limits->streams : MIGRATION_STREAMS_MAX;
    if (hello->postcopy && most < 2)
        most = 2; /* as the source does: an urgent one, and one for all the rest */
    if (hello->version != STREAM_VERSION)
        return "it speaks another version of the migration stream";
    if (strcmp(hello->migration_id, target->options.migration_id) != 0)
        return "this is another migration";
    if (strcmp(hello->vm_id, target->guest.vm_id) != 0)
        return "this is another VM";
    if (hello->ram_bytes != target->guest.ram_bytes)
        return "the VM has another memory size here";
    if (hello->next_epoch != target->options.next_epoch)
        return "another epoch was agreed upon";
    if (hello->encrypted == limits->unencrypted)
        return "only one end wants encryption";
    if (hello->verify != limits->verify)
        return "only one end wants to verify";
    if (hello->streams > most)
        return "too many streams";
    if (target->streams && hello->streams != target->streams)
        return "the number of streams changed";
    if (target->state != MIGRATION_TARGET_WAITING || hello->resume > 0)
        return target_object_to_resume(target, hello);
    bool taken = hello->index == 0 ? target->control.fd >= 0
                                   : target->receiver.inlets[hello->index - 1].connected;
    return taken ? "this stream is connected already" : NULL;
}

static int admit(struct migration_target *target, struct greeting *greeting,
                 const struct hello *hello, const struct hello_reply *reply, struct error *err)
{
    struct channel *channel =
        hello->index == 0 ? &target->control : &target->receiver.inlets[hello->index - 1].channel;
    struct channel opened;
    channel_tune(greeting->fd, target->options.limits.stall_timeout_ms + LIMITS_DEAD_MARGIN_MS);
    if (channel_open(&opened, greeting->fd, target->stop_fd, err) < 0)
        return -1;
    greeting->fd = -1;
    if (hello->encrypted) {
        const uint8_t *key = target->options.key;
        opened.open = seal_new(key, hello->nonce, reply->nonce, hello->index, SEAL_TO_TARGET,
                               SEAL_DECRYPT, err);
        opened.seal = seal_new(key, hello->nonce, reply->nonce, hello->index, SEAL_TO_SOURCE,
                               SEAL_ENCRYPT, err);
        if (!opened.open || !opened.seal) {
            channel_close(&opened);
            return -1;
        }
    }
    *channel = opened;
    target->streams = hello->streams;
    target->verify = hello->verify;
    target->can_postcopy = reply->postcopy;
    target->receiver.count = hello->streams;
    if (hello->index > 0)
        target->receiver.inlets[hello->index - 1].connected = true;
    return 0;
}

static int answer(struct migration_target *target, struct greeting *greeting, struct error *err)
{
    uint8_t out[STREAM_REPLY_BYTES];
    struct hello hello;
    struct hello_reply reply = {.version = STREAM_VERSION};
    if (stream_get_hello(greeting->hello, &hello, err) < 0)
        return -1;
    const char *objection = find_objection(target, &hello);
    reply.accepted = !objection;
    reply.postcopy = hello.postcopy && target_wants_postcopy(target);
    if (objection)
        (void)snprintf(reply.text, sizeof(reply.text), "%s", objection);
    if (seal_random(reply.nonce, sizeof(reply.nonce), err) < 0)
        return -1;
    stream_put_reply(out, &reply);
    size_t signed_bytes = STREAM_REPLY_BYTES - STREAM_MAC_BYTES;
    if (seal_mac(target->options.key, greeting->hello, STREAM_HELLO_BYTES, out, signed_bytes,
                 out + signed_bytes, err) < 0)
        return -1;
    if (!objection && target->guest.ops->peer_clock)
        target->guest.ops->peer_clock(target->guest.self,
                                      (int64_t)(hello.realtime_ns - (uint64_t)clock_wall_ns()));
    int fd = greeting->fd;
    if (!objection && hello.resume > 0 && hello.index == 0)
        target_begin_resume(target, hello.resume);
    if (!objection && admit(target, greeting, &hello, &reply, err) < 0)
        return -1;
    /* A fresh socket takes 336 bytes at once. */
    if (send(fd, out, sizeof(out), MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)sizeof(out))
        return error_errno(err, errno, "cannot answer the source");
    return objection ? error_set(err, ERROR_FAILED, "%s", objection) : 0;
}

static void read_greeting(struct migration_target *target, struct greeting *greeting)
{
    struct error err = ERROR_INIT;
    uint8_t mac[STREAM_MAC_BYTES];
    size_t signed_bytes = STREAM_HELLO_BYTES - STREAM_MAC_BYTES;
    ssize_t done = recv(greeting->fd, greeting->hello + greeting->have,
                        STREAM_HELLO_BYTES - greeting->have, MSG_DONTWAIT);
    if (done == 0 || (done < 0 && errno != EAGAIN && errno != EINTR)) {
        drop(target, greeting, "it said nothing");
        return;
    }
    if (done > 0)
        greeting->have += (size_t)done;
    if (greeting->have < STREAM_HELLO_BYTES) {
        if (clock_monotonic_ns() - greeting->since_ns > GREETING_NS)
            drop(target, greeting, "it took too long to say who it is");
        return;
    }
    if (seal_mac(target->options.key, greeting->hello, signed_bytes, NULL, 0, mac, &err) < 0 ||
        seal_compare(mac, greeting->hello + signed_bytes, sizeof(mac)) != 0)
        drop(target, greeting, "it does not know the key");
    else if (answer(target, greeting, &err) < 0)
        drop(target, greeting, err.text);
}

void target_accept(struct migration_target *target)
{
    take_new(target);
    for (unsigned i = 0; i < TARGET_GREETINGS_MAX; i++)
        if (target->greetings[i].fd >= 0)
            read_greeting(target, &target->greetings[i]);
}

bool target_is_connected(const struct migration_target *target)
{
    if (target->control.fd < 0)
        return false;
    for (unsigned i = 0; i < target->streams; i++)
        if (!target->receiver.inlets[i].connected)
            return false;
    return true;
}

void target_close_greetings(struct migration_target *target)
{
    for (unsigned i = 0; i < TARGET_GREETINGS_MAX; i++)
        close_fd(&target->greetings[i].fd);
}

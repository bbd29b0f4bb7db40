/*
 * cmd_image_import.c: poolctl image import.
 *
 *   ImagePut (names and hashes) ->  which files the controller lacks
 *   ImagePiece, a few under way at a time, for each of those
 *   ImagePut again               ->  none missing: the image exists
 */
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "poolctl/ask.h"
#include "poolctl/commands.h"
#include "poolctl/image_file.h"
#include "poolctl/message.h"
#include "poolctl/progress.h"
#include "poolctl/view.h"

#define PIECE_BYTES  (1u << 20)
#define PIECES_AHEAD 8
#define PARTS        3
#define PUT_ROUNDS   2 /* announce, and announce again when all was sent */

struct import {
    struct invocation *call;
    struct progress progress;
    struct session *session;
    struct image_file files[PARTS];
    char label[300];
};

static const char *const option_names[PARTS] = {"kernel", "initrd", "disk"};

static bool on_hash(void *context, uint64_t done, uint64_t total)
{
    struct import *import = context;
    progress_bytes(&import->progress, import->label, done, total);
    return true;
}

/* Opens all files first, so that a bad one is found before a good one is read through. */
static int open_files(struct import *import, struct error *err)
{
    for (int i = 0; i < PARTS; i++) {
        const char *path = invocation_option(import->call, option_names[i]);
        if (path && image_file_open(&import->files[i], (enum image_part)i, path, err) < 0)
            return error_wrap(err, "--%s", option_names[i]);
    }
    for (int i = 0; i < PARTS; i++) {
        if (import->files[i].fd < 0)
            continue;
        (void)snprintf(import->label, sizeof import->label, "hashing %s", import->files[i].path);
        if (image_file_hash(&import->files[i], on_hash, import, err) < 0)
            return -1;
    }
    return 0;
}

static void describe(const struct import *import, Vmpool__ImageSpec *spec)
{
    const struct image_file *files = import->files;
    spec->name = ask_text(invocation_argument(import->call, 0));
    spec->cmdline = ask_text(invocation_option(import->call, "cmdline"));
    spec->kernel_sha256 = ask_text(files[IMAGE_KERNEL].sha256);
    spec->initrd_sha256 = ask_text(files[IMAGE_INITRD].sha256);
    spec->disk_sha256 = ask_text(files[IMAGE_DISK].sha256);
    spec->kernel_bytes = files[IMAGE_KERNEL].bytes;
    spec->initrd_bytes = files[IMAGE_INITRD].bytes;
    spec->disk_bytes = files[IMAGE_DISK].bytes;
}

/* ---- pieces --------------------------------------------------------------------------------- */

static struct session_request *send_piece(struct import *import, const struct image_file *file,
                                          uint64_t offset, unsigned char *buffer, struct error *err)
{
    size_t got = 0;
    uint64_t left = file->bytes - offset;
    size_t want = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
    Vmpool__ImagePiece body = VMPOOL__IMAGE_PIECE__INIT;
    ADMIN_REQUEST(request, IMAGE_PIECE, image_piece, &body);
    if (image_file_read(file, offset, buffer, want, &got, err) < 0)
        return NULL;
    if (got < want) {
        (void)error_set(err, ERROR_CONFLICT, "%s became shorter while it was sent: try again",
                        file->path);
        return NULL;
    }
    body.sha256 = ask_text(file->sha256);
    body.offset = offset;
    body.total_bytes = file->bytes;
    body.data.data = buffer;
    body.data.len = got;
    return session_begin(import->session, &request, err);
}

static int piece_done(struct import *import, struct session_request *piece, struct error *err)
{
    Vmpool__AdminReply *reply = NULL;
    int got = session_await(import->session, piece, &reply, err);
    if (got > 0)
        vmpool__admin_reply__free_unpacked(reply, NULL);
    session_end(import->session, piece);
    return got < 0 ? -1 : 0;
}

/* Sends one file; up to PIECES_AHEAD pieces are under way, so that the link is never idle. */
static int upload(struct import *import, const struct image_file *file, struct error *err)
{
    struct session_request *ahead[PIECES_AHEAD] = {NULL};
    auto_free unsigned char *buffer = malloc(PIECE_BYTES);
    uint64_t pieces = (file->bytes + PIECE_BYTES - 1) / PIECE_BYTES;
    int result = buffer ? 0 : error_set(err, ERROR_FAILED, "out of memory");
    (void)snprintf(import->label, sizeof import->label, "sending %s", file->path);
    for (uint64_t i = 0; result == 0 && i < pieces + PIECES_AHEAD; i++) {
        struct session_request **slot = &ahead[i % PIECES_AHEAD];
        if (*slot) {
            result = piece_done(import, *slot, err);
            uint64_t done = (i - PIECES_AHEAD + 1) * PIECE_BYTES;
            *slot = NULL;
            progress_bytes(&import->progress, import->label,
                           done < file->bytes ? done : file->bytes, file->bytes);
        }
        if (result == 0 && i < pieces) {
            *slot = send_piece(import, file, i * PIECE_BYTES, buffer, err);
            result = *slot ? 0 : -1;
        }
    }
    for (int i = 0; i < PIECES_AHEAD; i++)
        session_end(import->session, ahead[i]);
    return result < 0 ? -1 : image_file_unchanged(file, err);
}

static int upload_missing(struct import *import, const Vmpool__ImageAccepted *accepted,
                          struct error *err)
{
    for (size_t i = 0; i < accepted->n_missing_sha256; i++) {
        const struct image_file *file = NULL;
        for (int part = 0; part < PARTS; part++)
            if (import->files[part].fd >= 0 &&
                strcmp(import->files[part].sha256, accepted->missing_sha256[i]) == 0)
                file = &import->files[part];
        if (!file)
            return error_set(err, ERROR_FAILED,
                             "the controller asks for a file that is not part "
                             "of the image");
        if (upload(import, file, err) < 0)
            return -1;
    }
    return 0;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static int put(struct import *import, Vmpool__ImageSpec *spec, struct error *err)
{
    Vmpool__ImagePut body = VMPOOL__IMAGE_PUT__INIT;
    ADMIN_REQUEST(request, IMAGE_PUT, image_put, &body);
    body.image = spec;
    for (int round = 0; round < PUT_ROUNDS; round++) {
        Vmpool__AdminReply *reply = NULL;
        if (ask_session(import->session, &request, VMPOOL__ADMIN_REPLY__BODY_IMAGE_ACCEPTED, &reply,
                        err) < 0)
            return -1;
        bool complete = reply->image_accepted->n_missing_sha256 == 0;
        int result = complete || round > 0 ? 0 : upload_missing(import, reply->image_accepted, err);
        vmpool__admin_reply__free_unpacked(reply, NULL);
        if (complete || result < 0)
            return result;
    }
    return error_set(err, ERROR_FAILED,
                     "the controller still lacks a file that was just sent: see its log");
}

static int print_result(struct import *import, const Vmpool__ImageSpec *spec, struct error *err)
{
    struct view_style style = view_style_of(import->call);
    Vmpool__Image image = VMPOOL__IMAGE__INIT;
    Vmpool__ImageSpec copy = *spec;
    progress_clear(&import->progress);
    image.spec = &copy;
    if (style.format != OUTPUT_TABLE)
        return view_one(&style, &view_images, NULL, message_to_json(&image.base, err), err);
    if (!style.quiet)
        (void)fprintf(style.terminal.out, "Image %s is ready: poolctl vm create NAME --image %s\n",
                      spec->name, spec->name);
    return 0;
}

static int run(struct invocation *call, struct error *err)
{
    struct import import = {.call = call};
    Vmpool__ImageSpec spec = VMPOOL__IMAGE_SPEC__INIT;
    progress_begin(&import.progress, call);
    for (int i = 0; i < PARTS; i++)
        import.files[i].fd = -1;
    int result = open_files(&import, err);
    if (result == 0) {
        describe(&import, &spec);
        import.session = session_open(call, err);
        result = import.session ? put(&import, &spec, err) : -1;
    }
    if (result == 0)
        result = print_result(&import, &spec, err);
    progress_clear(&import.progress);
    session_close(import.session);
    for (int i = 0; i < PARTS; i++)
        image_file_close(&import.files[i]);
    return result;
}

const struct command command_image_import = {
    .name = "import",
    .summary = "bring a kernel, an initrd and a disk into the pool under a name",
    .details =
        "The files are checked and hashed here first; a truncated one is refused before anything "
        "is sent. Only files the controller does not have yet are uploaded; the nodes fetch them "
        "from there when they need them.\n\n"
        "The kernel is an unmodified Linux bzImage (vmlinuz) or an x86-64 PVH ELF file. Of the "
        "disk, a raw one, each VM gets its own copy.",
    .arguments = ONE_ARGUMENT("NAME", "what to call the image", COMPLETE_NOTHING),
    .options =
        (const struct option[]){
            {.name = "kernel",
             .value = "FILE",
             .required = true,
             .complete = COMPLETE_FILE,
             .help = "the kernel"},
            {.name = "initrd", .value = "FILE", .complete = COMPLETE_FILE, .help = "the initrd"},
            {.name = "disk",
             .value = "FILE",
             .complete = COMPLETE_FILE,
             .help = "a raw disk each VM gets its own copy of"},
            {.name = "cmdline",
             .value = "TEXT",
             .may_be_empty = true,
             .help = "the kernel command line"},
            {0}},
    .examples =
        (const struct example[]){
            {"poolctl image import debian --kernel /boot/vmlinuz-6.1.0-18-amd64 --initrd "
             "/boot/initrd.img-6.1.0-18-amd64 --cmdline 'console=ttyS0'",
             "The kernel of this machine"},
            {0}},
    .run = run,
};

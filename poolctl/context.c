#include "poolctl/context.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"

#define CONTEXT_FILE_MAX 4096

static int name_check(const char *name, struct error *err)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)name[i]) && (i == 0 || !strchr("._-", name[i])))
            length = 0;
    if (length == 0 || length > CONTEXT_NAME_MAX)
        return error_set(err, ERROR_USAGE,
                         "'%s' cannot name a context: use up to %d letters, digits, '.', '_', '-'",
                         name, CONTEXT_NAME_MAX);
    return 0;
}

static int config_path(const char *tail, char *out, size_t size, struct error *err)
{
    const char *config = getenv("XDG_CONFIG_HOME");
    const char *home = getenv("HOME");
    int length = -1;
    if (config && config[0] == '/')
        length = snprintf(out, size, "%s/vmpool%s", config, tail);
    else if (home && home[0] == '/')
        length = snprintf(out, size, "%s/.config/vmpool%s", home, tail);
    if (length < 0 || (size_t)length >= size)
        return error_set(err, ERROR_USAGE,
                         "cannot tell where contexts are kept: set HOME, or use --context FILE");
    return 0;
}

int context_folder(char *out, size_t size, struct error *err)
{
    return config_path("/contexts", out, size, err);
}

int context_path(const char *name, char *out, size_t size, struct error *err)
{
    char tail[CONTEXT_NAME_MAX + 16];
    if (name_check(name, err) < 0)
        return -1;
    (void)snprintf(tail, sizeof tail, "/contexts/%s", name);
    return config_path(tail, out, size, err);
}

/* ---- reading -------------------------------------------------------------------------------- */

static int read_key(const char *hex, uint8_t key[32])
{
    struct error ignored = ERROR_INIT;
    return link_key_parse(hex, "key", key, &ignored);
}

static int read_line(char *line, struct context *context, unsigned *seen)
{
    char *value = strchr(line, ' ');
    if (!value)
        return line[0] == '\0' ? 0 : -1;
    *value++ = '\0';
    if (strcmp(line, "address") == 0) {
        *seen |= 1;
        int length = snprintf(context->address, sizeof context->address, "%s", value);
        return strchr(value, ':') && length < (int)sizeof context->address ? 0 : -1;
    }
    if (strcmp(line, "server") == 0)
        return *seen |= 2, read_key(value, context->server_key);
    if (strcmp(line, "public") == 0)
        return *seen |= 4, read_key(value, context->keys.public_key);
    if (strcmp(line, "secret") == 0)
        return *seen |= 8, read_key(value, context->keys.secret_key);
    return 0; /* from a later version */
}

/* Opens a file that is regular, small and nobody else's to read. */
static int open_private(const char *file, struct error *err)
{
    struct stat status;
    auto_fd int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &status) < 0) {
        error_errno(err, errno, "cannot read the context %s", file);
        err->kind = ERROR_USAGE; /* NOT_FOUND would read as "no such VM" to a script */
        return -1;
    }
    if (!S_ISREG(status.st_mode) || status.st_size > CONTEXT_FILE_MAX)
        return error_set(err, ERROR_USAGE, "%s is not a context file", file);
    if (status.st_mode & (S_IRWXG | S_IRWXO))
        return error_set(err, ERROR_FAILED,
                         "others may read the secret key in %s: mend it with chmod 600 %s", file,
                         file);
    return take_fd(&fd);
}

int context_read(const char *file, struct context *context, struct error *err)
{
    char text[CONTEXT_FILE_MAX + 1];
    unsigned seen = 0;
    auto_fd int fd = open_private(file, err);
    if (fd < 0)
        return -1;
    ssize_t length = read(fd, text, CONTEXT_FILE_MAX);
    if (length < 0)
        return error_errno(err, errno, "cannot read the context %s", file);
    text[length] = '\0';
    char *rest = text;
    for (char *line = strsep(&rest, "\n"); line; line = strsep(&rest, "\n"))
        if (read_line(line, context, &seen) < 0)
            return error_set(err, ERROR_USAGE, "%s is not a context file: bad line '%.20s ...'",
                             file, line);
    explicit_bzero(text, sizeof text);
    if (seen != 15)
        return error_set(err, ERROR_USAGE,
                         "%s is not a context file: it needs the lines address, server, public "
                         "and secret, as the controller's admin.context has them",
                         file);
    return 0;
}

void context_current(char *out, size_t size)
{
    char file[PATH_MAX];
    struct error ignored = ERROR_INIT;
    out[0] = '\0';
    if (config_path("/current", file, sizeof file, &ignored) < 0)
        return;
    auto_file FILE *in = fopen(file, "re");
    if (!in || !fgets(out, (int)size, in))
        out[0] = '\0';
    out[strcspn(out, "\n")] = '\0';
}

/* A name, or with a slash a path. */
static int find_named(const char *text, const char *said_by, struct context *context,
                      struct error *err)
{
    context->name[0] = '\0';
    if (strchr(text, '/')) {
        if (strlen(text) >= sizeof context->file)
            return error_set(err, ERROR_USAGE, "%s: path too long", said_by);
        (void)snprintf(context->file, sizeof context->file, "%s", text);
        return 0;
    }
    if (context_path(text, context->file, sizeof context->file, err) < 0)
        return error_wrap(err, "%s", said_by);
    if (access(context->file, F_OK) < 0)
        return error_set(err, ERROR_USAGE,
                         "%s: no context '%s': see poolctl context ls (a file is given with its "
                         "path, as ./%s)",
                         said_by, text, text);
    (void)snprintf(context->name, sizeof context->name, "%s", text);
    return 0;
}

int context_resolve(const struct invocation *call, struct context *context, struct error *err)
{
    char current[CONTEXT_NAME_MAX + 2];
    const char *option = invocation_option(call, "context");
    const char *variable = getenv("VMPOOL_CONTEXT");
    context_current(current, sizeof current);
    memset(context, 0, sizeof *context);
    int result = 0;
    if (option)
        result = find_named(option, "--context", context, err);
    else if (variable && variable[0])
        result = find_named(variable, "VMPOOL_CONTEXT", context, err);
    else if (current[0])
        result = find_named(current, "the current context", context, err);
    else
        (void)snprintf(context->file, sizeof context->file, "%s", CONTEXT_LOCAL);
    if (result < 0)
        return -1;
    if (!option && !(variable && variable[0]) && !current[0] && access(CONTEXT_LOCAL, F_OK) < 0 &&
        errno == ENOENT)
        return error_set(err, ERROR_UNREACHABLE,
                         "no controller is known here: copy admin.context from the controller's "
                         "state folder and run 'poolctl context add NAME FILE', or use --context "
                         "FILE (%s does not exist)",
                         CONTEXT_LOCAL);
    return context_read(context->file, context, err);
}

/* ---- writing -------------------------------------------------------------------------------- */

static int make_folders(char *path, struct error *err)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        int result = mkdir(path, 0700);
        if (result < 0 && errno != EEXIST)
            error_errno(err, errno, "cannot make the folder %s", path);
        *slash = '/';
        if (result < 0 && err->kind != ERROR_NONE)
            return -1;
    }
    return 0;
}

static void print_key(FILE *out, const char *name, const uint8_t key[32])
{
    char hex[LINK_HEX_SIZE];
    link_key_format(key, hex);
    (void)fprintf(out, "%s %s\n", name, hex);
    explicit_bzero(hex, sizeof hex);
}

int context_save(const char *name, const struct context *context, struct error *err)
{
    char file[PATH_MAX];
    if (context_path(name, file, sizeof file, err) < 0 || make_folders(file, err) < 0)
        return -1;
    auto_fd int fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EEXIST)
        return error_set(err, ERROR_CONFLICT,
                         "there is a context '%s' already: remove it first with 'poolctl context "
                         "rm %s', or take another name",
                         name, name);
    auto_file FILE *out = fd < 0 ? NULL : fdopen(fd, "w");
    if (!out)
        return error_errno(err, errno, "cannot write %s", file);
    (void)take_fd(&fd);
    (void)fprintf(out, "address %s\n", context->address);
    print_key(out, "server", context->server_key);
    print_key(out, "public", context->keys.public_key);
    print_key(out, "secret", context->keys.secret_key);
    if (fflush(out) != 0) {
        error_errno(err, errno, "cannot write %s", file);
        (void)unlink(file);
        return -1;
    }
    return 0;
}

int context_set_current(const char *name, struct error *err)
{
    char file[PATH_MAX];
    char fresh[PATH_MAX + 8];
    if (config_path("/current", file, sizeof file, err) < 0 || make_folders(file, err) < 0)
        return -1;
    if (!name[0]) {
        if (unlink(file) < 0 && errno != ENOENT)
            return error_errno(err, errno, "cannot remove %s", file);
        return 0;
    }
    (void)snprintf(fresh, sizeof fresh, "%s.new", file);
    auto_file FILE *out = fopen(fresh, "we");
    if (!out || fprintf(out, "%s\n", name) < 0 || fflush(out) != 0 || rename(fresh, file) < 0)
        return error_errno(err, errno, "cannot write %s", file);
    return 0;
}

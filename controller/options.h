/* options.h: the command line of pool-controller. */
#pragma once

#include <stdbool.h>

#include "common/error.h"
#include "common/log.h"
#include "controller/config.h"

struct options {
    struct config config;
    enum log_level log_level;
    bool help, version;
};

/* Fills @options; what they point to is @argv's. */
int options_parse(int argc, char **argv, struct options *options, struct error *err);
void options_help(void);

/* poolctl: the admin command line of vmpool. */
#include <signal.h>

#include "poolctl/poolctl.h"

int main(int argc, char **argv)
{
    struct terminal terminal;
    (void)signal(SIGPIPE, SIG_DFL); /* "poolctl vm ls | head" ends quietly */
    terminal_detect(&terminal);
    return poolctl_run(argc, argv, &terminal);
}

#include "node-agent/vmm/privileges.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int drop_capabilities(struct error *err)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};
    if (syscall(SYS_capset, &header, none) < 0)
        return error_errno(err, errno, "cannot give up capabilities");
    return 0;
}

int privileges_drop(bool drop_user, uid_t uid, gid_t gid, struct error *err)
{
    /* Needs CAP_SETPCAP; who hasn't got it can't get others by exec after no_new_privs either. */
    for (unsigned long capability = 0;
         prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0 && capability < 64; capability++)
        (void)prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    if (drop_user) {
        if (setgroups(0, NULL) < 0)
            return error_errno(err, errno, "--user: cannot leave all groups");
        if (setresgid(gid, gid, gid) < 0)
            return error_errno(err, errno, "--user: cannot become group %u", gid);
        if (setresuid(uid, uid, uid) < 0)
            return error_errno(err, errno, "--user: cannot become user %u", uid);
    }
    if (drop_capabilities(err) < 0)
        return -1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_errno(err, errno, "PR_SET_NO_NEW_PRIVS");
    return 0;
}

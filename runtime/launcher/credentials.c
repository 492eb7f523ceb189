/* Capabilities (capabilities(7)), user and groups. */
#include "launcher.h"
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>

/* Docker's default: these 14 and no more. */
#define BIT(capability) (1ULL << (capability))
static const uint64_t default_capabilities =
    BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER) | BIT(CAP_FSETID) | BIT(CAP_KILL) | BIT(CAP_SETGID) |
    BIT(CAP_SETUID) | BIT(CAP_SETPCAP) | BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_NET_RAW) | BIT(CAP_SYS_CHROOT) |
    BIT(CAP_MKNOD) | BIT(CAP_AUDIT_WRITE) | BIT(CAP_SETFCAP);

static void set_capabilities(uint64_t effective) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2] = {
      {.effective = (uint32_t)effective, .permitted = (uint32_t)effective},
      {.effective = (uint32_t)(effective >> 32), .permitted = (uint32_t)(effective >> 32)}};
  check(syscall(SYS_capset, &header, data), "capset");
}

static void bound_capabilities(void) {
  for (unsigned long i = 0; i < 64; i++) {
    if ((default_capabilities & BIT(i)) != 0) continue;
    if (prctl(PR_CAPBSET_DROP, i, 0, 0, 0) < 0) {
      if (errno == EINVAL) break; /* beyond this kernel's last capability */
      fail("drop from the bounding set", errno);
    }
  }
  check(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "clear ambient capabilities");
}

void credentials_drop(const struct spec *spec) {
  bound_capabilities();
  check(setgroups(spec->ngroups, spec->groups), "setgroups");
  check(setresgid(spec->gid, spec->gid, spec->gid), "setresgid");
  check(setresuid(spec->uid, spec->uid, spec->uid), "setresuid");
  set_capabilities(spec->uid == 0 ? default_capabilities : 0);
  check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl PR_SET_NO_NEW_PRIVS");
}

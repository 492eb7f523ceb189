/* C: from clone to exec, in one line of steps. */
#include "launcher.h"
#include <linux/keyctl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>

/*
 * v1: "0" written to `tasks` moves the writer alone and skips the kernel's global lock (0.03 ms). A pid, or anything
 * written to `cgroup.procs`, takes that lock and waits for an RCU grace period (9 ms on an idle machine).
 */
static void join_cgroups(const struct spec *spec) {
  for (int i = 0; i < spec->ntasks; i++) {
    if (write(spec->tasks[i], "0", 1) != 1) fail("join cgroup", errno);
  }
  /* Only now: the namespace's root is the cgroup its maker is in (clone3's CLONE_NEWCGROUP would take M's). */
  check(unshare(CLONE_NEWCGROUP), "unshare cgroup namespace");
}

static void loopback_up(void) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  check(fd, "socket");
  struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
  check(ioctl(fd, SIOCSIFFLAGS, &request), "bring lo up");
  close(fd);
}

/* Pipes were made by tbuild's user; `echo > /dev/stdout` opens them anew, as the container's user. */
static void own_stdio(const struct spec *spec) {
  for (int fd = 0; fd < 3; fd++) {
    struct stat info;
    if (fstat(fd, &info) < 0 || !S_ISFIFO(info.st_mode) || fchown(fd, spec->uid, (gid_t)-1) == 0) continue;
    /* An ordinary user's tbuild may have been given one that is another's. */
    if (errno != EPERM) fail("chown stdio", errno);
  }
}

/* All but stdio and the two that close by themselves at exec: neither leads anywhere a path could go. */
static void close_host_descriptors(int up, int executed) {
  unsigned low = (unsigned)(up < executed ? up : executed), high = (unsigned)(up < executed ? executed : up);
  if (low > 3) check(close_range(3, low - 1, 0), "close_range");
  if (high - low > 1) check(close_range(low + 1, high - 1, 0), "close_range");
  check(close_range(high + 1, ~0U, 0), "close_range");
}

_Noreturn void container_main(const struct spec *spec, int up, int executed) {
  report_to(up);
  umask(0);
  join_cgroups(spec);
  check(setsid(), "setsid");
  check(sethostname(spec->hostname, strlen(spec->hostname)), "sethostname");
  if (spec->network_none) loopback_up();
  root_enter(spec);
  root_populate(spec);
  if (spec->tty) terminal_open(spec, up);
  else own_stdio(spec);
  if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS) fail("join session keyring", errno);
  close_host_descriptors(up, executed);
  command_execute(spec);
}

/*
 * M: PID 1 of the outer PID namespace. A container's process can clear its own parent-death signal (prctl, or any
 * change of uid), so that signal alone does not kill it with tbuild. M's cannot be cleared: when tbuild or L0 dies, M
 * dies, and the kernel kills every process in the namespaces below.
 */
#include "launcher.h"
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

static long clone_process(struct clone_args *args) {
  args->exit_signal = SIGCHLD;
  return syscall(SYS_clone3, args, sizeof *args);
}

static void close_all_but(int a, int b) {
  int low = a < b ? a : b, high = a < b ? b : a;
  if (low > 0) close_range(0, (unsigned)low - 1, 0);
  if (high - low > 1) close_range((unsigned)low + 1, (unsigned)high - 1, 0);
  close_range((unsigned)high + 1, ~0U, 0);
}

static int64_t micros(struct timeval time) { return (int64_t)time.tv_sec * 1000000 + time.tv_usec; }

static _Noreturn void monitor_main(const struct spec *spec, int up) {
  report_to(up);
  check(prctl(PR_SET_PDEATHSIG, SIGKILL), "prctl PR_SET_PDEATHSIG");
  /* L0 may have died before that call: then its end of the socket is closed. */
  struct pollfd hangup = {.fd = up, .events = 0};
  if (poll(&hangup, 1, 0) != 0) _exit(125);

  int executed[2]; /* closes when C executes the command, or dies */
  check(pipe2(executed, O_CLOEXEC), "pipe2");
  int pidfd = -1;
  struct clone_args args = {.pidfd = (uint64_t)(uintptr_t)&pidfd,
                            .flags = CLONE_PIDFD | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS};
  if (spec->network_none) args.flags |= CLONE_NEWNET;
  if (spec->cgroup >= 0) {
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = (uint64_t)spec->cgroup;
  }
  long child = clone_process(&args);
  check(child, "clone3 container");
  if (child == 0) {
    close(executed[0]);
    container_main(spec, up, executed[1]);
  }
  struct record record = {.kind = PIDFD};
  send_record(up, &record, pidfd);
  /* From here M holds no pipe of the container and no lease: their ends must close when their owners end. */
  close_all_but(up, executed[0]);
  char byte;
  while (read(executed[0], &byte, 1) < 0 && errno == EINTR) {
  }
  record.kind = STARTED;
  send_record(up, &record, -1);

  struct rusage usage;
  record.kind = EXITED;
  /* C is PID 1 of its namespace: when it can be waited for, every process in there is gone. */
  while (wait4((pid_t)child, &record.value, 0, &usage) < 0) {
    if (errno != EINTR) fail("wait4", errno);
  }
  record.user_micros = micros(usage.ru_utime);
  record.system_micros = micros(usage.ru_stime);
  record.max_rss_kib = usage.ru_maxrss;
  send_record(up, &record, -1);
  _exit(0);
}

/* Start M; its pid. All signals are blocked here, and stay blocked in M. */
int monitor_start(const struct spec *spec, int up[2]) {
  struct clone_args args = {.flags = CLONE_NEWPID};
  long child = clone_process(&args);
  check(child, "clone3 monitor");
  if (child == 0) {
    close(up[0]);
    close(CONTROL_FD);
    monitor_main(spec, up[1]);
  }
  return (int)child;
}

/* L0: reads the spec, starts M, then serves signals, the terminal and tbuild until the container has ended. With arguments: see rootless.c. */
#include "launcher.h"
#include <poll.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

static volatile pid_t monitor;

/*
 * With a terminal the parent's death must be caught, so that the terminal's mode can be put back: tcsetattr, kill and
 * _exit are async-signal-safe (signal-safety(7)), and this signal is never blocked.
 */
static void parent_died(int signal) {
  (void)signal;
  if (monitor > 0) kill(monitor, SIGKILL);
  terminal_restore();
  _exit(125);
}

static int signals_open(int death) {
  sigset_t all;
  sigfillset(&all);
  sigdelset(&all, death);
  check(sigprocmask(SIG_SETMASK, &all, NULL), "sigprocmask");
  sigdelset(&all, SIGCHLD);
  int fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
  check(fd, "signalfd");
  return fd;
}

static void forward(int signals, int container, int master) {
  struct signalfd_siginfo info;
  while (read(signals, &info, sizeof info) == (ssize_t)sizeof info) {
    if (info.ssi_signo == SIGWINCH && master >= 0) terminal_resize(master);
    else if (container >= 0) syscall(SYS_pidfd_send_signal, container, info.ssi_signo, NULL, 0);
  }
}

static void finish_monitor(void) {
  while (waitpid(monitor, NULL, 0) < 0 && errno == EINTR) {
  }
}

static _Noreturn void abandon(void) {
  kill(monitor, SIGKILL);
  finish_monitor();
  terminal_restore();
  struct record record = {.kind = EXITED, .value = SIGKILL};
  send_record(CONTROL_FD, &record, -1);
  exit(0);
}

static _Noreturn void serve(const struct spec *spec, int up, int signals) {
  enum { UP, CONTROL, SIGNALS, STDIN, MASTER };
  int container = -1, master = -1, failed = 0, exited = 0;
  struct pollfd polls[5] = {
      [UP] = {.fd = up, .events = POLLIN},
      [CONTROL] = {.fd = CONTROL_FD, .events = POLLIN},
      [SIGNALS] = {.fd = signals, .events = POLLIN},
      [STDIN] = {.fd = -1, .events = POLLIN},
      [MASTER] = {.fd = -1, .events = POLLIN},
  };
  struct record last = {0};
  while (!exited || polls[MASTER].fd >= 0) {
    if (poll(polls, 5, -1) < 0) {
      if (errno == EINTR) continue;
      fail("poll", errno);
    }
    if (polls[CONTROL].revents != 0) {
      char command;
      /* A byte: kill the container. The end: tbuild gives up, or is gone. */
      if (read(CONTROL_FD, &command, 1) <= 0 || container < 0) abandon();
      syscall(SYS_pidfd_send_signal, container, SIGKILL, NULL, 0);
    }
    if (polls[UP].revents != 0) {
      struct record record;
      int fd;
      if (!receive_record(up, &record, &fd)) {
        if (!exited) abandon();
        polls[UP].fd = -1;
      } else if (record.kind == PIDFD) {
        container = fd;
      } else if (record.kind == TERMINAL) {
        polls[MASTER].fd = master = fd;
        polls[STDIN].fd = 0;
        terminal_resize(master);
      } else if (record.kind == FAILED) {
        failed = 1;
        send_record(CONTROL_FD, &record, -1);
      } else if (record.kind == EXITED) {
        exited = 1;
        last = record;
        polls[UP].fd = -1;
        polls[STDIN].fd = -1;
      } else if (!failed) {
        send_record(CONTROL_FD, &record, -1);
      }
    }
    if (polls[SIGNALS].revents != 0) forward(signals, container, master);
    if (polls[STDIN].fd >= 0 && polls[STDIN].revents != 0 && !terminal_stdin(master)) polls[STDIN].fd = -1;
    if (polls[MASTER].fd >= 0 && polls[MASTER].revents != 0 && !terminal_output(master)) polls[MASTER].fd = -1;
    if (exited && spec->tty && polls[MASTER].fd >= 0) {
      while (terminal_output(master)) {
      }
      polls[MASTER].fd = -1;
    }
  }
  finish_monitor();
  terminal_restore();
  send_record(CONTROL_FD, &last, -1);
  exit(0);
}

int main(int argc, char **argv) {
  if (argc > 1) rootless_execute(argv + 1);
  static struct spec spec;
  report_to(CONTROL_FD);
  spec_read(CONTROL_FD, &spec);
  int death = spec.tty ? SIGRTMAX : SIGKILL;
  if (spec.tty) signal(death, parent_died);
  int signals = signals_open(death);
  check(prctl(PR_SET_PDEATHSIG, death), "prctl PR_SET_PDEATHSIG");
  if (getppid() != spec.parent) _exit(125);
  setsid(); /* a terminal's Ctrl-C goes to tbuild alone, which decides */
  int up[2];
  check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, up), "socketpair");
  if (spec.tty) terminal_raw(&spec);
  monitor = monitor_start(&spec, up);
  close(up[1]);
  close(spec.root);
  if (!spec.tty) {
    /* A pipe's reader sees its end when the container's last process is gone: L0 must not hold it. */
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < 3; fd++)
      if (null < 0 || dup2(null, fd) < 0) close(fd);
    if (null > 2) close(null);
  }
  serve(&spec, up[0], signals);
}

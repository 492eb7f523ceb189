/*
 * The launcher: three processes, none of which is foreign code until the last one calls execve.
 *
 *   L0 (main.c)       child of tbuild: reads the spec, forwards signals, relays a terminal, reports.
 *   M  (monitor.c)    PID 1 of an outer PID namespace: starts C and waits for it. It never runs foreign code, so its
 *                     parent-death signal stays set; when it dies the kernel kills all in its namespace.
 *   C  (container.c)  PID 1 of an inner PID namespace: builds the container around itself and executes the command.
 *
 * Nothing is allocated after spec_read.
 */
#ifndef LAUNCHER_H
#define LAUNCHER_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define CONTROL_FD 3 /* the socket to tbuild */
#define MAX_CGROUPS 8
#define MAX_GROUPS 65536
#define MAX_ULIMITS RLIM_NLIMITS
#define MAX_MOUNTS 1024

struct spec {
  pid_t parent;
  int root;                 /* detached mount */
  int cgroup;               /* v2: the cgroup's directory, or -1 */
  int tasks[MAX_CGROUPS];   /* v1: the cgroups' `tasks` files */
  int ntasks;
  int network_none;
  int tty;
  int etc_readonly;
  const char *shm_options;
  uid_t uid;
  gid_t gid;
  gid_t *groups;
  size_t ngroups;
  struct { const char *name; int resource; struct rlimit value; } ulimits[MAX_ULIMITS];
  size_t nulimits;
  const char *hostname;
  const char *cwd;
  const char *path;         /* PATH to search for argv[0] */
  struct { const char *target, *name, *content; } etc[3]; /* target "": not mounted */
  struct mount { int fd; const char *path, *target; uint64_t attributes; } *mounts; /* path "": all of it */
  size_t nmounts;
  char **argv;
  char **envp;
  struct sock_fprog filter;
  struct winsize window;    /* set by L0 when a terminal is there */
};

/* What M and C tell L0, and L0 tells tbuild, one packet each. */
enum kind { STARTED = 'S', FAILED = 'E', EXITED = 'X', PIDFD = 'P', TERMINAL = 'T' };
struct record {
  int32_t kind;
  int32_t value; /* errno, or the wait status */
  int64_t user_micros, system_micros, max_rss_kib;
  char step[64];
};

void spec_read(int fd, struct spec *spec);

void report_to(int fd);
_Noreturn void fail(const char *step, int error);
void check(long result, const char *step);
void send_record(int socket, const struct record *record, int fd);
int receive_record(int socket, struct record *record, int *fd);

int monitor_start(const struct spec *spec, int up[2]);
_Noreturn void container_main(const struct spec *spec, int up, int executed);

_Noreturn void rootless_execute(char **argv);

void root_enter(const struct spec *spec);
void root_populate(const struct spec *spec);
void credentials_drop(const struct spec *spec);
_Noreturn void command_execute(const struct spec *spec);

void terminal_open(const struct spec *spec, int up);
void terminal_raw(struct spec *spec);
void terminal_restore(void);
void terminal_resize(int master);
int terminal_stdin(int master);
int terminal_output(int master);

#endif

/* The last steps: working directory, credentials, filter, command. */
#include "launcher.h"
#include <limits.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>

static void reset_signals(void) {
  for (int i = 1; i < NSIG; i++) signal(i, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  check(sigprocmask(SIG_SETMASK, &none, NULL), "sigprocmask");
}

/* As execvpe(3), with the container's PATH, and without its detour over a shell on ENOEXEC. */
static _Noreturn void search_and_execute(const struct spec *spec) {
  const char *name = spec->argv[0];
  if (strchr(name, '/') != NULL) {
    execve(name, spec->argv, spec->envp);
    fail("exec", errno);
  }
  int error = ENOENT;
  size_t length = strlen(name);
  if (length == 0) fail("search", ENOENT);
  for (const char *at = spec->path;; at++) {
    size_t directory = strcspn(at, ":");
    char candidate[PATH_MAX];
    if (directory + length + 2 <= sizeof candidate) {
      memcpy(candidate, at, directory);
      candidate[directory] = '/';
      memcpy(candidate + directory + (directory > 0), name, length + 1);
      execve(candidate, spec->argv, spec->envp);
      if (errno == EACCES) error = EACCES;
      else if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP && errno != ENAMETOOLONG) fail("exec", errno);
    }
    at += directory;
    if (*at == 0) break;
  }
  fail("search", error);
}

/* A path may lead out of the root by a descriptor's magic link (/proc/self/fd/N): then getcwd is no absolute path. */
static void change_directory(const char *path) {
  check(chdir(path), "chdir");
  char buffer[PATH_MAX];
  if (syscall(SYS_getcwd, buffer, sizeof buffer) < 0) fail("chdir", errno);
  if (buffer[0] != '/') fail("chdir", EXDEV);
}

/* While CAP_SYS_RESOURCE may still be there: without it a hard limit can only be lowered. */
static void set_ulimits(const struct spec *spec) {
  for (size_t i = 0; i < spec->nulimits; i++) {
    if (setrlimit((__rlimit_resource_t)spec->ulimits[i].resource, &spec->ulimits[i].value) == 0) continue;
    int error = errno;
    char step[64];
    snprintf(step, sizeof step, "ulimit %s", spec->ulimits[i].name);
    fail(step, error);
  }
}

_Noreturn void command_execute(const struct spec *spec) {
  change_directory(spec->cwd);
  umask(022);
  set_ulimits(spec);
  credentials_drop(spec);
  reset_signals();
  check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &spec->filter, 0, 0), "load seccomp filter");
  search_and_execute(spec);
}

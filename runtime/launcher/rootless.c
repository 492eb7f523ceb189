/*
 * For an ordinary user: executes tbuild in a user namespace in which that user is root, and in a mount namespace of it (user_namespaces(7)). The other ids
 * are those of /etc/subuid and /etc/subgid, mapped by newuidmap(1) and newgidmap(1), which are setuid root. Before Node starts, for a process with threads
 * can enter no user namespace.
 *
 * A child makes the namespace, and this process enters it once the ids are mapped. Where that cannot be, tbuild runs outside, for what needs none;
 * TBUILD_ROOTLESS says why.
 */
#include "launcher.h"
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define MOST_RANGES 16
struct range { unsigned long start, count; };

static int overlap(const struct range *a, const struct range *b) {
  return a->start < b->start + b->count && b->start < a->start + a->count;
}

/* The user's lines, "NAME:START:COUNT" or "UID:START:COUNT"; the first range is the user's own id. The kernel refuses ranges that overlap. */
static size_t find_ranges(const char *path, const char *name, unsigned id, struct range *ranges) {
  ranges[0] = (struct range){id, 1};
  size_t n = 1;
  FILE *file = fopen(path, "re");
  if (file == NULL) return n;
  char line[512], uid[16];
  snprintf(uid, sizeof uid, "%u", (unsigned)geteuid());
  while (n < MOST_RANGES && fgets(line, sizeof line, file) != NULL) {
    char *rest = strchr(line, ':');
    if (rest == NULL) continue;
    *rest = 0;
    if (strcmp(line, uid) != 0 && (name == NULL || strcmp(line, name) != 0)) continue;
    struct range *found = &ranges[n];
    if (sscanf(rest + 1, "%lu:%lu", &found->start, &found->count) != 2 || found->count == 0) continue;
    if (found->start >= UINT_MAX || found->count > UINT_MAX - found->start) continue;
    size_t i = 0;
    while (i < n && !overlap(&ranges[i], found)) i++;
    if (i == n) n++;
  }
  fclose(file);
  return n;
}

/* From the file alone: what else knows users cannot be asked by a static program. */
static const char *user_name(void) {
  FILE *file = fopen("/etc/passwd", "re");
  struct passwd *entry;
  while (file != NULL && (entry = fgetpwent(file)) != NULL)
    if (entry->pw_uid == geteuid()) return entry->pw_name;
  return getenv("USER");
}

static const char *run_mapper(const char *program, pid_t target, const struct range *ranges, size_t n) {
  pid_t child = fork();
  if (child == 0) {
    char fields[1 + 3 * MOST_RANGES][24];
    const char *argv[3 + 3 * MOST_RANGES] = {program};
    size_t used = 0;
    unsigned long inside = 0;
    snprintf(fields[used++], sizeof *fields, "%d", (int)target);
    for (size_t i = 0; i < n; inside += ranges[i++].count) {
      snprintf(fields[used++], sizeof *fields, "%lu", inside);
      snprintf(fields[used++], sizeof *fields, "%lu", ranges[i].start);
      snprintf(fields[used++], sizeof *fields, "%lu", ranges[i].count);
    }
    for (size_t i = 0; i < used; i++) argv[i + 1] = fields[i];
    execvp(program, (char *const *)argv);
    _exit(errno == ENOENT ? 127 : 126);
  }
  int status;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return strerrorname_np(errno);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127) return "no-mapper";
  return status == 0 ? NULL : "not-mapped";
}

/* Makes the namespace, says so, and holds it until the parent has entered it, or is gone. */
static _Noreturn void hold_namespace(int parent) {
  int error = unshare(CLONE_NEWUSER) < 0 ? errno : 0;
  if (write(parent, &error, sizeof error) == (ssize_t)sizeof error) (void)!read(parent, &error, sizeof error);
  _exit(0);
}

/* NULL, or why not. */
static const char *enter_held(pid_t holder, int ready) {
  const char *name = user_name(), *refusal;
  struct range uids[MOST_RANGES], gids[MOST_RANGES];
  size_t nuids = find_ranges("/etc/subuid", name, geteuid(), uids), ngids = find_ranges("/etc/subgid", name, getegid(), gids);
  if (nuids == 1 || ngids == 1) return "no-ids";
  int error;
  if (read(ready, &error, sizeof error) != (ssize_t)sizeof error) return "ECHILD";
  if (error != 0) return strerrorname_np(error);
  if ((refusal = run_mapper("newuidmap", holder, uids, nuids)) != NULL) return refusal;
  if ((refusal = run_mapper("newgidmap", holder, gids, ngids)) != NULL) return refusal;
  int namespace = (int)syscall(SYS_pidfd_open, holder, 0);
  if (namespace < 0 || setns(namespace, CLONE_NEWUSER) < 0) return strerrorname_np(errno);
  close(namespace);
  /* In the user namespace: nothing leads back. */
  if (unshare(CLONE_NEWNS) == 0 && setgroups(0, NULL) == 0 && setresgid(0, 0, 0) == 0 && setresuid(0, 0, 0) == 0) return NULL;
  fprintf(stderr, "tbuild: error: the user namespace cannot be used: %s\n", strerror(errno));
  exit(125);
}

static const char *enter(void) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) return strerrorname_np(errno);
  signal(SIGCHLD, SIG_DFL); /* ignored, no child could be waited for */
  pid_t holder = fork();
  if (holder < 0) return strerrorname_np(errno);
  if (holder == 0) {
    close(ends[0]);
    hold_namespace(ends[1]);
  }
  close(ends[1]);
  const char *refusal = enter_held(holder, ends[0]);
  close(ends[0]);
  while (waitpid(holder, NULL, 0) < 0 && errno == EINTR) {
  }
  return refusal;
}

_Noreturn void rootless_execute(char **argv) {
  if (geteuid() != 0) {
    const char *refusal = enter();
    setenv("TBUILD_ROOTLESS", refusal == NULL ? "entered" : refusal, 1);
  }
  execv(argv[0], argv);
  fprintf(stderr, "tbuild: error: %s: %s\n", argv[0], strerror(errno));
  exit(errno == ENOENT ? 127 : 126);
}

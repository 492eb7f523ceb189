/*
 * For an ordinary user: executes tbuild in a user namespace in which that user is root, and in a mount namespace of it (user_namespaces(7)). The other ids
 * are those of /etc/subuid and /etc/subgid, mapped by newuidmap(1) and newgidmap(1), which are setuid root. Before Node starts, for a process with threads
 * can make no user namespace.
 *
 * Where it cannot be made, tbuild runs outside, for what needs none; TBUILD_ROOTLESS says why.
 */
#include "launcher.h"
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

struct range { unsigned long start, count; };

/* The user's first line, "NAME:START:COUNT" or "UID:START:COUNT". */
static int find_range(const char *path, const char *name, struct range *range) {
  FILE *file = fopen(path, "re");
  if (file == NULL) return 0;
  char line[512], uid[16];
  snprintf(uid, sizeof uid, "%u", (unsigned)geteuid());
  int found = 0;
  while (!found && fgets(line, sizeof line, file) != NULL) {
    char *rest = strchr(line, ':');
    if (rest == NULL) continue;
    *rest = 0;
    if (strcmp(line, uid) != 0 && (name == NULL || strcmp(line, name) != 0)) continue;
    found = sscanf(rest + 1, "%lu:%lu", &range->start, &range->count) == 2 && range->count > 0;
  }
  fclose(file);
  return found;
}

/* From the file alone: what else knows users cannot be asked by a static program. */
static const char *user_name(void) {
  FILE *file = fopen("/etc/passwd", "re");
  struct passwd *entry;
  while (file != NULL && (entry = fgetpwent(file)) != NULL)
    if (entry->pw_uid == geteuid()) return entry->pw_name;
  return getenv("USER");
}

static int run_mapper(const char *program, pid_t target, unsigned id, const struct range *range) {
  pid_t child = fork();
  if (child == 0) {
    char fields[4][24];
    snprintf(fields[0], sizeof fields[0], "%d", (int)target);
    snprintf(fields[1], sizeof fields[1], "%u", id);
    snprintf(fields[2], sizeof fields[2], "%lu", range->start);
    snprintf(fields[3], sizeof fields[3], "%lu", range->count);
    execlp(program, program, fields[0], "0", fields[1], "1", "1", fields[2], fields[3], (char *)NULL);
    _exit(127);
  }
  int status;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return 125;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}

/* A child that stays outside maps the ids once the namespace is there. NULL, or why not. */
static const char *enter(void) {
  const char *name = user_name();
  struct range uids, gids;
  if (!find_range("/etc/subuid", name, &uids) || !find_range("/etc/subgid", name, &gids)) return "no-ids";
  int ready[2];
  if (pipe2(ready, O_CLOEXEC) < 0) return strerrorname_np(errno);
  pid_t self = getpid(), mapper = fork();
  if (mapper == 0) {
    char byte;
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1) _exit(0); /* there is no namespace */
    int status = run_mapper("newuidmap", self, geteuid(), &uids);
    _exit(status != 0 ? status : run_mapper("newgidmap", self, getegid(), &gids));
  }
  int error = mapper < 0 || unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0 ? errno : 0;
  if (error == 0 && write(ready[1], "", 1) != 1) error = errno;
  close(ready[0]);
  close(ready[1]);
  int status = 0;
  while (mapper > 0 && waitpid(mapper, &status, 0) < 0)
    if (errno != EINTR) return strerrorname_np(errno);
  if (error != 0) return strerrorname_np(error);
  if (status != 0) {
    /* In a namespace without ids tbuild is nobody. */
    fprintf(stderr, "tbuild: error: the ids of /etc/subuid and /etc/subgid could not be mapped%s\n",
            WIFEXITED(status) && WEXITSTATUS(status) == 127 ? ": newuidmap or newgidmap is missing (package uidmap, or shadow-utils)" : "");
    exit(125);
  }
  if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0) return strerrorname_np(errno);
  return NULL;
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

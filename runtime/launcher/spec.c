/*
 * The spec: a 4-byte length, then that many bytes: NUL-terminated fields in the order of spec_read (launch.ts writes
 * them), lists preceded by their count, and last the seccomp filter's instructions, 8 bytes each.
 */
#include "launcher.h"
#include <stdlib.h>

static char *cursor, *end;

static void read_all(int fd, void *into, size_t length) {
  for (size_t done = 0; done < length;) {
    ssize_t n = read(fd, (char *)into + done, length - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("read spec", errno);
    if (n == 0) _exit(125); /* tbuild is gone */
    done += (size_t)n;
  }
}

static char *text(void) {
  char *start = cursor;
  char *stop = cursor < end ? memchr(cursor, 0, (size_t)(end - cursor)) : NULL;
  if (stop == NULL) fail("parse spec", EPROTO);
  cursor = stop + 1;
  return start;
}

static long number(void) {
  char *field = text(), *stop;
  errno = 0;
  long value = strtol(field, &stop, 10);
  if (errno != 0 || *field == 0 || *stop != 0) fail("parse spec", EPROTO);
  return value;
}

static rlim_t limit(void) {
  long value = number();
  return value < 0 ? RLIM_INFINITY : (rlim_t)value;
}

static size_t count(size_t most) {
  long value = number();
  if (value < 0 || (size_t)value > most) fail("parse spec", E2BIG);
  return (size_t)value;
}

static void *allocate(size_t members, size_t size) {
  void *memory = calloc(members, size);
  if (memory == NULL) fail("parse spec", ENOMEM);
  return memory;
}

static char **texts(void) {
  size_t n = count(1 << 20);
  char **list = allocate(n + 1, sizeof *list);
  for (size_t i = 0; i < n; i++) list[i] = text();
  return list;
}

void spec_read(int fd, struct spec *spec) {
  uint32_t length;
  read_all(fd, &length, sizeof length);
  cursor = allocate((size_t)length + 1, 1);
  end = cursor + length;
  read_all(fd, cursor, length);

  spec->parent = (pid_t)number();
  spec->root = (int)number();
  spec->cgroup = (int)number();
  spec->ntasks = (int)count(MAX_CGROUPS);
  for (int i = 0; i < spec->ntasks; i++) spec->tasks[i] = (int)number();
  spec->network_none = number() != 0;
  spec->tty = number() != 0;
  spec->etc_readonly = number() != 0;
  spec->shm_options = text();
  spec->uid = (uid_t)number();
  spec->gid = (gid_t)number();
  spec->ngroups = count(MAX_GROUPS);
  spec->groups = allocate(spec->ngroups + 1, sizeof *spec->groups);
  for (size_t i = 0; i < spec->ngroups; i++) spec->groups[i] = (gid_t)number();
  spec->nulimits = count(MAX_ULIMITS);
  for (size_t i = 0; i < spec->nulimits; i++) {
    spec->ulimits[i].name = text();
    spec->ulimits[i].resource = (int)number();
    spec->ulimits[i].value.rlim_cur = limit();
    spec->ulimits[i].value.rlim_max = limit();
  }
  spec->hostname = text();
  spec->cwd = text();
  spec->path = text();
  for (int i = 0; i < 3; i++) {
    spec->etc[i].target = text();
    spec->etc[i].name = text();
    spec->etc[i].content = text();
  }
  spec->nmounts = count(MAX_MOUNTS);
  spec->mounts = allocate(spec->nmounts + 1, sizeof *spec->mounts);
  for (size_t i = 0; i < spec->nmounts; i++) {
    spec->mounts[i].fd = (int)number();
    spec->mounts[i].path = text();
    spec->mounts[i].target = text();
    spec->mounts[i].attributes = (uint64_t)number();
  }
  spec->argv = texts();
  spec->envp = texts();
  size_t instructions = count(BPF_MAXINSNS);
  if ((size_t)(end - cursor) != instructions * sizeof(struct sock_filter) || spec->argv[0] == NULL)
    fail("parse spec", EPROTO);
  spec->filter.len = (unsigned short)instructions;
  spec->filter.filter = allocate(instructions + 1, sizeof(struct sock_filter));
  memcpy(spec->filter.filter, cursor, instructions * sizeof(struct sock_filter));
}

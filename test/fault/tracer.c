/*
 * tracer STORE LOG FAULT N -- COMMAND...
 *
 * Runs COMMAND and writes to LOG, in order and with their data, all system calls of all its threads and children that change the disk below
 * STORE. At the N-th of these FAULT happens: `kill` (SIGKILL instead of the call), an errno's number (the call fails with it and does
 * nothing), or a number and `+` (so does every later call). `none`: nothing happens.
 *
 * strace can inject, too, but counts for each thread alone, and cannot tell the store's calls from others; one tracer for both means that the N-th
 * call is the same one. A seccomp filter stops only the calls in question. What a call did is read from the file system while the
 * thread stands still behind it: so sendfile, copy_file_range and FICLONE are writes like any other, and what goes through an overlay
 * mount or a cloned mount is told as what it does to the directory below.
 *
 * A record is a line, `NAME ENTRY TIME FIELD...`, and LEN bytes after it where its last field is LEN. ENTRY is the number of records that were
 * there when the call began: a sync covers no others. Bytes of names other than printable ASCII are %XX. Descriptor 3 of COMMAND is for
 * marks: what it writes there is recorded in its place (`mark`). The last line is `end CALLS ALLOCATING STATUS`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <linux/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <elf.h>
#include <time.h>
#include <unistd.h>

#define NR_OPEN_TREE 428
#define NR_FSCONFIG 431
#define NR_FSMOUNT 432
#define NR_FCHMODAT2 452
#define MARK_FD 3
#define PATH_BYTES 8192
enum { MOST_TASKS = 512, MOST_MOUNTS = 256, MOST_CONTEXTS = 64 };

enum kind { IGNORED, OPEN, WRITE, TRUNCATE, ALLOCATE, RENAME, LINK, SYMLINK, UNLINK, RMDIR, MKDIR, MKNOD, SYNC, SYNC_ALL, ATTRIBUTES, SETXATTR, REMOVEXATTR, MOUNT_CLONE, MOUNT_OPTION, MOUNT_MADE, MARK };

struct call {
  enum kind kind;
  int number;
  uint64_t args[6];
  long entry;               /* records at its beginning */
  char path[PATH_BYTES];    /* below the store, or of the mount */
  char path2[PATH_BYTES];
  char name[512];           /* attribute */
  int fd;                   /* -1: by path */
  uint64_t offset, length;
  int flags;
  int existed;
  int failing;
};

struct task { pid_t tid, group; struct call call; };

static struct task *tasks[MOST_TASKS];
/* Mounts that are not where their files are: id, and the directory below the store that their root shows. */
static struct { long id; char path[PATH_BYTES]; } mounts[MOST_MOUNTS];
static int nmounts;
static struct { pid_t group; int fd; char upper[PATH_BYTES]; } contexts[MOST_CONTEXTS];
static int ncontexts;

static const char *store;
static FILE *out;
static long records, calls, allocating, fault_at;
static int fault_errno, fault_kill, fault_stays;
static int result_status = 125;

static _Noreturn void die(const char *what) {
  fprintf(stderr, "tracer: %s: %s\n", what, strerror(errno));
  exit(125);
}

/* ---- The tracee's memory and files ---- */

static ssize_t peek(pid_t tid, uint64_t address, void *into, size_t length) {
  struct iovec local = {into, length}, remote = {(void *)(uintptr_t)address, length};
  return process_vm_readv(tid, &local, 1, &remote, 1, 0);
}

static int peek_string(pid_t tid, uint64_t address, char *into, size_t room) {
  for (size_t done = 0; done < room;) {
    size_t part = 4096 - (address + done) % 4096;
    if (part > room - done) part = room - done;
    ssize_t got = peek(tid, address + done, into + done, part);
    if (got <= 0) return -1;
    if (memchr(into + done, 0, (size_t)got) != NULL) return 0;
    done += (size_t)got;
  }
  return -1;
}

static long field_of(const char *file, const char *name) {
  FILE *info = fopen(file, "re");
  if (info == NULL) return -1;
  char line[256];
  long value = -1;
  while (fgets(line, sizeof line, info) != NULL) {
    if (strncmp(line, name, strlen(name)) == 0) {
      value = strtol(line + strlen(name), NULL, 0);
      break;
    }
  }
  fclose(info);
  return value;
}

static int is_below_store(const char *path) {
  size_t length = strlen(store);
  return strncmp(path, store, length) == 0 && (path[length] == '/' || path[length] == 0);
}

/* The path behind a link in /proc, as one below the store; -1 when it is not there. */
static int below(const char *link, const char *info, char *into) {
  char target[PATH_BYTES];
  ssize_t length = readlink(link, target, sizeof target - 1);
  if (length <= 0 || target[0] != '/') return -1;
  target[length] = 0;
  static const char deleted[] = " (deleted)";
  size_t tail = sizeof deleted - 1;
  if ((size_t)length > tail && strcmp(target + length - tail, deleted) == 0) target[length - (ssize_t)tail] = 0;
  if (nmounts > 0) {
    long id = field_of(info, "mnt_id:");
    for (int i = 0; i < nmounts; i++) {
      if (mounts[i].id != id) continue;
      snprintf(into, PATH_BYTES, "%.4000s%.4000s", mounts[i].path, strcmp(target, "/") == 0 ? "" : target);
      return 0;
    }
  }
  if (!is_below_store(target)) return -1;
  strcpy(into, target);
  return 0;
}

static int path_of_fd(pid_t tid, int fd, char *into) {
  char link[64], info[64];
  snprintf(link, sizeof link, "/proc/%d/fd/%d", tid, fd);
  snprintf(info, sizeof info, "/proc/%d/fdinfo/%d", tid, fd);
  return below(link, info, into);
}

static int path_of_own(int fd, char *into) {
  char link[64], info[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  snprintf(info, sizeof info, "/proc/self/fdinfo/%d", fd);
  return below(link, info, into);
}

/* What (dirfd, path) names, its last component unresolved unless `follow`. */
static int resolve(pid_t tid, int dirfd, uint64_t address, int follow, char *into) {
  char given[4096], path[PATH_BYTES];
  if (address == 0 || peek_string(tid, address, given, sizeof given) != 0) return -1;
  if (given[0] == 0) return path_of_fd(tid, dirfd, into);
  if (strncmp(given, "/proc/self/", 11) == 0) snprintf(path, sizeof path, "/proc/%d/%s", tid, given + 11);
  else if (given[0] == '/') snprintf(path, sizeof path, "%s", given);
  else if (dirfd == AT_FDCWD) snprintf(path, sizeof path, "/proc/%d/cwd/%s", tid, given);
  else snprintf(path, sizeof path, "/proc/%d/fd/%d/%s", tid, dirfd, given);
  for (size_t length = strlen(path); length > 1 && path[length - 1] == '/';) path[--length] = 0;
  char *slash = strrchr(path, '/');
  if (slash == NULL) return -1;
  const char *base = slash + 1;
  char descriptors[64];
  snprintf(descriptors, sizeof descriptors, "/proc/%d/fd/", tid);
  int is_descriptor = strncmp(path, descriptors, strlen(descriptors)) == 0 && slash == path + strlen(descriptors) - 1;
  if (follow || is_descriptor || strcmp(base, ".") == 0 || strcmp(base, "..") == 0) {
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd >= 0) {
      int found = path_of_own(fd, into);
      close(fd);
      return found;
    }
    if (is_descriptor) return -1;
  }
  char name[PATH_BYTES];
  snprintf(name, sizeof name, "%s", base);
  slash[slash == path] = 0;
  int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -1;
  int found = path_of_own(fd, into);
  close(fd);
  if (found != 0) return -1;
  size_t length = strlen(into);
  if (length + strlen(name) + 2 > PATH_BYTES) return -1;
  into[length] = '/';
  strcpy(into + length + 1, name);
  return 0;
}

/* As `resolve`, but also the store itself, when it is not there yet. */
static int resolve_store(pid_t tid, int dirfd, uint64_t address, char *into) {
  if (resolve(tid, dirfd, address, 0, into) == 0) return 0;
  char given[4096];
  if (address == 0 || peek_string(tid, address, given, sizeof given) != 0) return -1;
  if (strcmp(given, store) != 0) return -1;
  strcpy(into, store);
  return 0;
}

/* SQLite's shared memory: mapped, never synced, made anew by the first to open the database. */
static int is_dropped(const char *path) {
  size_t length = strlen(path);
  return length > 4 && strcmp(path + length - 4, "-shm") == 0;
}

/* ---- Records ---- */

static void put_name(const char *name) {
  for (const unsigned char *c = (const unsigned char *)name; *c != 0; c++) {
    if (*c > ' ' && *c < 127 && *c != '%') fputc(*c, out);
    else fprintf(out, "%%%02X", *c);
  }
}

/* Relative to the store; the store itself is `.` */
static void put_path(const char *path) {
  const char *rest = path + strlen(store);
  while (*rest == '/') rest++;
  fputc(' ', out);
  put_name(*rest == 0 ? "." : rest);
}

static void begin(const char *name, const struct call *call) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  fprintf(out, "%s %ld %lld.%09ld", name, call->entry, (long long)now.tv_sec, now.tv_nsec);
}

static void end(void) {
  fputc('\n', out);
  records++;
}

static int stat_call(pid_t tid, const struct call *call, const char *path, struct stat *into) {
  /* By its name in the store: through an overlay it would be the overlay's inode. A deleted file has none any more. */
  if (lstat(path, into) == 0) return 0;
  if (call->fd < 0) return -1;
  char link[64];
  snprintf(link, sizeof link, "/proc/%d/fd/%d", tid, call->fd);
  return stat(link, into);
}

static void record_made(const struct call *call, const char *path) {
  struct stat info;
  if (lstat(path, &info) != 0) return;
  unsigned mode = info.st_mode & 07777;
  const char *name = S_ISREG(info.st_mode) ? "create" : S_ISDIR(info.st_mode) ? "mkdir" : S_ISLNK(info.st_mode) ? "symlink" : "mknod";
  begin(name, call);
  put_path(path);
  fprintf(out, " %lu %u %u %u", (unsigned long)info.st_ino, S_ISREG(info.st_mode) || S_ISDIR(info.st_mode) || S_ISLNK(info.st_mode) ? mode : info.st_mode, info.st_uid, info.st_gid);
  if (S_ISLNK(info.st_mode)) {
    char target[PATH_BYTES];
    ssize_t length = readlink(path, target, sizeof target - 1);
    target[length < 0 ? 0 : length] = 0;
    fputc(' ', out);
    put_name(target);
  } else if (strcmp(name, "mknod") == 0) {
    fprintf(out, " %lu", (unsigned long)info.st_rdev);
  }
  end();
  /* An overlay's: that a directory hides what is below it, for one. */
  char attributes[4096], value[65536];
  ssize_t size = nmounts > 0 ? llistxattr(path, attributes, sizeof attributes) : 0;
  for (const char *attribute = attributes; size > 0 && attribute < attributes + size; attribute += strlen(attribute) + 1) {
    ssize_t length = lgetxattr(path, attribute, value, sizeof value);
    if (length < 0) continue;
    begin("xattr", call);
    put_path(path);
    fprintf(out, " %lu ", (unsigned long)info.st_ino);
    put_name(attribute);
    fprintf(out, " %zd", length);
    end();
    fwrite(value, 1, (size_t)length, out);
  }
}

/* False, and nothing written, when the file is gone already. */
static int record_on(const char *name, pid_t tid, const struct call *call, const char *fields, ...) {
  struct stat info;
  if (stat_call(tid, call, call->path, &info) != 0) return 0;
  begin(name, call);
  put_path(call->path);
  fprintf(out, " %lu", (unsigned long)info.st_ino);
  va_list args;
  va_start(args, fields);
  vfprintf(out, fields, args);
  va_end(args);
  return 1;
}

static void record_write(pid_t tid, const struct call *call, uint64_t offset, uint64_t length) {
  char link[64];
  snprintf(link, sizeof link, "/proc/%d/fd/%d", tid, call->fd);
  int fd = open(link, O_RDONLY | O_CLOEXEC);
  char *data = malloc(length + 1);
  if (fd < 0 || data == NULL) die("read back");
  size_t got = 0;
  while (got < length) {
    ssize_t part = pread(fd, data + got, length - got, (off_t)(offset + got));
    if (part <= 0) break;
    got += (size_t)part;
  }
  close(fd);
  if (record_on("write", tid, call, " %llu %zu", (unsigned long long)offset, got)) {
    end();
    fwrite(data, 1, got, out);
  }
  free(data);
}

static void record_attributes(pid_t tid, const struct call *call) {
  struct stat info;
  if (stat_call(tid, call, call->path, &info) != 0) return;
  if (record_on("attr", tid, call, " %u %u %u %lld.%09ld", info.st_mode & 07777, info.st_uid, info.st_gid, (long long)info.st_mtim.tv_sec, info.st_mtim.tv_nsec)) end();
}

static void record_xattr(pid_t tid, const struct call *call) {
  char value[65536];
  ssize_t length = lgetxattr(call->path, call->name, value, sizeof value);
  if (length < 0) {
    if (!record_on("rmxattr", tid, call, " ")) return;
    put_name(call->name);
    end();
    return;
  }
  if (!record_on("xattr", tid, call, " ")) return;
  put_name(call->name);
  fprintf(out, " %zd", length);
  end();
  fwrite(value, 1, (size_t)length, out);
}

/* What an overlay leaves where a name of a lower layer was. */
static void record_whiteout(const struct call *call, const char *path) {
  struct stat info;
  if (lstat(path, &info) == 0 && S_ISCHR(info.st_mode)) record_made(call, path);
}

/* ---- Calls ---- */

static const int traced[] = {
#ifdef __NR_open
    __NR_open, __NR_creat, __NR_rename, __NR_link, __NR_symlink, __NR_unlink, __NR_rmdir, __NR_mkdir, __NR_mknod, __NR_chmod, __NR_chown,
    __NR_lchown, __NR_utime, __NR_utimes, __NR_futimesat,
#endif
#ifdef __NR_renameat
    __NR_renameat,
#endif
    __NR_openat, __NR_openat2, __NR_write, __NR_writev, __NR_pwrite64, __NR_pwritev, __NR_pwritev2, __NR_sendfile, __NR_copy_file_range,
    __NR_splice, __NR_ioctl, __NR_truncate, __NR_ftruncate, __NR_fallocate, __NR_renameat2, __NR_linkat, __NR_symlinkat, __NR_unlinkat,
    __NR_mkdirat, __NR_mknodat, __NR_fsync, __NR_fdatasync, __NR_sync, __NR_syncfs, __NR_fchmod, __NR_fchmodat, NR_FCHMODAT2, __NR_fchown,
    __NR_fchownat, __NR_utimensat, __NR_setxattr, __NR_lsetxattr, __NR_fsetxattr, __NR_removexattr, __NR_lremovexattr, __NR_fremovexattr,
    NR_OPEN_TREE, NR_FSCONFIG, NR_FSMOUNT};

static void by_fd(struct call *call, pid_t tid, enum kind kind, uint64_t fd) {
  call->fd = (int)fd;
  if (path_of_fd(tid, call->fd, call->path) == 0) call->kind = kind;
}

static void by_path(struct call *call, pid_t tid, enum kind kind, uint64_t dirfd, uint64_t path, int follow) {
  if (resolve(tid, (int)dirfd, path, follow, call->path) == 0) call->kind = kind;
}

static void two_paths(struct call *call, pid_t tid, enum kind kind, int from, uint64_t path, int to, uint64_t path2, int follow) {
  if (resolve(tid, from, path, follow, call->path) == 0 && resolve(tid, to, path2, 0, call->path2) == 0) call->kind = kind;
}

static void opening(struct call *call, pid_t tid, int dirfd, uint64_t path, int flags) {
  if ((flags & O_PATH) != 0) return;
  if ((flags & (O_CREAT | O_TRUNC)) == 0 && (flags & O_TMPFILE) != O_TMPFILE) return;
  if ((flags & O_TMPFILE) == O_TMPFILE) {
    by_path(call, tid, OPEN, (uint64_t)dirfd, path, 1);
  } else {
    by_path(call, tid, OPEN, (uint64_t)dirfd, path, (flags & O_NOFOLLOW) == 0 && (flags & O_EXCL) == 0);
    struct stat info;
    call->existed = call->kind == OPEN && lstat(call->path, &info) == 0;
    /* Nothing to do, or bound to fail. */
    if (call->existed && ((flags & O_TRUNC) == 0 || (flags & O_EXCL) != 0)) call->kind = IGNORED;
    if (!call->existed && (flags & O_CREAT) == 0) call->kind = IGNORED;
  }
  call->flags = flags;
}

static void mounting(struct call *call, pid_t tid) {
  const uint64_t *a = call->args;
  char key[64];
  if (call->number == NR_OPEN_TREE) {
    by_path(call, tid, MOUNT_CLONE, a[0], a[1], 1);
  } else if (call->number == NR_FSMOUNT) {
    call->kind = MOUNT_MADE;
  } else if (a[2] != 0 && peek_string(tid, a[2], key, sizeof key) == 0 && strcmp(key, "upperdir") == 0) {
    if (a[1] == 5) by_fd(call, tid, MOUNT_OPTION, a[4]);
    else by_path(call, tid, MOUNT_OPTION, (uint64_t)AT_FDCWD, a[3], 1);
    call->fd = -1;
  }
}

/* Which call it is, of what is below the store. */
static void classify(struct call *call, pid_t tid) {
  const uint64_t *a = call->args;
  const int here = AT_FDCWD;
  struct open_how how;
  call->kind = IGNORED;
  call->fd = -1;
  switch (call->number) {
#ifdef __NR_open
  case __NR_open: opening(call, tid, here, a[0], (int)a[1]); break;
  case __NR_creat: opening(call, tid, here, a[0], O_CREAT | O_WRONLY | O_TRUNC); break;
  case __NR_rename: two_paths(call, tid, RENAME, here, a[0], here, a[1], 0); break;
  case __NR_link: two_paths(call, tid, LINK, here, a[0], here, a[1], 0); break;
  case __NR_symlink: by_path(call, tid, SYMLINK, (uint64_t)here, a[1], 0); break;
  case __NR_unlink: by_path(call, tid, UNLINK, (uint64_t)here, a[0], 0); break;
  case __NR_rmdir: by_path(call, tid, RMDIR, (uint64_t)here, a[0], 0); break;
  case __NR_mkdir: if (resolve_store(tid, here, a[0], call->path) == 0) call->kind = MKDIR; break;
  case __NR_mknod: by_path(call, tid, MKNOD, (uint64_t)here, a[0], 0); break;
  case __NR_chmod: case __NR_chown: case __NR_utime: case __NR_utimes: by_path(call, tid, ATTRIBUTES, (uint64_t)here, a[0], 1); break;
  case __NR_lchown: by_path(call, tid, ATTRIBUTES, (uint64_t)here, a[0], 0); break;
  case __NR_futimesat: by_path(call, tid, ATTRIBUTES, a[0], a[1], 1); break;
#endif
#ifdef __NR_renameat
  case __NR_renameat: two_paths(call, tid, RENAME, (int)a[0], a[1], (int)a[2], a[3], 0); break;
#endif
  case __NR_renameat2: two_paths(call, tid, RENAME, (int)a[0], a[1], (int)a[2], a[3], 0); call->flags = (int)a[4]; break;
  case __NR_linkat: two_paths(call, tid, LINK, (int)a[0], a[1], (int)a[2], a[3], ((int)a[4] & AT_SYMLINK_FOLLOW) != 0); break;
  case __NR_symlinkat: by_path(call, tid, SYMLINK, a[1], a[2], 0); break;
  case __NR_unlinkat: by_path(call, tid, ((int)a[2] & AT_REMOVEDIR) != 0 ? RMDIR : UNLINK, a[0], a[1], 0); break;
  case __NR_mkdirat: if (resolve_store(tid, (int)a[0], a[1], call->path) == 0) call->kind = MKDIR; break;
  case __NR_mknodat: by_path(call, tid, MKNOD, a[0], a[1], 0); break;
  case __NR_openat: opening(call, tid, (int)a[0], a[1], (int)a[2]); break;
  case __NR_openat2:
    if (peek(tid, a[2], &how, sizeof how) == sizeof how) opening(call, tid, (int)a[0], a[1], (int)how.flags);
    break;
  case __NR_write: case __NR_writev:
    if (a[0] == MARK_FD) {
      char target[64] = "", link[64];
      snprintf(link, sizeof link, "/proc/%d/fd/%d", tid, MARK_FD);
      if (readlink(link, target, sizeof target - 1) > 0 && strcmp(target, "/dev/null") == 0) call->kind = MARK;
    }
    if (call->kind == IGNORED) by_fd(call, tid, WRITE, a[0]);
    call->offset = UINT64_MAX;
    break;
  case __NR_pwrite64: case __NR_pwritev: by_fd(call, tid, WRITE, a[0]); call->offset = a[3]; break;
  case __NR_pwritev2: by_fd(call, tid, WRITE, a[0]); call->offset = a[3]; break;
  case __NR_sendfile: by_fd(call, tid, WRITE, a[0]); call->offset = UINT64_MAX; break;
  case __NR_copy_file_range: case __NR_splice:
    by_fd(call, tid, WRITE, a[2]);
    call->offset = UINT64_MAX;
    if (call->kind == WRITE && a[3] != 0 && peek(tid, a[3], &call->offset, 8) != 8) call->offset = UINT64_MAX;
    break;
  case __NR_ioctl:
    if (a[1] == FICLONE || a[1] == FICLONERANGE) by_fd(call, tid, WRITE, a[0]);
    break;
  case __NR_truncate: by_path(call, tid, TRUNCATE, (uint64_t)here, a[0], 1); call->length = a[1]; break;
  case __NR_ftruncate: by_fd(call, tid, TRUNCATE, a[0]); call->length = a[1]; break;
  case __NR_fallocate: by_fd(call, tid, ALLOCATE, a[0]); call->flags = (int)a[1]; call->offset = a[2]; call->length = a[3]; break;
  case __NR_fsync: case __NR_fdatasync: by_fd(call, tid, SYNC, a[0]); break;
  case __NR_sync: call->kind = SYNC_ALL; break;
  case __NR_syncfs: by_fd(call, tid, SYNC_ALL, a[0]); break;
  case __NR_fchmod: case __NR_fchown: by_fd(call, tid, ATTRIBUTES, a[0]); break;
  case __NR_fchmodat: by_path(call, tid, ATTRIBUTES, a[0], a[1], 1); break;
  case NR_FCHMODAT2: by_path(call, tid, ATTRIBUTES, a[0], a[1], ((int)a[3] & AT_SYMLINK_NOFOLLOW) == 0); break;
  case __NR_fchownat: by_path(call, tid, ATTRIBUTES, a[0], a[1], ((int)a[4] & AT_SYMLINK_NOFOLLOW) == 0); break;
  case __NR_utimensat:
    if (a[1] == 0) by_fd(call, tid, ATTRIBUTES, a[0]);
    else by_path(call, tid, ATTRIBUTES, a[0], a[1], ((int)a[3] & AT_SYMLINK_NOFOLLOW) == 0);
    break;
  case __NR_setxattr: by_path(call, tid, SETXATTR, (uint64_t)here, a[0], 1); break;
  case __NR_lsetxattr: by_path(call, tid, SETXATTR, (uint64_t)here, a[0], 0); break;
  case __NR_fsetxattr: by_fd(call, tid, SETXATTR, a[0]); break;
  case __NR_removexattr: by_path(call, tid, REMOVEXATTR, (uint64_t)here, a[0], 1); break;
  case __NR_lremovexattr: by_path(call, tid, REMOVEXATTR, (uint64_t)here, a[0], 0); break;
  case __NR_fremovexattr: by_fd(call, tid, REMOVEXATTR, a[0]); break;
  case NR_OPEN_TREE: case NR_FSCONFIG: case NR_FSMOUNT: mounting(call, tid); break;
  default: break;
  }
  if (call->kind == SETXATTR || call->kind == REMOVEXATTR) {
    if (peek_string(tid, a[1], call->name, sizeof call->name) != 0) call->kind = IGNORED;
  }
  if (call->kind != MARK && call->kind != SYNC_ALL && call->kind != MOUNT_MADE && call->kind != IGNORED && is_dropped(call->path)) call->kind = IGNORED;
}

/* What a full disk can refuse. */
static int allocates(const struct call *call) {
  switch (call->kind) {
  case OPEN: return !call->existed;
  case ALLOCATE: return (call->flags & FALLOC_FL_PUNCH_HOLE) == 0;
  case WRITE: case RENAME: case LINK: case SYMLINK: case MKDIR: case MKNOD: case SYNC: case SETXATTR: return 1;
  default: return 0;
  }
}

static void record(pid_t tid, struct task *task, long result) {
  struct call *call = &task->call;
  const uint64_t *a = call->args;
  char link[64], info[64];
  struct stat stats;
  snprintf(link, sizeof link, "/proc/%d/fd/%d", tid, call->fd);
  switch (call->kind) {
  case OPEN:
    call->fd = (int)result;
    if ((call->flags & O_TMPFILE) == O_TMPFILE) {
      snprintf(link, sizeof link, "/proc/%d/fd/%ld", tid, result);
      if (stat(link, &stats) != 0) return;
      begin("tmpfile", call);
      fprintf(out, " . %lu %u %u %u", (unsigned long)stats.st_ino, stats.st_mode & 07777, stats.st_uid, stats.st_gid);
      end();
    } else if (call->existed) {
      if (record_on("truncate", tid, call, " 0")) end();
    } else {
      record_made(call, call->path);
    }
    return;
  case WRITE:
    if (call->number == __NR_ioctl) {
      if (stat(link, &stats) == 0) record_write(tid, call, 0, (uint64_t)stats.st_size);
      return;
    }
    if (result == 0) return;
    if (call->offset == UINT64_MAX) {
      snprintf(info, sizeof info, "/proc/%d/fdinfo/%d", tid, call->fd);
      call->offset = (uint64_t)(field_of(info, "pos:") - result);
    }
    record_write(tid, call, call->offset, (uint64_t)result);
    return;
  case TRUNCATE:
    if (record_on("truncate", tid, call, " %llu", (unsigned long long)call->length)) end();
    return;
  case ALLOCATE:
    if ((call->flags & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0) {
      if (record_on("punch", tid, call, " %llu %llu", (unsigned long long)call->offset, (unsigned long long)call->length)) end();
    }
    if ((call->flags & FALLOC_FL_KEEP_SIZE) == 0 && stat_call(tid, call, call->path, &stats) == 0) {
      if (record_on("truncate", tid, call, " %llu", (unsigned long long)stats.st_size)) end();
    }
    return;
  case RENAME:
    begin((call->flags & (int)RENAME_EXCHANGE) != 0 ? "exchange" : "rename", call);
    put_path(call->path);
    put_path(call->path2);
    end();
    record_whiteout(call, call->path);
    return;
  case LINK:
    if (lstat(call->path2, &stats) != 0) return;
    begin("link", call);
    put_path(call->path2);
    fprintf(out, " %lu", (unsigned long)stats.st_ino);
    end();
    return;
  case SYMLINK: case MKDIR: case MKNOD: record_made(call, call->path); return;
  case UNLINK: case RMDIR:
    begin(call->kind == UNLINK ? "unlink" : "rmdir", call);
    put_path(call->path);
    end();
    record_whiteout(call, call->path);
    return;
  case SYNC:
    if (record_on(call->number == __NR_fsync ? "fsync" : "fdatasync", tid, call, "")) end();
    return;
  case SYNC_ALL:
    begin("sync", call);
    end();
    return;
  case ATTRIBUTES: record_attributes(tid, call); return;
  case SETXATTR: case REMOVEXATTR: record_xattr(tid, call); return;
  case MARK: {
    char *data = malloc((size_t)result);
    if (data == NULL || peek(tid, a[1], data, (size_t)result) != result) die("read a mark");
    begin("mark", call);
    fprintf(out, " %ld", result);
    end();
    fwrite(data, 1, (size_t)result, out);
    free(data);
    return;
  }
  case MOUNT_CLONE: case MOUNT_MADE: {
    const char *shown = call->kind == MOUNT_CLONE ? call->path : NULL;
    for (int i = ncontexts - 1; shown == NULL && i >= 0; i--) {
      if (contexts[i].group == task->group && contexts[i].fd == (int)a[0]) shown = contexts[i].upper;
    }
    if (shown == NULL || shown[0] == 0) return;
    snprintf(info, sizeof info, "/proc/%d/fdinfo/%ld", tid, result);
    int slot = 0;
    long id = field_of(info, "mnt_id:");
    while (slot < nmounts && mounts[slot].id != id) slot++;
    if (slot == MOST_MOUNTS) die("too many mounts");
    if (slot == nmounts) nmounts++;
    mounts[slot].id = id;
    strcpy(mounts[slot].path, shown);
    return;
  }
  case MOUNT_OPTION: {
    int slot = 0;
    while (slot < ncontexts && (contexts[slot].group != task->group || contexts[slot].fd != (int)a[0])) slot++;
    if (slot == MOST_CONTEXTS) die("too many mounts at once");
    if (slot == ncontexts) ncontexts++;
    contexts[slot].group = task->group;
    contexts[slot].fd = (int)a[0];
    strcpy(contexts[slot].upper, call->path);
    return;
  }
  case IGNORED: return;
  }
}

/* ---- Tracing ---- */

static struct task *task_of(pid_t tid) {
  int slot = -1;
  for (int i = 0; i < MOST_TASKS; i++) {
    if (tasks[i] == NULL) slot = slot < 0 ? i : slot;
    else if (tasks[i]->tid == tid) return tasks[i];
  }
  if (slot < 0) die("too many threads");
  tasks[slot] = calloc(1, sizeof **tasks);
  if (tasks[slot] == NULL) die("calloc");
  char status[64];
  snprintf(status, sizeof status, "/proc/%d/status", tid);
  tasks[slot]->tid = tid;
  tasks[slot]->group = (pid_t)field_of(status, "Tgid:");
  return tasks[slot];
}

static void forget(pid_t tid) {
  for (int i = 0; i < MOST_TASKS; i++) {
    if (tasks[i] == NULL || tasks[i]->tid != tid) continue;
    free(tasks[i]);
    tasks[i] = NULL;
  }
}

/* The call is skipped, and its result is -error. */
static void fail_call(pid_t tid, int error) {
#if defined __x86_64__
  struct user_regs_struct regs;
  if (ptrace(PTRACE_GETREGS, tid, 0, &regs) != 0) die("PTRACE_GETREGS");
  regs.orig_rax = (unsigned long long)-1;
  regs.rax = (unsigned long long)-error;
  if (ptrace(PTRACE_SETREGS, tid, 0, &regs) != 0) die("PTRACE_SETREGS");
#elif defined __aarch64__
  int none = -1;
  struct iovec part = {&none, sizeof none};
  if (ptrace(PTRACE_SETREGSET, tid, NT_ARM_SYSTEM_CALL, &part) != 0) die("PTRACE_SETREGSET");
  struct user_regs_struct regs;
  part = (struct iovec){&regs, sizeof regs};
  if (ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &part) != 0) die("PTRACE_GETREGSET");
  regs.regs[0] = (unsigned long long)-error;
  if (ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, &part) != 0) die("PTRACE_SETREGSET");
#else
#error "registers of this processor"
#endif
}

static int is_counted(const struct call *call) {
  switch (call->kind) {
  case IGNORED: case MARK: case MOUNT_CLONE: case MOUNT_OPTION: case MOUNT_MADE: return 0;
  default: return 1;
  }
}

static void record_fault(const struct call *call) {
  static const char *const names[] = {[OPEN] = "open", [WRITE] = "write", [TRUNCATE] = "truncate", [ALLOCATE] = "fallocate", [RENAME] = "rename", [LINK] = "link", [SYMLINK] = "symlink", [UNLINK] = "unlink", [RMDIR] = "rmdir", [MKDIR] = "mkdir", [MKNOD] = "mknod", [SYNC] = "fsync", [SYNC_ALL] = "sync", [ATTRIBUTES] = "attributes", [SETXATTR] = "setxattr", [REMOVEXATTR] = "removexattr"};
  begin("fault", call);
  fprintf(out, " %s", names[call->kind]);
  if (call->kind == SYNC_ALL) fputs(" .", out);
  else put_path(call->path);
  end();
}

/* True when the call's end must be seen, too. */
static int entered(struct task *task) {
  struct ptrace_syscall_info info;
  struct call *call = &task->call;
  if (ptrace(PTRACE_GET_SYSCALL_INFO, task->tid, sizeof info, &info) < 0) return 0;
  call->number = (int)info.seccomp.nr;
  memcpy(call->args, info.seccomp.args, sizeof call->args);
  call->entry = records;
  call->flags = call->existed = call->failing = 0;
  classify(call, task->tid);
  if (!is_counted(call)) return call->kind != IGNORED;
  calls++;
  if (allocates(call)) allocating++;
  int full = fault_errno == ENOSPC || fault_errno == EDQUOT;
  if (full && !allocates(call)) return 1;
  long now = full ? allocating : calls;
  if (fault_kill && now == fault_at) {
    record_fault(call);
    kill(task->group, SIGKILL);
    return 0;
  }
  if (fault_errno != 0 && (now == fault_at || (fault_stays && now > fault_at))) {
    record_fault(call);
    fail_call(task->tid, fault_errno);
    call->failing = 1;
    return 0;
  }
  return 1;
}

static void left(struct task *task) {
  struct ptrace_syscall_info info;
  if (ptrace(PTRACE_GET_SYSCALL_INFO, task->tid, sizeof info, &info) < 0) return;
  if (info.op == PTRACE_SYSCALL_INFO_EXIT && !info.exit.is_error) record(task->tid, task, (long)info.exit.rval);
  task->call.kind = IGNORED;
}

static void install_filter(void) {
  enum { N = sizeof traced / sizeof *traced };
  struct sock_filter filter[2 + 2 * N];
  int at = 0;
  filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  for (int i = 0; i < N; i++) {
    filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)traced[i], 0, 1);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
  }
  filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  struct sock_fprog program = {(unsigned short)at, filter};
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0) return;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) die("seccomp");
}

static pid_t start(char **command) {
  int ready[2];
  if (pipe2(ready, O_CLOEXEC) != 0) die("pipe");
  pid_t child = fork();
  if (child < 0) die("fork");
  if (child == 0) {
    char byte;
    if (read(ready[0], &byte, 1) != 1) _exit(125);
    int null = open("/dev/null", O_WRONLY);
    if (null != MARK_FD && dup2(null, MARK_FD) < 0) die("dup2");
    if (null != MARK_FD) close(null);
    fcntl(MARK_FD, F_SETFD, 0);
    install_filter();
    execvp(command[0], command);
    die(command[0]);
  }
  long options = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC | PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;
  if (ptrace(PTRACE_SEIZE, child, 0, options) != 0) die("PTRACE_SEIZE");
  if (write(ready[1], "x", 1) != 1) die("start");
  close(ready[0]);
  close(ready[1]);
  return child;
}

static void follow(pid_t root) {
  for (;;) {
    int status;
    pid_t tid = waitpid(-1, &status, __WALL);
    if (tid < 0) {
      if (errno == EINTR) continue;
      return;
    }
    if (WIFEXITED(status) || WIFSIGNALED(status)) {
      if (tid == root) result_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      forget(tid);
      /* What it left behind in the background is none of ours. */
      if (tid == root) return;
      continue;
    }
    if (!WIFSTOPPED(status)) continue;
    int signal = WSTOPSIG(status), event = status >> 16, request = PTRACE_CONT, deliver = 0;
    if (event == PTRACE_EVENT_SECCOMP) {
      if (entered(task_of(tid))) request = PTRACE_SYSCALL;
    } else if (signal == (SIGTRAP | 0x80)) {
      left(task_of(tid));
    } else if (event == 0) {
      deliver = signal;
    }
    ptrace(request, tid, 0, deliver);
  }
}

int main(int argc, char **argv) {
  if (argc < 7 || strcmp(argv[5], "--") != 0) {
    fputs("usage: tracer STORE LOG none|kill|ERRNO[+] N -- COMMAND...\n", stderr);
    return 125;
  }
  store = argv[1];
  out = fopen(argv[2], "we");
  if (out == NULL) die(argv[2]);
  static char buffer[1 << 20];
  setvbuf(out, buffer, _IOFBF, sizeof buffer);
  fault_kill = strcmp(argv[3], "kill") == 0;
  fault_errno = atoi(argv[3]);
  fault_stays = strchr(argv[3], '+') != NULL;
  fault_at = atol(argv[4]);
  follow(start(argv + 6));
  fprintf(out, "end %ld %ld %d\n", calls, allocating, result_status);
  if (fclose(out) != 0) die("log");
  return result_status;
}

/*
 * The root and what is mounted into it. After root_enter every path is resolved inside the container's root, so
 * symlinks in a hostile image lead nowhere else; /etc's files are mounted while there is no /proc, whose magic links
 * could.
 *
 * Devices: every mount the container can write to is `nodev`, so that a device node made with the default CAP_MKNOD
 * can be made but not opened. The usual nodes are single-file bind mounts from a file system that the container never
 * sees as a directory. No devices cgroup is needed.
 *
 * In a user namespace no device can be made, and no sysfs without a network namespace of its own: then they are clones of the host's. And proc and sysfs can
 * be mounted while the host's are there only, so they are made first.
 */
#include "launcher.h"
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define SCRATCH "/dev/shm" /* holds the sources of bind mounts while the root is populated */
#define SAFE (MS_NOSUID | MS_NODEV | MS_NOEXEC)

/* linux/mount.h, which cannot be included beside sys/mount.h before glibc 2.36; from there on that has all of it, by the same names. */
#ifndef FSOPEN_CLOEXEC
#define FSOPEN_CLOEXEC 1
#define FSMOUNT_CLOEXEC 1
#define MOUNT_ATTR_RDONLY 1
#define MOUNT_ATTR_NOSUID 2
#define MOUNT_ATTR_NODEV 4
#define MOUNT_ATTR_NOEXEC 8
#define FSCONFIG_SET_STRING 1
#define FSCONFIG_CMD_CREATE 6
struct mount_attr { uint64_t attr_set, attr_clr, propagation, userns_fd; };
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

/* Fails as "mount /proc: EPERM". */
static void mount_at(const char *source, const char *target, const char *type, unsigned long flags, const char *data) {
  if (mount(source, target, type, flags, data) == 0) return;
  int error = errno;
  char step[64];
  snprintf(step, sizeof step, "mount %s", target);
  fail(step, error);
}

static void bind(const char *source, const char *target, unsigned long flags) {
  mount_at(source, target, NULL, MS_BIND, NULL);
  mount_at(NULL, target, NULL, MS_REMOUNT | MS_BIND | flags, NULL);
}

static const struct { const char *path; int major, minor; } devices[] = {
    {"/dev/null", 1, 3}, {"/dev/zero", 1, 5}, {"/dev/full", 1, 7}, {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0}};
#define NDEVICES (sizeof devices / sizeof *devices)
static int host_devices[NDEVICES], proc, sys;

static int clone_tree(const char *path, int flags) {
  return (int)syscall(SYS_open_tree, AT_FDCWD, path, O_CLOEXEC | 1 /* OPEN_TREE_CLONE */ | flags);
}

/* Detached; -1 when it cannot be made. */
static int new_mount(const char *type, unsigned attributes) {
  int context = (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
  if (context < 0) return -1;
  syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "source", type, 0); /* for the table of mounts */
  int made = (int)syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
  if (made == 0) made = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes);
  int error = errno;
  close(context);
  errno = error;
  return made;
}

static void restrict_tree(int mount, uint64_t attributes, const char *step) {
  struct mount_attr all = {.attr_set = attributes, .propagation = MS_PRIVATE};
  check(syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH | AT_RECURSIVE, &all, sizeof all), step);
}

/* What can be had only while the host's root is there. */
static void take_from_host(void) {
  const unsigned safe = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
  check(proc = new_mount("proc", safe), "mount /proc");
  sys = new_mount("sysfs", safe | MOUNT_ATTR_RDONLY);
  if (sys < 0 && errno == EPERM) {
    check(sys = clone_tree("/sys", AT_RECURSIVE), "clone the host's /sys");
    restrict_tree(sys, safe | MOUNT_ATTR_RDONLY, "restrict the host's /sys");
  }
  check(sys, "mount /sys");
  struct stat self;
  if (stat("/proc/self/ns/user", &self) == 0 && self.st_ino == 0xEFFFFFFDU /* PROC_USER_INIT_INO */) return;
  for (size_t i = 0; i < NDEVICES; i++) check(host_devices[i] = clone_tree(devices[i].path, 0), "clone a device of the host");
}

void root_enter(const struct spec *spec) {
  take_from_host();
  check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "make mounts private");
  /* On top of the host's root, which is the one place that is always there. */
  check(syscall(SYS_move_mount, spec->root, "", AT_FDCWD, "/", 4 /* MOVE_MOUNT_F_EMPTY_PATH */), "move_mount");
  check(fchdir(spec->root), "fchdir root");
  check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
  check(umount2(".", MNT_DETACH), "detach the host's root");
  check(chdir("/"), "chdir /");
  check(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_NODEV, NULL), "remount root nodev");
}

static void make_file(const char *name, const char *content) {
  int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
  check(fd, "create file to mount");
  for (size_t done = 0, length = strlen(content); done < length;) {
    ssize_t n = write(fd, content + done, length - done);
    check(n, "write file to mount");
    done += (size_t)n;
  }
  close(fd);
}

static void attach(int mount, const char *target, const char *step) {
  check(syscall(SYS_move_mount, mount, "", AT_FDCWD, target, 4 /* MOVE_MOUNT_F_EMPTY_PATH */), step);
}

static void mount_etc_files(const struct spec *spec) {
  for (int i = 0; i < 3; i++) {
    if (spec->etc[i].target[0] == 0) continue;
    char source[80];
    snprintf(source, sizeof source, SCRATCH "/%s", spec->etc[i].name);
    make_file(source, spec->etc[i].content);
    bind(source, spec->etc[i].target, SAFE | (spec->etc_readonly ? MS_RDONLY : 0));
  }
}

static void make_devices(void) {
  for (size_t i = 0; i < NDEVICES; i++) {
    char source[64];
    snprintf(source, sizeof source, SCRATCH "%s", devices[i].path + strlen("/dev"));
    if (mknod(source, S_IFCHR | 0666, makedev((unsigned)devices[i].major, (unsigned)devices[i].minor)) < 0) {
      if (errno != EPERM) fail("mknod", errno);
      make_file(source, "");
      attach(host_devices[i], source, "mount a device of the host");
    }
    make_file(devices[i].path, "");
    bind(source, devices[i].path, MS_NOSUID | MS_NOEXEC);
  }
  static const char *const links[][2] = {{"/proc/self/fd", "/dev/fd"}, {"/proc/self/fd/0", "/dev/stdin"},
                                         {"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"},
                                         {"/proc/kcore", "/dev/core"}, {"pts/ptmx", "/dev/ptmx"}};
  for (size_t i = 0; i < sizeof links / sizeof *links; i++) check(symlink(links[i][0], links[i][1]), "symlink in /dev");
}

static void make_directory(const char *path, mode_t mode) { check(mkdir(path, mode), "mkdir in /dev"); }

/* Docker's default list; what this kernel lacks is passed over. */
static void mask_paths(void) {
  static const char *const masked[] = {"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
                                       "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
                                       "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"};
  static const char *const readonly[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
  struct stat info;
  for (size_t i = 0; i < sizeof masked / sizeof *masked; i++) {
    if (stat(masked[i], &info) < 0) {
      if (errno == ENOENT || errno == ENOTDIR) continue;
      fail("stat masked path", errno);
    }
    if (S_ISDIR(info.st_mode)) bind(SCRATCH "/empty", masked[i], SAFE | MS_RDONLY);
    else bind(SCRATCH "/null", masked[i], MS_NOSUID | MS_NOEXEC | MS_RDONLY);
  }
  for (size_t i = 0; i < sizeof readonly / sizeof *readonly; i++) {
    if (stat(readonly[i], &info) < 0 && errno == ENOENT) continue;
    bind(readonly[i], readonly[i], SAFE | MS_RDONLY);
  }
}

/* Nothing on the way is a symlink: who wrote the spec has resolved the path. */
static int open_plain(int directory, const char *path) {
  struct open_how how = {.flags = O_PATH | O_CLOEXEC | O_NOFOLLOW,
                         .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
  return (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
}

/* Fails as "mount /cache: EBUSY". */
static void check_mount(long result, const struct mount *mount) {
  if (result >= 0) return;
  int error = errno;
  char step[64];
  snprintf(step, sizeof step, "mount %s", mount->target);
  fail(step, error);
}

/*
 * Of a part of a mount a clone is taken. Before kernel 6.15 only of a mount that is attached somewhere, so it is, for a moment. Private, or what is
 * mounted in a directory of the host would show there.
 */
static void prepare_mounts(const struct spec *spec) {
  static const char *const at = SCRATCH "/source";
  struct mount_attr attributes = {.propagation = MS_PRIVATE};
  for (size_t i = 0; i < spec->nmounts; i++) {
    struct mount *mount = &spec->mounts[i];
    if (mount->path[0] != 0) {
      if (mkdir(at, 0700) < 0 && errno != EEXIST) fail("mkdir source of mount", errno);
      check_mount(syscall(SYS_move_mount, mount->fd, "", AT_FDCWD, at, 4 /* MOVE_MOUNT_F_EMPTY_PATH */), mount);
      int part = open_plain(mount->fd, mount->path);
      check_mount(part, mount);
      int clone = (int)syscall(SYS_open_tree, part, "", AT_EMPTY_PATH | O_CLOEXEC | 1 /* OPEN_TREE_CLONE */);
      check_mount(clone, mount);
      check(umount2(at, MNT_DETACH), "detach source of mount");
      close(part);
      mount->fd = clone;
    }
    attributes.attr_set = mount->attributes;
    check_mount(syscall(SYS_mount_setattr, mount->fd, "", AT_EMPTY_PATH, &attributes, sizeof attributes), mount);
  }
}

static void attach_mounts(const struct spec *spec) {
  int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  check(root, "open root");
  for (size_t i = 0; i < spec->nmounts; i++) {
    const struct mount *mount = &spec->mounts[i];
    int target = open_plain(root, mount->target + 1);
    check_mount(target, mount);
    check_mount(syscall(SYS_move_mount, mount->fd, "", target, "", 0x44 /* both paths are empty */), mount);
    close(target);
  }
  close(root);
}

/* v2: the container's own tree, read-only. v1: nothing to see. */
static void mount_cgroup(const struct spec *spec) {
  const char *at = "/sys/fs/cgroup";
  struct stat info;
  if (stat(at, &info) < 0) return;
  if (spec->cgroup >= 0) mount_at("cgroup", at, "cgroup2", SAFE | MS_RDONLY, NULL);
  else bind(SCRATCH "/empty", at, SAFE | MS_RDONLY);
}

void root_populate(const struct spec *spec) {
  mount_at("tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_STRICTATIME, "mode=755,size=65536k");
  make_directory(SCRATCH, 0755);
  mount_at("tmpfs", SCRATCH, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=16m");
  make_directory(SCRATCH "/empty", 0555);
  mount_etc_files(spec);
  make_devices();
  attach(proc, "/proc", "mount /proc");
  attach(sys, "/sys", "mount /sys");
  mount_cgroup(spec);
  mask_paths();
  make_directory("/dev/pts", 0755);
  mount_at("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
  make_directory("/dev/mqueue", 0755);
  mount_at("mqueue", "/dev/mqueue", "mqueue", SAFE, NULL);
  prepare_mounts(spec);
  check(umount2(SCRATCH, MNT_DETACH), "unmount scratch");
  mount_at("shm", "/dev/shm", "tmpfs", SAFE, spec->shm_options);
  attach_mounts(spec);
}

/* A terminal (-t): a pty inside the container's devpts; L0 relays between it and its own stdin and stdout. */
#include "launcher.h"
#include <poll.h>
#include <sys/stat.h>
#include <termios.h>

static struct termios saved;
static int saved_fd = -1;

static void write_all(int fd, const char *bytes, ssize_t length) {
  while (length > 0) {
    ssize_t n = write(fd, bytes, (size_t)length);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      struct pollfd wait = {.fd = fd, .events = POLLOUT};
      poll(&wait, 1, -1);
      continue;
    }
    if (n < 0) return;
    bytes += n;
    length -= n;
  }
}

static int terminal_fd(void) {
  for (int fd = 0; fd < 3; fd++)
    if (isatty(fd)) return fd;
  return -1;
}

/* In C: open the pty's two ends, make the slave the controlling terminal and stdio, send the master to L0. */
void terminal_open(const struct spec *spec, int up) {
  int master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
  check(master, "open /dev/pts/ptmx");
  int unlock = 0;
  check(ioctl(master, TIOCSPTLCK, &unlock), "unlock pty");
  int slave = open("/dev/pts/0", O_RDWR | O_NOCTTY | O_CLOEXEC);
  check(slave, "open /dev/pts/0");
  if (spec->window.ws_col != 0) ioctl(slave, TIOCSWINSZ, &spec->window);
  check(fchown(slave, spec->uid, (gid_t)-1), "chown /dev/pts/0");
  check(ioctl(slave, TIOCSCTTY, 0), "ioctl TIOCSCTTY");
  for (int fd = 0; fd < 3; fd++) check(dup2(slave, fd), "dup2 pty");
  struct record record = {.kind = TERMINAL};
  send_record(up, &record, master);
  close(master);
  close(slave);
}

void terminal_raw(struct spec *spec) {
  int window = terminal_fd();
  if (window >= 0) ioctl(window, TIOCGWINSZ, &spec->window);
  if (!isatty(0) || tcgetattr(0, &saved) < 0) return;
  saved_fd = 0;
  struct termios raw = saved;
  cfmakeraw(&raw);
  tcsetattr(0, TCSANOW, &raw);
}

void terminal_restore(void) {
  if (saved_fd >= 0) tcsetattr(saved_fd, TCSANOW, &saved);
}

void terminal_resize(int master) {
  struct winsize window;
  int fd = terminal_fd();
  if (fd >= 0 && ioctl(fd, TIOCGWINSZ, &window) == 0) ioctl(master, TIOCSWINSZ, &window);
}

/* 0 at the end of the input. */
int terminal_stdin(int master) {
  char bytes[4096];
  ssize_t n = read(0, bytes, sizeof bytes);
  if (n < 0) return errno == EINTR || errno == EAGAIN;
  if (n == 0) return 0;
  write_all(master, bytes, n);
  return 1;
}

/* 0 when the container has closed its side (EIO). */
int terminal_output(int master) {
  char bytes[16384];
  ssize_t n = read(master, bytes, sizeof bytes);
  if (n < 0) return errno == EINTR || errno == EAGAIN;
  if (n == 0) return 0;
  write_all(1, bytes, n);
  return 1;
}

/* How failures leave: a packet with the step's name and the errno. */
#include "launcher.h"
#include <stdio.h>
#include <sys/socket.h>

static int report_fd = -1;

void report_to(int fd) { report_fd = fd; }

/* Name the step and its errno, and end this process. */
_Noreturn void fail(const char *step, int error) {
  struct record record = {.kind = FAILED, .value = error};
  snprintf(record.step, sizeof record.step, "%s", step);
  send_record(report_fd, &record, -1);
  _exit(125);
}

void check(long result, const char *step) {
  if (result < 0) fail(step, errno);
}

/* `fd` travels along when it is not -1. A peer that is gone is no error here: then nobody is left to tell. */
void send_record(int socket, const struct record *record, int fd) {
  struct iovec iov = {.iov_base = (void *)record, .iov_len = sizeof *record};
  union { char space[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = {0};
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
  if (fd >= 0) {
    message.msg_control = control.space;
    message.msg_controllen = sizeof control.space;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  while (sendmsg(socket, &message, MSG_NOSIGNAL) < 0 && errno == EINTR) {
  }
}

/* 1 with a record, 0 at the end of the stream. */
int receive_record(int socket, struct record *record, int *fd) {
  struct iovec iov = {.iov_base = record, .iov_len = sizeof *record};
  union { char space[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space,
                           .msg_controllen = sizeof control.space};
  ssize_t n;
  while ((n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR) {
  }
  if (n != (ssize_t)sizeof *record) return 0;
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  *fd = -1;
  if (header != NULL && header->cmsg_type == SCM_RIGHTS) memcpy(fd, CMSG_DATA(header), sizeof *fd);
  return 1;
}

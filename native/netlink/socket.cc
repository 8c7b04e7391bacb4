#include "netlink/socket.h"

#include <libmnl/libmnl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace xfrmesh {
namespace {

// What the kernel charges a receive buffer for one short answer, rounded up (measured: about 0.8 KiB).
constexpr std::uint32_t kAnswerCost = 1024;
// A dump's datagrams are at most 32 KiB (NLMSG_GOODSIZE, netlink_dump).
constexpr std::size_t kDatagram = 64U << 10;
// netlink_sendmsg: len > sk_sndbuf - 32 is EMSGSIZE.
constexpr std::size_t kSendOverhead = 32;

// Asks for a buffer size beyond the host's limit if this process may, else up to it; returns what was granted.
std::uint32_t grow(int fd, int force, int plain, std::uint32_t bytes) {
  const int wanted = static_cast<int>(bytes);
  if (setsockopt(fd, SOL_SOCKET, force, &wanted, sizeof wanted) != 0) {
    setsockopt(fd, SOL_SOCKET, plain, &wanted, sizeof wanted);
  }
  int granted = 0;
  socklen_t size = sizeof granted;
  if (getsockopt(fd, SOL_SOCKET, plain, &granted, &size) != 0 || granted < 0) return 0;
  return static_cast<std::uint32_t>(granted);
}

}  // namespace

std::uint64_t namespaceInodeOf(int socket) {
  const Descriptor fd(ioctl(socket, SIOCGSKNS));
  struct stat status {};
  return fd && fstat(fd.get(), &status) == 0 ? status.st_ino : 0;
}

Socket::Socket() : socket_(nullptr, mnl_socket_close) {}
Socket::~Socket() { wipe(); }

int Socket::open(const Namespace& where, const Options& options, Step& step) {
  bool entered = false;
  step = Step::kSocket;
  const int error = where.run(
      [&] {
        socket_.reset(mnl_socket_open2(options.protocol, SOCK_CLOEXEC));
        if (!socket_) return errno;
        step = Step::kBind;
        return mnl_socket_bind(socket_.get(), 0, MNL_SOCKET_AUTOPID) == 0 ? 0 : errno;
      },
      &entered);
  if (!entered) step = Step::kNamespace;
  if (error != 0) return error;
  step = Step::kNone;
  sizeBuffers(options);
  namespaceInode_ = namespaceInodeOf(mnl_socket_get_fd(socket_.get()));
  return 0;
}

void Socket::sizeBuffers(const Options& options) {
  const int fd = mnl_socket_get_fd(socket_.get());
  const int on = 1;
  // Both are refinements: without them answers are longer, or wordless.
  setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
  setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
  const std::uint32_t received =
      grow(fd, SO_RCVBUFFORCE, SO_RCVBUF, options.receiveBuffer != 0 ? options.receiveBuffer : kReceiveBuffer);
  const std::uint32_t sent =
      grow(fd, SO_SNDBUFFORCE, SO_SNDBUF, options.sendBuffer != 0 ? options.sendBuffer : kSendBuffer);
  sendLimit_ = sent > kSendOverhead ? sent - kSendOverhead : 0;
  // An explicit chunk is taken at its word, so that a test can overrun a buffer.
  chunk_ = options.chunk != 0 ? options.chunk : std::clamp(received / kAnswerCost, 1U, kChunk);
  buffer_.resize(kDatagram);
}

int Socket::send(Bytes messages) {
  for (;;) {
    if (mnl_socket_sendto(socket_.get(), messages.data(), messages.size()) >= 0) return 0;
    // netlink_sendmsg says ENOBUFS where it has no memory for the messages; elsewhere that means answers lost.
    if (errno == ENOBUFS) return ENOMEM;
    if (errno != EINTR) return errno;
  }
}

Socket::Received Socket::receive(Clock::time_point deadline) {
  const int fd = mnl_socket_get_fd(socket_.get());
  for (;;) {
    sockaddr_nl from{};
    iovec vector{.iov_base = buffer_.data(), .iov_len = buffer_.size()};
    msghdr header{};
    header.msg_name = &from;
    header.msg_namelen = sizeof from;
    header.msg_iov = &vector;
    header.msg_iovlen = 1;
    const ssize_t size = recvmsg(fd, &header, MSG_DONTWAIT);
    if (size >= 0) {
      // Only the kernel is listened to: its port is 0.
      if (header.msg_namelen != sizeof from || from.nl_pid != 0) continue;
      if ((header.msg_flags & MSG_TRUNC) != 0) {
        error_ = EMSGSIZE;
        return Received::kError;
      }
      data_ = Bytes(buffer_).first(static_cast<std::size_t>(size));
      return Received::kData;
    }
    if (errno == EINTR) continue;
    if (errno == ENOBUFS) return Received::kLost;
    if (errno != EAGAIN) {
      error_ = errno;
      return Received::kError;
    }
    if (Clock::now() >= deadline) return Received::kEmpty;
    error_ = wait(deadline, -1);
    if (error_ != 0) return Received::kError;
  }
}

void Socket::checkStrictly() {
  int on = 1;
  static_cast<void>(mnl_socket_setsockopt(socket_.get(), NETLINK_GET_STRICT_CHK, &on, sizeof on));
}

int Socket::join(std::uint32_t group) {
  auto wanted = static_cast<int>(group);
  return mnl_socket_setsockopt(socket_.get(), NETLINK_ADD_MEMBERSHIP, &wanted, sizeof wanted) == 0 ? 0 : errno;
}

int Socket::wait(Clock::time_point deadline, int wake) {
  // Rounded up: a wait that ends early would be begun again at once.
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  const auto timeout = static_cast<int>(std::clamp<std::int64_t>(left, 0, INT32_MAX));
  // poll passes over a descriptor below zero.
  std::array<pollfd, 2> pollers{{{.fd = mnl_socket_get_fd(socket_.get()), .events = POLLIN, .revents = 0},
                                 {.fd = wake, .events = POLLIN, .revents = 0}}};
  if (poll(pollers.data(), pollers.size(), timeout) < 0) return errno == EINTR ? 0 : errno;
  std::uint64_t count = 0;
  if (pollers[1].revents != 0 && read(wake, &count, sizeof count) < 0 && errno != EAGAIN) return errno;
  return 0;
}

std::uint32_t Socket::sequences(std::uint32_t count) {
  const std::uint32_t first = sequence_ + 1;
  sequence_ += count;
  return first;
}

void Socket::drain() {
  for (;;) {
    const Received received = receive({});
    if (received == Received::kEmpty || received == Received::kError) break;
  }
  wipe();
}

void Socket::wipe() { explicit_bzero(buffer_.data(), buffer_.size()); }

}  // namespace xfrmesh

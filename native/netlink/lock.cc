#include "netlink/lock.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

namespace xfrmesh {
namespace {

socklen_t abstractAddress(const std::string& name, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  // The first byte stays zero: that makes the name abstract.
  const std::size_t length = std::min(name.size(), sizeof address.sun_path - 1);
  std::memcpy(address.sun_path + 1, name.data(), length);
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
}

Descriptor unixSocket() { return Descriptor(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)); }

Holder holderOf(const sockaddr_un& address, socklen_t size) {
  const Descriptor visitor = unixSocket();
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (!visitor || connect(visitor.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
      getsockopt(visitor.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
    return {};
  }
  return {.pid = credentials.pid, .uid = credentials.uid};
}

}  // namespace

int takeName(const Namespace& where, const std::string& name, Descriptor& fd, Holder& holder) {
  return where.run([&] {
    sockaddr_un address{};
    const socklen_t size = abstractAddress(name, address);
    fd = unixSocket();
    if (!fd) return errno;
    if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0) {
      const int error = errno;
      if (error == EADDRINUSE) holder = holderOf(address, size);
      fd.reset();
      return error;
    }
    // Listening lets whoever is refused the name ask whose it is. Nobody is ever accepted, so that each visitor's
    // connection stays in the queue: once that is full, the next ones are not told.
    return listen(fd.get(), SOMAXCONN) == 0 ? 0 : errno;
  });
}

}  // namespace xfrmesh
